"""The last layer of a network, which makes class scores of its penultimate activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from locard.errors import ParameterError

if TYPE_CHECKING:
    import torch
    from torch import nn


def head(module: nn.Module, classes: int) -> tuple[str, nn.Linear]:
    """Name and layer: the last submodule with parameters of its own, in the order of the model's definition.

    Args:
        module: a network.
        classes: how many scores it gives.

    Raises:
        ParameterError: that submodule is no dense layer with so many outputs.
    """
    from torch import nn

    layers = [one for one in module.named_modules() if next(one[1].parameters(recurse=False), None) is not None]
    name, last = layers[-1] if layers else ("", module)
    if not isinstance(last, nn.Linear) or last.out_features != classes:
        found = f"Linear with {last.out_features}" if isinstance(last, nn.Linear) else type(last).__name__
        raise ParameterError(
            f"the last layer must be dense with {classes} outputs, one a class; {type(module).__name__} ends in "
            f"{found}. A model folder or a module in memory has its layers, what was read from a .pt2 or .onnx file not"
        )
    return name, last


@contextmanager
def before_head(module: nn.Module, classes: int) -> Iterator[list[torch.Tensor]]:
    """A list that each forward pass inside adds the penultimate activations to, (n, width)."""
    seen: list[torch.Tensor] = []
    hook = head(module, classes)[1].register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
