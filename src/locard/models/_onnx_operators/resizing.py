"""Resize and its forerunner Upsample: one axis after the other, as a weighted sum of a few source elements each."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from locard.models._onnx_operators.table import Host, Node, Run, numbers, operator

# Both take: place in the output, scale, input length, output length.
_COORDINATES: dict[str, Callable[[Tensor, float, int, int], Tensor]] = {
    "half_pixel": lambda place, scale, n, m: (place + 0.5) / scale - 0.5,
    "half_pixel_symmetric": lambda place, scale, n, m: n / 2 * (1 - m / (scale * n)) + (place + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda place, scale, n, m: (place + 0.5) / scale - 0.5 if m > 1 else torch.zeros_like(place),
    "align_corners": lambda place, scale, n, m: place * ((n - 1) / (m - 1)) if m > 1 else torch.zeros_like(place),
    "asymmetric": lambda place, scale, n, m: place / scale,
}

_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda source: torch.ceil(source - 0.5),
    "round_prefer_ceil": lambda source: torch.floor(source + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}

Taps = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(source coordinates (m,), input length) -> (indices (m, taps) int64, weights (m, taps)); indices may lie outside."""


def _nearest_taps(source: Tensor, length: int, *, rounding: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    return rounding(source).long()[:, None], torch.ones_like(source)[:, None]


def _linear_taps(source: Tensor, length: int) -> tuple[Tensor, Tensor]:
    source = source.clamp(0, length - 1)
    low = source.floor()
    share = source - low
    return torch.stack([low, low + 1], 1).long(), torch.stack([1 - share, share], 1)


def _cubic_taps(source: Tensor, length: int, *, a: float, inside_only: bool) -> tuple[Tensor, Tensor]:
    low = source.floor()
    share = source - low
    far, near = torch.stack([share + 1, 2 - share]), torch.stack([share, 1 - share])
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    inner = ((a + 2) * near - (a + 3)) * near * near + 1
    weights = torch.stack([outer[0], inner[0], inner[1], outer[1]], 1)
    indices = torch.stack([low - 1, low, low + 1, low + 2], 1).long()
    if inside_only:
        weights = weights * ((indices >= 0) & (indices < length))
        weights = weights / weights.sum(1, keepdim=True)
    return indices, weights


def _resize_axis(
    x: Tensor,
    axis: int,
    size: int,
    scale: float,
    *,
    coordinate: Callable[[Tensor, float, int, int], Tensor],
    taps: Taps,
) -> Tensor:
    length = x.shape[axis]
    # In float32, as onnxruntime and torch do: a factor of 1.6 has to find 5 at place 8, and in float64 it finds less.
    places = torch.arange(size, dtype=torch.float32, device="cpu")
    indices, weights = taps(coordinate(places, scale, length, size), length)
    indices = indices.clamp(0, length - 1).to(x.device)
    if indices.shape[1] == 1:
        return x.index_select(axis, indices[:, 0])
    shape = [1] * x.dim()
    shape[axis] = size
    weights = weights.to(device=x.device, dtype=x.dtype if x.is_floating_point() else torch.float32)
    parts = [
        x.index_select(axis, i) * w.reshape(shape) for i, w in zip(indices.unbind(1), weights.unbind(1), strict=True)
    ]
    return torch.stack(parts).sum(0).to(x.dtype)


def _scaled(length: int, factor: float) -> int:
    return int(np.float32(length) * np.float32(factor))


def _stretched(sizes: tuple[int, ...], lengths: list[int], policy: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Output sizes and scales of the resized axes when `sizes` is given."""
    scales = tuple(s / n for s, n in zip(sizes, lengths, strict=True))
    if policy == "stretch":
        return sizes, scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return tuple(math.floor(scale * n + 0.5) for n in lengths), (scale,) * len(lengths)


@operator("Resize", host=(1, 2, 3))
def _resize(node: Node) -> Run:
    since_11 = node.version >= 11
    mode = node.choice("mode", "nearest", "linear", "cubic")
    shift = node.choice("coordinate_transformation_mode", "half_pixel" if since_11 else "asymmetric", *_COORDINATES)
    rounding = node.choice("nearest_mode", "round_prefer_floor" if since_11 else "floor", *_NEAREST)
    policy = node.choice("keep_aspect_ratio_policy", "stretch", "not_larger", "not_smaller")
    node.refuse(antialias=0)
    axes = node.get("axes", None)
    taps: dict[str, Taps] = {
        "nearest": partial(_nearest_taps, rounding=_NEAREST[rounding]),
        "linear": _linear_taps,
        "cubic": partial(
            _cubic_taps, a=node.get("cubic_coeff_a", -0.75), inside_only=bool(node.get("exclude_outside", 0))
        ),
    }
    one_axis = partial(_resize_axis, coordinate=_COORDINATES[shift], taps=taps[mode])

    def run(x: Tensor, *operands: Host | None) -> Tensor:
        _, scales, sizes = (None, operands[0], None) if not since_11 else (*operands, None, None, None)[:3]
        chosen = [a % x.dim() for a in axes] if axes else list(range(x.dim()))
        lengths = [x.shape[a] for a in chosen]
        factors = numbers(scales) if scales is not None else ()
        if factors:
            targets = tuple(_scaled(n, f) for n, f in zip(lengths, factors, strict=True))
        else:
            targets, factors = _stretched(numbers(sizes) if sizes is not None else (), lengths, policy)
        for axis, size, factor in zip(chosen, targets, factors, strict=True):
            if size != x.shape[axis] or factor != 1:
                x = one_axis(x, axis, size, factor)
        return x

    return run


@operator("Upsample", host=(1,))
def _upsample(node: Node) -> Run:
    mode = node.choice("mode", "nearest", "linear")
    taps: Taps = partial(_nearest_taps, rounding=torch.floor) if mode == "nearest" else _linear_taps
    fixed = tuple(node.get("scales", ()))

    def run(x: Tensor, scales: Host = fixed) -> Tensor:
        for axis, scale in enumerate(numbers(scales)):
            if scale != 1:
                size = _scaled(x.shape[axis], scale)
                x = _resize_axis(x, axis, size, scale, coordinate=_COORDINATES["asymmetric"], taps=taps)
        return x

    return run
