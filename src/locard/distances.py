"""Distances between two records, 0 for a model with itself; found by name.

A distance reads the one array of a record (the composed form `sampler+representation+distance` pairs any with any whose
shapes allow it), and is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from locard.errors import ParameterError, unknown

Distance = Callable[[np.ndarray, np.ndarray], float]

PIECE = 1 << 16


def hamming(a: np.ndarray, b: np.ndarray) -> float:
    """Share of entries that differ; in [0, 1]. Needs discrete entries."""
    _same_shape("hamming", a, b)
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        raise ParameterError(
            "hamming compares discrete entries such as labels; got floating-point ones, use l2 or cosine"
        )
    return float(np.mean(a != b))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over leading axes of 1 - cos along the last; in [0, 2]. Two zero rows are at 0, a zero and another at 1."""
    _numbers("cosine", a, b)
    a, b = (np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (a, b))
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = (norms[0] > 0) & (norms[1] > 0)
    cos = ((norms[0] == 0) & (norms[1] == 0)).astype(np.float64)
    cos[both] = np.einsum("ij,ij->i", a[both] / norms[0][both, None], b[both] / norms[1][both, None])
    return float(np.mean(np.abs(1 - np.minimum(cos, 1))))


def l1(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference."""
    _numbers("l1", a, b)
    return sum(float(np.abs(gap).sum()) for gap in _gaps(a, b)) / a.size


def l2(a: np.ndarray, b: np.ndarray) -> float:
    """Root of the mean squared difference."""
    _numbers("l2", a, b)
    return (sum(float(gap @ gap) for gap in _gaps(a, b)) / a.size) ** 0.5


def flat_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """1 - cos of the two whole records, each read as one vector; in [0, 2]."""
    _same_shape("flat-cosine", a, b)
    return cosine(a.reshape(1, -1), b.reshape(1, -1))


def aligned_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """`flat_cosine` of two (m, columns) records once their columns are paired off; in [0, 2].

    The nearest two columns by 1 - cos are paired first, then the nearest two of those left, until one record has none
    left; what the other has more is left out (Zest's class alignment, as its released code does it).
    """
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or a.size == 0 or b.size == 0:
        raise ParameterError(f"aligned-cosine needs two tables with the same rows; got {a.shape} and {b.shape}")
    cosines = _unit_columns(a).T @ _unit_columns(b)
    left, right = np.unravel_index(np.argsort(-cosines, axis=None, kind="stable"), cosines.shape)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for i, j in zip(left.tolist(), right.tolist(), strict=True):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
            if len(pairs) == min(cosines.shape):
                break
    return flat_cosine(a[:, list(pairs)], b[:, list(pairs.values())])


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """1 - I(a; b) / min(H(a), H(b)) of two lists of labels, in [0, 1]; 1 where I is 0.

    It is 0 for any renaming of the classes, and 1 if one of the two is constant.
    """
    _same_shape("mutual-information", a, b)
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        raise ParameterError("mutual-information compares discrete entries such as labels; got floating-point ones")
    first, second = (np.unique(x.ravel(), return_inverse=True)[1].ravel() for x in (a, b))
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1 / a.size)
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    both = joint > 0
    shared = float((joint[both] * np.log(joint[both] / np.outer(rows, columns)[both])).sum())
    least = min(float(-(share * np.log(share)).sum()) for share in (rows, columns))
    # Rounding leaves a trace of shared information between any two lists.
    return 1.0 if least <= 0 or shared <= 1e-12 else float(np.clip(1 - shared / least, 0, 1))


def jensen_shannon(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over rows of the Jensen-Shannon divergence of two distributions, natural logarithm, in [0, ln 2].

    It is half the Kullback-Leibler divergence of each from their mean, added up; no square root is taken.
    """
    _numbers("jensen-shannon", a, b)
    a, b = (np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (a, b))
    for rows in (a, b):
        if not (rows.min() >= 0 and np.abs(rows.sum(axis=1) - 1).max() <= 1e-3):
            raise ParameterError("jensen-shannon compares probabilities, rows that add up to 1: record those instead")
    middle = (a + b) / 2
    parts = [np.where(x > 0, x * np.log(np.where(x > 0, x, 1) / np.where(x > 0, middle, 1)), 0) for x in (a, b)]
    return float(np.mean((parts[0] + parts[1]).sum(axis=1) / 2))


DISTANCES: dict[str, Distance] = {
    "hamming": hamming,
    "cosine": cosine,
    "l1": l1,
    "l2": l2,
    "flat-cosine": flat_cosine,
    "aligned-cosine": aligned_cosine,
    "mutual-information": mutual_information,
    "jensen-shannon": jensen_shannon,
}


def distance(name: str) -> Distance:
    """The distance of that name; an unknown one is a `ParameterError` with the nearest names."""
    if name not in DISTANCES:
        raise unknown("distance", name, DISTANCES)
    return DISTANCES[name]


def _gaps(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Differences in float64, flat, in pieces that stay in the caches: records of correlations are large."""
    a, b = a.ravel(), b.ravel()
    for start in range(0, a.size, PIECE):
        piece = slice(start, start + PIECE)
        yield np.subtract(a[piece], b[piece], dtype=np.float64)


def _unit_columns(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    length = np.linalg.norm(x, axis=0)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def _same_shape(name: str, a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ParameterError(f"{name} needs two records of one shape; got {a.shape} and {b.shape}")
    if a.size == 0:
        raise ParameterError(f"{name} needs at least one entry")


def _numbers(name: str, a: np.ndarray, b: np.ndarray) -> None:
    _same_shape(name, a, b)
    if "O" in (a.dtype.kind, b.dtype.kind):
        raise ParameterError(f"{name} compares numbers; got texts, use hamming")
