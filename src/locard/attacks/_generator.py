"""A network that turns noise into queries, and the slope of a victim's answers, which nobody grants, by differences.

Queries are `inputs(raw)`: `raw` is what the network gives, any real numbers, and tanh brings them between the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from locard.models.fitting import reproducible
from locard.records import Domain

if TYPE_CHECKING:
    import torch

_SLOPE = 0.2
_LEAST = 1e-12


def generator(domain: Domain, *, latent: int, width: int, seed: int) -> torch.nn.Module:
    """A network from (n, latent) noise to (n, *shape) raw numbers, of mean 0 and variance 1 over batch and places.

    Images begin at a quarter of their sides and are enlarged twice, each time before a convolution, so even untrained
    ones are blotches, not static. Everything else comes from two dense layers.

    Args:
        domain: what the inputs are.
        latent: numbers of noise for one input.
        width: channels of the last hidden convolution; those before it have twice, a dense layer eight times as many.
        seed: of the initial weights.
    """
    import torch
    from torch import nn

    size = math.prod(domain.shape)
    with reproducible(seed):
        if domain.kind != "image" or len(domain.shape) != 3:
            return nn.Sequential(
                nn.Linear(latent, 8 * width), nn.BatchNorm1d(8 * width), nn.LeakyReLU(_SLOPE),
                nn.Linear(8 * width, size), nn.BatchNorm1d(size, affine=False), nn.Unflatten(1, domain.shape),
            )  # fmt: skip
        channels, *whole = domain.shape
        half, quarter = ([max(side // by, 1) for side in whole] for by in (2, 4))
        network = nn.Sequential(
            nn.Linear(latent, 2 * width * math.prod(quarter)), nn.Unflatten(1, (2 * width, *quarter)),
            nn.BatchNorm2d(2 * width), nn.Upsample(tuple(half)), nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width), nn.LeakyReLU(_SLOPE), nn.Upsample(tuple(whole)),
            nn.Conv2d(2 * width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(_SLOPE),
            nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels, affine=False),
        )  # fmt: skip
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's types lack it


def inputs(raw: torch.Tensor, domain: Domain) -> torch.Tensor:
    """Raw numbers, brought between the domain's bounds by tanh: 0 becomes the middle."""
    low, high = domain.bounds or (-1.0, 1.0)
    return low + (high - low) / 2 * (raw.tanh() + 1)


def reach(domain: Domain, step: float) -> float:
    """The length of a step in raw numbers that an input of this domain can show.

    Inputs are delivered on the grid of the domain's quantum q, and a shorter step would be rounded away. A step of
    length e in a random direction moves each of D raw numbers by e / sqrt(D), and its input, where tanh is steepest, by
    half the width of the bounds times that; this is to be a whole q.

    Args:
        domain: what the inputs are.
        step: the length wanted.

    Returns:
        `step`, or where that is less, 2 * q * sqrt(D) / (high - low): 0.22 for 28 x 28 numbers of 8 bits.
    """
    if domain.quantum is None:
        return step
    low, high = domain.bounds or (-1.0, 1.0)
    return max(step, 2 * domain.quantum * math.sqrt(math.prod(domain.shape)) / (high - low))


def forward_differences(
    losses: Callable[[torch.Tensor], torch.Tensor],
    raw: torch.Tensor,
    *,
    step: float,
    directions: int,
    source: torch.Generator,
) -> torch.Tensor:
    """The gradient of each row's loss, by D / step * mean_i (loss(raw + step * v_i) - loss(raw)) * v_i.

    The v_i are uniform on the unit sphere of D numbers, others for each row, so the estimate of a linear loss is exact
    in expectation: the mean of v v' is 1/D of the identity.

    Args:
        losses: of (k, *shape) raw numbers, (k,) of them; called once, with k = (directions + 1) * n.
        raw: (n, *shape).
        step: length of a step.
        directions: for each row.
        source: of the directions.

    Returns:
        (n, *shape).
    """
    import torch

    n, size = len(raw), raw[0].numel()
    ways = torch.randn((directions, n, size), generator=source, dtype=raw.dtype)
    ways = (ways / ways.norm(dim=2, keepdim=True)).reshape(directions, *raw.shape)
    before, *after = losses(torch.cat([raw, *(raw + step * way for way in ways)])).split(n)
    rises = (torch.stack(after) - before).reshape(directions, n, *[1] * (raw.ndim - 1))
    return (size / step * rises * ways).mean(dim=0)


def recovered(probabilities: torch.Tensor) -> torch.Tensor:
    """The logits behind probabilities, but for what a softmax forgets, their mean: log p - mean_k log p.

    A probability of 0 is taken for 1e-12.
    """
    logs = probabilities.clamp_min(_LEAST).log()
    return logs - logs.mean(dim=1, keepdim=True)
