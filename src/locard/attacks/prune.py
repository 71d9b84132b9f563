"""Magnitude pruning: the smallest weights of the whole model become 0, perhaps with some training afterwards [1].

Counts as a theft within 5 points of accuracy.

[1] Han, Pool, Tran, Dally. Learning both Weights and Connections for Efficient Neural Networks. NeurIPS 2015, sec. 3.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks.base import Attack, Copy, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import Recipe, fit
from locard.records import Access, Data

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress


@attacks.register("prune")
@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(Attack):
    """Set weights to 0. Biases and normalisation layers are left whole, as is usual.

    Args:
        fraction: share of the weights of linear and convolutional layers, ranked together by magnitude, in [0, 1).
        recovery: epochs of training afterwards on the thief's labelled data, the pruned weights held at 0.
        lr: highest learning rate of the recovery.
        batch: inputs in one step of the recovery.
    """

    name: ClassVar[str] = "prune"
    margin: ClassVar[float] = 0.05

    fraction: float = 0.5
    recovery: int = 0
    lr: float = 1e-3
    batch: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("fraction", self.fraction, low=0, below=1)
        check_number("recovery", self.recovery, low=0)
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

    def _recipe(self) -> Recipe:
        return Recipe(epochs=max(self.recovery, 1), lr=self.lr, batch=self.batch)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        module = copy.deepcopy(victim.module())
        keep = masks(module, self.fraction)

        def put_back() -> None:
            for weight, mask in keep:
                weight.data.mul_(mask)

        put_back()
        if data is not None and data.labels is not None and self.recovery:
            fit(module, data.inputs, data.labels, recipe=self._recipe(), seed=seed, after_step=put_back,
                progress=progress)  # fmt: skip
        return Copy(module=module, epochs=self.recovery)


def masks(module: torch.nn.Module, fraction: float) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
    """For each weight tensor of two or more axes, 1 where a weight is kept and 0 where it is not.

    Exactly round(fraction * total) weights are dropped, the smallest by magnitude; equal ones in order of definition.
    """
    import torch

    weights = [p for p in module.parameters() if p.ndim >= 2]
    if not weights:
        raise ParameterError(f"{type(module).__name__} has no weight matrix to prune")
    sizes = torch.cat([w.detach().abs().flatten() for w in weights])
    dropped = torch.argsort(sizes, stable=True)[: round(fraction * len(sizes))]
    flat = torch.ones_like(sizes)
    flat[dropped] = 0
    parts = flat.split([w.numel() for w in weights])
    return [(w, part.reshape(w.shape)) for w, part in zip(weights, parts, strict=True)]
