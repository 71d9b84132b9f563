"""`locard cite`: where a scheme comes from."""

from __future__ import annotations

from typing import Annotated

import typer


def cite(names: Annotated[list[str], typer.Argument(metavar="SCHEME...", help="Schemes to cite.")]) -> None:
    """Print BibTeX entries of the papers that schemes come from, each once."""
    from locard.errors import ParameterError
    from locard.schemes import build

    entries: dict[str, str] = {}
    for name in names:
        citation = build(name).citation
        if citation is None:
            raise ParameterError(f"{name} comes from no paper")
        entries[citation.key] = citation.bibtex
    print("\n\n".join(entries.values()))
