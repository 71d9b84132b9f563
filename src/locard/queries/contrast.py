"""The victim's mistakes that its copies repeat and other models do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Population, Queries, pool, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import LabelView


@samplers.register("contrast")
@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Mistakes of the victim that its copies repeat and other models do not (SAC-w's queries [1]).

    A mistake is worth the share of the population's derived models that give the victim's answer to it, less the share
    of the independent ones that do. Those worth more than nothing are kept, the best first. The released code ships
    SAC-w's selection as a finished file and not the rule by which surrogates made it; this rule is our reading of the
    paper's idea. The population's models choose queries and must be judged nowhere.

    The queries carry `worth`, (n,) float64 in (0, 1].

    [1] Guan, Liang, He. Are You Stealing My Model? Sample Correlation for Fingerprinting Deep Neural Networks. NeurIPS
    2022.
    """

    victim_access: ClassVar[Access] = Access.LABELS
    needs_labels: ClassVar[bool] = True
    needs_population: ClassVar[bool] = True

    def draw(
        self, victim: LabelView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: one query to the victim for each input of the data, one to each of the population's models for each
        mistake.
        """
        others = pool(population, derived=1, independent=1, what="mistakes chosen by contrast", like=victim)
        if data.labels is None:
            raise ParameterError(f"mistakes are found by true labels, and {data.name} has none; give labelled data")
        inputs = data.domain.deliver(data.inputs)
        labels = victim.labels(inputs)
        wrong = generator(seed, "contrast").permutation(np.flatnonzero(labels != data.labels))
        worth = np.zeros(len(wrong))
        if len(wrong):
            derived, independent = (
                np.mean([_labels(model, inputs[wrong]) == labels[wrong] for model in models], axis=0)
                for models in (others.derived, others.independent)
            )
            worth = derived - independent
        order = np.argsort(-worth, kind="stable")
        order = take(
            order[worth[order] > 0],
            n=n,
            default=default,
            least=10,
            what="mistakes of the victim that its copies repeat more often than other models",
            way_out=f"give more labelled data than {len(data)} inputs, another population, fewer --queries, or sample "
            "'negative' (sac: variant=source)",
        )
        return Queries(inputs=inputs[wrong[order]], extras={"worth": worth[order]})


def _labels(model: Any, inputs: np.ndarray) -> np.ndarray:
    return model.labels(inputs)
