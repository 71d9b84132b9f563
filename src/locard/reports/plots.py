"""Where a score falls: the geometry of a strip plot, drawn by `templates/strip.svg.jinja`.

Drawn by hand, because the base install has no plotting package, a page without a script needs no more than a few marks,
and the same records must give the same bytes. Every dot stands at its exact score; dots that would touch are stacked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from locard.records import Reference, Verdict
from locard.reports.numerals import decimals, plain, plural, shortened, significant
from locard.reports.wording import ordered

RADIUS = 4.5
SMALLEST = 2.0
TALLEST = 84.0
GAP = 12.0
EDGE = 14.0
LABELS = 164.0
AXIS = 44.0
TOP = 30.0
# Scores beyond this are drawn by nobody: their differences and ticks would overflow.
FARTHEST = 1e300


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One model at (x, y), with its name and score for who points at it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The models of one stratum or of one kind of theft, above a line at `base`."""

    mark: Literal["reference", "derived"]
    label: str
    count: str
    label_y: float
    base: float
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A number on the axis."""

    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A strip plot in pixels: rows of dots over one axis of scores.

    Args:
        threshold_x: from here to the right a score would be flagged; None where no score can be.
        suspect_anchor: which end of the suspect's label stands at its line.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    radius: float
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    axis: str
    threshold_x: float | None
    suspect_x: float
    suspect_text: str
    suspect_anchor: Literal["start", "middle", "end"]
    description: str


def threshold(references: Sequence[Reference], alpha: float) -> float | None:
    """The score above which p <= alpha in every stratum.

    Args:
        references: the null.
        alpha: the level.

    Returns:
        A reference's score, to be exceeded; None where there are no references or too few for alpha.
    """
    highest = None
    for stratum in sorted({model.stratum for model in references}):
        scores = sorted((model.score for model in references if model.stratum == stratum), reverse=True)
        # p counts the suspect too: (1 + above) / (n + 1), so `allowed` references may score as high.
        allowed = sum((1 + above) / (len(scores) + 1) <= alpha for above in range(len(scores))) - 1
        if allowed < 0:
            return None
        highest = scores[allowed] if highest is None else max(highest, scores[allowed])
    return highest


def strip(verdict: Verdict, *, width: float = 720.0, beside: bool = True) -> Strip | None:
    """The plot of one verdict.

    Args:
        verdict: with its calibration.
        width: in pixels.
        beside: labels to the left of the rows; over them where the page is narrow.

    Returns:
        The geometry; None where there is nothing to compare the suspect with, or a score that no axis can hold.
    """
    groups = _groups(verdict)
    if not groups or not math.isfinite(verdict.evidence.score):
        return None
    suspect = verdict.evidence.score
    scores = [suspect, *(model.score for _, _, models in groups for model in models)]
    if max(scores) > FARTHEST or min(scores) < -FARTHEST:
        return None
    left, right = (LABELS if beside else 2.0) + EDGE, width - EDGE
    values = ticks(min(scores), max(scores), most=7 if beside else 5)
    low, high = values[0], values[-1]

    def place(score: float) -> float:
        return round(left + (score - low) / (high - low) * (right - left), 2)

    radius = _radius([[place(model.score) for model in models] for _, _, models in groups])
    digits, rows, y = decimals(scores), [], TOP
    for mark, label, models in groups:
        models = sorted(models, key=lambda model: (model.score, model.name, model.digest))
        levels = stack([place(model.score) for model in models], 2 * radius + 0.6)
        pitch = min(2 * radius + 0.6, TALLEST / (max(levels) + 1))
        top = y + (0 if beside else 20)
        base = round(top + max(26.0, (max(levels) + 1) * pitch + 6), 2)
        dots = tuple(
            Dot(
                x=place(model.score),
                y=round(base - radius - 1.5 - level * pitch, 2),
                text=f"{plain(model.name)}: {model.score:.{digits}f}",
            )
            for model, level in zip(models, levels, strict=True)
        )
        rows.append(
            Row(
                mark=mark,
                label=shortened(plain(label), 22 if beside else 28),
                count=plural(len(models), "model"),
                label_y=round((top + base) / 2 + 1 if beside else top - 4, 2),
                base=base,
                dots=dots,
            )
        )
        y = base + GAP
    limit, x = threshold(verdict.calibration.references, verdict.alpha), place(suspect)
    near = (x - left) / (right - left)
    return Strip(
        width=width,
        height=round(y + AXIS, 2),
        left=left,
        right=right,
        top=TOP - 6,
        bottom=round(y, 2),
        radius=radius,
        rows=tuple(rows),
        ticks=tuple(Tick(x=place(value), text=_tick_text(value, values)) for value in values),
        axis=f"score ({plain(verdict.evidence.statistic)}); higher is more alike",
        threshold_x=None if limit is None else place(limit),
        suspect_x=x,
        suspect_text=f"suspect {suspect:.{digits}f}",
        suspect_anchor="end" if near > 0.85 else "start" if near < 0.15 else "middle",
        description=_description(verdict, groups, digits),
    )


def stack(xs: Sequence[float], distance: float) -> list[int]:
    """For sorted positions, the lowest level at which each is at least `distance` from those before it."""
    last: list[float] = []
    levels = []
    for x in xs:
        level = next((i for i, other in enumerate(last) if x - other >= distance), len(last))
        if level == len(last):
            last.append(x)
        last[level] = x
        levels.append(level)
    return levels


def ticks(low: float, high: float, *, most: int) -> list[float]:
    """At most so many round numbers at equal distances; the first is <= low, the last >= high, and they differ."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        pad = 0.05 * max(1.0, abs(high))
        low, high = low - pad, high + pad
    scale = math.floor(math.log10((high - low) / most))
    for exponent in range(scale, scale + 3):
        for factor in (1, 2, 5):
            step = factor * 10.0**exponent
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            if last - first < most:
                return [round(i * step, 12 - exponent) for i in range(first, last + 1)]
    raise AssertionError("a step of 100 times the range divided by `most` holds two ticks")


def _groups(verdict: Verdict) -> list[tuple[Literal["reference", "derived"], str, list[Reference]]]:
    groups: list[tuple[Literal["reference", "derived"], str, list[Reference]]] = []
    marks: tuple[tuple[Literal["reference", "derived"], tuple[Reference, ...]], ...] = (
        ("reference", verdict.calibration.references),
        ("derived", verdict.calibration.derived),
    )
    for mark, models in marks:
        sound = [model for model in models if math.isfinite(model.score)]
        for stratum in ordered({model.stratum for model in sound}):
            groups.append((mark, stratum, [model for model in sound if model.stratum == stratum]))
    return groups


def _radius(rows: list[list[float]]) -> float:
    """The largest dots whose highest stack fits."""
    radius = RADIUS
    while radius > SMALLEST:
        highest = max(max(stack(sorted(row), 2 * radius + 0.6)) for row in rows) + 1
        if highest * (2 * radius + 0.6) <= TALLEST:
            break
        radius *= 0.85
    return round(max(radius, SMALLEST), 2)


def _tick_text(value: float, values: list[float]) -> str:
    step = values[1] - values[0]
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}" if 1e-6 < step < 1e6 else f"{value:.3g}"


def _description(verdict: Verdict, groups: Sequence[tuple[str, str, list[Reference]]], digits: int) -> str:
    parts = []
    for mark, label, models in groups:
        low, high = min(model.score for model in models), max(model.score for model in models)
        what = "references" if mark == "reference" else "known to be derived"
        span = f"at {low:.{digits}f}" if low == high else f"from {low:.{digits}f} to {high:.{digits}f}"
        parts.append(f"{plain(label)} ({what}): {plural(len(models), 'model')} {span}.")
    limit = threshold(verdict.calibration.references, verdict.alpha)
    if limit is not None:
        parts.append(f"Scores above {limit:.{digits}f} have p at most {significant(verdict.alpha)}.")
    return " ".join([f"The suspect scores {verdict.evidence.score:.{digits}f}.", *parts])
