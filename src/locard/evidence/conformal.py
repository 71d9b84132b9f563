"""p-values by rank among reference models.

The unit is the model: under the null a suspect is exchangeable with the references of its stratum, so its rank among
them is uniform, whatever the score and however its queries depend on each other [1].

[1] Phipson & Smyth. Permutation p-values should never be zero. SAGMB 9(1), 2010: (b + 1) / (m + 1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from locard.errors import CalibrationError
from locard.records import Claim, Evidence, Null, Reference

STRATA = ("disjoint", "same-data", "same-architecture", "foreign-theft")
# Of a claim about data those that share them are no innocents.
EXPECTED: dict[Claim, tuple[str, ...]] = {
    "derived": STRATA, "identical": (), "trained-on": ("disjoint", "foreign-theft"),
}  # fmt: skip


def p_value(references: Sequence[float] | np.ndarray, score: float) -> float:
    """(1 + #{reference >= score}) / (R + 1).

    Args:
        references: R scores of models made independently of the victim, higher = more alike.
        score: the suspect's.

    Returns:
        In [1 / (R + 1), 1]; P(p <= a) <= a for each a when all R + 1 models are exchangeable.

    Raises:
        CalibrationError: no references, or a score that is no finite number.
    """
    return float(p_values(references, np.array([score]))[0])


def p_values(references: Sequence[float] | np.ndarray, scores: np.ndarray) -> np.ndarray:
    """As `p_value`, of many suspects.

    Args:
        references: R scores.
        scores: (n,) the suspects'.

    Returns:
        (n,) float64.

    Raises:
        CalibrationError: as `p_value` does.
    """
    known, scores = np.sort(np.asarray(references, np.float64)), np.asarray(scores, np.float64)
    if known.size == 0:
        raise CalibrationError("a p-value needs at least one reference model; calibrate the fingerprint first")
    if not (np.isfinite(known).all() and np.isfinite(scores).all()):
        odd = next((float(score) for score in scores if not np.isfinite(score)), float(known[-1]))
        raise CalibrationError(f"scores must be finite numbers; got {odd} among {known.size} references")
    return (1 + known.size - np.searchsorted(known, scores, "left")) / (known.size + 1)


def stratified(references: Sequence[Reference], score: float, statistic: str, claim: Claim = "derived") -> Evidence:
    """The evidence of one score: p in each stratum, the largest of them reported.

    The null moves with how much references and victim have in common, and nobody knows the suspect's stratum, so the
    least favourable one decides.

    Args:
        references: reference models with their strata; none at all gives evidence without a p-value.
        score: the suspect's.
        statistic: name of the score.
        claim: what it speaks of; it says which strata are looked for.
    """
    sizes = dict(sorted(Counter(reference.stratum for reference in references).items()))
    if not sizes:
        return Evidence(score=score, statistic=statistic, p_value=None, p_value_floor=None, p_values={},
                        null=Null(kind="none", missing=EXPECTED[claim]))  # fmt: skip
    values = {
        stratum: p_value([reference.score for reference in references if reference.stratum == stratum], score)
        for stratum in sizes
    }
    deciding = max(values, key=lambda stratum: values[stratum])
    return Evidence(
        score=score,
        statistic=statistic,
        p_value=values[deciding],
        p_value_floor=max(1 / (n + 1) for n in sizes.values()),
        p_values=values,
        null=Null(
            kind="reference",
            n=len(references),
            strata=sizes,
            deciding=deciding,
            missing=tuple(stratum for stratum in EXPECTED[claim] if stratum not in sizes),
        ),
    )
