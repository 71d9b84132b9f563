"""A small transformer on pieces of an image or of a row of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from locard.errors import ParameterError
from locard.models.architectures import architectures
from locard.models.architectures._arguments import image_shape, input_shape, whole


class Block(nn.Module):
    """Attention between the pieces, then two dense layers on each, both around a layer norm and added to the stream.

    Args:
        width: of the stream.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        # A bias here would add the same to all scores of one query, which the softmax takes away.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.dense1 = nn.Linear(width, 4 * width)
        self.dense2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, pieces, width) to the same."""
        x = x + self._attend(self.norm1(x))
        return x + self.dense2(nn.functional.gelu(self.dense1(self.norm2(x))))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        # Written out, because torch's own attention has no second derivative on a processor.
        scores = query @ key.transpose(2, 3) / math.sqrt(key.shape[3])
        return self.out((scores.softmax(dim=3) @ value).transpose(1, 2).flatten(2))


@architectures.register("transformer")
class Transformer(nn.Module):
    """A transformer encoder with layer norm in front of each part; on (1, 28, 28), ten classes, 27,850 parameters.

    Args:
        shape: (channels, height, width) of one image, or (numbers,) of one row.
        classes: number of classes.
        patch: side of the squares that an image is cut into, or length of the pieces of a row; what is left over at the
            end is filled up with zeros.
        width: of the stream; each block's dense layers have four times as many units.
        heads: of the attention; they divide the width.
        depth: number of blocks.
    """

    def __init__(
        self, *, shape: Sequence[int], classes: int, patch: int = 4, width: int = 32, heads: int = 4, depth: int = 2
    ) -> None:
        super().__init__()
        row = len(input_shape(shape)) == 1
        # A row of numbers is an image of height 1.
        channels, height, breadth = (1, 1, input_shape(shape)[0]) if row else image_shape(shape, smallest=1)
        patch, width, classes = whole("patch", patch), whole("width", width, high=4096), whole("classes", classes)
        heads, depth = whole("heads", heads), whole("depth", depth, high=64)
        if width % heads:
            raise ParameterError(f"heads must divide the width; got {heads} heads, width {width}")
        high = 1 if row else patch
        self.image = (channels, height, breadth)
        self.fill = (0, -breadth % patch, 0, -height % high)
        pieces = -(-breadth // patch) * -(-height // high)
        self.pieces = nn.Conv2d(channels, width, (high, patch), stride=(high, patch))
        self.places = nn.Parameter(0.02 * torch.randn(pieces, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dense = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) float32 to (n, classes) logits."""
        x = x.reshape(-1, *self.image)
        if any(self.fill):
            x = nn.functional.pad(x, self.fill)
        x = self.pieces(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        return self.dense(self.norm(x).mean(dim=1))
