"""Gradients of a torch module by its weights, one input at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from locard.errors import ParameterError

if TYPE_CHECKING:
    import torch

    from locard.models.base import Loss

# Bytes of gradients in one block, of which two are held at once; and columns that are multiplied at once, in float64.
HELD, COLUMNS = 256 << 20, 1 << 15


def weight_gram(
    module: torch.nn.Module,
    x: torch.Tensor,
    loss: Loss,
    *,
    front: Callable[[torch.Tensor], torch.Tensor],
    batch: int,
    source: str,
) -> np.ndarray:
    """The inner products of the gradients by all weights at any two inputs.

    The inputs go through the module one by one: gradients of a whole batch at once (`torch.func.vmap`) are hardly
    quicker, and cannot be had of a module that works in place or branches on what it sees.

    Args:
        module: in evaluation mode; neither its weights nor their gradients are touched.
        x: (n, *shape) inputs.
        loss: see `Model.input_gradient`; one loss an input.
        front: what is done to inputs before the module.
        batch: inputs in the forward passes that give `loss` its logits.
        source: the model, for messages.

    Returns:
        (n, n) float64, symmetric. Cost: n gradients and n answers; where the gradients fill k blocks of 256 MiB, most
        are taken (k + 1) / 2 times over.

    Raises:
        ParameterError: the module has no weights, or gives no gradient by them.
    """
    import torch

    weights = {
        name: tensor.detach().requires_grad_()
        for name, tensor in module.named_parameters()
        if tensor.is_floating_point()
    }
    if not weights:
        raise ParameterError(f"{source} has no weights that gradients can be taken by")
    width = sum(tensor.numel() for tensor in weights.values())

    def answer(rows: torch.Tensor) -> torch.Tensor:
        # A copy, because a module may work in place.
        return torch.func.functional_call(module, weights, (front(rows.clone()),))

    def gradients(block: slice) -> torch.Tensor:
        held = torch.empty((block.stop - block.start, width), device=x.device)
        for row, one, slope in zip(held, x[block].split(1), slopes[block].split(1), strict=True):
            parts = torch.autograd.grad(
                (answer(one) * slope).sum(), list(weights.values()), allow_unused=True, materialize_grads=True
            )
            row.copy_(torch.cat([part.reshape(-1) for part in parts]))
        return held

    with torch.enable_grad():
        slopes = torch.cat([_slopes(answer(rows), loss, source) for rows in x.split(batch)])
        size = max(1, HELD // (4 * width))
        blocks = [slice(at, min(at + size, len(x))) for at in range(0, len(x), size)]
        gram = np.empty((len(x), len(x)))
        for at, first in enumerate(blocks):
            left = gradients(first)
            gram[first, first] = _product(left, left)
            for second in blocks[at + 1 :]:
                gram[first, second] = _product(left, gradients(second))
                gram[second, first] = gram[first, second].T
    return gram


def _slopes(logits: torch.Tensor, loss: Loss, source: str) -> torch.Tensor:
    """The gradient of each input's loss by its logits: that by the weights follows from it, input by input."""
    import torch

    if not logits.requires_grad:
        raise ParameterError(f"{source} gives no gradient by its weights")
    logits = logits.detach().requires_grad_()
    losses = loss(logits)
    if losses.shape != (len(logits),):
        raise ParameterError(f"the loss must have shape ({len(logits)},); got {tuple(losses.shape)}")
    return torch.autograd.grad(losses.sum(), logits)[0]


def _product(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """The inner products of all rows, (m, k) float64, a few columns at a time."""
    total = np.zeros((len(left), len(right)))
    for a, b in zip(left.split(COLUMNS, dim=1), right.split(COLUMNS, dim=1), strict=True):
        total += (a.double() @ b.double().T).cpu().numpy()
    return total
