"""`locard schemes`: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from locard.cli._options import JsonOption, print_json


def schemes(
    grid: Annotated[
        int | None, typer.Option(metavar="N", help="List QuRD's grid of combinations at N queries instead.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the schemes: claim, access needed, queries, source."""
    if grid is not None:
        combinations(grid, as_json=as_json)
        return
    rows = table()
    if as_json:
        print_json(rows)
        return
    width = max(len(row["scheme"]) for row in rows)
    for row in rows:
        needs = f"{row['victim_access'].lower()} of the victim, {row['suspect_access'].lower()} of the suspect"
        print(f"{row['scheme']:<{width}}  {row['summary']}" + (f" ({row['source']})" if row["source"] else ""))
        others = "; other models to choose queries by" if row["needs_population"] else ""
        print(f"{'':<{width}}  claim {row['claim']}; {needs}{others}; {row['queries']:,} queries")


def combinations(budget: int, *, as_json: bool) -> None:
    """Print the grid, a line a combination: QuRD's name, and what `--scheme` and `--param` take."""
    from dataclasses import asdict

    from locard.errors import check_number
    from locard.schemes import grid

    check_number("--grid", budget, low=1)
    cells = grid(budget)
    if as_json:
        print_json([asdict(cell) for cell in cells])
        return
    width = max(len(f"{cell.split} {cell.name}") for cell in cells)
    for cell in cells:
        params = " ".join(f"{key}={value}" for key, value in cell.params.items())
        print(f"{f'{cell.split} {cell.name}':<{width}}  {cell.scheme}{f' --param {params}' if params else ''}")


def table() -> list[dict[str, Any]]:
    """One row a registered scheme."""
    from locard.schemes import build
    from locard.schemes import schemes as registry

    rows = []
    for name in registry.names():
        scheme = build(name)
        rows.append({
            "scheme": name,
            "claim": scheme.claim,
            "victim_access": scheme.victim_access.text,
            "suspect_access": scheme.suspect_access.text,
            "queries": scheme.default_queries,
            "needs_labels": scheme.needs_labels,
            "needs_population": scheme.needs_population,
            "source": scheme.citation.short if scheme.citation else "",
            "summary": scheme.summary,
        })  # fmt: skip
    return rows
