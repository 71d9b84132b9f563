"""Inputs drawn uniformly from the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.queries.base import Population, Queries, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import View


@samplers.register("random")
@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Uniform draws without replacement: the baseline that every sampler must beat."""

    victim_access: ClassVar[Access] = Access(0)
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    def draw(
        self, victim: View, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: no query to the victim."""
        rows = take(
            generator(seed, "random").permutation(np.arange(len(data))),
            n=n,
            default=default,
            least=1,
            what="inputs",
            way_out="give more data or ask fewer --queries",
        )
        return Queries(inputs=data.domain.deliver(data.inputs[rows]))
