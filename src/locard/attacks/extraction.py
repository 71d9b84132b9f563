"""Extraction through an API: a model of the thief's own is trained on the victim's answers [1].

The thief asks its own inputs, and then convex mixtures of random pairs of them, so that few inputs make a large query
set (the paper asks unrelated images instead; mixtures lie near the data, and every one of them is a query that counts).
Texts have no mixtures: of them the thief's own are all. The victim is asked once, before training. What an API rounds
or cuts to the largest few is learnt from as it comes, scaled to a sum of 1.

[1] Orekondy, Schiele, Fritz. Knockoff Nets: Stealing Functionality of Black-Box Models. CVPR 2019, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._answers import Bought
from locard.attacks._pool import own_texts, query_set
from locard.attacks._student import MOST, Extractor
from locard.attacks.base import Copy, attacks
from locard.errors import check_number
from locard.models.fitting import fit
from locard.records import Data

if TYPE_CHECKING:
    from locard.models import LabelView
    from locard.models.session import Progress


@attacks.register("extraction")
@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction(Extractor):
    """Train a copy on the victim's answers.

    Args:
        queries: the most inputs to ask; 0 for the thief's own inputs and no mixtures.

    The rest as in `Extractor`.
    """

    name: ClassVar[str] = "extraction"

    queries: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        Extractor.__post_init__(self)
        check_number("queries", self.queries, low=0, high=MOST, whole=True)

    def _steal(self, victim: LabelView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        module = self.student(victim, seed=seed)
        choose = own_texts if data.domain.kind == "text" else query_set
        inputs = choose(data, self.queries or len(data), seed=seed)
        bought = Bought(victim, self.needs, most=len(inputs))
        bought.ask(inputs)
        fit(module, bought.inputs, bought.targets, recipe=self.recipe, seed=seed, progress=progress)
        return self.hand_over(module, victim, bought, self.epochs)
