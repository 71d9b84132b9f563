"""How far a model's label is from changing, by blind walks (dataset inference [1])."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
# Width of a walk's first step for each kind of noise, as a share of the domain's range: the released code's numbers.
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

    directions: int = 10
    steps: int = 50
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("directions", self.directions, low=1)
        check_number("steps", self.steps, low=1)
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
            ParameterError: the queries carry no true classes or no seed of the walks.
        """
        classes, walk = queries.extras.get("classes"), queries.extras.get("walk")
        n = len(queries.inputs)
        if classes is None or walk is None or classes.shape != (n,) or walk.shape != (1,):
            raise ParameterError("margins need the true class of each input and a seed of the walks: 'classes', 'walk'")
        if classes.dtype.kind not in "iu" or walk.dtype.kind not in "iu" or walk[0] < 0:
            raise ParameterError("classes and the seed of the walks must be whole numbers")
        right = view.labels(queries.inputs) == classes
        found = np.zeros((n, 3 * self.directions), np.float32)
        size = max(1, PIECE // max(1, 3 * self.directions * queries.inputs[:1].nbytes))
        noise = {norm: generator(int(walk[0]), f"margins/{norm}") for norm in NORMS}
        for start in range(0, n, size):
            rows = slice(start, start + size)
            x = queries.inputs[rows]
            ways = np.concatenate([self._noise(view.domain, len(x), noise[norm], norm) for norm in NORMS], axis=1)
            found[rows] = self._walk(view, x, classes[rows], right[rows], ways)
        return {"margins": found}

    def _noise(self, domain: Domain, n: int, source: np.random.Generator, norm: str) -> np.ndarray:
        """(n, directions, *shape) float32, a walk's first step."""
        shape = (n, self.directions, *domain.shape)
        if norm == "uniform":
            noise = source.uniform(-1, 1, shape)
        else:
            noise = source.normal(size=shape) if norm == "gaussian" else source.laplace(size=shape)
        span = 1.0 if domain.bounds is None else domain.bounds[1] - domain.bounds[0]
        return (noise * (WIDTHS[norm] * self.scale * span)).astype(np.float32)

    def _walk(
        self, view: LabelView, x: np.ndarray, classes: np.ndarray, right: np.ndarray, ways: np.ndarray
    ) -> np.ndarray:
        """(n, directions of all kinds) margins, all walks together."""
        margin = np.zeros(ways.shape[:2])
        rows, columns = np.nonzero(np.broadcast_to(right[:, None], ways.shape[:2]))
        for step in range(1, self.steps + 1):
            if len(rows) == 0:
                break
            points = view.domain.deliver((x[rows] + step * ways[rows, columns]).astype(x.dtype))
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


def length(change: np.ndarray, norm: str) -> np.ndarray:
    """(n,) float64: the largest entry, the L2 or the L1 length of (n, *shape) changes, as the kind of noise says."""
    flat = np.abs(change.reshape(len(change), int(np.prod(change.shape[1:]))).astype(np.float64))
    if norm == "uniform":
        return flat.max(axis=1, initial=0)
    return np.sqrt((flat**2).sum(axis=1)) if norm == "gaussian" else flat.sum(axis=1)
