"""`locard bench`: every scheme against every theft of a population."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locard.cli._options import progress
from locard.cli.zoo import ProcessesOption, TimeOption, seconds
from locard.errors import ParameterError

app = typer.Typer(help="Every scheme against every theft: run, report.", no_args_is_help=True)


@app.command()
def run(
    population: Annotated[Path, typer.Argument(metavar="DIR", help="A population that `locard zoo build` made.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bench; what it holds is kept.")],
    schemes: Annotated[str | None, typer.Option(help="akh,sac:answers=labels,...; all by default.")] = None,
    budgets: Annotated[str, typer.Option(help="Numbers of queries, as 25,50,100; 0 is a scheme's own.")] = "0",
    seeds: Annotated[str, typer.Option(help="Seeds of the extractions, as 0,1,2.")] = "0",
    access: Annotated[str | None, typer.Option(help="The most that may be seen of a suspect: labels, ...")] = None,
    processes: ProcessesOption = 2,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster instead.")] = None,
    time: TimeOption = None,
) -> None:
    """Take every fingerprint, ask every suspect once, and keep a row for each pair as Parquet.

    A bench that was stopped goes on where it was.
    """
    from locard import bench
    from locard.bench.cluster import cluster
    from locard.zoo import open_zoo

    zoo = open_zoo(population)
    named = None if schemes is None else [entry for word in _words(schemes) for entry in bench.parse(word)]
    entries = bench.standard(access) if named is None else bench.within(named, access)
    runner = bench.processes(processes) if ray is None else cluster(ray)
    with progress("asking every suspect every fingerprint") as bar:
        done = bench.run_bench(zoo, output, entries, budgets=_numbers("--budgets", budgets),
                               seeds=_numbers("--seeds", seeds), runner=runner, seconds=seconds(time),
                               progress=bar)  # fmt: skip
    print(f"{output}: {done.fingerprints:,} of {done.wanted_fingerprints:,} fingerprints taken, {done.suspects:,} of "
          f"{done.wanted_suspects:,} suspects asked")  # fmt: skip
    print(f"Go on: locard bench report {output}" if done.whole else "Time is over; run again to go on")


def _words(text: str) -> list[str]:
    """Names separated by commas; a parameter that follows one belongs to it."""
    words: list[str] = []
    for part in text.split(","):
        if words and "=" in part and ":" not in part and ":" in words[-1]:
            words[-1] += f",{part}"
        else:
            words.append(part)
    return words


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ParameterError(f"{option} takes whole numbers separated by commas; got {text!r}") from None
