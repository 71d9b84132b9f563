"""`locard attacks`: what a thief can do."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from locard.cli._options import JsonOption, print_json


def attacks(as_json: JsonOption = False) -> None:
    """List the attacks: what each does, the access it needs, its parameters."""
    rows = table()
    if as_json:
        print_json(rows)
        return
    width = max(len(row["attack"]) for row in rows)
    for row in rows:
        needs = f"{row['needs'].lower()} of the victim" + (", data of the thief's own" if row["needs_data"] else "")
        print(f"{row['attack']:<{width}}  {row['summary']}")
        print(f"{'':<{width}}  needs {needs}; {' '.join(f'{k}={v}' for k, v in row['params'].items())}")


def table() -> list[dict[str, Any]]:
    """One row a registered attack."""
    from locard.attacks import attacks as registry
    from locard.attacks import build

    rows = []
    for name in registry.names():
        attack = build(name)
        rows.append({
            "attack": name,
            "summary": (inspect.getdoc(type(attack)) or "").partition("\n")[0],
            "needs": attack.needs.text,
            "needs_data": attack.needs_data,
            "needs_labels": attack.needs_labels,
            "margin": attack.margin,
            "fidelity": attack.fidelity,
            "params": {field.name: getattr(attack, field.name) for field in fields(attack)},  # pyright: ignore[reportArgumentType]
        })  # fmt: skip
    return rows
