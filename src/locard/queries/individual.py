"""The victim's mistakes, weighed by how seldom other models make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.queries.base import Population, Queries, pool, samplers
from locard.queries.negative import Negative
from locard.records import Access, Data

if TYPE_CHECKING:
    from locard.models import LabelView

# Fewer models cannot tell a mistake that all make from one that a few make.
FEWEST = 4


@samplers.register("individual")
@dataclass(frozen=True, slots=True, kw_only=True)
class Individual:
    """`Negative`, and beside each query what an innocent model's agreement on it is worth.

    Where classes are confusable or labels are wrong, a model's mistakes are everybody's. Of m independent models k
    repeat the victim's answer to a query; its weight is -log((k + 1) / (m + 2)), the surprise of seeing it repeated
    once more (Laplace's rule of succession). These models are of the owner's choosing and must not serve as references
    too.

    The queries carry `weights`, (n,) float64, positive.
    """

    victim_access: ClassVar[Access] = Access.LABELS
    needs_labels: ClassVar[bool] = True
    needs_population: ClassVar[bool] = True

    def draw(
        self, victim: LabelView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: one query to the victim for each input of the data, n to each independent model."""
        others = pool(
            population, derived=0, independent=FEWEST, what="mistakes weighed by how seldom they are made", like=victim
        )
        drawn = Negative().draw(victim, data, n=n, default=default, seed=seed, population=None)
        said = victim.labels(drawn.inputs)
        repeated = sum((_labels(model, drawn.inputs) == said).astype(np.int64) for model in others.independent)
        return Queries(inputs=drawn.inputs, extras={"weights": -np.log((repeated + 1) / (len(others.independent) + 2))})


def _labels(model: Any, inputs: np.ndarray) -> np.ndarray:
    return model.labels(inputs)
