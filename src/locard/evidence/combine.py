"""One p-value from several schemes that share a suspect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from locard.errors import CalibrationError
from locard.evidence.conformal import p_value
from locard.records import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """A combined p-value, the smallest it could have been, and how it was made."""

    p_value: float
    floor: float
    method: str


def conformal_rank(references: np.ndarray, scores: np.ndarray) -> float:
    """Rank the R + 1 models in each scheme, add up the ranks, rank the sums.

    Args:
        references: (R, S) scores of the same R references under S schemes, higher = more alike.
        scores: (S,) the suspect's.

    Returns:
        In [1 / (R + 1), 1]; exact under any dependence between schemes, as the sums of exchangeable rows are
        exchangeable. Ties share the mean rank.

    Raises:
        CalibrationError: shapes that do not fit, or no reference.
    """
    references, scores = np.asarray(references, np.float64), np.asarray(scores, np.float64)
    if references.ndim != 2 or scores.shape != references.shape[1:] or 0 in references.shape:
        raise CalibrationError(
            f"expected scores (R, S) and (S,) with R, S >= 1; got {references.shape}, {scores.shape}"
        )
    from scipy.stats import rankdata

    sums = rankdata(np.vstack([references, scores]), axis=0).sum(axis=1)
    return p_value(sums[:-1], float(sums[-1]))


def bonferroni(p_values: Sequence[float]) -> float:
    """min(1, S * smallest p): valid under any dependence, for schemes with different references."""
    if not p_values:
        raise CalibrationError("nothing to combine: no scheme has a p-value")
    return min(1.0, len(p_values) * min(p_values))


def combine(references: Sequence[Sequence[Reference]], scores: Sequence[float], p_values: Sequence[float]) -> Combined:
    """Combine by conformal rank where all schemes have the same references, else by Bonferroni.

    The rank is taken stratum by stratum, and the largest p is reported.

    Args:
        references: for each scheme, its reference models.
        scores: for each scheme, the suspect's score.
        p_values: for each scheme, its own p.

    Raises:
        CalibrationError: nothing to combine.
    """
    if not scores or not all(references):
        raise CalibrationError("nothing to combine: no scheme has a p-value")
    tables = [{(r.digest, r.stratum): r.score for r in rows} for rows in references]
    if any(table.keys() != tables[0].keys() for table in tables):
        floor = bonferroni([_floor(rows) for rows in references])
        return Combined(p_value=bonferroni(p_values), floor=floor, method="bonferroni")
    values: list[float] = []
    floors: list[float] = []
    for stratum in sorted({stratum for _, stratum in tables[0]}):
        models = [key for key in tables[0] if key[1] == stratum]
        matrix = np.array([[table[key] for table in tables] for key in models])
        values.append(conformal_rank(matrix, np.array(scores)))
        floors.append(1 / (len(models) + 1))
    return Combined(p_value=max(values), floor=max(floors), method="conformal rank")


def _floor(references: Sequence[Reference]) -> float:
    """The smallest p of one scheme: that of its smallest stratum."""
    return max(1 / (n + 1) for n in Counter(reference.stratum for reference in references).values())
