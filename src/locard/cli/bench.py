"""`locard bench`: every scheme against every theft of a population."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from locard.cli._options import SeedOption, progress, write
from locard.cli.zoo import ProcessesOption, TimeOption, seconds
from locard.errors import ParameterError

if TYPE_CHECKING:
    from locard.bench import Summary

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


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A bench that `locard bench run` finished.")],
    html: Annotated[Path | None, typer.Option(help="The page; DIR/report.html by default.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every figure on a line of its own.")] = None,
    alphas: Annotated[str, typer.Option(help="Levels of the calibrated test, the headline's first.")] = "0.05,0.01",
    access: Annotated[str | None, typer.Option(help="Only schemes that need no more of a suspect.")] = None,
    seed: SeedOption = 0,
) -> None:
    """Write what the records say, with its error, as a page; and print how the schemes stand."""
    from locard.bench import summarise, tables
    from locard.bench.page import page
    from locard.bench.run import read_bench

    records, about = read_bench(folder)
    summary = summarise(records, alphas=_levels(alphas), access=access, seed=seed)
    written = html or folder / "report.html"
    write(written, page(summary, records, title=about["population"], about=_facts(about)))
    for path, text in ((markdown, tables.markdown), (csv, tables.to_csv)):
        if path is not None:
            write(path, text(summary))
    _print(summary)
    print(f"\nreport: {written}")


def _facts(about: dict[str, Any]) -> dict[str, str]:
    machine = about["machine"]
    return {
        "population": f"{about['about']} ({about['models']:,} models)",
        "date": about["date"],
        "made with": "; and in part with ".join(about["libraries"]),
        "machine": f"{machine['architecture']}, {machine['cores']} cores",
    }


def _print(summary: Summary) -> None:
    from rich.console import Console
    from rich.table import Table

    alpha = summary.alphas[0]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("scheme", "needs", "queries", f"found at alpha {alpha:g}", "AUROC"):
        table.add_column(title, justify="left" if title in ("scheme", "needs") else "right")
    for one in summary.standings:
        found, area = one.tpr[alpha], one.auroc
        share = "-" if found.value is None else f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"
        mark = {True: "", False: " (not to be relied on)", None: " (untested)"}[one.reliable]
        table.add_row(f"{one.entry}{f' at {one.budget}' if one.budget else ''}{mark}", one.access.lower(),
                      f"{one.queries:,.0f}", share, "-" if area.value is None else f"{area.value:.3f}")  # fmt: skip
    Console().print(table)
    print(f"\n{summary.n_thefts} thefts of {len(summary.victims)} victims, {sum(summary.innocents.values())} innocents "
          f"judged by {sum(summary.references.values())} references")  # fmt: skip


def _levels(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ParameterError(f"--alphas takes numbers separated by commas; got {text!r}") from None


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
