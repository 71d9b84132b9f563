"""A bench from beginning to end: fingerprints, then suspects, then one table. What is there is not done again."""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import locard
from locard.bench.entries import Entry
from locard.bench.records import Records
from locard.bench.work import Taking, Workbench, plan
from locard.errors import ArtefactError, ParameterError, check_number, need
from locard.zoo import Zoo
from locard.zoo.workers import run_all

if TYPE_CHECKING:
    from locard.models.session import Progress

RECORDS, ABOUT = "records.parquet", "about.json"


class Runner(Protocol):
    """What does tasks somewhere: `zoo.workers.run_all` with its processes, or a cluster."""

    def __call__(self, work: Callable[[Any], str], tasks: dict[str, Any], *, until: float | None) -> Iterator[str]:
        """Do all tasks and yield results as they come."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """How far a bench has come.

    Args:
        fingerprints: taken, of `wanted_fingerprints`.
        suspects: asked, of `wanted_suspects`.
        wanted_fingerprints: in all.
        wanted_suspects: in all.
    """

    fingerprints: int
    suspects: int
    wanted_fingerprints: int
    wanted_suspects: int

    @property
    def whole(self) -> bool:
        """Whether all is done."""
        return (self.fingerprints, self.suspects) == (self.wanted_fingerprints, self.wanted_suspects)


def processes(number: int) -> Runner:
    """Processes of this machine, each on one thread."""
    check_number("processes", number, low=1)

    def run(work: Callable[[Any], str], tasks: dict[str, Any], *, until: float | None) -> Iterator[str]:
        yield from run_all(work, tasks, {}, processes=number, until=until)

    return run


def run_bench(
    zoo: Zoo,
    out: Path,
    entries: Sequence[Entry],
    *,
    budgets: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    runner: Runner | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Progressed:
    """Take every fingerprint, ask every suspect, and keep the rows.

    Args:
        zoo: the population.
        out: folder; what an earlier run left there is kept, and what this bench does not ask for is not looked at.
        entries: what takes part.
        budgets: numbers of queries; 0 stands for an entry's own.
        seeds: of the extraction.
        runner: where the work is done; two processes by default.
        seconds: after so many no piece is begun.
        progress: called with (done, wanted) pieces.

    Returns:
        How far it came; `records.parquet` is written when all is done.

    Raises:
        LocardError: nothing to do, or the folder cannot be written.
    """
    need("pyarrow", extra="bench", why="records")
    for name, listed in (("entry", [one.name for one in entries]), ("budget", budgets), ("seed", seeds)):
        if not listed:
            raise ParameterError(f"a bench needs at least one {name}; got none")
        if len(set(listed)) < len(listed):
            raise ParameterError(f"a bench asks each {name} once; got {', '.join(str(one) for one in listed)}")
    for number in (*budgets, *seeds):
        check_number("budgets and seeds", number, low=0)
    if seconds is not None:
        check_number("seconds", seconds, low=0)
    until = None if seconds is None else time.monotonic() + seconds
    runner = runner or processes(2)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(f"cannot write a bench to {str(out)!r}: {error.strerror or error}") from error
    out = out.resolve()
    takings, askings = plan(zoo, out, entries, budgets, seeds)
    workbench = Workbench(zoo=zoo.path.resolve(), out=out)
    done, wanted = 0, len(takings) + len(askings)

    def go(work: Callable[[Any], str], tasks: dict[str, Any]) -> None:
        nonlocal done
        for _ in runner(work, tasks, until=until):
            done += 1
            if progress is not None:
                progress(done, wanted)

    open_takings = {one.path.name: one for one in takings if not one.done}
    open_askings = {one.path.name: one for one in askings if not one.path.exists()}
    done = wanted - len(open_takings) - len(open_askings)
    if progress is not None:
        progress(done, wanted)
    if done < wanted:
        # What an earlier run said is of other entries, or of other models.
        (out / ABOUT).unlink(missing_ok=True)
    go(workbench.take, open_takings)
    missing = [one for one in takings if not one.done]
    if not missing:
        go(workbench.ask, open_askings)
    there = [one for one in askings if one.path.exists()]
    found = Progressed(fingerprints=len(takings) - len(missing), suspects=len(there),
                       wanted_fingerprints=len(takings), wanted_suspects=len(askings))  # fmt: skip
    if found.whole:
        Records.concatenate([Records.read(one.path) for one in askings]).write(out / RECORDS)
        _about(zoo, out, entries, budgets, seeds, takings)
    return found


def read_bench(folder: Path) -> tuple[Records, dict[str, Any]]:
    """The records of a finished bench, and what they are of.

    Raises:
        ArtefactError: no finished bench.
    """
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
    except FileNotFoundError as error:
        raise ArtefactError(
            f"{str(folder)!r} holds no finished bench: run one with `locard bench run POPULATION -o {folder}`"
        ) from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"cannot read {str(folder / ABOUT)!r}: {error}") from error
    keys = {"population", "about", "models", "date", "machine", "libraries"}
    if not isinstance(about, dict) or not keys <= about.keys() or not isinstance(about["machine"], dict):
        raise ArtefactError(f"{str(folder / ABOUT)!r} is damaged: run the bench again, which keeps what is done")
    return Records.read(folder / RECORDS), about


def _about(
    zoo: Zoo, out: Path, entries: Sequence[Entry], budgets: Sequence[int], seeds: Sequence[int],
    takings: Sequence[Taking],
) -> None:  # fmt: skip
    about = {
        "population": zoo.recipe.name,
        "about": zoo.recipe.about,
        "models": len(zoo.members),
        "parts": zoo.parts,
        "entries": [asdict(entry) | {"name": entry.name} for entry in entries],
        "budgets": list(budgets),
        "seeds": list(seeds),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        # Of every leg: a fingerprint that an earlier one took may be of another version.
        "libraries": sorted({json.loads(one.note.read_text("utf-8"))["libraries"] for one in takings}),
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
                    "locard": locard.__version__},
    }  # fmt: skip
    part = out / f".{ABOUT}"
    part.write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    part.replace(out / ABOUT)
