"""Reading the pairs that queries carry."""

from __future__ import annotations

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Queries


def pairs(queries: Queries) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first and of the second input of each pair, (m,) each.

    A fingerprint may come from a stranger, so they are checked.

    Raises:
        ParameterError: the queries carry none, or they are no rows of the inputs.
    """
    array, n = queries.extras.get("pairs"), len(queries.inputs)
    if array is None:
        raise ParameterError("the queries must carry 'pairs': use the sampler 'adversarial' or 'divergent'")
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise ParameterError(f"pairs must be whole numbers of shape (m, 2); got {array.dtype} {array.shape}")
    if array.min() < 0 or array.max() >= n:
        raise ParameterError(f"pairs must be rows of {n} inputs; got {array.min()} to {array.max()}")
    return array[:, 0], array[:, 1]
