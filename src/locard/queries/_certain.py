"""Inputs that a victim is most certain of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from locard.models import ProbabilityView
    from locard.records import Data


def most_certain(victim: ProbabilityView, data: Data, *, most: int) -> np.ndarray:
    """Rows of the data in falling order of the sum of the squared probabilities; where there are labels, right ones.

    Args:
        victim: whom to ask.
        data: where to look.
        most: the most rows.

    Returns:
        (k,) row numbers. Cost: one answer for each input of the data.
    """
    p = victim.probabilities(data.domain.deliver(data.inputs)).astype(np.float64)
    order = np.argsort(-np.sum(p * p, axis=1), kind="stable")
    if data.labels is not None:
        order = order[(p.argmax(axis=1) == data.labels)[order]]
    return order[:most]
