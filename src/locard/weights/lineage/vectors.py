"""A unit as a vector: what writes it or reads it, sampled over the other space, free of scale.

Each vector is brought to length 1, which takes away the positive scale that a unit may have; the mean over units is
subtracted and each entry divided by its deviation over units, because what all units of a layer have in common (a mean,
a few entries that are large in every model trained on such data) makes strangers look alike; then to length 1 again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from locard.errors import ArtefactError
from locard.weights.files import Tensors
from locard.weights.layouts import Block, HeadPart, Part

# A pruned unit is all zeros, and has no direction.
TINY = 1e-12
# Entries of an attention product's vector are this many queries' places by as many keys'.
HEAD_SIDE = 24
_NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Alignment:
    """How a suspect's space is brought to the victim's.

    Args:
        order: (n,) the suspect's place for each of the victim's, or None where they are the same.
        signs: (n,) by which it is multiplied, or None.
        rotation: (suspect's n, victim's n) by which the suspect's vectors are multiplied, or None; then the others are.
        name: "none", "permutation", "rotation".
        residual: share of the anchor that is left unexplained on rows that chose nothing, or None.
    """

    order: np.ndarray | None = None
    signs: np.ndarray | None = None
    rotation: np.ndarray | None = None
    name: str = "none"
    residual: float | None = None


SAME = Alignment()


def across_size(tensors: Tensors, part: Part, units: int, spaces: dict[str, int]) -> int:
    """How many places the other space of a part has."""
    shape = tensors.shapes[part.tensor]
    return spaces.get(part.across, shape[1]) if part.axis == 0 else shape[0]


def read_part(
    tensors: Tensors,
    part: Part,
    *,
    units: int,
    size: int,
    chosen: np.ndarray | None,
    places: np.ndarray,
    alignment: Alignment = SAME,
) -> np.ndarray:
    """Vectors of a block's units.

    Args:
        tensors: of one model.
        part: where they lie.
        units: how many the block has.
        size: places of the other space.
        chosen: (m,) which units; None for all.
        places: (k,) which places of the other space, as the victim numbers them.
        alignment: of the other space.

    Returns:
        (m, k * inner) float32; inner is 1 for matrices, the size of a kernel for convolutions.

    Raises:
        ArtefactError: a number is not finite.
    """
    shape = tensors.shapes[part.tensor]
    width = math.prod(shape[1:])
    own = np.arange(size) if alignment.rotation is not None else places
    if alignment.order is not None:
        own = alignment.order[places]
    picked = np.arange(units) if chosen is None else chosen
    if part.axis == 0:
        inner = width // size
        whole_rows = chosen is None and part.first == 0 and shape[0] == units
        rows = None if whole_rows else slice(part.first, part.first + units) if chosen is None else part.first + picked
        columns = None if len(own) == size and _ordered(own) else _spread(own, inner)
        found = tensors.matrix(part.tensor, rows, columns).reshape(len(picked), len(own), inner)
        scale = _folded(tensors, part.norm)
        if scale is not None:
            found = found * scale[part.first + picked, None, None]
    else:
        inner = 1 if part.first else width // units
        columns = None if chosen is None and part.first == 0 else _spread(part.first + picked, inner)
        found = tensors.matrix(part.tensor, own, columns).reshape(len(own), len(picked), inner)
        scale = _folded(tensors, part.norm)
        if scale is not None:
            found = found * scale[own, None, None]
        found = found.transpose(1, 0, 2)
    if part.gain is not None:
        found = found * (tensors.matrix(part.gain).ravel()[own] + np.float32(part.shift))[:, None]
    if alignment.rotation is not None:
        found = np.einsum("usi,sk->uki", found, alignment.rotation[:, places], optimize=True)
    elif alignment.signs is not None:
        found = found * alignment.signs[places, None]
    return check_finite(found.reshape(len(picked), -1), part.tensor, tensors)


def read_heads(
    tensors: Tensors, parts: tuple[HeadPart, HeadPart], *, sides: tuple[np.ndarray, np.ndarray], alignment: Alignment
) -> np.ndarray:
    """Products of two matrices of each head, which no invertible change inside the head moves.

    Heads that share their keys and values are one unit: the sum over its queries, which their order leaves as it is.

    Args:
        tensors: of one model.
        parts: queries and keys, or outputs and values.
        sides: (k,) places of the stream for the first and for the second.
        alignment: of the stream.

    Returns:
        (units, k * k) float32, as many units as the second part has heads.
    """
    first, second = (_heads(tensors, part, side, alignment) for part, side in zip(parts, sides, strict=True))
    shared = len(first) // len(second)
    grouped = first[: shared * len(second)].reshape(len(second), shared, *first.shape[1:]).sum(axis=1)
    products = np.einsum("hdk,hdl->hkl", grouped, second, optimize=True)
    return check_finite(products.reshape(len(second), -1), parts[0].tensor, tensors)


def _heads(tensors: Tensors, part: HeadPart, places: np.ndarray, alignment: Alignment) -> np.ndarray:
    """(heads, size, k)."""
    shape = tensors.shapes[part.tensor]
    stream = shape[1 - part.axis]
    own = np.arange(stream) if alignment.rotation is not None else places
    if alignment.order is not None:
        own = alignment.order[places]
    inside = (part.start + part.step * np.arange(part.heads)[:, None] + np.arange(part.size)).ravel()
    found = tensors.matrix(part.tensor, inside, own) if part.axis == 0 else tensors.matrix(part.tensor, own, inside).T
    if part.gain is not None:
        found = found * (tensors.matrix(part.gain).ravel()[own] + np.float32(part.shift))
    if alignment.rotation is not None:
        found = found @ alignment.rotation[:, places]
    elif alignment.signs is not None:
        found = found * alignment.signs[places]
    return found.reshape(part.heads, part.size, len(places))


def prepare(vectors: np.ndarray, *, signed: bool) -> np.ndarray:
    """Vectors free of scale and of what all have in common; of unit length, or zero.

    Args:
        vectors: (units, k).
        signed: whether a unit's sign is free; then no mean is taken, which a flip would move.
    """
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)
    if not signed:
        vectors = vectors - vectors.mean(axis=0)
    spread = np.sqrt(np.einsum("uk,uk->k", vectors, vectors) / max(len(vectors), 1))
    vectors = vectors / np.maximum(spread, TINY)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)


def gram(ours: np.ndarray, theirs: np.ndarray, *, signed: bool) -> np.ndarray:
    """(m, n) cosines of prepared vectors, without their sign where that is free."""
    found = ours @ theirs.T
    return np.abs(found) if signed else found


def head_units(block: Block) -> int:
    """Units of a block of heads: groups that share their keys."""
    second = block.ins[1]
    return second.heads if isinstance(second, HeadPart) else block.units


def check_finite(found: np.ndarray, name: str, tensors: Tensors) -> np.ndarray:
    """The same array, unless a number in it is not finite."""
    if not np.isfinite(found).all():
        raise ArtefactError(
            f"{tensors.source}: the tensor {name!r} holds numbers that are not finite; such a model answers nothing, "
            "and is damaged or was written wrongly"
        )
    return found


def _folded(tensors: Tensors, norm: str | None) -> np.ndarray | None:
    """What a batch norm multiplies each channel by."""
    if norm is None:
        return None
    variance = tensors.matrix(f"{norm}.running_var").ravel()
    gains = f"{norm}.weight"
    scale = tensors.matrix(gains).ravel() if gains in tensors.shapes else np.ones_like(variance)
    return scale / np.sqrt(np.maximum(variance, 0) + np.float32(_NORM_EPSILON))


def _spread(places: np.ndarray, inner: int) -> np.ndarray:
    return places if inner == 1 else (places[:, None] * inner + np.arange(inner)).ravel()


def _ordered(places: np.ndarray) -> bool:
    return bool((np.diff(places) == 1).all())
