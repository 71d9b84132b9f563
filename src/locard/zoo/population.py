"""Many models from a list of jobs: each in a folder of its own with its lineage, some at a time, resumable.

A job's digest covers all that its model depends on: data, architecture, recipe, seed, and for a theft its victim's job.
A folder whose `job.json` holds that digest and whose weights are those recorded is kept; any other is made anew. The
record is written last, so a build that was killed goes on where it stopped. Each folder is held while it is written:
two builds at once share the work.

A copy of no named architecture (wrapped, cut) is kept as an ONNX file, which can be read without running its code.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from locard.attacks import Acceptance, Stolen, accept, bare
from locard.attacks import build as build_attack
from locard.errors import ArtefactError, ParameterError, check_number, unknown
from locard.models import folder, load, restrict
from locard.models.fitting import Recipe, build, fit
from locard.models.torch_module import TorchModel
from locard.records import Data, Lineage
from locard.zoo._lock import held
from locard.zoo.workers import run_all

if TYPE_CHECKING:
    from torch import nn

    from locard.models.session import Progress

RECORD = "job.json"
# What a copy is kept as whose architecture has no name.
GRAPH = "model.onnx"
# Raised when the same job comes to give other weights.
_GENERATION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A model to be trained from scratch.

    Args:
        name: of its folder.
        data: name of the part it is trained on.
        architecture: a name of `models.architectures`.
        arguments: its own, but for shape and classes, which the data say.
        recipe: how to train.
        seed: of weights and order.
        mean: per channel, subtracted from the inputs; None for 0.
        std: per channel, divides the inputs; None for 1.
    """

    name: str
    data: str
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe
    seed: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Theft:
    """A model to be derived from another.

    Args:
        name: of its folder.
        victim: name of the job whose model is stolen.
        attack: a registered name.
        params: its parameters.
        data: name of the thief's part, or None where the attack needs none.
        seed: of the attack.
        budget: the most queries that the view of the victim allows, or None.
    """

    name: str
    victim: str
    attack: str
    params: dict[str, Any] = field(default_factory=dict)
    data: str | None = None
    seed: int
    budget: int | None = None


Job = Original | Theft


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A finished job.

    Args:
        name: of the job.
        path: the model folder, or the ONNX file in it.
        job: digest of the job.
        model: digest of the model.
        accuracy: on the held-out part.
        acceptance: of a theft, whether it succeeded; None for an original.
        effort: of a theft, what it cost; None for an original.
        notes: what the user should know.
    """

    name: str
    path: Path
    job: str
    model: str
    accuracy: float
    acceptance: Acceptance | None = None
    effort: dict[str, float] | None = None
    notes: tuple[str, ...] = ()

    def to_json(self, out: Path) -> dict[str, Any]:
        """As plain JSON values, the path relative to a folder."""
        return {**asdict(self), "path": self.path.relative_to(out).as_posix(), "notes": list(self.notes)}

    @classmethod
    def from_json(cls, out: Path, value: dict[str, Any]) -> Built:
        """Read what `to_json` wrote."""
        acceptance = value["acceptance"]
        if ".." in Path(value["path"]).parts or Path(value["path"]).is_absolute():
            raise ValueError(f"{value['path']!r} lies outside the population")
        return cls(**{**value, "path": out / value["path"], "notes": tuple(value["notes"]),
                      "acceptance": None if acceptance is None else Acceptance(**acceptance)})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """All that a job needs beside itself; sent once to each process.

    Args:
        out: folder of the model folders.
        data: parts by name.
        held_out: name of the part that accuracy is measured on.
        digests: of the jobs, by name.
    """

    out: Path
    data: Mapping[str, Data]
    held_out: str
    digests: Mapping[str, str]

    def make(self, job: Job) -> Built:
        """Do one job; its victim's folder, if it has one, is there."""
        path = self.out / job.name
        with held(path):
            # Another build may have made it while this one waited.
            kept = _kept(path, job.name, self.digests[job.name])
            if kept is not None:
                return kept
            (path / RECORD).unlink(missing_ok=True)
            return self._train(job, path) if isinstance(job, Original) else self._steal(job, path)

    def _train(self, job: Original, path: Path) -> Built:
        data = self.data[job.data]
        if data.labels is None:
            raise ParameterError(f"{job.name} is to be trained on {data.name}, which has no labels")
        arguments = {"shape": list(data.domain.shape), "classes": classes_of(data), **job.arguments}
        module = build(job.architecture, arguments, seed=job.seed)
        wrapped = TorchModel(module, domain=data.domain, mean=job.mean, std=job.std).module()
        fit(wrapped, data.inputs, data.labels, recipe=job.recipe, seed=job.seed)
        lineage = Lineage(architecture=job.architecture, data=data.digest, seed=job.seed)
        card = folder.Card(architecture=job.architecture, arguments=arguments, domain=data.domain, mean=job.mean,
                           std=job.std, classes=data.classes, lineage=lineage)  # fmt: skip
        return self._keep(job, path, module, card)

    def _steal(self, job: Theft, path: Path) -> Built:
        attack = build_attack(job.attack, job.params)
        source = self.out / job.victim
        if _kept(source, job.victim, self.digests[job.victim]) is None:
            raise ArtefactError(
                f"{str(source)!r} no longer holds the model that {job.name} is to be stolen from: another build with "
                "other settings has taken the folder; give each a folder of its own"
            )
        victim = load(source / GRAPH if (source / GRAPH).exists() else source)
        handed = restrict(victim, attack.needs, budget=job.budget)
        stolen = attack.derive(handed, None if job.data is None else self.data[job.data], seed=job.seed)
        copy = TorchModel(stolen.module, domain=victim.domain, lineage=stolen.lineage)
        acceptance = accept(attack, copy, victim, self.data[self.held_out], floor=stolen.floor)
        if stolen.unnamed or (stolen.architecture is None and not (source / folder.CARD).exists()):
            return self._keep_graph(job, path, copy, stolen, acceptance)
        card = None if stolen.architecture is not None else folder.read_card(source)
        return self._keep(
            job,
            path,
            bare(stolen.module),
            folder.Card(
                architecture=stolen.architecture or (card.architecture if card else ""),
                arguments=(card.arguments if card else {}) | (stolen.arguments or {}),
                domain=victim.domain,
                mean=card.mean if card else None,
                std=card.std if card else None,
                # Other arguments are those of another task, whose classes have other names.
                classes=() if card is None or stolen.arguments else card.classes,
                lineage=stolen.lineage,
            ),
            stolen=stolen,
            acceptance=acceptance,
        )

    def _keep(
        self,
        job: Job,
        path: Path,
        module: nn.Module,
        card: folder.Card,
        *,
        stolen: Stolen | None = None,
        acceptance: Acceptance | None = None,
    ) -> Built:
        model = TorchModel(module, domain=card.domain, mean=card.mean, std=card.std)
        accuracy = acceptance.accuracy if acceptance is not None else self._accuracy(model)
        (path / GRAPH).unlink(missing_ok=True)
        folder.save(path, module, architecture=card.architecture, arguments=card.arguments, domain=card.domain,
                    mean=card.mean, std=card.std, classes=card.classes, lineage=card.lineage,
                    accuracy=accuracy)  # fmt: skip
        return self._note(job, path, folder.WEIGHTS, model.digest, accuracy, stolen, acceptance)

    def _keep_graph(self, job: Theft, path: Path, copy: TorchModel, stolen: Stolen, acceptance: Acceptance) -> Built:
        from locard.models import onnx

        for old in (path / folder.CARD, path / folder.WEIGHTS):
            old.unlink(missing_ok=True)
        onnx.export(copy, path / GRAPH)
        # What is judged is the file.
        digest = load(path / GRAPH).digest
        return self._note(job, path, GRAPH, digest, acceptance.accuracy, stolen, acceptance)

    def _note(
        self, job: Job, path: Path, file: str, digest: str, accuracy: float, stolen: Stolen | None,
        acceptance: Acceptance | None,
    ) -> Built:  # fmt: skip
        record = {
            "job": self.digests[job.name],
            "file": file,
            "weights": file_digest(path / file),
            "model": digest,
            "accuracy": accuracy,
            "acceptance": None if acceptance is None else asdict(acceptance),
            "effort": None if stolen is None else asdict(stolen.effort),
            "notes": [] if stolen is None else list(stolen.notes),
        }
        part = path / f".{RECORD}"
        part.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        part.replace(path / RECORD)
        return _built(job.name, path, record)

    def _accuracy(self, model: TorchModel) -> float:
        held_out = self.data[self.held_out]
        labels = restrict(model, model.native).labels(held_out.inputs)
        return float((labels == held_out.labels).mean())


def train_many(
    jobs: Sequence[Job],
    data: Mapping[str, Data],
    out: Path,
    *,
    held_out: str,
    processes: int = 2,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Built]:
    """Make the models of all jobs, or keep those that are there.

    Originals are trained one by one. Stacked under `torch.func.vmap`, 16 to 32 at a time, networks on digits train 1.4
    to 3.8 times as fast, which would shorten a build of `digits-small` by about a tenth; convolutional ones on
    Fashion-MNIST take up to five times as long. And a stack gives other bytes than `fit`, some networks other bytes for
    each size of the stack (`benchmarks/training_together.py`).

    Args:
        jobs: in any order; a theft may name any other job as its victim.
        data: parts by name.
        out: folder that holds one model folder a job; made if it is not there.
        held_out: name of the part, seen by no model, that accuracy is measured on.
        processes: jobs at a time, each on one thread; the models are the same whatever the number.
        seconds: after so many no job is begun; None for no limit.
        progress: called with (done, wanted) jobs.

    Returns:
        What was built or kept, by name, in the order of the jobs; all of them, if time was enough.

    Raises:
        ParameterError: a name that is taken twice or unknown, a circle of victims, or what an attack or architecture
            refuses; models made until then are kept.
        ArtefactError: a worker died, or the folder may not be written.
    """
    check_number("processes", processes, low=1)
    if seconds is not None:
        check_number("seconds", seconds, low=0)
    until = None if seconds is None else time.monotonic() + seconds
    for part in (held_out, *(job.data for job in jobs if job.data is not None)):
        if part not in data:
            raise unknown("part of the data", part, data)
    if data[held_out].labels is None:
        raise ParameterError(f"accuracy is measured on {data[held_out].name}, which has no labels")
    digests = digests_of(jobs, {name: part.digest for name, part in data.items()}, held_out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(f"cannot write models to {str(out)!r}: {error.strerror or error}") from error
    built = {job.name: kept for job in jobs if (kept := _kept(out / job.name, job.name, digests[job.name]))}
    todo = {job.name: job for job in jobs if job.name not in built}
    if progress is not None:
        progress(len(built), len(jobs))
    needed = {name for job in todo.values() for name in (job.data,) if name is not None} | {held_out}
    workshop = Workshop(out=out, data={name: data[name] for name in sorted(needed)}, held_out=held_out, digests=digests)
    before = {name: job.victim for name, job in todo.items() if isinstance(job, Theft) and job.victim in todo}
    for result in run_all(workshop.make, todo, before, processes=processes, until=until):
        built[result.name] = result
        if progress is not None:
            progress(len(built), len(jobs))
    return {job.name: built[job.name] for job in jobs if job.name in built}


def digests_of(jobs: Sequence[Job], parts: Mapping[str, str], held_out: str) -> dict[str, str]:
    """The digest of each job by name; it changes when anything that its model depends on does.

    Args:
        jobs: in any order.
        parts: digests of the parts of the data.
        held_out: name of the part that accuracy is measured on.

    Raises:
        ParameterError: a name that is taken twice, an unknown victim, or a circle of victims.
    """
    table = {job.name: job for job in jobs}
    if len(table) < len(jobs):
        names = [job.name for job in jobs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ParameterError(f"two jobs have the name {twice!r}; a job's name is that of its folder")
    digests: dict[str, str] = {}

    def digest(name: str, below: tuple[str, ...]) -> str:
        if name in below:
            raise ParameterError(f"{name!r} is derived from itself: {' <- '.join((*below, name))}")
        if name not in digests:
            job = table[name]
            value = {**asdict(job), "generation": _GENERATION, "held_out": parts[held_out], "name": None,
                     "data": None if job.data is None else parts[job.data]}  # fmt: skip
            if isinstance(job, Theft):
                # With the defaults spelt out, so that a new default is a new model.
                value["params"] = asdict(build_attack(job.attack, job.params))  # pyright: ignore[reportArgumentType]
                if job.victim not in table:
                    raise unknown("victim", job.victim, table)
                value["victim"] = digest(job.victim, (*below, name))
            digests[name] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        return digests[name]

    return {job.name: digest(job.name, ()) for job in jobs}


def classes_of(data: Data) -> int:
    """The number of classes of labelled data."""
    if data.classes:
        return len(data.classes)
    return 0 if data.labels is None else int(data.labels.max()) + 1


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _kept(path: Path, name: str, digest: str) -> Built | None:
    """The model in that folder, if it is that job's and whole."""
    try:
        record = json.loads((path / RECORD).read_text("utf-8"))
        file = record.get("file", folder.WEIGHTS)
        if record["job"] != digest or file not in (folder.WEIGHTS, GRAPH):
            return None
        if record["weights"] != file_digest(path / file):
            return None
        if file == folder.WEIGHTS:
            folder.read_card(path)
        return _built(name, path, record)
    # Whatever is wrong with what an earlier build left, the job is simply done anew.
    except (OSError, ValueError, KeyError, TypeError, ArtefactError):
        return None


def _built(name: str, path: Path, record: dict[str, Any]) -> Built:
    acceptance = record["acceptance"]
    return Built(
        name=name,
        path=path / GRAPH if record.get("file") == GRAPH else path,
        job=record["job"],
        model=record["model"],
        accuracy=record["accuracy"],
        acceptance=None if acceptance is None else Acceptance(**acceptance),
        effort=record["effort"],
        notes=tuple(record["notes"]),
    )
