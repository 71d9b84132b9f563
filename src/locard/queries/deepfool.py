"""Pairs of points on either side of the victim's nearest boundaries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._adversarial import Crossing, deepfool
from locard.queries.base import Population, Queries, movable, samplers
from locard.records import Access, Data, Domain
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import GradientView

# Seeds tried for each pair: the nearest quarter of the boundaries is kept.
TRIED = 4
# How far from the boundary a pair may stand, over `overshoot`, where rounding undoes what is nearer.
WIDER = (1, 2, 5, 10, 20, 50)


@samplers.register("deepfool")
@dataclass(frozen=True, slots=True, kw_only=True)
class DeepFool:
    """x + (1 - h) r and x + (1 + h) r, for an input x and the shortest step r to another class [1].

    r is found by the DeepFool attack [2]; h is `overshoot`. Of four inputs tried for each pair the pairs nearest to
    their inputs are kept, the faces (class of x, class beyond) taking turns, so that one near face does not fill the
    fingerprint. The paper's text was not at hand: that points are found by DeepFool and compared by label is its
    abstract's, pairs, selection and turns are reconstructed.

    Points 2% beyond a boundary are the most fragile there are, and on an 8-bit grid rounding alone would undo many.
    Where a pair's labels are not those of the two sides as delivered, h is made 2, 5, 10, 20 and 50 times as wide, at
    most 1.

    Args:
        overshoot: h, the share of r that the two points stand from the boundary.
        steps: the most steps of DeepFool.

    n, the number of queries, must be even. The queries carry `pairs` (n / 2, 2) and `units` (n,) int64, and for each
    pair `distance`, the L2 length of r, and `width`, its h, (n / 2,) float64.

    [1] Wang, Chang. Fingerprinting Deep Neural Networks - a DeepFool Approach. ISCAS 2021. [2] Moosavi-Dezfooli, Fawzi,
    Frossard. DeepFool. CVPR 2016.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    overshoot: float = 0.02
    steps: int = 50

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("overshoot", self.overshoot, above=0, high=1)
        check_number("steps", self.steps, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: some ten gradients of the victim for each class and query."""
        movable(data, "boundary pairs")
        if victim.classes is None or victim.classes < 2:
            raise ParameterError(f"a boundary needs two classes, and {victim.source} does not have them")
        if n is not None and n % 2:
            raise ParameterError(f"boundary pairs are two queries each, so --queries must be even; got {n}")
        wanted = (default if n is None else n) // 2
        order, start = generator(seed, "deepfool/seeds").permutation(len(data)), 0
        found: list[tuple[np.ndarray, ...]] = []
        # Most batches hold enough; the loop is for victims that many inputs cannot leave.
        while sum(len(part[0]) for part in found) < wanted and start < len(data):
            rows = order[start : start + TRIED * wanted]
            start += len(rows)
            found.append(self._pairs(victim, data, rows))
        inside, outside, faces, distance, width = (np.concatenate(parts) for parts in zip(*found, strict=True))
        least = min(wanted, 5) if n is None else wanted
        if len(inside) < least:
            raise ParameterError(
                f"{least} boundary pairs are needed; {len(inside)} of {start} inputs of {data.name} gave one: give "
                "more data, ask fewer --queries, or take more steps (--param steps=...)"
            )
        kept = in_turn(faces, distance)[:wanted]
        number = np.arange(len(kept))
        return Queries(
            inputs=np.concatenate([inside[kept], outside[kept]]),
            extras={
                "pairs": np.stack([number, number + len(kept)], axis=1),
                "units": np.tile(number, 2),
                "distance": distance[kept],
                "width": width[kept],
            },
        )

    def _pairs(self, victim: GradientView, data: Data, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Points inside and outside, faces (m, 2), distances and widths of the pairs that some rows give."""
        x = data.domain.deliver(data.inputs[rows])
        if data.labels is not None:
            right = victim.labels(x) == data.labels[rows]
            x = x[right]
        if len(x) == 0:
            return x, x, np.empty((0, 2), np.int64), np.empty(0), np.empty(0)
        crossing = deepfool(victim, x, steps=self.steps, overshoot=self.overshoot, domain=data.domain)
        inside, outside, width = x.copy(), x.copy(), np.zeros(len(x))
        other = crossing.other
        open_ = np.flatnonzero(crossing.crossed)
        for wider in WIDER:
            share = self.overshoot * wider
            if share > 1 or len(open_) == 0:
                break
            nearer, further = (_moved(x, crossing, open_, 1 + sign * share, data.domain) for sign in (-1, 1))
            labels = victim.labels(np.concatenate([nearer, further])).reshape(2, -1)
            sound = (labels[0] == crossing.own[open_]) & (labels[1] == other[open_])
            done = open_[sound]
            inside[done], outside[done], width[done] = nearer[sound], further[sound], share
            open_ = open_[~sound]
        kept = np.flatnonzero(width)
        faces = np.stack([crossing.own, other], axis=1)[kept]
        distance = np.linalg.norm(
            crossing.step[kept].reshape(len(kept), int(np.prod(x.shape[1:]))).astype(np.float64), axis=1
        )
        return inside[kept], outside[kept], faces, distance, width[kept]


def in_turn(faces: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """An order in which the faces take turns, each with its nearest pairs first.

    Args:
        faces: (m, 2) integers.
        distance: (m,) numbers.

    Returns:
        (m,) row numbers.
    """
    nearest = np.argsort(distance, kind="stable")
    turns, seen = np.empty(len(faces), np.int64), Counter[tuple[int, ...]]()
    for row in nearest.tolist():
        face = tuple(faces[row].tolist())
        turns[row] = seen[face]
        seen[face] += 1
    return np.lexsort((distance, turns))


def _moved(x: np.ndarray, crossing: Crossing, rows: np.ndarray, share: float, domain: Domain) -> np.ndarray:
    return domain.deliver((x[rows] + share * crossing.step[rows]).astype(x.dtype))
