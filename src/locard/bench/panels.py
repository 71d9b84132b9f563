"""Small plots, one a scheme: the geometry of ROC curves and of what more queries buy. `board.html.jinja` draws them.

Each line is written once and drawn again, pale, behind the lines of the others, so that a scheme is seen against all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from locard.bench.figures import Interval, Roc, Standing

# Panels are squares of this many units; the share 0 lies at their lower end.
SIDE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A figure and its interval at one number of queries, in units of the panel."""

    x: int
    y: int
    low: int
    high: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A number of queries on the axis."""

    x: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What one entry finds at each number of queries.

    Args:
        entry: the entry.
        numbers: places of its standings in the summary, the fewest queries first.
        points: by alpha's place, one for each standing with a figure.
        lines: by alpha's place, the path through the points.
    """

    entry: str
    numbers: tuple[int, ...]
    points: tuple[tuple[Point, ...], ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """A scale of shares, as square roots from 0 to `top`, over 120 units."""

    top: float

    def place(self, share: float) -> str:
        """Where a share lies, as SVG wants it; what is beyond the end lies at the end."""
        return f"{120 * math.sqrt(min(max(share, 0.0) / self.top, 1.0)):.1f}"


def reach(standings: Sequence[Standing], alpha: float) -> Reach:
    """The scale that holds every rate of false accusations at this alpha, and alpha well within.

    Args:
        standings: of a summary.
        alpha: the level promised.
    """
    ends = [
        end
        for standing in standings
        for known in standing.calibration
        if known.alpha == alpha
        for end in (known.holdout.high, known.holdout.value, known.transfer.value)
        if end is not None
    ]
    highest = max([2 * alpha, *ends])
    return Reach(top=next(top for top in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0) if highest <= top or top == 1.0))


def roc_path(roc: Roc) -> str:
    """The steps of a ROC curve, without those that do not show.

    Args:
        roc: shares from 0 to 1.

    Returns:
        An SVG path from the lower left corner to the upper right one.
    """
    parts, x, y = [f"M0 {SIDE}"], 0, SIDE
    for share, found in zip(roc.fpr.tolist(), roc.tpr.tolist(), strict=True):
        across, up = round(SIDE * share), round(SIDE * (1 - found))
        if up == y:
            continue
        if across != x:
            parts.append(f"H{across}")
        parts.append(f"V{up}")
        x, y = across, up
    return "".join([*parts, f"H{SIDE}"])


def growths(standings: Sequence[Standing], alphas: Sequence[float]) -> tuple[Growth, ...]:
    """The entries that were asked at several numbers of queries, in the order of the summary.

    Args:
        standings: of a summary.
        alphas: levels of the test.
    """
    by_entry: dict[str, list[int]] = {}
    for number, standing in enumerate(standings):
        by_entry.setdefault(standing.entry, []).append(number)
    several = {
        entry: sorted(numbers, key=lambda number: (standings[number].queries, standings[number].budget))
        for entry, numbers in by_entry.items()
        if len({standings[number].queries for number in numbers}) > 1
    }
    if not several:
        return ()
    span = _span([standings[number].queries for numbers in several.values() for number in numbers])
    found = []
    for entry, numbers in several.items():
        points = tuple(
            tuple(
                _point(standings[number].queries, standings[number].tpr[alpha], span)
                for number in numbers
                if standings[number].tpr[alpha].value is not None
            )
            for alpha in alphas
        )
        lines = tuple("".join(f"{'L' if i else 'M'}{p.x} {p.y}" for i, p in enumerate(row)) for row in points)
        found.append(Growth(entry=entry, numbers=tuple(numbers), points=points, lines=lines))
    return tuple(found)


def query_ticks(standings: Sequence[Standing]) -> tuple[Tick, ...]:
    """The fewest and the most queries of the entries that were asked at several, and the powers of ten well between."""
    asked: dict[str, set[float]] = {}
    for standing in standings:
        asked.setdefault(standing.entry, set()).add(standing.queries)
    queries = [number for numbers in asked.values() if len(numbers) > 1 for number in numbers]
    if not queries:
        return ()
    low, high = _span(queries)
    powers = [10.0**k for k in range(math.ceil(low), math.floor(high) + 1)]
    between = [number for number in powers if 200 < _across(number, (low, high)) < SIDE - 200]
    return tuple(
        Tick(x=_across(number, (low, high)), text=f"{number:,.0f}") for number in (min(queries), *between, max(queries))
    )


def _point(queries: float, found: Interval, span: tuple[float, float]) -> Point:
    value = found.value or 0.0
    low, high = (value if end is None else end for end in (found.low, found.high))
    return Point(
        x=_across(queries, span),
        y=round(SIDE * (1 - value)),
        low=round(SIDE * (1 - low)),
        high=round(SIDE * (1 - high)),
        text=f"{queries:,.0f} queries: {value:.0%} ({low:.0%} to {high:.0%})",
    )


def _span(queries: Sequence[float]) -> tuple[float, float]:
    logs = [math.log10(max(number, 1.0)) for number in queries]
    return min(logs), max(logs)


def _across(queries: float, span: tuple[float, float]) -> int:
    """Logarithmic, with a margin for the whiskers."""
    low, high = span
    return round(40 + (SIDE - 80) * (math.log10(max(queries, 1.0)) - low) / (high - low))
