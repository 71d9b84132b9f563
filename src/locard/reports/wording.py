"""Sentences that the terminal, JSON and the page share, so that no two of them say different things.

ASCII only, because a terminal may know nothing else. A sentence claims no more than the numbers do: a p-value is the
probability of so high a score from an innocent model, never the probability of innocence; and a suspect that was not
flagged is not called innocent.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from locard.records import Claim, Comparison, Cost, Decision, Notice, Null, Power, Verdict
from locard.reports.numerals import Rank, decimals, listing, p_number, percent, plural, ranks, significant

DECISIONS: dict[Decision, str] = {
    "derived": "derived",
    "no-evidence": "no evidence",
    "uncalibrated": "uncalibrated",
    "altered": "altered",
    "trained-on": "trained on",
}

STRATA = {
    "disjoint": "trained on data disjoint from the victim's",
    "same-data": "trained on the victim's data, with another architecture",
    "same-architecture": "trained on the victim's data with the victim's architecture, from another start",
    "foreign-theft": "derived from a model other than the victim",
    "unstated": "independent of the victim; how near to it was not stated",
}

CAUTION_TITLE = "This is not a probability of guilt."
_CAUTION = (
    "The p-value answers: if the suspect had been made independently, how often would its score be this high? It does "
    "not answer: given this score, how probable is it that the suspect was derived? The second depends on everything "
    "else that is known of the case, such as who had access to what, and how many suspects were tried."
)
_IDENTITY_CAUTION = (
    "An answer that differs tells that the suspect computes otherwise than the victim did when its fingerprint was "
    "taken. It does not tell what was changed, why, or by whom; and where all answers agree, a change may still have "
    "been made that moves none of them."
)
_NO_RATE = (
    "A score says how alike two models answer, and good models of one task are alike however they were made. How high "
    "is high can only be learnt from models known to be independent, scored in the same way."
)


_IDENTITY = {
    True: "A model that was left alone answers every query as it did before; this one does not.",
    False: "It answers every query as the victim did. A change that moves none of these answers would not be seen.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """How one claim is spoken of."""

    shown: str  # "Evidence that the suspect ..."
    kind: str  # "40 ... models"
    innocent: str  # "If it had been ..."
    denied: str  # "This does not show that it was ..."


_WORDS: dict[Claim, _Words] = {
    "derived": _Words(
        shown="was derived from the victim",
        kind="independently made",
        innocent="been made independently",
        denied="was made independently",
    ),
    "identical": _Words(
        shown="is the victim, unchanged",
        kind="independently made",
        innocent="been another model",
        denied="is another model",
    ),
    "trained-on": _Words(
        shown="was trained on the owner's data",
        kind="independently made",
        innocent="been trained without these data",
        denied="was trained without these data",
    ),
}


def headline(result: Verdict | Comparison) -> str:
    """The decision in one line."""
    words = _words(result)
    if result.decision == "uncalibrated":
        return "A score without an error rate" if isinstance(result, Verdict) else "Scores without an error rate"
    if result.decision == "altered":
        return "Evidence that the suspect is not the victim unchanged"
    if result.decision in ("derived", "trained-on"):
        return f"Evidence that the suspect {words.shown}"
    if too_few(result):
        return f"Too few reference models to decide at alpha = {significant(result.alpha)}"
    if words is _WORDS["identical"]:
        return "No evidence that the suspect was altered"
    return f"No evidence that the suspect {words.shown}"


def caution(result: Verdict | Comparison) -> str:
    """What the figures must not be taken for."""
    if result.decision == "uncalibrated":
        return _NO_RATE
    return _IDENTITY_CAUTION if _identity(result) else _CAUTION


def caution_line(result: Verdict | Comparison) -> str:
    """The same in one sentence."""
    if _identity(result):
        return "An answer that differs tells that something changed, not what, why or by whom."
    known = "saw none of the owner's data" if _words(result) is _WORDS["trained-on"] else "was made independently"
    return f"p is how often a model that {known} scores so high."


def _identity(result: Verdict | Comparison) -> bool:
    return isinstance(result, Verdict) and result.claim == "identical"


def too_few(result: Verdict | Comparison) -> bool:
    """Whether no score at all could have been flagged at this alpha."""
    floor = result.evidence.p_value_floor if isinstance(result, Verdict) else result.p_value_floor
    return floor is not None and floor > result.alpha


def statement(result: Verdict | Comparison) -> str:
    """What was found, with its error rate, in plain words."""
    return _combined(result) if isinstance(result, Comparison) else _claim(result)


def _claim(verdict: Verdict) -> str:
    evidence, words = verdict.evidence, _words(verdict)
    scored = f"The suspect scores {score(verdict)} ({evidence.statistic}; higher is more alike)."
    if verdict.claim == "identical":
        return f"{scored} {_IDENTITY[verdict.decision == 'altered']}"
    if evidence.p_value is None:
        return (
            f"{scored} No {words.kind} models were scored, so nothing says how often such a model would score as high. "
            "By itself the score is no evidence."
        )
    rank, found = _deciding(verdict), scored
    rate, given = percent(evidence.p_value, verdict.alpha), ""
    if rank is not None:
        found, given = _found(verdict), _given(verdict)
        rate = f"{rank.odds} ({rate})"
    would = f"If it had {words.innocent}{given}, a score this high would occur with probability"
    if verdict.decision in ("derived", "trained-on"):
        return f"{found} {would} at most {rate}."
    denial = f"This does not show that it {words.denied}."
    if too_few(verdict):
        return f"{found} {would} at most {rate}. {_need(verdict.alpha, evidence.null)} {denial}"
    return f"{found} {would} up to {rate}, more than the {percent(verdict.alpha)} allowed. {denial}"


def _found(verdict: Verdict) -> str:
    n, kind = verdict.evidence.null.n, _words(verdict).kind
    above = sum(rank.above for rank in ranks(verdict.evidence).values())
    if n == 1:
        only = f"the only {kind} model at hand"
        if above == 0:
            return f"The suspect agrees with the victim more than {only}."
        return f"{only[0].upper()}{only[1:]} agrees with the victim at least as much as the suspect does."
    if above == 0:
        return f"The suspect agrees with the victim more than every one of {n:,} {kind} models."
    if above <= n / 2:
        return f"The suspect agrees with the victim more than all but {above:,} of {n:,} {kind} models."
    of = f"All {n:,}" if above == n else f"{above:,} of {n:,}"
    return f"{of} {kind} models agree with the victim at least as much as the suspect does."


def _given(verdict: Verdict) -> str:
    null = verdict.evidence.null
    if len(null.strata) == 1 or null.deciding is None:
        return ", as that model was" if null.n == 1 else ", as those models were"
    if not decides(verdict):
        return f", as the models of any one of these {len(null.strata)} groups were"
    n = null.strata[null.deciding]
    group = f"the {plural(n, 'model')} of the group '{null.deciding}'"
    return f", as {group} {'was' if n == 1 else 'were'} (the group with the largest p-value)"


def decides(verdict: Verdict) -> str | None:
    """The group whose p-value is the reported one, or None where there is one group or all agree."""
    evidence = verdict.evidence
    return evidence.null.deciding if len(set(evidence.p_values.values())) > 1 else None


def ordered(strata: Iterable[str]) -> list[str]:
    """Strata from far to near, those that we do not know last."""
    known = list(STRATA)
    return sorted(strata, key=lambda stratum: (known.index(stratum) if stratum in known else len(known), stratum))


def _need(alpha: float, null: Null) -> str:
    need = plural(math.ceil(1 / max(alpha, sys.float_info.min) - 1 - 1e-9), "reference model")
    group = "" if len(null.strata) == 1 else " in each group"
    return f"No score could have been flagged at alpha = {significant(alpha)}: that needs {need}{group}."


def _combined(comparison: Comparison) -> str:
    words, p = _words(comparison), comparison.p_value
    used = [v for v in comparison.evidence if v.claim == "derived" and v.evidence.p_value is not None]
    if p is None:
        return (
            f"{plural(len(comparison.evidence), 'scheme')} scored the suspect, but no {words.kind} models were scored, "
            "so nothing says how often such a model would score as high. By themselves the scores are no evidence."
        )
    rank = combined_rank(comparison)
    rate = percent(p, comparison.alpha) if rank is None else f"{rank.odds} ({percent(p, comparison.alpha)})"
    schemes = plural(len(used), "scheme")
    together, event = ("", "a score this high") if len(used) == 1 else (" together", "a joint rank this high")
    if comparison.method == "bonferroni":
        event = "a p-value this small under any of them"
    found = f"{schemes} judged the suspect{together}."
    would = f"{found} If it had {words.innocent}, as the reference models were, {event} would occur with probability"
    if comparison.decision == "derived":
        return f"{would} at most {rate}."
    denial = f"This does not show that it {words.denied}."
    if too_few(comparison):
        alpha = significant(comparison.alpha)
        return f"{would} at most {rate}. No scores could have been flagged at alpha = {alpha}. {denial}"
    return f"{would} up to {rate}, more than the {percent(comparison.alpha)} allowed. {denial}"


def combined_rank(comparison: Comparison) -> Rank | None:
    """The rank that a combined p-value stands for, or None where it is no rank."""
    if comparison.method != "conformal rank" or comparison.p_value is None:
        return None
    sizes = {n for verdict in comparison.evidence for n in verdict.evidence.null.strata.values()}
    for n in sorted(sizes, reverse=True):
        if abs((count := comparison.p_value * (n + 1)) - round(count)) < 1e-6:
            return Rank.of(comparison.p_value, n)
    return None


def p_value(result: Verdict | Comparison) -> str:
    """As in "p = 0.024 (1 of 41)"; or that there is none."""
    if isinstance(result, Comparison):
        p, rank, kind = result.p_value, combined_rank(result), ""
        schemes = sum(v.claim == "derived" and v.evidence.p_value is not None for v in result.evidence)
        kind = f" (Bonferroni, {plural(schemes, 'scheme')})" if result.method == "bonferroni" else ""
    else:
        p, rank = result.evidence.p_value, _deciding(result)
        kind = " (exact)" if result.evidence.null.kind == "exact" else ""
    if p is None:
        return "no p-value"
    return f"p = {p_number(p, result.alpha)}{kind if rank is None else f' ({rank.text})'}"


def at_floor(result: Verdict | Comparison) -> str | None:
    """That p is the smallest it could have been, or None where it is not, or no reference bounds it."""
    p, floor = (
        (result.p_value, result.p_value_floor)
        if isinstance(result, Comparison)
        else (result.evidence.p_value, result.evidence.p_value_floor)
    )
    if p is None or not floor or p > floor * (1 + 1e-9):
        return None
    if isinstance(result, Comparison) and result.method != "conformal rank":
        return "the smallest that these references can give"
    return f"the smallest that {plural(round(1 / floor) - 1, 'reference')} can give"


def score(verdict: Verdict) -> str:
    """The suspect's score, at the digits that tell it from the references'."""
    known = (*verdict.calibration.references, *verdict.calibration.derived)
    digits = decimals([verdict.evidence.score, *(model.score for model in known)])
    return f"{verdict.evidence.score:.{digits}f}"


def references(verdict: Verdict) -> str:
    """As in "40 in 2 groups (disjoint 20, same-data 20)"."""
    null = verdict.evidence.null
    if null.kind == "exact":
        return "none needed: the test is exact"
    if not null.strata:
        return "none"
    groups = ", ".join(f"{stratum} {null.strata[stratum]:,}" for stratum in ordered(null.strata))
    return f"{null.n:,} in {plural(len(null.strata), 'group')} ({groups})"


def null(verdict: Verdict) -> str:
    """What "innocent" means in this verdict."""
    if verdict.evidence.null.kind == "exact":
        return "The error rate follows from the construction of the test; it needs no reference models."
    if not verdict.evidence.null.strata:
        return "With nothing: no independently made model was scored, so the score has no error rate."
    shared = (
        "The suspect was compared with models that are known to have been made independently of the victim. If it was "
        "made independently too, as the models of one group were, its score is one more draw from that group's scores, "
        "and each place among them is equally probable."
    )
    if len(verdict.evidence.null.strata) == 1:
        return shared
    return f"{shared} Nobody knows the suspect's group, so the largest p-value over the groups is the one reported."


def level(result: Verdict | Comparison) -> str:
    """What alpha promises."""
    alpha = percent(result.alpha)
    if result.decision == "uncalibrated":
        return f"Without a p-value no suspect is flagged, at alpha = {significant(result.alpha)} or any other."
    return (
        f"Suspects are flagged when p is at most alpha = {significant(result.alpha)}: of independently made models "
        f"like the references, at most {alpha} are flagged in the long run. Whoever tries many suspects must expect "
        "that share of those made independently to be flagged."
    )


def power_row(row: Power) -> str:
    """As in "9 of 10 flagged (95% interval 55% to 100%)"."""
    return f"{row.flagged} of {row.n} flagged (95% interval {row.low:.0%} to {row.high:.0%})"


def cost(queries: Cost, seconds: float) -> str:
    """As in "100 asked, 0 from the journal, 1.3 s"."""
    return f"{queries.asked:,} asked, {queries.from_journal:,} from the journal, {duration(seconds)}"


def duration(seconds: float) -> str:
    """A time at two digits, in seconds or minutes."""
    if seconds < 0.1:
        return "under 0.1 s"
    return f"{significant(seconds)} s" if seconds < 120 else f"{significant(seconds / 60)} min"


def not_tested(result: Verdict | Comparison) -> tuple[Notice, ...]:
    """What a reader might take for tested and is not."""
    if isinstance(result, Comparison):
        seen: dict[str, Notice] = {}
        for verdict in result.evidence:
            seen |= {notice.text: notice for notice in not_tested(verdict)}
        return tuple(seen.values())
    evidence, items = result.evidence, list[Notice]()
    if evidence.null.kind == "none":
        items.append(Notice(code="error-rate", text="How often an independently made model scores as high."))
    elif evidence.null.missing:
        kinds = "; ".join(f"{STRATA.get(stratum, stratum)} ({stratum})" for stratum in evidence.null.missing)
        items.append(Notice(code="missing-strata", text=(
            f"Suspects unlike the references. There was no reference model of these kinds: {kinds}.")))  # fmt: skip
    if result.power is None:
        why = result.power_reason or "no derived models were given"
        items.append(Notice(code="power", text=f"How often a real theft would be flagged: {why}."))
    else:
        kinds = listing(row.kind for row in result.power)
        items.append(Notice(code="power", text=f"Other thefts than {kinds}, and thefts whose makers knew this test."))
    if result.claim == "derived":
        items += [
            Notice(code="direction", text="Which of the two models came first: a high score does not tell."),
            Notice(code="common-source", text=(
                "A common source. Two models made from one third model, such as a public one, also agree; the p-value "
                "covers this only as far as the references were made from it too.")),
            Notice(code="other-claims", text="Whether the suspect was trained on the owner's data: another claim."),
        ]  # fmt: skip
    else:
        items.append(
            Notice(code="other-claims", text="Whether the suspect was derived from the victim: another claim.")
        )
    return tuple(items)


def _deciding(verdict: Verdict) -> Rank | None:
    deciding = verdict.evidence.null.deciding
    return None if deciding is None else ranks(verdict.evidence).get(deciding)


def _words(result: Verdict | Comparison) -> _Words:
    return _WORDS["derived" if isinstance(result, Comparison) else result.claim]
