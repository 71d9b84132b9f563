"""Inputs that the victim misclassifies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Population, Queries, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import LabelView


@samplers.register("negative")
@dataclass(frozen=True, slots=True, kw_only=True)
class Negative:
    """The victim's mistakes, in random order (QuRD's Negative sampler).

    Right answers are shared by all good models; mistakes are individual. Draw from data that neither the victim nor any
    model to be judged was trained on: members of a training set are known and have no mistakes.
    """

    victim_access: ClassVar[Access] = Access.LABELS
    needs_labels: ClassVar[bool] = True
    needs_population: ClassVar[bool] = False

    def draw(
        self, victim: LabelView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: one query to the victim for each input of the data."""
        if data.labels is None:
            raise ParameterError(f"mistakes are found by true labels, and {data.name} has none; give labelled data")
        inputs = data.domain.deliver(data.inputs)
        wrong = np.flatnonzero(victim.labels(inputs) != data.labels)
        rows = take(
            generator(seed, "negative").permutation(wrong),
            n=n,
            default=default,
            least=10,
            what="inputs that the victim misclassifies",
            way_out=f"give more labelled data than {len(data)} inputs, ask fewer --queries, or sample 'random'",
        )
        return Queries(inputs=inputs[rows])
