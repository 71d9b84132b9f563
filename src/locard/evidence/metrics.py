"""How well scores tell derived from independent models. The unit is the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locard.errors import ParameterError


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
    a, b = np.asarray(derived, np.float64).ravel(), np.asarray(independent, np.float64).ravel()
    if a.size == 0 or b.size == 0 or np.isnan(a).any() or np.isnan(b).any():
        raise ParameterError(f"AUROC needs scores of derived and of independent models; got {a.size} and {b.size}")
    order = np.sort(b)
    below, not_above = np.searchsorted(order, a, "left"), np.searchsorted(order, a, "right")
    return float((below + not_above).sum() / (2 * a.size * b.size))
