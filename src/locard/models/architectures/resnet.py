"""A small residual network with batch norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from locard.models.architectures import architectures
from locard.models.architectures._arguments import image_shape, whole


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and the way around them.

    Args:
        into: channels that come in.
        out: channels that go out.
        stride: of the first convolution.
    """

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or into != out:
            self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, into, h, w) to (n, out, h / stride, w / stride)."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


@architectures.register("resnet")
class ResNet(nn.Module):
    """Three residual blocks behind a stem of stride 2; on (1, 28, 28) with ten classes it has 77,754 parameters.

    Args:
        shape: (channels, height, width) of one image, sides of at least 8.
        classes: number of classes.
        width: channels of the stem and first block; the second and third have twice and four times as many.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, width: int = 16) -> None:
        super().__init__()
        channels, _, _ = image_shape(shape, smallest=8)
        width, classes = whole("width", width, high=4096), whole("classes", classes)
        self.stem = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.block1 = Block(width, width, 1)
        self.block2 = Block(width, 2 * width, 2)
        self.block3 = Block(2 * width, 4 * width, 2)
        self.dense = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) float32 to (n, classes) logits."""
        x = torch.relu(self.norm(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.dense(x.mean(dim=(2, 3)))
