"""Adversarial points and points that only look like them, for a frontier that is to be stitched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._adversarial import fgsm
from locard.queries.base import Population, Queries, movable, reach, samplers
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import GradientView


@samplers.register("frontier")
@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """A key of frontier stitching: true and false adversaries, half and half [1, section 3].

    A rightly classified input is moved by one FGSM step of `radius`. If its label has changed it is a true adversary,
    else a false one. The victim gets the true ones wrong and the false ones right, as delivered.

    Args:
        radius: of the step, as a share of `reach`.

    n, the number of queries, must be even. The queries carry `classes` (n,) int64, the class of the input that each
    was made from; true adversaries come first.

    [1] Le Merrer, Pérez, Trédan. Adversarial Frontier Stitching for Remote Neural Network Watermarking. Neural
    Computing and Applications 32, 2020.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = True
    needs_population: ClassVar[bool] = False

    radius: float = 0.1

    def __post_init__(self) -> None:
        """Check the range."""
        check_number("radius", self.radius, above=0, high=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: one answer an input, then one gradient and one answer for each that is tried."""
        movable(data, "adversaries")
        if data.labels is None:
            raise ParameterError(f"a frontier key is made of rightly classified inputs, and {data.name} has no labels")
        if n is not None and n % 2:
            raise ParameterError(f"half of a frontier key are true adversaries, so --queries must be even; got {n}")
        half = (default if n is None else n) // 2
        inputs = data.domain.deliver(data.inputs)
        right = np.flatnonzero(victim.labels(inputs) == data.labels)
        order, start = generator(seed, "frontier/seeds").permutation(right), 0
        kinds: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        points, rows = [inputs[:0]], [np.empty(0, np.int64)]
        found = 0, 0
        while min(found) < half and start < len(order):
            batch = order[start : start + 2 * half]
            start += len(batch)
            moved = fgsm(victim, inputs[batch], data.labels[batch], radius=self.radius * reach(data),
                         domain=data.domain)  # fmt: skip
            fooled = victim.labels(moved) != data.labels[batch]
            base = sum(map(len, rows))
            kinds[0].append(base + np.flatnonzero(fooled))
            kinds[1].append(base + np.flatnonzero(~fooled))
            points.append(moved)
            rows.append(batch)
            found = sum(map(len, kinds[0])), sum(map(len, kinds[1]))
        least = min(half, 5) if n is None else half
        size = min(half, *found)
        if size < least:
            raise ParameterError(
                f"a frontier key needs {least} true and {least} false adversaries; {len(order)} rightly classified "
                f"inputs of {data.name} gave {found[0]} and {found[1]}: give more data, ask fewer --queries, or set "
                f"another radius ({self.radius:g})"
            )
        kept = np.concatenate([np.concatenate(kind)[:size] for kind in kinds])
        return Queries(
            inputs=np.concatenate(points)[kept],
            extras={"classes": data.labels[np.concatenate(rows)[kept]].astype(np.int64)},
        )
