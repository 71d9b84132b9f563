"""compare(victim, suspect): every scheme that the access allows, in one pass over the suspect."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from locard.data import read
from locard.engine.calibrate import Models, calibrate_all
from locard.engine.extract import extract
from locard.engine.respond import Battery, check_access, check_askable
from locard.engine.verify import inspect_answers, judge
from locard.errors import LocardError, ParameterError, check_number
from locard.evidence import combine
from locard.fingerprint import Fingerprint
from locard.models import load
from locard.models.session import Progress
from locard.queries import Population
from locard.records import Access, Comparison, Cost, Data, Decision, Notice, Verdict
from locard.schemes import build
from locard.schemes import schemes as registry


def compare(
    victim: Any,
    suspect: Any,
    *,
    data: Data | str | os.PathLike[str],
    references: Models = (),
    derived: Models = (),
    schemes: Sequence[str] | None = None,
    population: Population | None = None,
    queries: int | None = None,
    seed: int = 0,
    alpha: float = 0.05,
    access: Access | str | None = None,
    budget: int | None = None,
    journal: str | os.PathLike[str] | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Extract, calibrate and verify with several schemes, and combine what they say.

    Args:
        victim: a `Model`, or anything that `load` reads.
        suspect: likewise.
        data: inputs to draw queries from, seen by no model in training.
        references: see `calibrate`; without any, the comparison is "uncalibrated".
        derived: see `calibrate`.
        schemes: names; None for every scheme that victim, suspect, references and data allow, the others listed as
            skipped.
        population: other models, for the schemes that choose queries with their help; none of the references.
        queries: the number of queries a scheme, or None for each scheme's own.
        seed: of every random choice.
        alpha: share of innocent suspects that may be flagged, in (0, 1).
        access: the most that may be seen of the suspect, or None for all it gives.
        budget: the most queries that may be sent to the suspect in all.
        journal: file that keeps every answer.
        trust: allow model files whose reading can run code.
        progress: called with (answered, wanted).

    Raises:
        LocardError: as `extract`, `calibrate` and `verify`, when a scheme that was named cannot run.
    """
    check_number("alpha", alpha, above=0, below=1)
    granted = None if access is None else Access.parse(access)
    owned = data if isinstance(data, Data) else read(data)
    model = load(victim, like=owned.domain, trust=trust)
    accused = load(suspect, like=owned.domain, trust=trust)
    fingerprints, skipped = [], {}
    for name in schemes if schemes is not None else registry.names():
        try:
            scheme = build(name)
            check_access(name, scheme.suspect_access, accused, granted)
            fingerprint = extract(model, scheme=name, data=owned, queries=queries, seed=seed, population=population)
            check_askable(fingerprint, scheme, accused, granted)
            fingerprints.append(fingerprint)
        except LocardError as error:
            if schemes is not None:
                raise
            skipped[name] = str(error)
    if fingerprints and references:
        fingerprints = calibrate_all(fingerprints, references=references, derived=derived, trust=trust,
                                     skipped=None if schemes is not None else skipped)  # fmt: skip
    return compare_fingerprints(
        fingerprints,
        accused,
        alpha=alpha,
        access=granted,
        budget=budget,
        journal=journal,
        trust=trust,
        progress=progress,
        skipped=skipped,
    )


def compare_fingerprints(
    fingerprints: Sequence[Fingerprint],
    suspect: Any,
    *,
    references: Models = (),
    derived: Models = (),
    alpha: float = 0.05,
    access: Access | None = None,
    budget: int | None = None,
    journal: str | os.PathLike[str] | None = None,
    trust: bool = False,
    progress: Progress | None = None,
    skipped: dict[str, str] | None = None,
) -> Comparison:
    """The same with fingerprints at hand; those of one victim. References given here calibrate them anew.

    Raises:
        ParameterError: no fingerprint, or fingerprints of several victims.
    """
    if not fingerprints:
        reasons = "; ".join(f"{name}: {why}" for name, why in (skipped or {}).items())
        raise ParameterError(f"no scheme can run on these two models. {reasons}")
    if len({fp.model for fp in fingerprints}) > 1:
        raise ParameterError("the fingerprints are of several victims; compare a suspect with one victim at a time")
    prints = list(fingerprints)
    if references:
        prints = calibrate_all(prints, references=references, derived=derived, trust=trust)
    started = time.perf_counter()
    model = load(suspect, like=prints[0].domain, trust=trust)
    battery = Battery(prints, model, access=access, budget=budget, journal=journal, progress=progress)
    answered = battery.records()
    seconds = (time.perf_counter() - started) / len(prints)
    verdicts = tuple(
        judge(fp, record, alpha=alpha, cost=cost, source=model.source, seconds=seconds,
              notices=inspect_answers(battery, fp, record))
        for fp, (record, cost) in zip(prints, answered, strict=True)
    )  # fmt: skip
    # What the schemes needed, not what the session did: it asks in one pass and answers each scheme from that.
    asked, repeated = (sum(getattr(v.queries, name) for v in verdicts) for name in ("asked", "from_journal"))
    return conclude(verdicts, alpha=alpha, skipped=skipped or {}, cost=Cost(asked=asked, from_journal=repeated))


def conclude(verdicts: Sequence[Verdict], *, alpha: float, skipped: dict[str, str], cost: Cost) -> Comparison:
    """What several verdicts on one suspect say together of the claim "derived"; other claims stand for themselves.

    Raises:
        ParameterError: no verdict.
    """
    if not verdicts:
        raise ParameterError("nothing to conclude from: no scheme gave a verdict")
    usable = [v for v in verdicts if v.claim == "derived" and v.evidence.p_value is not None]
    decision: Decision = "uncalibrated"
    combined = None
    if usable:
        combined = combine(
            [v.calibration.references for v in usable],
            [v.evidence.score for v in usable],
            [v.evidence.p_value for v in usable if v.evidence.p_value is not None],
        )
        decision = "derived" if combined.p_value <= alpha else "no-evidence"
    seen: dict[str, Notice] = {}
    for verdict in verdicts:
        seen |= {notice.text: notice for notice in verdict.warnings}
    return Comparison(
        decision=decision,
        p_value=None if combined is None else combined.p_value,
        p_value_floor=None if combined is None else combined.floor,
        method="none" if combined is None else combined.method,
        alpha=alpha,
        evidence=tuple(verdicts),
        skipped=skipped,
        queries=cost,
        suspect=verdicts[0].suspect,
        warnings=tuple(seen.values()),
    )
