"""Figures of one entry's records. The unit is the model, never the query."""

from __future__ import annotations

import numpy as np

from locard.bench.records import Records


def p_values(records: Records) -> np.ndarray:
    """The calibrated p of each row, (n,) float64; NaN where a row has no score or its fingerprint no reference."""
    raise NotImplementedError
