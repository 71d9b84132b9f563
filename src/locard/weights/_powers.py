"""Whole-number exponents that solve linear equations: which tensors a unit's scale multiplies and which it divides."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import TypeVar

U = TypeVar("U", bound=Hashable)


def solutions(equations: Iterable[Mapping[U, int]], kept: Sequence[U], *, signs: bool) -> list[tuple[int, ...]]:
    """A basis of the solutions of homogeneous equations, for some of their unknowns.

    Args:
        equations: each maps unknowns to coefficients whose weighted sum is 0.
        kept: the unknowns asked for; the others are eliminated.
        signs: solve modulo 2, as the exponents of -1 do.

    Returns:
        Whole exponents of `kept`, not all 0, each solution with one free unknown of its own.
    """
    equations, rows = list(equations), dict[U, dict[U, Fraction]]()
    unknowns = dict.fromkeys([*kept, *(u for equation in equations for u in equation)])
    # Unknowns that are not kept are solved for first, then the earliest kept.
    rank = {u: (u in kept, number) for number, u in enumerate(unknowns)}
    for equation in equations:
        row = {u: _reduced(Fraction(c), signs) for u, c in equation.items()}
        for pivot in [u for u in row if u in rows]:
            row = _less(row, row[pivot], rows[pivot], signs)
        row = {u: c for u, c in row.items() if c}
        if not row:
            continue
        pivot = min(row, key=lambda u: rank[u])
        row = {u: c / row[pivot] for u, c in row.items()}
        for other, before in rows.items():
            if before.get(pivot):
                rows[other] = _less(before, before[pivot], row, signs)
        rows[pivot] = row
    found: list[tuple[int, ...]] = []
    for free in unknowns:
        if free in rows:
            continue
        powers = [Fraction(u == free) if u not in rows else _reduced(-rows[u].get(free, Fraction()), signs)
                  for u in kept]  # fmt: skip
        if any(powers):
            whole = lcm(*(p.denominator for p in powers))
            found.append(tuple(int(p * whole) for p in powers))
    return found


def _less(row: dict[U, Fraction], times: Fraction, other: dict[U, Fraction], signs: bool) -> dict[U, Fraction]:
    return {u: _reduced(row.get(u, Fraction()) - times * other.get(u, Fraction()), signs) for u in row | other}


def _reduced(value: Fraction, signs: bool) -> Fraction:
    return value % 2 if signs else value
