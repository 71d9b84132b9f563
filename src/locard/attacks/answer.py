"""Output processing: the copy tells less than it knows, as an API may.

Probabilities at a temperature, then only the `top` largest, of equal ones the first, then rounded; what is not told is
0. The answered class never changes: where rounding makes it equal to another it keeps a lead of 1e-5 of itself. The
copy's logits are the logarithms of what is told, a 0 counting as 1e-9, so probabilities asked of it are those told,
brought back to a sum of 1. By default, the top 1 alone, which is an answer by labels. Wrong labels on purpose are the
attack `lie`. Counts as a theft without any loss of accuracy, since there is none.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._alone import Alone
from locard.attacks.base import Copy, Network, attacks
from locard.errors import check_number
from locard.records import Data

if TYPE_CHECKING:
    from locard.models import ModuleView
    from locard.models.session import Progress


@attacks.register("answer")
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Alone):
    """Tell less of each answer: the largest probabilities, rounded, at a temperature.

    Args:
        top: how many of the largest probabilities are told, no more than there are classes; 0 for all.
        decimals: they are rounded to so many, at most 6; 0 for no rounding.
        temperature: divides the logits, in [1e-6, 1e6]; above 1 the answers are less sure.
    """

    name: ClassVar[str] = "answer"
    margin: ClassVar[float] = 0.0
    network: ClassVar[Network] = "unnamed"

    top: int = 1
    decimals: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("top", self.top, low=0, whole=True)
        check_number("decimals", self.decimals, low=0, high=6, whole=True)
        check_number("temperature", self.temperature, low=1e-6, high=1e6)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        from locard.attacks._wrappers import Answering, check_inputs

        check_inputs(victim, self.name)
        check_number("top", self.top, low=0, high=victim.classes, whole=True)
        module = Answering(copy.deepcopy(victim.module()), temperature=self.temperature, top=self.top,
                           decimals=self.decimals)  # fmt: skip
        return Copy(module=module)
