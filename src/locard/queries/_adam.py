"""Adam [1] on a batch of inputs, from which those that have arrived can be taken out.

[1] Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015, algorithm 1.
"""

from __future__ import annotations

import numpy as np

_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8


class Adam:
    """The moments of the gradients of n inputs.

    Args:
        x: (n, *shape), the inputs that will be moved; for their shape.
    """

    def __init__(self, x: np.ndarray) -> None:
        self._first, self._second, self._steps = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32), 0

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows only, (m,) integers or (n,) truths."""
        self._first, self._second = self._first[rows], self._second[rows]

    def step(self, gradient: np.ndarray) -> np.ndarray:
        """The next step for a learning rate of 1, to be subtracted: (n, *shape) float32."""
        self._steps += 1
        self._first += (1 - _FIRST) * (gradient - self._first)
        self._second += (1 - _SECOND) * (gradient * gradient - self._second)
        first = self._first / (1 - _FIRST**self._steps)
        return first / (np.sqrt(self._second / (1 - _SECOND**self._steps)) + _TINY)
