"""Pooling over windows and over all spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from locard.models._onnx_operators.linear import torch_pads, window_pads
from locard.models._onnx_operators.table import Node, Run, UnsupportedVariantError, operator, plain

_MAXIMA = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGES = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def _last_pads(
    sizes: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
    begin: Sequence[int],
    end: Sequence[int],
    ceiling: bool,
) -> tuple[int, ...]:
    """What to append on each axis (negative: cut) so that windows tile it; none starts in the padding at the end."""
    pads: list[int] = []
    for n, span, stride, b, e in zip(sizes, spans, strides, begin, end, strict=True):
        steps = n + b + e - span
        last = -(-steps // stride) if ceiling else steps // stride
        if ceiling and last * stride >= n + b:
            last -= 1
        pads.append(last * stride + span - b - n)
    return tuple(pads)


@operator("MaxPool")
def _max_pool(node: Node) -> Run:
    if node.wants(1):
        raise UnsupportedVariantError("the Indices output")
    kernel, ceiling = tuple(node.get("kernel_shape", ())), bool(node.get("ceil_mode", 0))
    one = (1,) * len(kernel)
    strides, dilations = tuple(node.get("strides", one)), tuple(node.get("dilations", one))
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    pads, pool = window_pads(node, cut=True), _MAXIMA[len(kernel) - 1]

    def run(x: Tensor) -> Tensor:
        begin, end = pads(x.shape[2:], kernel)
        if begin == end and all(0 <= 2 * b <= k for b, k in zip(begin, kernel, strict=True)):
            return pool(x, kernel, strides, begin, dilations, ceil_mode=ceiling)
        last = _last_pads(x.shape[2:], spans, strides, begin, end, ceiling)
        lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
        return pool(F.pad(x, torch_pads(begin, last), value=lowest), kernel, strides, 0, dilations)

    return run


@operator("AveragePool")
def _average_pool(node: Node) -> Run:
    kernel, ceiling = tuple(node.get("kernel_shape", ())), bool(node.get("ceil_mode", 0))
    one, counted = (1,) * len(kernel), bool(node.get("count_include_pad", 0))
    node.refuse(dilations=list(one))
    strides = tuple(node.get("strides", one))
    pads, pool = window_pads(node, cut=True), _AVERAGES[len(kernel) - 1]

    def run(x: Tensor) -> Tensor:
        sizes = x.shape[2:]
        begin, end = pads(sizes, kernel)
        if begin == end and all(0 <= 2 * b <= k for b, k in zip(begin, kernel, strict=True)):
            return pool(x, kernel, strides, begin, ceiling, counted)
        last = _last_pads(sizes, kernel, strides, begin, end, ceiling)
        inside = torch.ones((1, 1, *sizes), dtype=x.dtype, device=x.device)
        if counted:
            inside = F.pad(inside, torch_pads(begin, end), value=1.0)
            inside = F.pad(inside, torch_pads((0,) * len(end), [a - e for a, e in zip(last, end, strict=True)]))
        else:
            inside = F.pad(inside, torch_pads(begin, last))
        return pool(F.pad(x, torch_pads(begin, last)), kernel, strides) / pool(inside, kernel, strides)

    return run


def _global_average(x: Tensor) -> Tensor:
    return torch.mean(x, tuple(range(2, x.dim())), keepdim=True)


def _global_maximum(x: Tensor) -> Tensor:
    return torch.amax(x, tuple(range(2, x.dim())), keepdim=True)


plain({"GlobalAveragePool": _global_average, "GlobalMaxPool": _global_maximum})
