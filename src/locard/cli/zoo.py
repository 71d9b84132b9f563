"""`locard zoo`: populations of models, from a recipe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from locard.cli._options import JsonOption, print_json, progress
from locard.errors import ParameterError

if TYPE_CHECKING:
    from locard.zoo import Zoo

app = typer.Typer(help="Populations of models with a family tree: list, build, import, show.", no_args_is_help=True)

ProcessesOption = Annotated[int, typer.Option(help="Models at a time, each on one thread.")]
TimeOption = Annotated[
    str | None, typer.Option("--time", help="Begin nothing after 90s, 20m or 2h; run again to go on.")
]


@app.command(name="list")
def list_recipes(as_json: JsonOption = False) -> None:
    """Show the recipes that come with Locard."""
    from locard.zoo import read_recipe, shipped

    recipes = [read_recipe(name) for name in shipped()]
    if as_json:
        print_json([{"name": one.name, "about": one.about, "models": len(one.jobs())} for one in recipes])
        return
    for one in recipes:
        print(f"{one.name}: {one.about} ({len(one.jobs())} models)")


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A name of `locard zoo list`, or a TOML file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; models that it holds are kept.")],
    processes: ProcessesOption = 2,
    time: TimeOption = None,
) -> None:
    """Train, steal and record every model of a recipe that is not there yet.

    A build that was stopped goes on where it was, and two at once share the work.
    """
    from locard.zoo import build_zoo, read_recipe

    read = read_recipe(recipe)
    with progress(f"building {read.name}") as bar:
        zoo = build_zoo(read, output, processes=processes, seconds=seconds(time), progress=bar)
    if zoo is None:
        print(f"{output}: time is over before all {len(read.jobs()):,} models were made; run again to go on")
        raise typer.Exit(0)
    _print(zoo)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A built population.")], as_json: JsonOption = False
) -> None:
    """Show who is in a population."""
    from locard.zoo import open_zoo

    zoo = open_zoo(folder)
    if as_json:
        print_json(json.loads((folder / "manifest.json").read_text("utf-8")))
        return
    _print(zoo)


@app.command(name="import")
def import_published(
    benchmark: Annotated[str, typer.Argument(metavar="modelreuse|sacbench", help="Whose published weights they are.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds the hub repositories, one a folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the population, new.")],
    data: Annotated[str, typer.Option(help="Labelled inputs that no model has seen, for queries and accuracy.")],
    dataset: Annotated[str, typer.Option(help="Of modelreuse: Flower102 or SDog120.")] = "Flower102",
    root: Annotated[
        str, typer.Option(help="Of modelreuse, whose family are victims: pretrain- or train-, mbnetv2 or resnet18.")
    ] = "pretrain-mbnetv2",
) -> None:
    """Make a population of the published weights of ModelReuse or SACBench, for `locard bench run`."""
    from locard.zoo.published import import_zoo

    with progress(f"importing {benchmark}") as bar:
        zoo = import_zoo(benchmark, folder, output, data=data, dataset=dataset, root=root, progress=bar)
    _print(zoo)


def seconds(time: str | None) -> float | None:
    """Seconds from "90s", "20m" or "2h"; a bare number counts seconds.

    Raises:
        ParameterError: something else.
    """
    if time is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", time.strip())
    if found is None:
        raise ParameterError(f"--time takes a number of seconds, minutes or hours, as 90s, 20m or 2h; got {time!r}")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _print(zoo: Zoo) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("role", "what", "models", "accuracy"):
        table.add_column(title, justify="right" if title in ("models", "accuracy") else "left")
    groups: dict[tuple[str, str], list[str]] = {}
    for member in zoo.members.values():
        origin = (
            ""
            if member.victim is None
            else " of a victim"
            if zoo.members[member.victim].role == "victim"
            else " of a stranger"
        )
        what = f"{member.kind}{origin}" if member.kind else f"{member.network} on {member.data}"
        groups.setdefault((member.role, what), []).append(member.name)
    failed = 0
    for (role, what), names in groups.items():
        built = [zoo.built[name] for name in names]
        lost = sum(one.acceptance is not None and not one.acceptance.accepted for one in built)
        failed += lost
        scores = sorted(one.accuracy for one in built)
        spread = f"{scores[0]:.1%}" if scores[0] == scores[-1] else f"{scores[0]:.1%} to {scores[-1]:.1%}"
        table.add_row(role, what + (f" ({lost} failed)" if lost else ""), str(len(names)), spread)
    Console().print(table)
    print(f"\n{zoo.path}: {zoo.recipe.name}, {len(zoo.members):,} models, {failed} failed thefts")
