"""How well scores tell derived from independent models. The unit is the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locard.errors import ParameterError, check_number

# A share of a whole number of models is often a hair off in floating point: 0.29 of 100 is 28.999999999999996.
SLACK = 1e-9


def auroc(derived: Sequence[float] | np.ndarray, independent: Sequence[float] | np.ndarray) -> float:
    """The probability that a derived model scores above an independent one, ties counting one half.

    Args:
        derived: scores of derived models, higher = more alike.
        independent: scores of independent models.

    Returns:
        In [0, 1]; 1/2 is chance.

    Raises:
        ParameterError: no score of a kind, or one that is no number.
    """
    a, b = _sides("AUROC", derived, independent)
    order = np.sort(b)
    below, not_above = np.searchsorted(order, a, "left"), np.searchsorted(order, a, "right")
    return float((below + not_above).sum() / (2 * a.size * b.size))


def tpr_at_fpr(derived: Sequence[float] | np.ndarray, independent: Sequence[float] | np.ndarray, fpr: float) -> float:
    """The share of derived models above a threshold that at most a share `fpr` of the independent ones exceeds.

    A model counts as found where it scores strictly above the threshold, so that ties with it accuse nobody: the share
    of independent models accused is at most `fpr`, and less where no threshold meets it. They set the threshold and are
    measured by it, so with few of them the figure is luck: a share of 1% of 100 models is one model.

    Args:
        derived: scores of derived models, higher = more alike.
        independent: scores of independent models.
        fpr: in (0, 1).

    Raises:
        ParameterError: no score of a kind, one that is no number, or another `fpr`.
    """
    check_number("fpr", fpr, above=0, below=1)
    a, b = _sides("TPR at an FPR", derived, independent)
    threshold = np.sort(b)[::-1][int(fpr * b.size + SLACK)]
    return float((a > threshold).mean())


def aruc(derived: Sequence[float] | np.ndarray, independent: Sequence[float] | np.ndarray) -> float:
    """Area under the lower of robustness and uniqueness, over the threshold from 0 to 1 [1].

    Robustness is the share of derived models that score at least the threshold, uniqueness the share of independent
    ones that score below it. The area is exact, not a sum over a grid. It rewards a wide gap and not order alone, so it
    reads a score as a share, and a monotone change of the score changes it.

    [1] Cao, Jia & Gong. IPGuard. AsiaCCS 2021.

    Args:
        derived: scores of derived models, in [0, 1].
        independent: scores of independent models, in [0, 1].

    Raises:
        ParameterError: no score of a kind, or one outside [0, 1].
    """
    a, b = _sides("ARUC", derived, independent)
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) > 1:
        raise ParameterError("ARUC reads scores as shares, in [0, 1]; these are on another scale")
    ends = np.unique(np.concatenate([a, b, [0.0, 1.0]]))
    robustness = 1 - np.searchsorted(np.sort(a), ends[1:], "left") / a.size
    uniqueness = np.searchsorted(np.sort(b), ends[:-1], "right") / b.size
    return float((np.diff(ends) * np.minimum(robustness, uniqueness)).sum())


def _sides(
    figure: str, derived: Sequence[float] | np.ndarray, independent: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(derived, np.float64).ravel(), np.asarray(independent, np.float64).ravel()
    if a.size == 0 or b.size == 0 or np.isnan(a).any() or np.isnan(b).any():
        raise ParameterError(f"{figure} needs scores of derived and of independent models; got {a.size} and {b.size}")
    return a, b
