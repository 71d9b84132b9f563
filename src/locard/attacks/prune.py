"""Magnitude pruning: the smallest weights of a model become 0, perhaps with some training afterwards [1].

Counts as a theft within 5 points of accuracy.

[1] Han, Pool, Tran, Dally. Learning both Weights and Connections for Efficient Neural Networks. NeurIPS 2015, sec. 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from locard.attacks._pruning import Pruned, Pruning, zero
from locard.attacks.base import attacks
from locard.errors import ParameterError

if TYPE_CHECKING:
    import torch

    from locard.attacks._pruning import Masks


@attacks.register("prune")
@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(Pruning):
    """Set weights to 0. Biases and normalisation layers are left whole, as is usual.

    Args:
        fraction: share of the weights, the smallest by magnitude, in [0, 1). A weight is of two axes or more: those of
            linear and convolutional layers, and tables such as a transformer's places.
        per_layer: whether each layer loses that share of its own; otherwise all are ranked together.
        recovery: epochs of training afterwards on the thief's labelled data, the pruned weights held at 0.
        lr: highest learning rate of the recovery.
        batch: inputs in one step of the recovery.
    """

    name: ClassVar[str] = "prune"

    per_layer: bool = False

    def _prune(self, module: torch.nn.Module, victim: Any) -> Pruned:
        keep = masks(module, self.fraction, per_layer=self.per_layer)
        zero(keep)
        return Pruned(keep)


def masks(module: torch.nn.Module, fraction: float, *, per_layer: bool = False) -> Masks:
    """For each weight tensor of two or more axes, 1 where a weight is kept and 0 where it is not.

    Exactly round(fraction * total) weights are dropped, of the model or of each layer, the smallest by magnitude; equal
    ones in order of definition.
    """
    import torch

    weights = [p for p in module.parameters() if p.ndim >= 2]
    if not weights:
        raise ParameterError(f"{type(module).__name__} has no weight matrix to prune")
    keep = []
    for group in [[w] for w in weights] if per_layer else [weights]:
        sizes = torch.cat([w.detach().abs().flatten() for w in group])
        dropped = torch.argsort(sizes, stable=True)[: round(fraction * len(sizes))]
        flat = torch.ones_like(sizes)
        flat[dropped] = 0
        parts = flat.split([w.numel() for w in group])
        keep += [(w, part.reshape(w.shape)) for w, part in zip(group, parts, strict=True)]
    return keep
