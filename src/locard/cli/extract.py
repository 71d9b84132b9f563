"""`locard extract`: take a model's fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locard.cli._options import (
    DataOption,
    PopulationOption,
    QueriesOption,
    SeedOption,
    TrustOption,
    check_suffix,
    progress,
)
from locard.errors import ParameterError


def extract(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Your model: a folder, file or URL.")],
    scheme: Annotated[str, typer.Option(help="A name of `locard schemes`, or sampler+representation+distance.")],
    data: DataOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The fingerprint's file, .locard.")],
    queries: QueriesOption = None,
    seed: SeedOption = 0,
    param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE...", help="The scheme's parameters.")] = None,
    population: PopulationOption = None,
    trust: TrustOption = False,
) -> None:
    """Take a model's fingerprint and keep it in a file."""
    from locard import engine
    from locard.data import read
    from locard.engine.population import read_population
    from locard.models import load

    check_suffix(output)
    owned = read(data)
    victim = load(model, like=owned.domain, trust=trust)
    others = None if population is None else read_population(population, victim, trust=trust)
    with progress("asking the victim") as bar:
        fingerprint = engine.extract(victim, scheme=scheme, data=owned, queries=queries, seed=seed,
                                     params=params(param), population=others, progress=bar)  # fmt: skip
    fingerprint.save(output)
    print(f"{output}: {scheme}, {fingerprint.cost:,} queries, content {fingerprint.content}")


def params(words: list[str] | None) -> dict[str, str]:
    """Read NAME=VALUE words."""
    pairs = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ParameterError(f"--param takes NAME=VALUE; got {word!r}")
        pairs[name] = value
    return pairs
