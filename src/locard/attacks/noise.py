"""Weight noise: each weight is shaken by a share of its row's spread. Counts as a theft within 3 points of accuracy."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._alone import Alone
from locard.attacks.base import Copy, attacks
from locard.errors import check_number
from locard.records import Data
from locard.seeds import derive

if TYPE_CHECKING:
    from locard.models import ModuleView
    from locard.models.session import Progress


@attacks.register("noise")
@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Alone):
    """Add share * std(row of w) * N(0, 1) to each weight w of two axes or more; a row is one output.

    Args:
        share: of the row's standard deviation.
    """

    name: ClassVar[str] = "noise"
    margin: ClassVar[float] = 0.03
    one_class: ClassVar[bool] = True

    share: float = 0.1

    def __post_init__(self) -> None:
        """Check the range."""
        check_number("share", self.share, low=0, high=1e6)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        import torch

        module = copy.deepcopy(victim.module())
        source = torch.Generator().manual_seed(derive(seed, "noise"))
        for weight in module.parameters():
            if weight.ndim >= 2:
                spread = weight.detach().flatten(1).std(dim=1, correction=0).reshape(-1, *[1] * (weight.ndim - 1))
                weight.data += self.share * spread * torch.randn(weight.shape, generator=source)
        return Copy(module=module)
