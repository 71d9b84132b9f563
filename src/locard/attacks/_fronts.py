"""What a thief's server may do to an image before the stolen module sees it; imported only where torch is at hand.

Every one takes and gives (n, channels, height, width), runs on a free batch size, and can be written by torch.export
and as ONNX. Rounding stops gradients, so an attack on the copy through one that rounds finds none.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from locard.attacks._wrappers import FLOOR

# The example tables of the JPEG standard (ITU-T T.81, annex K), luminance and chrominance, row by row.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *4 * ((99,) * 8,),
)
# Brightness and two colour differences of red, green and blue (JFIF).
_COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class Levels(nn.Module):
    """Every value rounded to one of 2 ** bits levels between the bounds."""

    def __init__(self, bits: int, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.size, self.steps = bounds[0], bounds[1] - bounds[0], 2**bits - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the module's docstring."""
        return to_whole((x - self.low) / self.size * self.steps) / self.steps * self.size + self.low

    def extra_repr(self) -> str:
        """What sets two of them apart."""
        return f"steps={self.steps}, low={self.low!r}, size={self.size!r}"


class Blur(nn.Module):
    """A Gaussian of that many pixels, cut off at three of them; the image is continued by its own edge."""

    weights: torch.Tensor

    def __init__(self, sigma: float, channels: int) -> None:
        super().__init__()
        self.edge, self.channels = math.ceil(3 * sigma), channels
        line = torch.exp(-torch.arange(-self.edge, self.edge + 1).float().square() / (2 * sigma**2))
        line = line / line.sum()
        self.register_buffer("weights", torch.outer(line, line).expand(channels, 1, -1, -1).contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the module's docstring."""
        padded = functional.pad(x, (self.edge,) * 4, mode="replicate")
        return functional.conv2d(padded, self.weights, groups=self.channels)


class Median(nn.Module):
    """Every value replaced by the median of a square of that side around it; edges as `Blur`."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the module's docstring."""
        height, width = x.shape[2:]
        padded = functional.pad(x, (self.side // 2,) * 4, mode="replicate")
        around = torch.stack([padded[:, :, i : i + height, j : j + width]
                              for i in range(self.side) for j in range(self.side)], dim=-1)  # fmt: skip
        return around.topk(self.side**2 // 2 + 1, dim=-1).values[..., -1]

    def extra_repr(self) -> str:
        """What sets two of them apart."""
        return f"side={self.side}"


class Shrink(nn.Module):
    """Down to that share of both sides and up again, each by bilinear interpolation."""

    def __init__(self, share: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.whole = tuple(shape[1:])
        self.small = tuple(max(1, round(share * side)) for side in self.whole)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the module's docstring."""
        small = functional.interpolate(x, size=self.small, mode="bilinear", align_corners=False)
        return functional.interpolate(small, size=self.whole, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        """What sets two of them apart."""
        return f"small={self.small}"


class Jpeg(nn.Module):
    """The loss of a JPEG file: the cosine transform of 8 x 8 blocks is rounded to the standard's table.

    The parts that lose nothing (the order of the coefficients, Huffman's code) are left out. Colour is turned into
    brightness and two differences without subsampling.

    Args:
        quality: 1 to 100, as libjpeg scales the tables.
        channels: 1 or 3.
        bounds: of the values.
    """

    waves: torch.Tensor
    steps: torch.Tensor
    there: torch.Tensor
    back: torch.Tensor
    middle: torch.Tensor

    def __init__(self, quality: int, channels: int, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.size, self.channels = bounds[0], bounds[1] - bounds[0], channels
        places = torch.arange(8).double()
        line = torch.cos((2 * places + 1) * places[:, None] * math.pi / 16) / 2
        line[0] /= math.sqrt(2)
        waves = torch.einsum("ux,vy->uvxy", line, line).reshape(64, 1, 8, 8).float()
        self.register_buffer("waves", waves.repeat(channels, 1, 1, 1))
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        tables = torch.tensor((_LUMINANCE, _CHROMINANCE, _CHROMINANCE)[:channels])
        self.register_buffer("steps", ((tables * scale + 50) // 100).clamp(1, 255).reshape(1, -1, 1, 1).float())
        colours = torch.tensor(_COLOURS if channels == 3 else ((1.0,),), dtype=torch.float64)
        self.register_buffer("there", colours.float()[:, :, None, None])
        self.register_buffer("back", torch.linalg.inv(colours).float()[:, :, None, None])
        # Brightness is stored as its difference from 128; the colours are differences already.
        self.register_buffer("middle", torch.tensor([128.0, 0, 0][:channels])[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the module's docstring."""
        height, width = x.shape[2:]
        pixels = to_whole((x - self.low) / self.size * 255)
        planes = to_whole(functional.conv2d(pixels, self.there)) - self.middle
        planes = functional.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
        kept = functional.conv2d(planes, self.waves, stride=8, groups=self.channels)
        kept = to_whole(kept / self.steps) * self.steps
        planes = functional.conv_transpose2d(kept, self.waves, stride=8, groups=self.channels)[:, :, :height, :width]
        planes = to_whole(planes).clamp(-128, 127) + self.middle
        pixels = to_whole(functional.conv2d(planes, self.back)).clamp(0, 255)
        return pixels / 255 * self.size + self.low

    def extra_repr(self) -> str:
        """What sets two of them apart beside their tensors."""
        return f"low={self.low!r}, size={self.size!r}"


class Flips(nn.Module):
    """A module's mean probability over an image and its mirror image."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) to (n, classes) logits."""
        both = self.module(x).softmax(1) + self.module(x.flip(3)).softmax(1)
        return (both / 2 + FLOOR).log()


class Crops(nn.Module):
    """A module's mean probability over an image and the image moved by some pixels in four directions; edges go on."""

    def __init__(self, module: nn.Module, pixels: int) -> None:
        super().__init__()
        self.module, self.pixels = module, pixels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) to (n, classes) logits."""
        (height, width), step = x.shape[2:], self.pixels
        padded = functional.pad(x, (step,) * 4, mode="replicate")
        starts = ((step, step), (0, step), (2 * step, step), (step, 0), (step, 2 * step))
        parts = [self.module(padded[:, :, i : i + height, j : j + width]).softmax(1) for i, j in starts]
        return (torch.stack(parts).mean(0) + FLOOR).log()

    def extra_repr(self) -> str:
        """What sets two of them apart beside their tensors."""
        return f"pixels={self.pixels}"


def to_whole(x: torch.Tensor) -> torch.Tensor:
    """The nearest whole number, and that farther from 0 from a hair below the middle, as libjpeg rounds.

    Sums of whole numbers often end halfway, where rounding errors of torch and of onnxruntime go different ways.
    """
    return torch.sign(x) * torch.floor(x.abs() + (0.5 + 1e-4))
