"""Tensors at hand, read as those in a file are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from locard.errors import unknown
from locard.weights.files.base import Rows


class Arrays:
    """Named arrays in memory.

    Args:
        arrays: by name; left as they are.
        source: where they come from, for people.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], source: str = "weights in memory") -> None:
        self.source = source
        self._arrays = dict(arrays)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes by name."""
        return {name: array.shape for name, array in self._arrays.items()}

    def matrix(self, name: str, rows: Rows = None, columns: Rows = None) -> np.ndarray:
        """See `Tensors.matrix`."""
        if name not in self._arrays:
            raise unknown(f"tensor of {self.source}:", name, self._arrays)
        array = self._arrays[name]
        found = array.reshape(array.shape[0] if array.ndim else 1, -1)
        found = found if rows is None else found[rows]
        return (found if columns is None else found[:, columns]).astype(np.float32)
