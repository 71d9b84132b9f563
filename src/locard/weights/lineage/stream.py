"""Step 0: the stream of a transformer may have been turned as a whole; its table of words or pixels shows by what.

Tried in this order: as it is; a signed permutation of the coordinates; an orthogonal matrix (Procrustes). Each is
fitted on four fifths of the rows and judged on the rest, so that many free entries alone do not win.
"""

from __future__ import annotations

import numpy as np

from locard.seeds import generator
from locard.weights.files import Tensors
from locard.weights.layouts import Part
from locard.weights.lineage.vectors import SAME, Alignment, check_finite

ROWS = 4096
# Entry by entry, two tables this much alike need no turning.
ALIKE = 0.5
# Inner products of words no rotation moves; two tables that differ more in these are no rotations of one another.
RELATED = 0.5
_PROBED = 256
_WIDEST = 8192


def align(a: Tensors, b: Tensors, ours: Part, theirs: Part, *, seed: int) -> tuple[Alignment, str | None]:
    """How the suspect's stream is brought to the victim's.

    Args:
        a: the victim's tensors.
        b: the suspect's.
        ours: the victim's anchor.
        theirs: the suspect's.
        seed: of the rows that are looked at.

    Returns:
        The alignment, and a sentence where there is none to be had.
    """
    width = a.shapes[ours.tensor][ours.axis]
    if b.shapes[theirs.tensor][theirs.axis] != width:
        return SAME, "the streams have different widths and are not aligned"
    one, other = _tables(a, b, ours, theirs, seed)
    if _cosine(one, other) > ALIKE:
        return Alignment(name="none", residual=_residual(one, other)), None
    if not _related(one[:_PROBED], other[:_PROBED]):
        return SAME, None
    if width > _WIDEST:
        return SAME, f"the stream has {width:,} coordinates; wider ones than {_WIDEST:,} are not aligned"
    cut = max(1, 4 * len(one) // 5)
    found = [
        Alignment(name="none", residual=_residual(one[cut:], other[cut:])),
        _permutation(one, other, cut),
        _rotation(one, other, cut),
    ]
    return min(found, key=lambda alignment: alignment.residual if alignment.residual is not None else np.inf), None


def _tables(a: Tensors, b: Tensors, ours: Part, theirs: Part, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same rows of both tables, (rows, width) float64, each column less its mean."""
    tables = []
    rows = min(_rows(a, ours), _rows(b, theirs))
    picked = np.sort(generator(seed, "matched-unit/stream").permutation(rows)[:ROWS])
    for tensors, part in ((a, ours), (b, theirs)):
        found = tensors.matrix(part.tensor, picked) if part.axis == 1 else tensors.matrix(part.tensor, None, picked).T
        found = check_finite(found, part.tensor, tensors).astype(np.float64)
        tables.append(found - found.mean(axis=0))
    # What is fitted and what is judged must not be neighbours in the vocabulary, which is sorted by frequency.
    mixed = generator(seed, "matched-unit/stream/split").permutation(len(picked))
    return tables[0][mixed], tables[1][mixed]


def _rows(tensors: Tensors, part: Part) -> int:
    shape = tensors.shapes[part.tensor]
    return shape[0] if part.axis == 1 else int(np.prod(shape[1:]))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / lengths if lengths else 0.0


def _residual(one: np.ndarray, other: np.ndarray) -> float:
    """1 - cos ** 2: what the best multiple of one leaves unexplained of the other; 1 where the cosine is negative."""
    return 1 - max(_cosine(one, other), 0.0) ** 2


def _related(one: np.ndarray, other: np.ndarray) -> bool:
    grams = []
    for table in (one, other):
        unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        products = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
        grams.append(products - products.mean())
    return _cosine(*grams) > RELATED


def _permutation(one: np.ndarray, other: np.ndarray, cut: int) -> Alignment:
    from scipy.optimize import linear_sum_assignment

    ours, theirs = (table[:cut] / np.maximum(np.linalg.norm(table[:cut], axis=0), 1e-12) for table in (one, other))
    products = ours.T @ theirs
    _, order = linear_sum_assignment(-np.abs(products))
    signs = np.where(products[np.arange(len(order)), order] < 0, -1.0, 1.0).astype(np.float32)
    return Alignment(order=order, signs=signs, name="permutation",
                     residual=_residual(one[cut:], other[cut:, order] * signs))  # fmt: skip


def _rotation(one: np.ndarray, other: np.ndarray, cut: int) -> Alignment:
    left, _, right = np.linalg.svd(other[:cut].T @ one[:cut])
    rotation = left @ right
    return Alignment(rotation=rotation.astype(np.float32), name="rotation",
                     residual=_residual(one[cut:], other[cut:] @ rotation))  # fmt: skip
