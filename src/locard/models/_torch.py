"""torch modules of our own that adapters put around others; imported only where torch is at hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from locard.errors import ParameterError
from locard.records import Domain


def check_takes(module: nn.Module, domain: Domain) -> None:
    """Refuse a network of numbers for texts; one for texts has a method `encode` that makes numbers of them.

    Raises:
        ParameterError: the domain is of texts, and the module has no such method.
    """
    if domain.kind == "text" and not callable(getattr(module, "encode", None)):
        raise ParameterError(
            f"{type(module).__name__} takes no texts: a network for them has a method encode(texts) that gives its "
            "tensor, as the architecture bag"
        )


def check_exports(domain: Domain) -> None:
    """Refuse to write a network of texts as a graph, which would hold what becomes of numbers alone.

    Raises:
        ParameterError: the domain is of texts.
    """
    if domain.kind == "text":
        raise ParameterError(
            "a .pt2 or .onnx file holds what becomes of numbers, not how a text becomes them; a network of texts of a "
            "named architecture is kept in a model folder"
        )


def tensor(module: nn.Module, x: np.ndarray) -> torch.Tensor:
    """Inputs as a module's forward pass takes them: numbers in their own dtype, texts by the module's `encode`.

    Args:
        module: the network.
        x: (n, *shape) numbers, or (n,) strings.

    Returns:
        A tensor of n rows that shares no memory with `x`.

    Raises:
        ParameterError: texts, and the module has no `encode`.
    """
    if x.dtype.kind in "OU":
        check_takes(module, Domain(kind="text", shape=(), dtype="str"))
        encode: Callable[[np.ndarray], torch.Tensor] = getattr(module, "encode")  # noqa: B009 - a module's own method
        return encode(x)
    # A copy, because a module may work in place, and torch warns of memory it may not write to.
    return torch.from_numpy(x.copy())


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
