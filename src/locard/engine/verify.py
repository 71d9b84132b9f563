"""verify(fp, suspect): a verdict with its error rate."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from locard.engine.respond import Battery, score_of
from locard.errors import ArtefactError, ParameterError, check_number
from locard.evidence import power, stratified, unchanged
from locard.evidence.preflight import of_answers, of_calibration, of_identity
from locard.fingerprint import Fingerprint
from locard.models import load
from locard.models.session import Progress
from locard.queries import Queries
from locard.records import FLAGGED, Access, Calibration, Cost, Decision, Exhibit, Notice, Party, Verdict
from locard.schemes import Scheme, build

EXHIBITS = 12
REPEATS = 8


def verify(
    fingerprint: Fingerprint | str | os.PathLike[str],
    suspect: Any,
    *,
    alpha: float = 0.05,
    access: Access | str | None = None,
    budget: int | None = None,
    journal: str | os.PathLike[str] | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> Verdict:
    """Was the suspect derived from the model whose fingerprint this is?

    Args:
        fingerprint: the owner's, or its file; calibrated, or the verdict is "uncalibrated".
        suspect: a `Model`, anything that `load` reads, or the record that `respond` gave.
        alpha: share of innocent suspects that may be flagged, in (0, 1).
        access: the most that may be seen of the suspect; None for what the scheme needs.
        budget: the most queries that may be sent; None for no limit.
        journal: file that keeps every answer; None for memory.
        trust: allow model files whose reading can run code.
        progress: called with (answered, wanted).

    Returns:
        The verdict. Its p-value is the probability of so high a score from a model made independently of the victim and
        exchangeable with the references of the deciding stratum; it is not the probability of guilt.

    Raises:
        AccessError: the scheme needs more than was granted.
        BudgetError: the scheme needs more queries than the budget; what was answered is in the journal.
        ParameterError: the suspect takes other inputs, or answers what no model should.
        RemoteModelError: an endpoint fails; what was answered is in the journal.
    """
    check_number("alpha", alpha, above=0, below=1)
    granted = None if access is None else Access.parse(access)
    fp = fingerprint if isinstance(fingerprint, Fingerprint) else Fingerprint.load(fingerprint)
    started = time.perf_counter()
    if isinstance(suspect, Fingerprint):
        return judge(fp, suspect, alpha=alpha, seconds=time.perf_counter() - started)
    model = load(suspect, like=fp.domain, trust=trust)
    battery = Battery([fp], model, access=granted, budget=budget, journal=journal, progress=progress)
    ((record, cost),) = battery.records()
    notices = inspect_answers(battery, fp, record)
    return judge(fp, record, alpha=alpha, cost=cost, source=model.source, notices=notices,
                 seconds=time.perf_counter() - started)  # fmt: skip


def judge(
    fingerprint: Fingerprint,
    record: Fingerprint,
    *,
    alpha: float,
    cost: Cost | None = None,
    source: str | None = None,
    notices: tuple[Notice, ...] = (),
    seconds: float = 0.0,
) -> Verdict:
    """The verdict on a record: similarity, p-value, power, warnings. Asks nothing.

    Raises:
        ParameterError: the record answers another fingerprint.
    """
    if fingerprint.scheme != record.scheme or fingerprint.params != record.params:
        raise ParameterError(
            f"a record of {record.scheme} cannot be held against a fingerprint of {fingerprint.scheme}"
        )
    _check_queries(fingerprint, record)
    scheme = build(fingerprint.scheme, fingerprint.params)
    if fingerprint.claim != scheme.claim:
        raise ArtefactError(
            f"the fingerprint claims {fingerprint.claim!r}, but {fingerprint.scheme} supports {scheme.claim!r} only: "
            "take it anew"
        )
    calibration = fingerprint.calibration or Calibration()
    score = score_of(fingerprint, record, scheme)
    if fingerprint.claim == "identical":
        evidence = unchanged(score, scheme.similarity(fingerprint, fingerprint), scheme.statistic)
        shares, reason = None, "an unchanged model is never flagged; what changes are seen is measured in benchmarks"
        warnings = [*notices, *of_identity(evidence.p_value == 0)]
    else:
        evidence = stratified(calibration.references, score, scheme.statistic, fingerprint.claim)
        shares = power(calibration.derived, calibration.references, alpha)
        reason = None if shares else "no derived models were given when the fingerprint was calibrated (--derived)"
        warnings = [
            *notices,
            *of_calibration(
                fingerprint.calibration, alpha=alpha, accuracy=fingerprint.accuracy, claim=fingerprint.claim
            ),
        ]
    decision: Decision = "uncalibrated"
    if evidence.p_value is not None:
        decision = FLAGGED[fingerprint.claim] if evidence.p_value <= alpha else "no-evidence"
    if record.model in fingerprint.population:
        text = "the suspect is one of the models that helped to choose the queries: its score is no evidence"
        warnings.append(Notice(code="suspect-chose-queries", text=text))
    if record.model in {reference.digest for reference in calibration.references}:
        warnings.append(Notice(code="suspect-is-reference", text=(
            "the suspect is one of the reference models, so its rank among them says nothing new")))  # fmt: skip
    return Verdict(
        decision=decision,
        claim=fingerprint.claim,
        scheme=fingerprint.scheme,
        evidence=evidence,
        alpha=alpha,
        power=shares,
        power_reason=reason,
        queries=cost or Cost(asked=0, from_journal=0),
        access_needed=scheme.suspect_access.text,
        access_used=scheme.suspect_access.text,
        warnings=tuple(warnings),
        fingerprint=Party(digest=fingerprint.content, source=fingerprint.data_name or ""),
        suspect=Party(digest=record.model, source=source or "a record"),
        seconds=seconds,
        calibration=calibration,
        exhibit=_exhibit(scheme, fingerprint, record),
    )


def inspect_answers(battery: Battery, fingerprint: Fingerprint, record: Fingerprint) -> tuple[Notice, ...]:
    """What the suspect's answers warn of.

    A model on this machine is asked a few queries twice, which is not counted.
    """
    session, inputs = battery.session, fingerprint.queries["inputs"][:REPEATS]
    repeated, logits = None, None
    rung = (session.access.implied & (Access.LABELS | Access.PROBABILITIES | Access.LOGITS)).top
    if rung is not None and not battery.model.remote:
        before, again = session.repeat(inputs), session.repeat(inputs)
        near = before == again if rung is Access.LABELS else np.isclose(before, again, rtol=1e-3, atol=1e-4)
        same = near.reshape(len(inputs), -1).all(axis=1)
        repeated = float(np.mean(~same))
        logits = _raw_logits(battery, inputs)
    return tuple(of_answers(record.record, victim=fingerprint.record, repeated=repeated, at_logits=logits))


def _raw_logits(battery: Battery, inputs: np.ndarray) -> np.ndarray | None:
    """What the model itself calls logits, where they may be seen: a softmax over probabilities would hide them."""
    granted = Access.LOGITS if battery.granted is None else battery.granted
    if battery.model.remote or battery.model.native is not Access.LOGITS or Access.LOGITS not in granted.implied:
        return None
    return np.concatenate([answers for _, answers in battery.model.stream(battery.model.domain.check(inputs))])


def _check_queries(fingerprint: Fingerprint, record: Fingerprint) -> None:
    same = fingerprint.queries.keys() == record.queries.keys() and all(
        fingerprint.queries[name] is record.queries[name]
        or np.array_equal(fingerprint.queries[name], record.queries[name])
        for name in fingerprint.queries
    )
    if not same:
        raise ParameterError("the record answers other queries than the fingerprint asks; respond to this fingerprint")


def _exhibit(scheme: Scheme, fingerprint: Fingerprint, record: Fingerprint) -> Exhibit | None:
    agreement = scheme.agreement(fingerprint, record)
    if agreement is None:
        return None
    rarity = (fingerprint.calibration or Calibration()).agreement or (0.0,) * len(agreement)
    inputs = Queries.from_arrays(fingerprint.queries).inputs
    if not len(agreement) == len(rarity) == len(inputs):
        raise ArtefactError(
            f"the fingerprint holds {len(inputs)} queries, {len(agreement)} answers and a "
            f"calibration.agreement of {len(rarity)}; expected as many of each: take or calibrate it anew"
        )
    # Most telling: where the suspect gives the victim's answer and few references do; of the claim to be the victim,
    # where it gives another.
    telling = ~agreement if fingerprint.claim == "identical" else agreement
    order = np.lexsort((np.asarray(rarity), ~telling))[:EXHIBITS]
    return Exhibit(
        inputs=inputs[order],
        victim=tuple(str(label) for label in fingerprint.record["labels"][order]),
        suspect=tuple(str(label) for label in record.record["labels"][order]),
        share=tuple(float(rarity[i]) for i in order),
        domain=fingerprint.domain,
    )
