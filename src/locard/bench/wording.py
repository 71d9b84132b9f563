"""What the page of a bench says in words, and how it writes a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from locard.bench.figures import Calibration, Interval, Standing, Summary
from locard.bench.summary import needs
from locard.records import Access
from locard.reports.glossary import GLOSSARY
from locard.reports.numerals import listing, plural, significant

NONE = "–"

# What a judge may hold, by name; each shows what those before it show.
LEVELS = {
    "labels": Access.LABELS,
    "probabilities": Access.PROBABILITIES | Access.VALUES,
    "logits": Access.LOGITS | Access.VALUES,
    "gradients": Access.GRADIENTS | Access.VALUES,
    "module": Access.MODULE | Access.VALUES,
}
_FIRST = ("victim", "suspect", "fingerprint", "score", "reference", "group", "p-value", "alpha", "access")
TERMS: dict[str, tuple[str, str]] = {key: GLOSSARY[key] for key in _FIRST} | {
    "found": (
        "Found at alpha",
        "The share of thefts whose p-value is at most alpha: how many would be flagged by a judge who holds reference "
        "models and has promised to accuse at most that share of innocents.",
    ),
    "false-accusation": (
        "False accusation",
        "An innocent model, of those kept for judging, whose p-value is at most alpha. A scheme that accuses more of "
        "them than alpha, beyond chance, has broken its promise.",
    ),
    "auroc": (
        "AUROC",
        "The probability that a theft scores higher than an innocent model before the same victim; 0.5 is blind, 1 is "
        "perfect. It says nothing of where a judge would put the threshold.",
    ),
    "tpr-at-fpr": (
        "Found at an FPR",
        "The share of thefts above a threshold that the judged innocents set afterwards, so that at most that share of "
        "them lies above it. A judge does not know this threshold; compare Found at alpha.",
    ),
    "aruc": (
        "ARUC",
        "Area under the lower of two curves over the threshold: the share of thefts at or above it, and the share of "
        "innocents below it.",
    ),
    "budget": ("Queries", "How many inputs the suspect is asked. Own: as many as the scheme asks by default."),
}

ERRORS = (
    "Intervals are of 95%, over victims and models, thefts and innocents, never over queries; and as wide as so few "
    "victims make them (Student's). Where models are counted, they are at least those of so many independent models.",
    "With one victim they are over models alone, and the luck of its references does not show in them.",
    "Intervals of false accusations hold what is largest: the error over models, over victims, over both, or that of "
    "the draw of the references.",
    "They cover which victims and models this recipe happened to make. They do not cover other data, other "
    "architectures, thefts that were not tried, or thieves who know the scheme.",
    "Scores are compared within one victim only; figures over several victims are means of theirs. A model that is "
    "judged by several victims counts as one.",
    "Each interval is of one scheme. Where those of two overlap, the figures do not say which is better.",
)


def level(access: str) -> int:
    """The place in `LEVELS` from which on an entry can be used.

    Args:
        access: as `Access.text` says it.

    Raises:
        ParameterError: a grant that there is none of.
    """
    needed = needs(access)
    return next(place for place, held in enumerate(LEVELS.values()) if needed in held.implied)


def share(value: float | None) -> str:
    """A share in whole percent; only 0 is "0%" and only 1 is "100%"."""
    if value is None:
        return NONE
    if 0 < value < 0.01:
        return "<1%"
    return "99%" if 0.99 < value < 1 else f"{value:.0%}"


def figure(value: float | None) -> str:
    """An area: two digits after the point, three where it nears 1; only 1 is "1"."""
    if value is None:
        return NONE
    text = f"{value:.2f}" if value < 0.985 else f"{value:.3f}"
    return "1" if value == 1 else ">0.999" if float(text) == 1 else text


def between(interval: Interval, *, shares: bool = True) -> str:
    """As in "85 to 96%", or "" where there is no interval."""
    if interval.value is None or interval.low is None or interval.high is None:
        return ""
    if not shares:
        return f"{figure(interval.low)} to {figure(interval.high)}"
    return f"{share(interval.low).removesuffix('%')} to {share(interval.high)}"


def rank(standing: Standing) -> int:
    """Where it stands whatever it finds: claims apart, and what breaks its promise last."""
    claims = ("derived", "trained-on", "identical")
    return len(claims) if standing.reliable is False else claims.index(standing.claim)


def budget(number: int) -> str:
    """A number of queries asked for, as a choice."""
    return "the scheme's own number" if number == 0 else f"{number:,}"


def worst(standing: Standing, alpha: float) -> Calibration | None:
    """The stratum whose innocents are accused most at this alpha, or None where none was judged."""
    known = [c for c in standing.calibration if c.alpha == alpha and c.holdout.value is not None]
    return max(known, key=lambda c: c.holdout.value or 0.0, default=None)


def calibration(standing: Standing, stratum: str, alpha: float) -> Calibration | None:
    """What became of the innocents of this stratum at this alpha, or None where none was judged."""
    return next((c for c in standing.calibration if (c.stratum, c.alpha) == (stratum, alpha)), None)


def found(standing: Standing, kind: str, alphas: Iterable[float]) -> list[Interval | None]:
    """By alpha, the share found of one kind of theft; None where there is no such theft."""
    thefts = standing.kinds.get(kind)
    return [None if thefts is None else thefts.tpr[alpha] for alpha in alphas]


def accused(standing: Standing, stratum: str, alphas: Iterable[float]) -> list[Interval | None]:
    """By alpha, the share of innocents of one stratum that is accused; None where none was judged."""
    known = (calibration(standing, stratum, alpha) for alpha in alphas)
    return [None if c is None else c.holdout for c in known]


def splits(standing: Standing, alpha: float) -> str:
    """The largest rate over the strata, averaged over random splits; or ""."""
    rates = [c.rate.value for c in standing.calibration if c.alpha == alpha and c.rate.value is not None]
    return f"over splits: {share(max(rates))}" if rates else ""


def counts(by_name: Mapping[str, int]) -> str:
    """As in "weights 144, extraction 96"."""
    return ", ".join(f"{name} {n:,}" for name, n in by_name.items())


def opening(summary: Summary) -> str:
    """What was done, in one sentence."""
    schemes = len({standing.entry for standing in summary.standings})
    return (
        f"{plural(schemes, 'scheme')} {'was' if schemes == 1 else 'were'} judged on "
        f"{plural(len(summary.victims), 'victim')}: how many of {plural(summary.n_thefts, 'theft')} in "
        f"{plural(len(summary.kinds), 'kind')} each finds, and how many of "
        f"{plural(sum(summary.innocents.values()), 'innocent model')} it accuses."
    )


def missing(standings: Iterable[Standing]) -> list[tuple[str, str, str]]:
    """For each entry with pairs that have no score: its name, how many of what, and why."""
    rows = []
    for standing in standings:
        lacks = standing.missing
        parts = (("theft", lacks.thefts), ("innocent", lacks.innocents), ("reference", lacks.references))
        told = listing(plural(n, one) for one, n in parts if n)
        if told:
            why = "; ".join(f"{reason or 'no reason was given'} ({n:,})" for reason, n in lacks.reasons.items())
            rows.append((f"{standing.entry}, {queries(standing)}", told, why))
    return rows


def refused(summary: Summary) -> dict[str, list[str]]:
    """By figure, why it was refused and to which entries."""
    by_figure: dict[str, list[str]] = {}
    for text in summary.refused:
        name, _, why = text.partition(": ")
        by_figure.setdefault(name, []).append(why)
    return by_figure


def queries(standing: Standing) -> str:
    """As in "100 queries"."""
    return plural(round(standing.queries), "query", "queries")


def number(x: float) -> str:
    """Seconds at two digits."""
    return "<0.001" if 0 < x < 0.001 else significant(x) if x < 100 else f"{x:,.0f}"
