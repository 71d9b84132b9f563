"""Two convolutions and two dense layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from locard.models.architectures import architectures
from locard.models.architectures._arguments import image_shape, whole


@architectures.register("cnn")
class CNN(nn.Module):
    """A small convolutional network; on (1, 28, 28) with ten classes it has 105,866 parameters.

    Args:
        shape: (channels, height, width) of one image, sides of at least 8.
        classes: number of classes.
        width: channels of the first convolution; the second has twice, the first dense layer four times as many.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, width: int = 16) -> None:
        super().__init__()
        channels, height, breadth = image_shape(shape, smallest=8)
        width, classes = whole("width", width, high=4096), whole("classes", classes)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.dense1 = nn.Linear(2 * width * (height // 4) * (breadth // 4), 4 * width)
        self.dense2 = nn.Linear(4 * width, classes)
        # With channels last, pooling takes a tenth of the time on a processor.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's types lack it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) float32 to (n, classes) logits."""
        # Pooling first gives the same values and gradients, to the bit, and leaves a quarter of the numbers to ReLU.
        x = torch.relu(nn.functional.max_pool2d(self.conv1(x), 2))
        x = torch.relu(nn.functional.max_pool2d(self.conv2(x), 2))
        return self.dense2(torch.relu(self.dense1(x.flatten(1))))
