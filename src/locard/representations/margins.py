"""How far a model's label is from changing, by blind walks (dataset inference [1])."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries.base import Queries
from locard.records import Access
from locard.representations.base import Record, representations
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import LabelView
    from locard.records import Domain

NORMS = ("uniform", "gaussian", "laplace")
# Width of a walk's first step for each kind of noise, as a share of `reach`: the released code's numbers.
WIDTHS = {"uniform": 0.005, "gaussian": 0.005, "laplace": 0.01}
# Walks that are on their way at once, in bytes.
PIECE = 64 << 20


@representations.register("margins")
@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Record `margins`: (inputs, 3 * directions) float32, how far each blind walk goes until the label changes.

    From an input with true class y a walk goes in a straight line, step t by t times a noise that is drawn once: with
    entries uniform, Gaussian or Laplace, `directions` of each. It ends at the first step whose label is not y, or after
    `steps`; the margin is the length of the change there, as delivered, in the norm that goes with the noise (largest
    entry, L2, L1), 0 where the input itself is not labelled y. The noises follow from the queries' `walk`, so that all
    models are walked alike.

    Args:
        directions: of each of the three kinds.
        steps: of a walk.
        scale: factor on the width of the noises; the released code takes 1, and 2 for street numbers.

    Cost: what a suspect is asked depends on its answers. A walk that has ended is asked no more; `cost` is the most,
    1 + 3 * directions * steps an input, and every point counts once where it is asked.

    [1] Maini, Yaghini, Papernot. Dataset Inference: Ownership Resolution in Machine Learning. ICLR 2021; the numbers
    follow the authors' released code.
    """

    by_class: ClassVar[bool] = True

    directions: int = 10
    steps: int = 50
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("directions", self.directions, low=1, high=1000)
        check_number("steps", self.steps, low=1, high=10_000)
        check_number("scale", self.scale, above=0)

    @property
    def access(self) -> Access:
        """Labels."""
        return Access.LABELS

    def cost(self, queries: Queries) -> int:
        """The most that can be asked."""
        return len(queries.inputs) * (1 + 3 * self.directions * self.steps)

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """None: where a walk ends is only known on the way."""
        return None

    def record(self, view: LabelView, queries: Queries) -> Record:
        """See `Representation.record`.

        Raises:
            ParameterError: the queries do not carry what the sampler "members" gives.
        """
        classes, seed, span, domain = _checked(view.domain, queries)
        n = len(queries.inputs)
        right = view.labels(queries.inputs) == classes
        found = np.zeros((n, 3 * self.directions), np.float32)
        size = max(1, PIECE // max(1, 3 * self.directions * queries.inputs[:1].nbytes))
        noise = {norm: generator(seed, f"margins/{norm}") for norm in NORMS}
        for start in range(0, n, size):
            rows = slice(start, start + size)
            x = queries.inputs[rows]
            ways = np.concatenate([self._noise(len(x), noise[norm], norm, span) for norm in NORMS], axis=1)
            found[rows] = self._walk(view, x, classes[rows], right[rows], ways, domain)
        return {"margins": found}

    def _noise(self, n: int, source: np.random.Generator, norm: str, span: np.ndarray) -> np.ndarray:
        """(n, directions, *shape) float32, a walk's first step."""
        shape = (n, self.directions, *span.shape)
        if norm == "uniform":
            noise = source.uniform(-1, 1, shape)
        else:
            noise = source.normal(size=shape) if norm == "gaussian" else source.laplace(size=shape)
        return (noise * (WIDTHS[norm] * self.scale * span)).astype(np.float32)

    def _walk(
        self, view: LabelView, x: np.ndarray, classes: np.ndarray, right: np.ndarray, ways: np.ndarray, domain: Domain
    ) -> np.ndarray:
        """(n, directions of all kinds) margins, all walks together."""
        margin = np.zeros(ways.shape[:2])
        rows, columns = np.nonzero(np.broadcast_to(right[:, None], ways.shape[:2]))
        for step in range(1, self.steps + 1):
            if len(rows) == 0:
                break
            points = domain.deliver((x[rows] + step * ways[rows, columns]).astype(x.dtype))
            ends = view.labels(points) != classes[rows]
            if step == self.steps:
                ends[:] = True
            change = points[ends] - x[rows[ends]]
            kinds = columns[ends] // self.directions
            for kind, norm in enumerate(NORMS):
                here = kinds == kind
                margin[rows[ends][here], columns[ends][here]] = length(change[here], norm)
            rows, columns = rows[~ends], columns[~ends]
        return margin


def _checked(domain: Domain, queries: Queries) -> tuple[np.ndarray, int, np.ndarray, Domain]:
    """Classes, seed, span, and the domain with the bounds and quantum that the walks were made for.

    Raises:
        ParameterError: one is missing or does not fit, as a stranger's fingerprint may be.
    """
    names, n = ("classes", "walk", "span", "grid"), len(queries.inputs)
    arrays = [queries.extras.get(name) for name in names]
    shapes, kinds = ((n,), (1,), domain.shape, (3,)), ("iu", "iu", "f", "f")
    for name, array, shape, kind in zip(names, arrays, shapes, kinds, strict=True):
        if array is None or array.shape != shape or array.dtype.kind not in kind:
            found = "none" if array is None else f"{array.dtype} {array.shape}"
            raise ParameterError(
                f"margins need {name!r} of shape {shape} with the queries, as 'members' gives it; got {found}"
            )
    classes, walk, span, grid = (np.asarray(array) for array in arrays)
    low, high, quantum = (float(number) for number in grid)
    if walk[0] < 0 or not (np.isfinite(span).all() and np.isfinite(grid).all()) or low > high or quantum < 0:
        raise ParameterError(
            "the walks' seed must be positive, their span finite, and their bounds and quantum in order"
        )
    bounds = (low, high) if low < high else None
    return classes, int(walk[0]), span, replace(domain, bounds=bounds, quantum=quantum or None)


def length(change: np.ndarray, norm: str) -> np.ndarray:
    """(n,) float64: the largest entry, the L2 or the L1 length of (n, *shape) changes, as the kind of noise says."""
    flat = np.abs(change.reshape(len(change), int(np.prod(change.shape[1:]))).astype(np.float64))
    if norm == "uniform":
        return flat.max(axis=1, initial=0)
    return np.sqrt((flat**2).sum(axis=1)) if norm == "gaussian" else flat.sum(axis=1)
