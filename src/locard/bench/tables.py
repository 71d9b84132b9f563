"""A summary as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from locard.bench.figures import Family, Interval, Standing, Summary
from locard.bench.summary import needs
from locard.records import LADDER, Access

# From the least to the most; weights alone stand beside the ladder.
LEVELS = (*LADDER, Access.VALUES, Access.WEIGHTS, Access.MODULE)
Table = tuple[list[str], list[list[str]]]


def markdown(summary: Summary) -> str:
    """Leaderboards by access level, thefts, calibration, and what was refused, as one Markdown text."""
    parts = [
        f"{summary.n_thefts} thefts from {len(summary.victims)} victims, "
        f"innocents to be judged {_sizes(summary.innocents)}, references {_sizes(summary.references)}. "
        "Intervals are of 95%, over victims and models. \\* not to be relied on; ? not known whether.",
    ]
    for level in levels(summary):
        parts += [f"## {(level.name or '').lower()}", _markdown(leaderboard(summary, level))]
    parts += ["## Kinds of theft", _markdown(kinds(summary))]
    parts += ["## False accusations", _markdown(calibration(summary))]
    notes = [f"- {one.entry}{_budget(one)}: {one.reason}" for one in summary.standings if one.reason]
    notes += [f"- {one.entry}{_budget(one)}: {text}" for one in summary.standings if (text := _missing(one))]
    failed = ", ".join(f"{n} of {kind}" for kind, n in summary.failed.items())
    notes += [f"- failed thefts left out: {failed}"] if failed else []
    notes += [f"- refused: {_cell(text)}" for text in summary.refused]
    return "\n\n".join([*parts, *(["## Notes", "\n".join(notes)] if notes else [])]) + "\n"


def levels(summary: Summary) -> list[Access]:
    """The access levels at which an entry appears first, from the least."""
    shown: list[Access] = []
    seen: set[str] = set()
    for level in LEVELS:
        fitting = {one.access for one in summary.standings if needs(one.access) in level.implied}
        if fitting - seen:
            shown.append(level)
        seen |= fitting
    return shown


def leaderboard(summary: Summary, level: Access) -> Table:
    """Entries that need no more than that of a suspect, the best first."""
    head = ["scheme", "claim", "access", "queries", *(f"found at alpha {alpha:g}" for alpha in summary.alphas), "AUROC",
            *(f"TPR at FPR {fpr:g}" for fpr in summary.fprs), "ARUC", "accused", "seconds", "extraction"]  # fmt: skip
    rows = [
        [_name(one), one.claim, one.access.lower(), f"{one.queries:,.0f}", *(_share(row) for row in one.tpr.values()),
         _area(one.auroc), *(_share(row) for row in one.tpr_at_fpr.values()), _area(one.aruc),
         _worst(one, summary.alphas[0]), f"{one.seconds:.3g}", f"{one.extraction:.3g}"]
        for one in summary.standings
        if needs(one.access) in level.implied
    ]  # fmt: skip
    return head, rows


def kinds(summary: Summary, alpha: float | None = None) -> Table:
    """The share found of each kind of theft, with how many there are."""
    level = summary.alphas[0] if alpha is None else alpha
    rows = [[_name(one), *(_found(one.kinds.get(kind), level) for kind in summary.kinds)] for one in summary.standings]
    return [f"scheme, alpha {level:g}", *summary.kinds], rows


def calibration(summary: Summary) -> Table:
    """Actual false accusations by entry, stratum and alpha."""
    head = ["scheme", "stratum", "alpha", "as recorded", "over splits", "without its references", "p", "promise"]
    word = {True: "not shown broken", False: "broken", None: "untested"}
    rows = [
        [_name(one), row.stratum, f"{row.alpha:g}", _rate(row.holdout), _rate(row.rate), _rate(row.transfer),
         "-" if row.p is None else f"{row.p:.2g}", word[row.holds]]
        for one in summary.standings
        for row in one.calibration
    ]  # fmt: skip
    return head, rows


def to_csv(summary: Summary) -> str:
    """Every figure on a line of its own: what it is of, value, interval, error, sizes, and why it was refused."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(["entry", "scheme", "claim", "access", "budget", "queries", "reliable", "figure", "level", "of",
                    "value", "low", "high", "error", "n", "against", "why"])  # fmt: skip
    for one in summary.standings:
        start = [one.entry, one.scheme, one.claim, one.access, one.budget, f"{one.queries:g}",
                 {True: "yes", False: "no", None: "unknown"}[one.reliable]]  # fmt: skip
        figures: list[tuple[str, float | None, str, Interval]] = [("auroc", None, "all", one.auroc)]
        figures += [("aruc", None, "all", one.aruc)]
        figures += [("tpr", alpha, "all", row) for alpha, row in one.tpr.items()]
        figures += [("tpr at fpr", fpr, "all", row) for fpr, row in one.tpr_at_fpr.items()]
        for sort, parts in (("family", one.families), ("kind", one.kinds)):
            for name, part in parts.items():
                figures += [("auroc", None, f"{sort} {name}", part.auroc)]
                figures += [("tpr", alpha, f"{sort} {name}", row) for alpha, row in part.tpr.items()]
        for row in one.calibration:
            of = f"stratum {row.stratum}"
            figures += [("accused as recorded", row.alpha, of, row.holdout)]
            figures += [("accused over splits", row.alpha, of, row.rate)]
            figures += [("accused without its references", row.alpha, of, row.transfer)]
        for name, level, of, row in figures:
            numbers = [_number(x) for x in (row.value, row.low, row.high, row.error)]
            lines.writerow([*start, name, _number(level), of, *numbers, row.n, row.against, row.why])
    return out.getvalue()


def _markdown(table: Table) -> str:
    head, rows = table
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that is no markup of a table."""
    return " ".join(text.replace("|", "\\|").split())


def _name(one: Standing) -> str:
    mark = {True: "", False: " \\*", None: " ?"}[one.reliable]
    return f"{one.entry}{_budget(one)}{mark}"


def _budget(one: Standing) -> str:
    return f" at {one.budget:,}" if one.budget else ""


def _share(row: Interval) -> str:
    if row.value is None or row.low is None or row.high is None:
        return "-"
    return f"{row.value:.0%} ({row.low:.0%} to {row.high:.0%})"


def _area(row: Interval) -> str:
    if row.value is None or row.low is None or row.high is None:
        return "-"
    return f"{row.value:.3f} ({row.low:.2f} to {row.high:.2f})"


def _rate(row: Interval) -> str:
    if row.value is None:
        return "-"
    error = "" if row.error is None else f" ± {row.error:.1%}"
    most = "" if row.high is None else f", at most {row.high:.1%}"
    return f"{row.value:.1%}{error} of {row.n}{most}"


def _found(part: Family | None, alpha: float) -> str:
    if part is None or part.tpr[alpha].value is None:
        return "-"
    return f"{part.tpr[alpha].value:.0%} of {part.n_thefts}"


def _worst(one: Standing, alpha: float) -> str:
    """The largest share of any stratum that was accused."""
    known = [row for row in one.calibration if row.alpha == alpha and row.holdout.value is not None]
    if not known:
        return "-"
    worst = max(known, key=lambda row: row.holdout.value or 0.0)
    return f"{worst.holdout.value:.1%} of {worst.stratum}"


def _missing(one: Standing) -> str:
    lost = one.missing
    if not lost.thefts + lost.innocents + lost.references:
        return ""
    reasons = "; ".join(f"{reason} ({n})" for reason, n in lost.reasons.items())
    return (
        f"without a score are {lost.thefts} pairs with thefts, which count as missed, {lost.innocents} with innocents, "
        f"which count as not accused, and {lost.references} with references, which are left out: {_cell(reasons)}"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _sizes(strata: Mapping[str, int]) -> str:
    return f"{sum(strata.values())} ({', '.join(f'{n} {one}' for one, n in strata.items()) or 'none'})"
