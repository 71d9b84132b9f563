"""From scores of models whose making is known to a verdict on one whose making is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from locard.records.inputs import Domain

Claim = Literal["derived", "identical", "trained-on"]
Decision = Literal["derived", "no-evidence", "uncalibrated", "altered", "trained-on"]
# What a claim's decision is called where its null is rejected.
FLAGGED: dict[Claim, Decision] = {"derived": "derived", "identical": "altered", "trained-on": "trained-on"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A reason not to trust a figure: a stable code and a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One model's score against a fingerprint: a draw from the null, or from a kind of theft.

    Args:
        name: for people, such as the file's name.
        digest: the model's digest.
        stratum: how it relates to the victim ("same-data"), or the kind of theft for a derived model ("finetune").
        score: similarity to the fingerprint, higher = more alike.
        accuracy: share of the owner's labels it gets right, or None where not known.
    """

    name: str
    digest: str
    stratum: str
    score: float
    accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a fingerprint's score is worth.

    Args:
        references: scores of independent models (the null).
        derived: scores of models known to be derived (the power).
        agreement: for each query, the share of references that answer it as the victim does, or None where answers are
            no discrete ones.
    """

    references: tuple[Reference, ...] = ()
    derived: tuple[Reference, ...] = ()
    agreement: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Null:
    """The null hypothesis that a p-value speaks of.

    Args:
        kind: "reference" (rank among reference models), "exact", or "none".
        n: number of reference models.
        strata: number of references in each stratum.
        deciding: the stratum with the largest p, whose p is reported, or None.
        missing: strata of the standard list that had no model.
    """

    kind: Literal["reference", "exact", "none"]
    n: int = 0
    strata: dict[str, int] = field(default_factory=dict)
    deciding: str | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """How many thefts of one kind would be flagged at alpha: k of n, with a 95% Clopper-Pearson interval."""

    kind: str
    flagged: int
    n: int
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A score with its null.

    Args:
        score: similarity of victim and suspect, higher = more alike.
        statistic: name of the score ("1 - hamming").
        p_value: probability of a score as high from an innocent model, or None when uncalibrated.
        p_value_floor: the smallest p the references could give, or None.
        p_values: p in each stratum.
        null: what "innocent" means here.
    """

    score: float
    statistic: str
    p_value: float | None
    p_value_floor: float | None
    p_values: dict[str, float]
    null: Null


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Queries to the suspect: sent, and answered from the journal instead."""

    asked: int
    from_journal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A model or file named in a verdict: its digest and where it was read from."""

    digest: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exhibit:
    """What a report shows of the queries; arrays stay as they are, the report draws them.

    Args:
        inputs: (k, *shape) the most telling queries, most telling first.
        victim: (k,) what the victim answered, as text.
        suspect: (k,) what the suspect answered, as text.
        share: (k,) share of the references that answer as the victim does; 0 without references.
        domain: what the inputs are.
    """

    inputs: np.ndarray
    victim: tuple[str, ...]
    suspect: tuple[str, ...]
    share: tuple[float, ...]
    domain: Domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One claim about one suspect, with its error rate.

    `decision` is "derived" ("trained-on" where that is the claim) when p <= alpha, "no-evidence" when not,
    "uncalibrated" without references. No decision says innocent, and the p-value is no probability of guilt. The null
    of the claim "identical" is that the suspect is the victim unchanged: one answer that differs makes it "altered".
    """

    decision: Decision
    claim: Claim
    scheme: str
    evidence: Evidence
    alpha: float
    power: tuple[Power, ...] | None
    power_reason: str | None
    queries: Cost
    access_needed: str
    access_used: str
    warnings: tuple[Notice, ...]
    fingerprint: Party
    suspect: Party
    seconds: float
    calibration: Calibration
    exhibit: Exhibit | None = None
    reproduce: str | None = None

    def __str__(self) -> str:
        """One line: decision, scheme, score, p and its floor."""
        e = self.evidence
        p = "no p-value" if e.p_value is None else f"p = {e.p_value:.3g} (floor {e.p_value_floor:.3g})"
        return f"{self.decision}: {self.scheme} score {e.score:.3f}, {p}, n = {e.null.n} references"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Several verdicts on one suspect and what they say together.

    Args:
        decision: of all schemes with the claim "derived" together.
        p_value: combined, or None when uncalibrated.
        p_value_floor: the smallest it could have been.
        method: "conformal rank", "bonferroni" or "none".
        alpha: the level.
        evidence: one verdict a scheme.
        skipped: schemes that could not run, with the reason.
        queries: in all, each distinct query asked once.
        suspect: whom.
        warnings: of all verdicts, each once.
    """

    decision: Decision
    p_value: float | None
    p_value_floor: float | None
    method: str
    alpha: float
    evidence: tuple[Verdict, ...]
    skipped: dict[str, str]
    queries: Cost
    suspect: Party
    warnings: tuple[Notice, ...]
