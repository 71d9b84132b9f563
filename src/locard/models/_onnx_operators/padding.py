"""Pad in its four modes, over any axes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from locard.models._onnx_operators.linear import split_pads, torch_pads
from locard.models._onnx_operators.table import Host, Node, Run, UnsupportedVariantError, number, numbers, operator


def _source(length: int, begin: int, end: int, mode: str, device: torch.device) -> Tensor:
    """Which element of an axis each element of the padded axis repeats."""
    places = torch.arange(-begin, length + end, device=device)
    if mode == "edge":
        return places.clamp(0, length - 1)
    if mode == "wrap":
        return places.remainder(length)
    period = max(1, 2 * (length - 1))
    return (length - 1) - ((length - 1) - places.remainder(period)).abs()


@operator("Pad", host=(1, 2, 3))
def _pad(node: Node) -> Run:
    mode = node.choice("mode", "constant", "reflect", "edge", "wrap")
    if mode == "wrap" and node.version < 19:
        raise UnsupportedVariantError("mode 'wrap' before opset 19")
    fixed, value = tuple(node.get("pads", ())), node.get("value", 0.0)

    def run(x: Tensor, pads: Host = fixed, constant: Host | None = None, axes: Host | None = None) -> Tensor:
        some_begin, some_end = split_pads(numbers(pads))
        begin, end = [0] * x.dim(), [0] * x.dim()
        chosen = range(x.dim()) if axes is None else numbers(axes)
        for axis, b, e in zip(chosen, some_begin, some_end, strict=True):
            begin[axis], end[axis] = b, e
        if mode == "constant":
            return F.pad(x, torch_pads(begin, end), value=value if constant is None else number(constant))
        for axis, (b, e) in enumerate(zip(begin, end, strict=True)):
            if b or e:
                x = x.index_select(axis, _source(x.shape[axis], b, e, mode, x.device))
        return x

    return run
