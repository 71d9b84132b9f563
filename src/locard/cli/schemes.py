"""`locard schemes`: what there is."""

from __future__ import annotations

from typing import Any

from locard.cli._options import JsonOption, print_json


def schemes(as_json: JsonOption = False) -> None:
    """List the schemes: claim, access needed, queries, source."""
    rows = table()
    if as_json:
        print_json(rows)
        return
    width = max(len(row["scheme"]) for row in rows)
    for row in rows:
        needs = f"{row['victim_access'].lower()} of the victim, {row['suspect_access'].lower()} of the suspect"
        print(f"{row['scheme']:<{width}}  {row['summary']} ({row['source']})")
        print(f"{'':<{width}}  claim {row['claim']}; {needs}; {row['queries']:,} queries")


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
