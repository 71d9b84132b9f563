"""Distances between two records, 0 for a model with itself; found by name.

A distance reads the one array of a record (the composed form `sampler+representation+distance` pairs any with any whose
shapes allow it), and is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from locard.errors import ParameterError, unknown

Distance = Callable[[np.ndarray, np.ndarray], float]


def hamming(a: np.ndarray, b: np.ndarray) -> float:
    """Share of entries that differ; in [0, 1]. Needs discrete entries."""
    _same_shape("hamming", a, b)
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        raise ParameterError("hamming compares discrete entries such as labels; got floating-point ones, use l2 or cosine")
    return float(np.mean(a != b))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over leading axes of 1 - cos along the last; in [0, 2]. Two zero rows are at 0, a zero and another at 1."""
    _same_shape("cosine", a, b)
    a, b = (np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (a, b))
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = (norms[0] > 0) & (norms[1] > 0)
    cos = ((norms[0] == 0) & (norms[1] == 0)).astype(np.float64)
    cos[both] = np.einsum("ij,ij->i", a[both] / norms[0][both, None], b[both] / norms[1][both, None])
    return float(np.mean(np.abs(1 - np.minimum(cos, 1))))


def l1(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference."""
    _same_shape("l1", a, b)
    return float(np.mean(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))


def l2(a: np.ndarray, b: np.ndarray) -> float:
    """Root of the mean squared difference."""
    _same_shape("l2", a, b)
    return float(np.sqrt(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)))


DISTANCES: dict[str, Distance] = {"hamming": hamming, "cosine": cosine, "l1": l1, "l2": l2}


def distance(name: str) -> Distance:
    """The distance of that name; an unknown one is a `ParameterError` with the nearest names."""
    if name not in DISTANCES:
        raise unknown("distance", name, DISTANCES)
    return DISTANCES[name]


def _same_shape(name: str, a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ParameterError(f"{name} needs two records of one shape; got {a.shape} and {b.shape}")
    if a.size == 0:
        raise ParameterError(f"{name} needs at least one entry")
