"""`locard compare`: every scheme that the access allows."""

from __future__ import annotations

from typing import Annotated

import typer

from locard.cli._options import (
    AccessOption,
    AlphaOption,
    BudgetOption,
    DataOption,
    DerivedOption,
    FailOption,
    HtmlOption,
    JournalOption,
    JsonOption,
    PopulationOption,
    QueriesOption,
    ReferencesOption,
    SeedOption,
    TrustOption,
    check_decision,
    deliver,
    grouped,
    journal_for,
    progress,
)
from locard.errors import ParameterError


def compare(
    context: typer.Context,
    victim: Annotated[str, typer.Argument(metavar="VICTIM", help="Your model.")],
    suspect: Annotated[str, typer.Argument(metavar="SUSPECT", help="The other one.")],
    data: DataOption,
    references: ReferencesOption = None,
    derived: DerivedOption = None,
    schemes: Annotated[str | None, typer.Option(metavar="A,B,...", help="All that can run by default.")] = None,
    population: PopulationOption = None,
    queries: QueriesOption = None,
    seed: SeedOption = 0,
    access: AccessOption = None,
    budget: BudgetOption = None,
    alpha: AlphaOption = 0.05,
    journal: JournalOption = None,
    fail_if: FailOption = None,
    as_json: JsonOption = False,
    html: HtmlOption = None,
    trust: TrustOption = False,
) -> None:
    """Compare two models with several schemes in one pass, and combine what they say."""
    from locard import engine
    from locard.data import read
    from locard.engine.population import read_population
    from locard.models import load

    check_decision(fail_if)
    owned = read(data)
    ours, theirs = (load(model, like=owned.domain, trust=trust) for model in (victim, suspect))
    with progress("asking the suspect") as bar:
        comparison = engine.compare(
            ours,
            theirs,
            data=owned,
            references=grouped(references),
            derived=grouped(derived),
            schemes=None if schemes is None else named(schemes),
            population=None if population is None else read_population(population, ours, trust=trust),
            queries=queries,
            seed=seed,
            alpha=alpha,
            access=access,
            budget=budget,
            journal=journal_for(theirs, journal),
            trust=trust,
            progress=bar,
        )
    deliver(comparison, context, as_json=as_json, html=html, fail_if=fail_if)


def named(schemes: str) -> list[str]:
    """Read A,B,...

    Raises:
        ParameterError: no name, or one twice.
    """
    names = [name.strip() for name in schemes.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ParameterError(f"--schemes takes names, separated by commas, each once; got {schemes!r}")
    return names
