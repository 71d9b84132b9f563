"""Quantisation after training: weights rounded to a coarser format and run in floating point.

`fp16` and `bf16` round every floating-point tensor to 16 bits, 5 and 8 of them for the exponent. The others round the
weights of linear and convolutional layers, as matrices (outputs, rest); biases and normalisation stay, as deployed
kernels keep them wider. `int16` and `int8` [1] set one scale an output, or one a weight, max |w| / 32767 or / 127,
symmetric about 0; weights go to whole multiples of it, half to even. `int4` does so with max |w| / 7 for each group of
neighbouring weights of one output. `nf4` [2] goes by group too: w / max |w| becomes the nearest of 16 levels that lie
as densely as draws of a normal distribution. The copy holds the rounded values in its own floating-point format, and
activations are not quantised.

[2] asks for levels at quantiles of the normal distribution, eight on the upper side of 0 and seven on the lower. Where
the outermost lie, it leaves open; as its released code does, we take the probability (1 - 1/30 + 1 - 1/32) / 2, half a
step in from the end of 15 steps and of 16. From there to 1/2 run eight equal steps of probability and seven; the
quantiles, each side over its largest, and 0 are the levels.

Counts as a theft within 1 point of accuracy, at 4 bits within 3.

[1] Jacob et al. Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference. CVPR
2018, equation 1 with zero point 0. [2] Dettmers, Pagnoni, Holtzman, Zettlemoyer. QLoRA: Efficient Finetuning of
Quantized LLMs. NeurIPS 2023, section 3. The text of [2] was not at hand; the levels are computed as its code does.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.attacks._alone import Alone
from locard.attacks.base import Copy, attacks, bare
from locard.errors import ParameterError, check_number
from locard.records import Data

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress

_FLOATS = {"fp16": "float16", "bf16": "bfloat16"}
_LARGEST = {"int16": 32767, "int8": 127, "int4": 7}
_GROUPS = {"int4": 128, "nf4": 64}
_FORMATS = (*_FLOATS, *_LARGEST, "nf4")


@attacks.register("quantise")
@dataclass(frozen=True, slots=True, kw_only=True)
class Quantise(Alone):
    """Round the weights.

    Args:
        format: "fp16", "bf16", "int16", "int8", "int4" or "nf4".
        per_tensor: at int16 and int8, whether all outputs of a layer share a scale.
        group: at 4 bits, how many neighbouring weights of one output share a scale, the last ones of an output perhaps
            fewer; 0 for 128 at int4 and, as in [2], 64 at nf4.
    """

    name: ClassVar[str] = "quantise"
    one_class: ClassVar[bool] = True

    format: str = "int8"
    per_tensor: bool = False
    group: int = 0

    def __post_init__(self) -> None:
        """Check the format and the group."""
        if self.format not in _FORMATS:
            raise ParameterError(f"format must be one of {', '.join(_FORMATS)}; got {self.format!r}")
        check_number("group", self.group, low=0, whole=True)

    @property
    def margin(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """1 point of accuracy, 3 at 4 bits."""
        return 0.03 if self.format in _GROUPS else 0.01

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        import torch

        module = copy.deepcopy(victim.module())
        for name, tensor in bare(module).state_dict().items():
            if not tensor.is_floating_point():
                continue
            if self.format in _FLOATS:
                coarse = tensor.to(getattr(torch, _FLOATS[self.format]))
                if bool((coarse.isinf() & tensor.isfinite()).any()):
                    raise ParameterError(f"{name} goes beyond what {self.format} can hold; take --param format=int8")
                tensor.copy_(coarse)
            elif tensor.ndim >= 2:
                tensor.copy_(rounded(tensor, self.format, per_tensor=self.per_tensor, group=self.group))
        return Copy(module=module)


def rounded(weight: torch.Tensor, format: str = "int8", *, per_tensor: bool = False, group: int = 0) -> torch.Tensor:
    """A weight (outputs, ...) on the grid of its format.

    Args:
        weight: floating-point, of two or more axes.
        format: "int16", "int8", "int4" or "nf4".
        per_tensor: see `Quantise`.
        group: see `Quantise`.

    Returns:
        The same shape. Integers are off by at most half a step, max |w| / 254 at int8 and max |w| / 14 at int4.
    """
    import torch

    by_group = format in _GROUPS
    rows = weight.reshape(1, -1) if per_tensor and not by_group else weight.flatten(1)
    size = min(group or _GROUPS[format], rows.shape[1]) if by_group else rows.shape[1]
    # Zeros that fill up a last, shorter group change no maximum.
    groups = torch.nn.functional.pad(rows, (0, -rows.shape[1] % size)).unflatten(1, (-1, size))
    largest = groups.abs().amax(dim=2, keepdim=True)
    if format == "nf4":
        levels = torch.from_numpy(normal_levels()).to(weight)
        near = torch.bucketize(groups / largest.clamp_min(1e-30), (levels[1:] + levels[:-1]) / 2)
        groups = levels[near] * largest
    else:
        step = largest / _LARGEST[format]
        groups = (groups / step.clamp_min(1e-30)).round() * step
    return groups.flatten(1)[:, : rows.shape[1]].reshape(weight.shape)


@cache
def normal_levels() -> np.ndarray:
    """The 16 levels of nf4, rising from -1 by 0 to 1; float64."""
    from scipy.special import ndtri

    outermost = ((1 - 1 / 30) + (1 - 1 / 32)) / 2
    upper, lower = (ndtri(np.linspace(0.5, outermost, steps + 1)) for steps in (8, 7))
    return np.concatenate([-lower[:0:-1] / lower[-1], upper / upper[-1]])
