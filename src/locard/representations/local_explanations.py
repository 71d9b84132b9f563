"""Linear models of a model around reference inputs, by their segments (Zest [1], after LIME)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Queries
from locard.queries.segments import MOST, masked
from locard.records import Access
from locard.representations._answers import access, ask, check
from locard.representations.base import Record, representations

# Masked inputs are made and asked in pieces of at most so many bytes.
PIECE = 16 << 20
# Eigenvalues of the masks' Gram matrix below this share of the largest are taken for 0.
RANK = 1e-10


# Number of a reference, its distinct masks, and how often each was drawn.
Masks = tuple[int, np.ndarray, np.ndarray]


@representations.register("local-explanations")
@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExplanations:
    """Record `weights`: (segments of all references, classes) float32, what each segment adds to each answer.

    For a reference with masks M (masks, segments) and answers Y (masks, classes), W = pinv(MᵀM) MᵀY: plain least
    squares without intercept, proximity kernel or regulariser. The W of all references are stacked.

    Args:
        answers: "probabilities", "logits" or "values" (regression, embeddings).

    Cost: one query for each distinct mask of each reference; eight segments have no more than 256.

    [1] Jia, Chen, Guan, Shamsabadi, Papernot. A Zest of LIME: Towards Architecture-Independent Model Distances. ICLR
    2022; the least squares follow the released code.
    """

    by_class: ClassVar[bool] = True

    answers: str = "probabilities"

    def __post_init__(self) -> None:
        """Check the name of the answers."""
        check(self.answers)

    @property
    def access(self) -> Access:
        """The rung of the answers."""
        return access(self.answers)

    def cost(self, queries: Queries) -> int:
        """The distinct masks of all references, or the queries that are masked already."""
        if "parts" in queries.extras:
            return len(queries.inputs)
        return sum(len(kept) for _, kept, _ in _masks(queries))

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """None, as masked inputs are made piece by piece; or the queries that are masked already."""
        return queries.inputs if "parts" in queries.extras else None

    def record(self, view: Any, queries: Queries) -> Record:
        """See `Representation.record`.

        Raises:
            ParameterError: the queries are no references with masks, as the samplers "segments" and "subsample" give.
        """
        if "parts" in queries.extras:
            kept = _spread(queries)
            answers = np.split(ask(view, self.answers, queries.inputs), len(kept))
            return {"weights": np.concatenate([explain(*pair) for pair in zip(kept, answers, strict=True)])}
        rows = max(1, PIECE // max(1, queries.inputs[:1].nbytes))
        weights = []
        for group in _groups(_masks(queries), rows):
            answers = np.concatenate([ask(view, self.answers, inputs) for inputs in _pieces(queries, group, rows)])
            ends = np.cumsum([len(kept) for _, kept, _ in group])[:-1]
            for (_, kept, times), part in zip(group, np.split(answers, ends), strict=True):
                weights.append(explain(kept, part, times))
        return {"weights": np.concatenate(weights)}


def explain(kept: np.ndarray, answers: np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
    """W of `LocalExplanations` for one reference.

    Args:
        kept: (masks, segments) bool, true where a segment stays.
        answers: (masks, classes).
        times: (masks,) how often each mask was drawn, or None for once.

    Returns:
        (segments, classes) float32; the shortest solution where the masks do not tell all segments apart.
    """
    m, y = kept.astype(np.float64), answers.astype(np.float64)
    weighted = m.T if times is None else m.T * times
    # The pseudo-inverse of a Gram matrix by its eigenvectors; NumPy's own takes longer around them than in them.
    values, vectors = np.linalg.eigh(weighted @ m)
    sound = values > RANK * values.max(initial=0)
    basis = vectors[:, sound]
    return ((basis / values[sound]) @ (basis.T @ (weighted @ y))).astype(np.float32)


def _spread(queries: Queries) -> list[np.ndarray]:
    """The masks of each reference, (masks, segments) bool, where every masked input is a query of its own."""
    masks, parts, n = queries.extras.get("masks"), queries.extras["parts"], len(queries.inputs)
    if masks is None or masks.dtype != np.uint8 or masks.ndim != 3 or masks.shape[0] * masks.shape[1] != n:
        found = "none" if masks is None else f"{masks.dtype} {masks.shape}"
        raise ParameterError(f"masks must be bytes, one mask for each of {n} queries; got {found}")
    if parts.shape != masks.shape[:1] or parts.dtype.kind not in "iu":
        raise ParameterError(f"parts must be {masks.shape[0]} whole numbers; got {parts.dtype} {parts.shape}")
    if parts.min() < 1 or parts.max() > min(MOST, 8 * masks.shape[2]):
        raise ParameterError(f"a reference must have 1 to {min(MOST, 8 * masks.shape[2])} segments; got others")
    return [np.unpackbits(rows, axis=1, count=int(count)).astype(bool) for rows, count in
            zip(masks, parts, strict=True)]  # fmt: skip


def _masks(queries: Queries) -> Iterator[Masks]:
    """For each reference its number, its distinct masks, (distinct, segments) bool, and how often each was drawn."""
    masks, counts = _checked(queries)
    width = masks.shape[2]
    # As one number or word a mask: sorting rows bit by bit would take longer than asking them.
    words = np.ascontiguousarray(masks).view(f"V{width}")[:, :, 0]
    if width <= 8:
        words = np.pad(masks, ((0, 0), (0, 0), (0, 8 - width))).view(np.uint64)[:, :, 0]
    for reference, count in enumerate(counts):
        distinct, times = np.unique(words[reference], return_counts=True)
        packed = distinct.view(np.uint8).reshape(len(distinct), -1)
        yield reference, np.unpackbits(packed, axis=1, count=count).view(bool), times


def _groups(masks: Iterator[Masks], rows: int) -> Iterator[list[Masks]]:
    """References whose masks fit into so many rows together: those of one alone would not fill a model's batches."""
    group: list[Masks] = []
    for one in masks:
        if group and sum(len(kept) for _, kept, _ in group) + len(one[1]) > rows:
            yield group
            group = []
        group.append(one)
    yield group


def _pieces(queries: Queries, group: list[Masks], rows: int) -> Iterator[np.ndarray]:
    """The masked inputs of a group in order, at most so many rows at a time."""
    if len(group) == 1:
        ((reference, kept, _),) = group
        yield from (masked(queries, reference, kept[at : at + rows]) for at in range(0, len(kept), rows))
        return
    ends = np.cumsum([len(kept) for _, kept, _ in group])
    inputs = np.empty((ends[-1], *queries.inputs.shape[1:]), queries.inputs.dtype)
    for (reference, kept, _), end in zip(group, ends, strict=True):
        masked(queries, reference, kept, out=inputs[end - len(kept) : end])
    yield inputs


def _checked(queries: Queries) -> tuple[np.ndarray, list[int]]:
    """Masks, and the number of segments of each reference; a fingerprint may come from a stranger."""
    inputs, masks = queries.inputs, queries.extras.get("masks")
    if masks is None:
        raise ParameterError("local explanations need references with masks: use the sampler 'segments'")
    if masks.dtype != np.uint8 or masks.ndim != 3 or len(masks) != len(inputs) or 0 in masks.shape:
        raise ParameterError(f"masks must be bytes, ({len(inputs)}, masks, bytes); got {masks.dtype} {masks.shape}")
    if (inputs.dtype.kind in "OU") == ("segments" in queries.extras):
        raise ParameterError("texts have words for segments, and only they; other references need 'segments'")
    if inputs.dtype.kind in "OU":
        counts = [len(text.split()) for text in inputs]
    else:
        _check("segments", queries, (len(inputs), 1, *inputs.shape[2:]) if inputs.ndim == 4 else inputs.shape, "i")
        _check("fill", queries, (*inputs.shape[1:2], 1, 1) if inputs.ndim == 4 else inputs.shape[1:], inputs.dtype.kind)
        segments = queries.extras["segments"]
        counts = [int(reference.max(initial=-1)) + 1 for reference in segments]
        if segments.min(initial=0) < 0:
            raise ParameterError("segments must be numbered from 0")
    most = min(MOST, 8 * masks.shape[2])
    if min(counts) < 1 or max(counts) > most:
        raise ParameterError(f"a reference must have 1 to {most} segments; got {min(counts)} to {max(counts)}")
    return masks, counts


def _check(name: str, queries: Queries, shape: tuple[int, ...], kind: str) -> None:
    array = queries.extras.get(name)
    if array is None or array.shape != shape or array.dtype.kind != kind:
        found = "none" if array is None else f"{array.dtype} {array.shape}"
        raise ParameterError(f"{name} must have shape {shape} and a dtype of kind {kind!r}; got {found}")
