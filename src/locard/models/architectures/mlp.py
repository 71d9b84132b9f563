"""Dense layers with ReLU between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from locard.models.architectures import architectures
from locard.models.architectures._arguments import input_shape, whole, wholes


@architectures.register("mlp")
class MLP(nn.Module):
    """A multi-layer perceptron on inputs of any shape.

    Args:
        shape: of one input.
        classes: number of classes.
        hidden: widths of the hidden layers; empty for a linear model.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, hidden: Sequence[int] = (128,)) -> None:
        super().__init__()
        widths = [math.prod(input_shape(shape)), *wholes("hidden", hidden), whole("classes", classes)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, classes) logits, in the dtype of the weights."""
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)
