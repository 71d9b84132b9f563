"""Agreement against budget as one SVG: both axes logarithmic, so that budgets and good copies do not crowd.

No plotting package is needed, and the same numbers give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

# Okabe and Ito's colours, which the colour-blind tell apart, each with a mark of its own; others' lines are dashed.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00")
THEIRS = ("#000000", "#6b6b6b", "#a0a0a0")
MARKS = ("M0 -4L4 0L0 4L-4 0Z", "M-3.4 -3.4H3.4V3.4H-3.4Z", "M0 -4.2L4.2 3.2H-4.2Z", "M0 4.2L4.2 -3.2H-4.2Z",
         "M-3.8 0A3.8 3.8 0 1 0 3.8 0A3.8 3.8 0 1 0 -3.8 0Z")  # fmt: skip
INK, SOFT, RULE = "#1c1b1a", "#5c5a56", "#e3e0d9"
LEFT, TOP, WIDE, TALL, GAP, LINE = 56, 46, 370, 380, 62, 20
TICKS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99)
Line = Sequence[tuple[int, float]]


def draw(panels: Mapping[str, Mapping[str, Line]], *, level: float, theirs: str) -> str:
    """Panels side by side, one legend below; a name has one colour and mark in all of them.

    Args:
        panels: by title, lines by name: (budget, agreement) with agreement below 1, from left to right.
        level: height of a dashed line.
        theirs: what the names begin with whose lines are dashed.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    points = [point for lines in panels.values() for line in lines.values() for point in line]
    budgets = sorted({budget for budget, _ in points})
    heights = [_height(agreement) for _, agreement in [*points, (0, level)]]
    ticks = [tick for tick in TICKS if min(heights) <= _height(tick) <= max(heights)]
    low, high = min(heights) - 0.06, max(heights) + 0.06
    spread = math.log(budgets[-1] / budgets[0]) or 1.0
    width = LEFT + len(panels) * (WIDE + GAP) - GAP + 24
    columns = 3
    height = TOP + TALL + 62 + LINE * math.ceil(len(names) / columns)

    def across(budget: int) -> float:
        return 14 + (WIDE - 28) * math.log(budget / budgets[0]) / spread

    def down(agreement: float) -> float:
        return TALL * (high - _height(agreement)) / (high - low)

    looks = {name: _look(name, names, theirs) for name in names}
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
             f'height="{height}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
             f'<rect width="{width}" height="{height}" fill="#ffffff"/>']  # fmt: skip
    for number, (title, lines) in enumerate(panels.items()):
        parts += [f'<g transform="translate({LEFT + number * (WIDE + GAP)} {TOP})">',
                  f'<text x="0" y="-18" font-size="14" font-weight="600">{escape(title)}</text>']  # fmt: skip
        for tick in ticks:
            y = down(tick)
            parts += [f'<path d="M0 {y:.1f}H{WIDE}" stroke="{RULE}"/>',
                      f'<text x="-8" y="{y + 4:.1f}" text-anchor="end" fill="{SOFT}">{tick:.0%}</text>']  # fmt: skip
        for budget in budgets:
            parts += [f'<path d="M{across(budget):.1f} {TALL}v5" stroke="{SOFT}"/>',
                      f'<text x="{across(budget):.1f}" y="{TALL + 19}" text-anchor="middle" fill="{SOFT}">'
                      f"{budget:,}</text>"]  # fmt: skip
        parts += [f'<path d="M0 {TALL}H{WIDE}" stroke="{SOFT}"/>',
                  f'<path d="M0 {down(level):.1f}H{WIDE}" stroke="{SOFT}" stroke-dasharray="2 3"/>',
                  f'<text x="{WIDE / 2}" y="{TALL + 39}" text-anchor="middle">queries</text>']  # fmt: skip
        for name, line in lines.items():
            colour, dashes, mark = looks[name]
            path = "L".join(f"{across(budget):.1f} {down(agreement):.1f}" for budget, agreement in line)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>')
            parts += [f'<path transform="translate({across(budget):.1f} {down(agreement):.1f})" d="{mark}" '
                      f'fill="{colour}"><title>{escape(name)}, {budget:,} queries: {agreement:.1%}</title></path>'
                      for budget, agreement in line]  # fmt: skip
        parts.append("</g>")
    for number, name in enumerate(names):
        colour, dashes, mark = looks[name]
        x, y = LEFT + number % columns * (width - LEFT) / columns, TOP + TALL + 62 + LINE * (number // columns)
        parts += [f'<path d="M{x:.1f} {y}h30" stroke="{colour}" stroke-width="1.8"{dashes}/>',
                  f'<path transform="translate({x + 15:.1f} {y})" d="{mark}" fill="{colour}"/>',
                  f'<text x="{x + 38:.1f}" y="{y + 4}">{escape(name)}</text>']  # fmt: skip
    return "\n".join([*parts, "</svg>"]) + "\n"


def _height(agreement: float) -> float:
    """What is left to agree on, on a logarithmic scale."""
    return -math.log(1 - agreement)


def _look(name: str, names: Sequence[str], theirs: str) -> tuple[str, str, str]:
    """Colour, dashes and mark."""
    kind = [other for other in names if other.startswith(theirs) == name.startswith(theirs)]
    place, dashed = kind.index(name), name.startswith(theirs)
    colours = THEIRS if dashed else COLOURS
    return (colours[place % len(colours)], ' stroke-dasharray="6 3"' if dashed else "", MARKS[place % len(MARKS)])
