"""Reports of a comparison of weights: terminal, JSON, and one self-contained HTML page."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import locard
from locard.records import BlockFinding, WeightsVerdict
from locard.reports.numerals import plain
from locard.reports.rendering import environment

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
DECISIONS = {
    "derived": "The weights come from the victim's",
    "no-evidence": "No evidence of a common origin",
    "uncalibrated": "Units match, and nothing says yet what that is worth",
}


def weights_to_json(verdict: WeightsVerdict) -> dict[str, Any]:
    """A verdict on weights as plain JSON values; a number that is not finite is null."""
    value = asdict(verdict)
    findings = value.pop("findings")
    value["blocks"] = findings.pop("blocks")
    return _finite({"schema": SCHEMA, "locard": locard.__version__, "report": "weights", **value, **findings})


def weights_to_terminal(verdict: WeightsVerdict, console: Console) -> None:
    """Print a verdict on weights, one line a block."""
    from rich.table import Table
    from rich.text import Text

    def text(words: str, style: str = "") -> Text:
        return Text(plain(words).encode(console.encoding, "backslashreplace").decode(console.encoding), style=style)

    console.print(text(f"{headline(verdict)}.", "bold"))
    for reason in (*verdict.reasons, *verdict.findings.notes):
        console.print(text(reason))
    facts = Table.grid(padding=(0, 2, 0, 0))
    for name, value in figures(verdict):
        facts.add_row(text(name, "dim"), text(value))
    console.print(facts)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(TITLES):
        table.add_column(title, justify="right" if number else "left")
    for block in verdict.findings.blocks:
        table.add_row(*map(text, row(block)))
    console.print(table)


def weights_to_html(verdict: WeightsVerdict) -> str:
    """A verdict on weights as a page without scripts, that loads nothing; the same record gives the same text."""
    shared = set(verdict.shared)
    return environment().get_template("weights.html.jinja").render(
        verdict=verdict,
        headline=headline(verdict),
        figures=figures(verdict),
        titles=TITLES,
        rows=[(row(block), block.name in shared) for block in verdict.findings.blocks],
    )  # fmt: skip


def headline(verdict: WeightsVerdict) -> str:
    """The decision in words, and whether it is of the whole model."""
    words = DECISIONS[verdict.decision]
    return f"{words}, in part of its blocks" if verdict.extent == "partial" else words


def figures(verdict: WeightsVerdict) -> list[tuple[str, str]]:
    """Names and values of the verdict's figures."""
    match = "none: no references were given" if verdict.match_p is None else f"{verdict.match_p:.3g}"
    largest = "" if verdict.largest_reference is None else f"; the largest reference {verdict.largest_reference:.1%}"
    matched = "none to match" if verdict.matched_fraction is None else f"{verdict.matched_fraction:.1%}{largest}"
    modelled = ", ".join(f"{name} 10^{value:.1f}" for name, value in verdict.modelled.items())
    residual = verdict.findings.residual
    return [
        ("p-value", f"{verdict.p_value:.3g} (at least {verdict.p_value_floor:.3g}; alpha {verdict.alpha:g})"),
        ("p of the order", f"{verdict.order_p:.3g}"),
        ("p of the match", match),
        ("modelled", f"{modelled} (asymptotic or by decoys; decides nothing)" if modelled else "nothing"),
        ("units matched", matched),
        ("stream aligned", verdict.findings.alignment + ("" if residual is None else f", {residual:.2g} unexplained")),
        ("set aside", f"{len(verdict.findings.constants)} constants"),
        ("victim", f"{verdict.victim.digest[:16]}  {verdict.victim.source}"),
        ("suspect", f"{verdict.suspect.digest[:16]}  {verdict.suspect.source}"),
    ]


TITLES = ("block", "units", "looked at", "z of order", "cosine", "matched", "margin")


def row(block: BlockFinding) -> tuple[str, ...]:
    """A line of the blocks' table; what could not be had is a dash."""
    return (
        block.name,
        f"{block.units:,}",
        f"{block.asked:,}",
        "-" if block.z is None else f"{block.z:.1f}",
        "-" if block.cosine is None else f"{block.cosine:.2f}",
        "-" if block.matched is None else f"{block.matched:.0%}",
        f"{block.margin:.2f}",
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
