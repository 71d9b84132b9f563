"""What every pruning shares: something goes, and stays gone while the rest is trained on."""

from __future__ import annotations

import abc
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from locard.attacks.base import Attack, Copy
from locard.errors import check_number
from locard.models.fitting import Recipe, fit
from locard.records import Access, Data

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress

    Masks = list[tuple[torch.nn.Parameter, torch.Tensor]]


class Pruned(NamedTuple):
    """What was done to a module: masks of what must stay at 0, whether it was cut, notes for the user."""

    keep: Masks
    cut: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning(Attack):
    """Abstract: take weights away, perhaps train on.

    Args:
        fraction: share of what may go, in [0, 1).
        recovery: epochs of training afterwards on the thief's labelled data, what was pruned held at 0.
        lr: highest learning rate of the recovery.
        batch: inputs in one step of the recovery.
    """

    margin: ClassVar[float] = 0.05
    one_class: ClassVar[bool] = True

    fraction: float = 0.5
    recovery: int = 0
    lr: float = 1e-3
    batch: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("fraction", self.fraction, low=0, below=1)
        check_number("recovery", self.recovery, low=0, whole=True)
        self._recipe()

    @property
    def needs(self) -> Access:
        """The module."""
        return Access.MODULE

    @property
    def needs_data(self) -> bool:
        """Only to recover."""
        return self.recovery > 0

    @property
    def needs_labels(self) -> bool:
        """Only to recover."""
        return self.recovery > 0

    @abc.abstractmethod
    def _prune(self, module: torch.nn.Module, victim: Any) -> Pruned:
        """Prune a module in evaluation mode, in place."""

    def _recipe(self) -> Recipe:
        return Recipe(epochs=max(self.recovery, 1), lr=self.lr, batch=self.batch)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        module = copy.deepcopy(victim.module()).eval()
        pruned = self._prune(module, victim)
        if data is not None and data.labels is not None and self.recovery:
            fit(module, data.inputs, data.labels, recipe=self._recipe(), seed=seed,
                after_step=lambda: zero(pruned.keep), progress=progress)  # fmt: skip
        return Copy(module=module, unnamed=pruned.cut, epochs=self.recovery, notes=pruned.notes)


def zero(keep: Masks) -> None:
    """Set what the masks leave out to 0."""
    for weight, mask in keep:
        weight.data.mul_(mask)
