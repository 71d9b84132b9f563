"""Few inputs, each under many masks, as queries of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number, unknown
from locard.queries.base import Population, Queries, samplers
from locard.queries.segments import Segments, masked
from locard.records import Access, Data

if TYPE_CHECKING:
    from locard.models import LabelView

_SEEDS = ("random", "negative")


@samplers.register("subsample")
@dataclass(frozen=True, slots=True, kw_only=True)
class Subsample:
    """n / `masks` inputs, each under so many random masks (QuRD's subsampling samplers [1]).

    QuRD's RandomSubsample10 and -100 and NegativeSubsample10 and -100 are `masks` 10 and 100 with the two kinds of
    seeds. Segments and masks are those of `Segments`; but here every masked input is a query, so that any
    representation can record the answers, and masks that happen to be equal count each time.

    We differ from the released code in two ways: what is masked becomes the data's mean, as with Zest, not 0; and an
    image is cut into `pieces` segments at least, where quickshift finds one or two in an image of 32 x 32 or less.

    Args:
        seeds: "random" inputs, or "negative" ones, which the victim misclassifies.
        masks: for each input; n must be a multiple of it.
        pieces: fewest segments of an image.

    The queries carry `masks` (inputs, masks, bytes) uint8, packed bits, and `parts` (inputs,) int64, how many segments
    each input has; explanations are read off them.

    [1] Godinot, Le Merrer, Penzo, Taïani, Trédan. Queries, Representation & Detection: The Next 100 Model
    Fingerprinting Schemes. AAAI 2025.
    """

    victim_access: ClassVar[Access] = Access.LABELS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    seeds: str = "random"
    masks: int = 100
    pieces: int = 8

    def __post_init__(self) -> None:
        """Check the name and the ranges."""
        if self.seeds not in _SEEDS:
            raise unknown("seeds", self.seeds, _SEEDS)
        check_number("masks", self.masks, low=2)
        check_number("pieces", self.pieces, low=2)

    def draw(
        self, victim: LabelView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: one query to the victim for each input of the data, if its mistakes are wanted."""
        rows, what = np.arange(len(data)), "inputs"
        if self.seeds == "negative":
            if data.labels is None:
                raise ParameterError(
                    f"negative seeds are found by true labels, and {data.name} has none; give labelled data, or "
                    "seeds=random"
                )
            rows = np.flatnonzero(victim.labels(data.domain.deliver(data.inputs)) != data.labels)
            what = "misclassified inputs"
        drawn = Segments(masks=self.masks, pieces=self.pieces).among(data, rows, what, n=n, default=default, seed=seed)
        masks = drawn.extras["masks"]
        if data.domain.kind == "text":
            parts = np.array([len(text.split()) for text in drawn.inputs])
        else:
            parts = drawn.extras["segments"].reshape(len(masks), -1).max(axis=1).astype(np.int64) + 1
        kept = [np.unpackbits(rows, axis=1, count=count).astype(bool) for rows, count in zip(masks, parts, strict=True)]
        inputs = np.concatenate([masked(drawn, reference, rows) for reference, rows in enumerate(kept)])
        return Queries(inputs=inputs, extras={"masks": masks, "parts": parts.astype(np.int64)})
