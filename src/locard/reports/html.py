"""One self-contained HTML page: no network, no script, no font of its own; for a screen, a telephone and A4 paper.

All that comes from models and data is a stranger's, and the page's own policy forbids scripts and loading.
"""

from __future__ import annotations

from dataclasses import dataclass

from locard.errors import ParameterError
from locard.records import Comparison, Verdict
from locard.reports import numerals, wording
from locard.reports.pictures import Shown, columns, shown
from locard.reports.plots import Strip, strip
from locard.reports.rendering import environment

NARROW = 340.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stratum:
    """A line of the null's table; `n` is 0 where no such model was given."""

    name: str
    meaning: str
    n: int
    above: int
    p: str
    decides: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One verdict, with what the templates draw of it. `key` tells the parts of a page apart."""

    key: str
    verdict: Verdict
    wide: Strip | None
    narrow: Strip | None
    strata: tuple[_Stratum, ...]
    queries: tuple[Shown, ...]
    columns: tuple[str, ...]


def to_html(result: Verdict | Comparison) -> str:
    """A verdict or a comparison as a page that can be mailed, printed and read without a network.

    Args:
        result: what to report.

    Returns:
        A whole HTML document; the same records give the same text.

    Raises:
        ParameterError: neither a verdict nor a comparison.
    """
    if not isinstance(result, Verdict | Comparison):
        raise ParameterError(f"a report is made of a Verdict or a Comparison; got {type(result).__name__}")
    single = isinstance(result, Verdict)
    verdicts = (result,) if single else result.evidence
    template = environment().get_template("verdict.html.jinja" if single else "comparison.html.jinja")
    return template.render(
        result=result,
        single=single,
        parts=[_part(f"s{i}", verdict) for i, verdict in enumerate(verdicts, start=1)],
        seconds=sum(verdict.seconds for verdict in verdicts),
        reproduce=next((verdict.reproduce for verdict in verdicts if verdict.reproduce), None),
    )


def _part(key: str, verdict: Verdict) -> _Part:
    exhibit = verdict.exhibit
    return _Part(
        key=key,
        verdict=verdict,
        wide=strip(verdict),
        narrow=strip(verdict, width=NARROW, beside=False),
        strata=_strata(verdict),
        queries=() if exhibit is None else shown(exhibit, verdict.calibration),
        columns=() if exhibit is None or exhibit.domain.kind != "tabular" else columns(exhibit.domain),
    )


def _strata(verdict: Verdict) -> tuple[_Stratum, ...]:
    null, ranks = verdict.evidence.null, numerals.ranks(verdict.evidence)
    given = [
        _Stratum(
            name=name,
            meaning=wording.STRATA.get(name, ""),
            n=ranks[name].n,
            above=ranks[name].above,
            p=f"{numerals.p_number(verdict.evidence.p_values[name], verdict.alpha)} ({ranks[name].text})",
            decides=name == wording.decides(verdict),
        )
        for name in wording.ordered(ranks)
    ]
    missing = [
        _Stratum(name=name, meaning=wording.STRATA.get(name, ""), n=0, above=0, p="", decides=False)
        for name in null.missing
    ]
    return (*given, *missing)
