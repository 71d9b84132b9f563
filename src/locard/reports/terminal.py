"""Reports for a terminal of 80 columns, readable without colour and without letters beyond ASCII."""

from __future__ import annotations

from typing import TYPE_CHECKING

from locard.errors import ParameterError
from locard.records import Comparison, Verdict
from locard.reports import wording
from locard.reports.numerals import p_number, plain, plural, ranks, significant

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

STYLES = {
    "derived": "bold yellow",
    "altered": "bold yellow",
    "trained-on": "bold yellow",
    "no-evidence": "bold",
    "uncalibrated": "bold",
}


def to_terminal(result: Verdict | Comparison, console: Console) -> None:
    """Print a verdict or a comparison.

    Args:
        result: what to report.
        console: where to; its own settings decide on width, colour and letters.

    Raises:
        ParameterError: neither a verdict nor a comparison.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.panel import Panel

    if not isinstance(result, Verdict | Comparison):
        raise ParameterError(f"a report is made of a Verdict or a Comparison; got {type(result).__name__}")
    letters = console.encoding
    blocks: list[RenderableType] = []
    if isinstance(result, Comparison):
        blocks += [_schemes(result, letters), _grid(_joint_facts(result), letters)]
        skipped = [("skipped", f"{name}: {why}") for name, why in result.skipped.items()]
        p = result.p_value
    else:
        blocks.append(_grid(_facts(result), letters))
        skipped, p = [], result.evidence.p_value
    notices = [*skipped, *(("warning", notice.text) for notice in result.warnings)]
    if notices:
        blocks.append(_grid(notices, letters, style="yellow"))
    if p is not None:
        sentence = f"{wording.CAUTION_TITLE} {wording.caution_line(result)}"
        blocks.append(_text(sentence, letters, style="dim"))
    top = [
        _text(f"{wording.headline(result)}.", letters, style="bold"),
        _text(wording.statement(result), letters),
    ]
    title = _text(f" {wording.DECISIONS[result.decision]} ", letters, style=STYLES[result.decision])
    console.print(
        Panel(Group(*top, *(Padding(block, (1, 0, 0, 0)) for block in blocks)), title=title, title_align="left")
    )


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    evidence, floor = verdict.evidence, wording.at_floor(verdict)
    facts = [
        ("scheme", f"{verdict.scheme} (claim: {verdict.claim})"),
        ("score", f"{wording.score(verdict)} ({evidence.statistic}; higher is more alike)"),
        ("p-value", wording.p_value(verdict) + (f", {floor}" if floor else "")),
        ("alpha", significant(verdict.alpha)),
        ("references", wording.references(verdict)),
    ]
    places = ranks(evidence)
    if len(places) > 1:
        numbers = (f"{name} {p_number(evidence.p_values[name], verdict.alpha)}" for name in wording.ordered(places))
        decides = wording.decides(verdict)
        facts.append(("p by group", ", ".join(numbers) + (f"; {decides} decides" if decides else "")))
    if evidence.null.missing and evidence.null.kind == "reference":
        facts.append(("not tested", ", ".join(evidence.null.missing)))
    power = "not known: " + (verdict.power_reason or "no derived models were given")
    if verdict.power:
        power = "\n".join(f"{row.kind}: {wording.power_row(row)}" for row in verdict.power)
    return [
        *facts,
        ("power", power),
        ("queries", wording.cost(verdict.queries, verdict.seconds)),
        ("access", f"{verdict.access_used} (needed: {verdict.access_needed})"),
        ("fingerprint", verdict.fingerprint.digest[:16]),
        ("suspect", f"{verdict.suspect.digest[:16]}  {verdict.suspect.source}"),
    ]


def _joint_facts(comparison: Comparison) -> list[tuple[str, str]]:
    floor, seconds = wording.at_floor(comparison), sum(verdict.seconds for verdict in comparison.evidence)
    return [
        ("p-value", wording.p_value(comparison) + (f", {floor}" if floor else "")),
        ("alpha", significant(comparison.alpha)),
        ("combined by", comparison.method),
        ("queries", wording.cost(comparison.queries, seconds)),
        ("suspect", f"{comparison.suspect.digest[:16]}  {comparison.suspect.source}"),
    ]


def _schemes(comparison: Comparison, letters: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("scheme", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("p", no_wrap=True)
    table.add_column("by itself", no_wrap=True)
    table.add_column("references", justify="right", no_wrap=True)
    for verdict in comparison.evidence:
        table.add_row(
            _text(verdict.scheme, letters),
            wording.score(verdict),
            wording.p_value(verdict).removeprefix("p = ").removesuffix(" p-value"),
            wording.DECISIONS[verdict.decision],
            plural(verdict.evidence.null.n, "model"),
        )
    return table


def _grid(rows: list[tuple[str, str]], letters: str, style: str = "dim") -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style=style)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, _text(text, letters))
    return table


def _text(text: str, letters: str, style: str = "") -> Text:
    """Text as it stands, without markup, for a model's name may hold brackets; strange letters are written out."""
    from rich.text import Text

    return Text(plain(text).encode(letters, "backslashreplace").decode(letters), style=style)
