"""The victim's mistakes, made more by mixing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Population, Queries, samplers
from locard.queries.cutmix import CutMix
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import LabelView

# Fewer mistakes than this leave nothing to mix.
FEWEST = 2


@samplers.register("negative-augment")
@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeAugment:
    """Mistakes of the victim; where they are too few, CutMix mixtures of them and the mixtures' flips (QuRD's [1]).

    With m mistakes and n queries wanted, ceil((n - m) / (3 m)) rounds each add m mixtures, every mistake with the next
    in a new random order, and these mirrored left to right and top to bottom; the whole is cut to n. Mixtures are no
    mistakes: nobody knows what they show. The patch is CutMix's for alpha = 1: its sides are sqrt(1 - λ) of the image's
    with λ uniform on (0, 1).

    We differ from the released code in two ways: it draws one patch for all mixtures of a round, we draw one for each;
    and where there is no mistake, or one, which has nothing to be mixed with, we say so.

    [1] Godinot, Le Merrer, Penzo, Taïani, Trédan. Queries, Representation & Detection: The Next 100 Model
    Fingerprinting Schemes. AAAI 2025; after the authors' released code.
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
        if data.domain.kind != "image":
            raise ParameterError(
                f"negative-augment mixes images; {data.name} holds {data.domain.text}: use the sampler 'negative'"
            )
        wanted = default if n is None else n
        inputs = data.domain.deliver(data.inputs)
        wrong = generator(seed, "negative-augment").permutation(np.flatnonzero(victim.labels(inputs) != data.labels))
        if len(wrong) < FEWEST:
            raise ParameterError(
                f"{victim.source} misclassifies {len(wrong)} of {len(data)} inputs of {data.name}, and mixing takes "
                f"{FEWEST}: give more labelled data, or sample 'random'"
            )
        source = generator(seed, "negative-augment/mixtures")
        batches, made = [inputs[wrong]], len(wrong)
        while made < wanted:
            mixed = _mixed(inputs[wrong], source)
            batches += [mixed, mixed[..., ::-1], mixed[..., ::-1, :]]
            made += 3 * len(wrong)
        return Queries(inputs=data.domain.deliver(np.concatenate(batches)[:wanted]))


def _mixed(images: np.ndarray, source: np.random.Generator) -> np.ndarray:
    order = source.permutation(len(images))
    partners = np.empty_like(images)
    partners[order] = images[np.roll(order, -1)]
    inside = CutMix(patch="textbook").patches(len(images), images.shape[2:], source)
    return np.where(inside[:, None], partners, images)
