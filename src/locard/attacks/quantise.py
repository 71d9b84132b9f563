"""Quantisation after training: weights rounded to a coarser format and run in floating point [1].

`int8`: each output channel of a linear or convolutional weight gets the scale max |w| / 127, symmetric about 0, and its
weights are rounded to whole multiples of it, half to even; biases and normalisation stay, as deployed kernels keep them
wider. `fp16`: every floating-point tensor is rounded to half precision. Activations are not quantised. Counts as a
theft within 1 point of accuracy.

[1] Jacob et al. Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference. CVPR
2018, equation 1 with zero point 0.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks.base import Attack, Copy, attacks, bare
from locard.errors import ParameterError
from locard.records import Access, Data

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress

_LARGEST = 127


@attacks.register("quantise")
@dataclass(frozen=True, slots=True, kw_only=True)
class Quantise(Attack):
    """Round the weights.

    Args:
        format: "int8" or "fp16".
    """

    name: ClassVar[str] = "quantise"
    margin: ClassVar[float] = 0.01

    format: str = "int8"

    def __post_init__(self) -> None:
        """Check the format."""
        if self.format not in ("int8", "fp16"):
            raise ParameterError(f"format must be 'int8' or 'fp16'; got {self.format!r}")

    @property
    def needs(self) -> Access:
        """The module."""
        return Access.MODULE

    @property
    def needs_data(self) -> bool:
        """No activation is quantised, so nothing is calibrated."""
        return False

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        module = copy.deepcopy(victim.module())
        for tensor in bare(module).state_dict().values():
            if not tensor.is_floating_point():
                continue
            if self.format == "fp16":
                tensor.copy_(tensor.half())
            elif tensor.ndim >= 2:
                tensor.copy_(rounded(tensor))
        return Copy(module=module)


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """A weight (out, ...) on its channels' int8 grids; off by at most max |w| / 254 in each channel."""
    scale = weight.abs().flatten(1).amax(dim=1) / _LARGEST
    scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return (weight / scale.clamp_min(1e-30)).round() * scale
