"""The work of a bench in pieces that any process can do: take one fingerprint, ask one suspect everything.

A piece leaves a file whose name holds a digest of all that it depends on. What is there is not done again, and a piece
that was cut off leaves nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

import locard
from locard.bench.entries import Entry
from locard.bench.records import Records, Row
from locard.engine import extract
from locard.engine.population import widest
from locard.engine.respond import Battery, check_askable, score_of
from locard.errors import ArtefactError, LocardError, MissingExtraError, ParameterError
from locard.fingerprint import Fingerprint
from locard.models import Model, load
from locard.models.fitting import one_thread
from locard.queries import Population
from locard.records import Data
from locard.zoo import Built, Pair, Zoo, open_zoo

PRINTS, ROWS, PRIVATE = "fingerprints", "rows", "private"
# Raised when the same piece comes to give other rows.
_GENERATION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """One fingerprint to take.

    Args:
        victim: name of the victim.
        entry: of the bench.
        budget: queries asked for, or 0 for the entry's own.
        seed: of the extraction.
        path: where it goes, without its ending.
    """

    victim: str
    entry: Entry
    budget: int
    seed: int
    path: Path

    # Names of models may hold dots, so an ending is no suffix to be replaced.
    @property
    def note(self) -> Path:
        """What came of it."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def done(self) -> bool:
        """Whether there is a fingerprint, or a reason why there is none."""
        return self.note.exists() and (self.print.exists() or bool(json.loads(self.note.read_text("utf-8"))["reason"]))

    @property
    def print(self) -> Path:
        """The fingerprint."""
        return self.path.with_name(f"{self.path.name}.locard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One suspect to ask.

    Args:
        suspect: name of the model.
        takings: the fingerprints.
        path: where its rows go.
    """

    suspect: str
    takings: tuple[Taking, ...]
    path: Path


def plan(
    zoo: Zoo, out: Path, entries: Sequence[Entry], budgets: Sequence[int], seeds: Sequence[int]
) -> tuple[list[Taking], list[Asking]]:
    """All pieces, in an order that says nothing.

    Args:
        zoo: the population.
        out: folder of the bench.
        entries: what takes part.
        budgets: numbers of queries; 0 stands for an entry's own.
        seeds: of the extraction.
    """
    data = zoo.parts[zoo.recipe.queries]["digest"]
    takings: dict[str, list[Taking]] = {}
    for victim in zoo.victims:
        derived, strangers = zoo.choosers(victim)
        for entry in entries:
            choosing = (
                [[one.model for one in group] for group in (derived, strangers)]
                if entry.build().needs_population
                else []
            )
            for budget in budgets:
                for seed in seeds:
                    key = _key(zoo.built[victim.name].model, data, entry.scheme, entry.params, entry.queries, budget,
                               seed, choosing)  # fmt: skip
                    path = out / PRINTS / f"{victim.name.replace('/', '-')}-{entry.scheme}-{key}"
                    takings.setdefault(victim.name, []).append(
                        Taking(victim=victim.name, entry=entry, budget=budget, seed=seed, path=path)
                    )
    pairs: dict[str, list[Pair]] = {}
    for pair in zoo.pairs():
        pairs.setdefault(pair.suspect.name, []).append(pair)
    askings = []
    for suspect, found in pairs.items():
        mine = tuple(taking for pair in found for taking in takings[pair.victim.name])
        # The places of the pair in the family are in the rows, so they belong to the key.
        told = [(pair.victim.name, pair.victim.network, pair.suspect.role, pair.derived, pair.kind, pair.family,
                 pair.suspect.victim, pair.victim.data in pair.suspect.learnt) for pair in found]  # fmt: skip
        key = _key(zoo.built[suspect].model, _accepted(zoo.built[suspect]), told, [taking.path.name for taking in mine])
        askings.append(
            Asking(suspect=suspect, takings=mine, path=out / ROWS / f"{suspect.replace('/', '-')}-{key}.parquet")
        )
    return [taking for listed in takings.values() for taking in listed], askings


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What does a piece; sent once to each process.

    Args:
        zoo: folder of the population.
        out: folder of the bench.
    """

    zoo: Path
    out: Path

    def take(self, task: Taking) -> str:
        """Take a fingerprint, or note why there is none."""
        zoo, note = _zoo(self.zoo), task.note
        victim = next(one for one in zoo.victims if one.name == task.victim)
        # What these refuse is no fault of the scheme: it ends the bench, and nothing is noted.
        model, data, population = _model(zoo, victim.name), _data(self.zoo, zoo.recipe.queries), None
        if task.entry.build().needs_population:
            derived, strangers = (
                tuple(widest(_model(zoo, one.name)) for one in group) for group in zoo.choosers(victim)
            )
            population = Population(derived=derived, independent=strangers)
        started = time.process_time()
        try:
            params = dict(task.entry.params)
            if task.entry.build().claim == "trained-on":
                params["private"] = str(self._private(zoo, victim.data))
            with one_thread():
                fingerprint = extract(model, scheme=task.entry.scheme, data=data, seed=task.seed, params=params,
                                      queries=task.budget or task.entry.queries, population=population)  # fmt: skip
        except MissingExtraError:
            raise
        except LocardError as error:
            _write(note, {"reason": self._said(error, zoo), "libraries": _libraries()})
            return task.path.name
        seconds = time.process_time() - started
        task.path.parent.mkdir(parents=True, exist_ok=True)
        fingerprint.save(task.print)
        own = score_of(fingerprint, fingerprint, task.entry.build())
        _write(note, {"reason": "", "seconds": seconds, "own": own, "libraries": _libraries()})
        return task.path.name

    def _said(self, error: LocardError, zoo: Zoo) -> str:
        """A message without the paths of this machine, which records must not carry."""
        text = str(error)
        for path in (zoo.path, self.out):
            text = text.replace(f"{path}{os.sep}", "").replace(str(path), path.name)
        return text

    def _private(self, zoo: Zoo, part: str) -> Path:
        """What the victim was trained on, as a file, which is how a scheme is told of it."""
        if part not in zoo.parts:
            raise ParameterError(f"what the victim was trained on, {part}, is not among the data of the population")
        path = self.out / f"{PRIVATE}-{zoo.parts[part]['digest'][:16]}.npz"
        if not path.exists():
            data, spare = _data(self.zoo, part), path.with_name(f".{uuid4().hex}.{path.name}")
            x = data.inputs if data.domain.quantum != 1 / 255 else np.rint(255 * data.inputs).astype(np.uint8)
            x = x.astype(str) if data.domain.kind == "text" else x
            # As secret as a fingerprint: it is what the victim learnt from.
            os.close(os.open(spare, os.O_WRONLY | os.O_CREAT, 0o600))
            np.savez(spare, x=x, y=np.asarray(data.labels))
            spare.replace(path)
        return path

    def ask(self, task: Asking) -> str:
        """Ask a suspect all fingerprints, each distinct query once, and keep the rows."""
        zoo = _zoo(self.zoo)
        model = _model(zoo, task.suspect)
        pairs = {pair.victim.name: pair for pair in zoo.pairs() if pair.suspect.name == task.suspect}
        notes = [json.loads(taking.note.read_text("utf-8")) for taking in task.takings]
        reasons = {index: note["reason"] for index, note in enumerate(notes) if note["reason"]}
        prints = {index: _print(taking.print) for index, taking in enumerate(task.takings) if index not in reasons}
        askable: dict[int, Fingerprint] = {}
        for index, fingerprint in prints.items():
            try:
                check_askable(fingerprint, task.takings[index].entry.build(), model)
                askable[index] = fingerprint
            except LocardError as error:
                reasons[index] = self._said(error, zoo)
        scores: dict[int, float] = {}
        started = time.perf_counter()
        with one_thread():
            attempts = Battery(list(askable.values()), model).attempts() if askable else ()
            for (index, fingerprint), (record, _) in zip(askable.items(), attempts, strict=True):
                try:
                    if isinstance(record, LocardError):
                        raise record
                    scores[index] = score_of(fingerprint, record, task.takings[index].entry.build())
                except MissingExtraError:
                    raise
                except LocardError as error:
                    reasons[index] = self._said(error, zoo)
        seconds = time.perf_counter() - started
        asked = sum(fingerprint.cost for fingerprint in askable.values())
        rows = []
        for index, (taking, note) in enumerate(zip(task.takings, notes, strict=True)):
            pair, fingerprint = pairs[taking.victim], prints.get(index)
            share = fingerprint.cost / asked if fingerprint is not None and index in askable else 0.0
            rows.append(_row(zoo, pair, taking, note, 0 if fingerprint is None else fingerprint.cost,
                             scores.get(index, float("nan")), share * seconds, reasons.get(index, "")))  # fmt: skip
        task.path.parent.mkdir(parents=True, exist_ok=True)
        Records.of(rows).write(task.path)
        return task.path.name


def _row(
    zoo: Zoo, pair: Pair, taking: Taking, note: dict[str, Any], queries: int, score: float, seconds: float, reason: str
) -> Row:
    scheme, made = taking.entry.build(), zoo.built[pair.suspect.name]
    return Row(
        victim=pair.victim.name,
        architecture=pair.victim.network,
        suspect=pair.suspect.name,
        model=made.model,
        parent=pair.suspect.victim or "",
        shares=pair.victim.data in pair.suspect.learnt,
        role="calibration" if pair.suspect.role == "calibration" else "evaluation",
        truth="derived" if pair.derived else "independent",
        kind=pair.kind,
        family=pair.family,
        # A theft of a stranger's model is innocent whether it came off or not.
        accepted=not pair.derived or _accepted(made),
        entry=taking.entry.name,
        scheme=taking.entry.scheme,
        claim=scheme.claim,
        access=scheme.suspect_access.text,
        budget=taking.budget,
        queries=queries,
        seed=taking.seed,
        score=score,
        own=note.get("own", float("nan")),
        extraction=note.get("seconds", 0.0),
        seconds=seconds,
        reason=reason,
    )


def _accepted(made: Built) -> bool:
    return made.acceptance is None or made.acceptance.accepted


def _model(zoo: Zoo, name: str) -> Model:
    """A model of the population.

    Raises:
        ArtefactError: it is no longer the one that was built.
    """
    model = load(zoo.built[name].path)
    if model.digest != zoo.built[name].model:
        raise ArtefactError(f"{model.source} is not the model that its population lists: build the population again")
    return model


@functools.lru_cache(maxsize=1)
def _zoo(path: Path) -> Zoo:
    return open_zoo(path)


@functools.lru_cache(maxsize=2)
def _data(path: Path, part: str) -> Data:
    return _zoo(path).data(part)


# A process asks one suspect after the other the same fingerprints.
@functools.lru_cache(maxsize=4096)
def _print(path: Path) -> Fingerprint:
    return Fingerprint.load(path)


def _libraries() -> str:
    """Versions of what scores depend on."""
    found = {"locard": locard.__version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "torch", "onnxruntime"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _key(*parts: Any) -> str:
    text = json.dumps([_GENERATION, locard.__version__, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    part.write_text(json.dumps(value) + "\n", "utf-8")
    part.replace(path)
