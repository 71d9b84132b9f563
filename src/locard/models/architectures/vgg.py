"""A small plain convolutional network with batch norm, after VGG."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from locard.models.architectures import architectures
from locard.models.architectures._arguments import image_shape, whole


@architectures.register("vgg")
class VGG(nn.Module):
    """Three pairs of 3 x 3 convolutions with batch norm and pooling; on (1, 28, 28), ten classes, 72,666 parameters.

    Args:
        shape: (channels, height, width) of one image, sides of at least 8.
        classes: number of classes.
        width: channels of the first pair; the second and third have twice and four times as many.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, width: int = 16) -> None:
        super().__init__()
        channels, _, _ = image_shape(shape, smallest=8)
        width, classes = whole("width", width, high=4096), whole("classes", classes)
        layers: list[nn.Module] = []
        for out in (width, 2 * width, 4 * width):
            for _ in range(2):
                layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.dense = nn.Linear(4 * width, classes)
        # With channels last, pooling takes a tenth of the time on a processor.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's types lack it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) float32 to (n, classes) logits."""
        return self.dense(self.features(x).mean(dim=(2, 3)))
