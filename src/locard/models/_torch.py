"""torch modules of our own that adapters put around others; imported only where torch is at hand."""

from __future__ import annotations

import torch
from torch import nn


class Normalised(nn.Module):
    """A module with (x - shift) / scale in front.

    Args:
        module: the inner module.
        shift: broadcast against the inputs, or None for 0.
        scale: broadcast against the inputs, or None for 1.
    """

    def __init__(self, module: nn.Module, shift: torch.Tensor | None, scale: torch.Tensor | None) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.train(module.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to the inner module's answers."""
        if isinstance(self.shift, torch.Tensor):
            x = x - self.shift
        if isinstance(self.scale, torch.Tensor):
            x = x / self.scale
        return self.module(x)
