"""Small line charts side by side as one SVG file: no plotting package, and the same numbers give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's colours, which the colour-blind tell apart; each line has a mark of its own beside.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = ("circle", "square", "diamond", "triangle", "cross")
WIDTH, HEIGHT, ACROSS = 270, 230, 4
LEFT, RIGHT, TOP, BOTTOM, LINE = 46, 10, 30, 42, 22
TICKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart.

    Args:
        title: above it.
        across: what the horizontal axis is.
        up: what the vertical axis is.
        lines: by name, points (x, y) from left to right.
        high: upper end of the vertical axis, which starts at 0.
        level: height of a dashed line, or None.
    """

    title: str
    across: str
    up: str
    lines: dict[str, list[tuple[float, float]]]
    high: float = 1.0
    level: float | None = None


def draw(panels: Sequence[Panel]) -> str:
    """The charts in rows of four, one legend below; a name has one colour and mark in all of them."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    rows = math.ceil(len(panels) / ACROSS)
    columns = min(ACROSS, len(panels))
    width, height = columns * WIDTH, rows * HEIGHT + LINE * math.ceil(len(names) / columns) + 12
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
             f'height="{height}" font-family="sans-serif" font-size="11">',
             f'<rect width="{width}" height="{height}" fill="white"/>']  # fmt: skip
    for i, panel in enumerate(panels):
        parts.append(f'<g transform="translate({i % ACROSS * WIDTH} {i // ACROSS * HEIGHT})">')
        parts += _panel(panel, names)
        parts.append("</g>")
    for i, name in enumerate(names):
        x, y = i % columns * WIDTH + LEFT, rows * HEIGHT + LINE * (i // columns) + 12
        parts += [f'<line x1="{x}" y1="{y}" x2="{x + 26}" y2="{y}" {_stroke(i)}/>',
                  _mark(i, x + 13, y), _text(x + 34, y + 4, name)]  # fmt: skip
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, names: list[str]) -> list[str]:
    inside, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = _step(max([x for line in panel.lines.values() for x, _ in line], default=0.0) or 1.0)
    wide = step * math.ceil(max([x for line in panel.lines.values() for x, _ in line], default=step) / step - 1e-9)
    low = min([0.0, *(x for line in panel.lines.values() for x, _ in line)])

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + inside * (x - low) / (max(wide, step) - low), TOP + tall * (1 - y / panel.high)

    floor, parts = at(low, 0)[1], [_text(LEFT, 18, panel.title, bold=True)]
    for i in range(TICKS + 1):
        y = at(low, panel.high * i / TICKS)[1]
        parts += [f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e4e4e4"/>',
                  _text(LEFT - 6, y + 4, f"{panel.high * i / TICKS:g}", anchor="end")]  # fmt: skip
    for i in range(round(max(wide, step) / step) + 1):
        x = at(i * step, 0)[0]
        parts += [f'<line x1="{x:.1f}" y1="{floor}" x2="{x:.1f}" y2="{floor + 4}" stroke="#888"/>',
                  _text(x, floor + 16, f"{i * step:g}", anchor="middle")]  # fmt: skip
    parts += [f'<line x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}" stroke="#888"/>',
              _text(LEFT + inside / 2, HEIGHT - 8, panel.across, anchor="middle"),
              f'<text transform="translate(13 {TOP + tall / 2}) rotate(-90)" text-anchor="middle">'
              f"{escape(panel.up)}</text>"]  # fmt: skip
    if panel.level is not None:
        y = at(low, panel.level)[1]
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#888" '
                     'stroke-dasharray="4 3"/>')  # fmt: skip
    for name, line in panel.lines.items():
        i = names.index(name)
        points = [at(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" {_stroke(i)}/>')
        parts += [_mark(i, x, y) for x, y in points]
    return parts


def _step(most: float) -> float:
    """A round distance between ticks, of which four or a few more make up the axis."""
    rough = most / TICKS
    unit = 10 ** math.floor(math.log10(rough))
    return next(unit * size for size in (1, 2, 5, 10) if unit * size >= rough * (1 - 1e-9))


def _stroke(i: int) -> str:
    """How a line is drawn; from the eighth on the colours come again, with dashes."""
    dashes = ' stroke-dasharray="5 3"' if i >= len(COLOURS) else ""
    return f'stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="1.6"{dashes}'


def _mark(i: int, x: float, y: float) -> str:
    colour, size = COLOURS[i % len(COLOURS)], 3.4
    match MARKS[i % len(MARKS)]:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}"/>'
        case "square":
            return f'<rect x="{x - size:.1f}" y="{y - size:.1f}" width="6.8" height="6.8" fill="{colour}"/>'
        case "cross":
            return (f'<path d="M{x - size:.1f} {y - size:.1f}l6.8 6.8m0 -6.8l-6.8 6.8" stroke="{colour}" '
                    'stroke-width="2"/>')  # fmt: skip
        case "diamond":
            return f'<path d="M{x:.1f} {y - 4.4:.1f}l4.4 4.4l-4.4 4.4l-4.4 -4.4z" fill="{colour}"/>'
        case _:
            return f'<path d="M{x:.1f} {y - 4.2:.1f}l4.2 7.4h-8.4z" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
