"""Many models from a list of jobs: each in a folder of its own with its lineage, some at a time, resumable.

A job's digest covers all that its model depends on: data, architecture, recipe, seed, and for a theft its victim's job.
A folder whose `job.json` holds that digest and whose weights are those recorded is kept; any other is made anew. The
record is written last, so a build that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
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
from locard.zoo._pool import run_all

if TYPE_CHECKING:
    from torch import nn

    from locard.models.session import Progress

RECORD = "job.json"
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
        path: the model folder.
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
        victim = load(self.out / job.victim)
        card = folder.read_card(self.out / job.victim)
        handed = restrict(victim, attack.needs, budget=job.budget)
        stolen = attack.derive(handed, None if job.data is None else self.data[job.data], seed=job.seed)
        if stolen.unnamed:
            raise ParameterError(
                f"what {job.attack} makes of {job.victim} is of no named architecture, as a population's folders need; "
                "locard derive writes it as a .pt2 or .onnx file"
            )
        own = stolen.architecture is not None
        card = folder.Card(
            architecture=stolen.architecture or card.architecture,
            arguments=stolen.arguments if own else card.arguments | stolen.arguments,
            domain=card.domain,
            mean=None if own else card.mean,
            std=None if own else card.std,
            classes=card.classes if own or not stolen.arguments else (),
            lineage=stolen.lineage,
        )
        copy = TorchModel(stolen.module, domain=card.domain)
        acceptance = accept(attack, copy, victim, self.data[self.held_out], floor=stolen.floor)
        return self._keep(job, path, bare(stolen.module), card, stolen=stolen, acceptance=acceptance)

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
        folder.save(path, module, architecture=card.architecture, arguments=card.arguments, domain=card.domain,
                    mean=card.mean, std=card.std, classes=card.classes, lineage=card.lineage,
                    accuracy=accuracy)  # fmt: skip
        record = {
            "job": self.digests[job.name],
            "weights": file_digest(path / folder.WEIGHTS),
            "model": model.digest,
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
    progress: Progress | None = None,
) -> dict[str, Built]:
    """Make the models of all jobs, or keep those that are there.

    Args:
        jobs: in any order; a theft may name any other job as its victim.
        data: parts by name.
        out: folder that holds one model folder a job; made if it is not there.
        held_out: name of the part, seen by no model, that accuracy is measured on.
        processes: jobs at a time, each on one thread; the models are the same whatever the number.
        progress: called with (done, wanted) jobs.

    Returns:
        What was built or kept, by name, in the order of the jobs.

    Raises:
        ParameterError: a name that is taken twice or unknown, a circle of victims, or what an attack or architecture
            refuses; models made until then are kept.
        ArtefactError: a worker died, or the folder may not be written.
    """
    check_number("processes", processes, low=1)
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
    for result in run_all(workshop.make, todo, before, processes=processes):
        built[result.name] = result
        if progress is not None:
            progress(len(built), len(jobs))
    return {job.name: built[job.name] for job in jobs}


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
        if record["job"] != digest or record["weights"] != file_digest(path / folder.WEIGHTS):
            return None
        folder.read_card(path)
        return _built(name, path, record)
    # Whatever is wrong with what an earlier build left, the job is simply done anew.
    except (OSError, ValueError, KeyError, TypeError, ArtefactError):
        return None


def _built(name: str, path: Path, record: dict[str, Any]) -> Built:
    acceptance = record["acceptance"]
    return Built(
        name=name,
        path=path,
        job=record["job"],
        model=record["model"],
        accuracy=record["accuracy"],
        acceptance=None if acceptance is None else Acceptance(**acceptance),
        effort=record["effort"],
        notes=tuple(record["notes"]),
    )
