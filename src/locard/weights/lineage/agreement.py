"""The test of agreement (T2): does what writes a unit find the same partner as what reads it?

Two tensors of a block match its units to the suspect's, each by nearest neighbours that choose each other. A copy whose
units were moved is matched rightly by both, so that they agree; chance lets them agree on about one unit. But training
on the same data ties what writes a unit to what reads it in strangers too, so how many agreements are too many is for
other models to say: references, or pairs of blocks of the same two models that cannot correspond (decoys).
"""

from __future__ import annotations

import numpy as np

CONFIDENCE = 0.99


def nearest(cosines: np.ndarray) -> np.ndarray:
    """For each row the column that it likes best and that likes it best, or -1.

    Args:
        cosines: (m, n).

    Returns:
        (m,) int64. Rows of a unit without a direction, whose cosines are all 0, have no partner.
    """
    best = cosines.argmax(axis=1)
    rows = np.arange(len(cosines))
    mutual = cosines.argmax(axis=0)[best] == rows
    return np.where(mutual & (cosines[rows, best] > 0), best, -1)


def agreed(one: np.ndarray, other: np.ndarray) -> int:
    """How many units both matchings give the same partner.

    Args:
        one: (m,) partners by what writes the units, -1 for none.
        other: (m,) by what reads them.
    """
    return int(((one == other) & (one >= 0)).sum())


def margin(cosines: np.ndarray) -> float:
    """Mean over rows of the best less the second best; 0 where there is no second."""
    if cosines.shape[1] < 2:
        return 0.0
    top = np.partition(cosines, cosines.shape[1] - 2, axis=1)[:, -2:]
    return float((top[:, 1] - top[:, 0]).mean())


def chance(decoys: list[int]) -> float:
    """The largest mean number of agreements by chance that the decoys leave likely; never below 1.

    Args:
        decoys: agreements in pairs of blocks that do not correspond, at least one.

    Returns:
        The upper end of the mean's 99% interval, for Poisson counts.
    """
    from scipy.special import gammaincinv

    return max(1.0, float(gammaincinv(sum(decoys) + 1, CONFIDENCE)) / len(decoys))


def log10_at_least(count: int, mean: float) -> float:
    """log10 of the probability of so many agreements or more, Poisson with that mean."""
    from scipy.special import gammainc, gammaln

    if count <= 0:
        return 0.0
    p = float(gammainc(count, mean))
    if p > 0:
        return float(np.log10(p))
    # Below the smallest float: the first term of the sum, and a bound on the rest, which is a falling geometric one.
    rest = -np.log1p(-mean / (count + 1)) if mean < count + 1 else 0.0
    return float((-mean + count * np.log(mean) - gammaln(count + 1) + rest) / np.log(10))
