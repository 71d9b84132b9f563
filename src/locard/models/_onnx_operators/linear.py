"""Matrix products and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from locard.models._onnx_operators.table import Node, Run, operator, plain

plain({"MatMul": torch.matmul})


@operator("Gemm")
def _gemm(node: Node) -> Run:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    flip_a, flip_b = bool(node.get("transA", 0)), bool(node.get("transB", 0))
    whole = tuple(int(factor) if float(factor).is_integer() else factor for factor in (alpha, beta))

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.t() if flip_a else a, b.t() if flip_b else b
        if c is not None:
            return torch.addmm(c, a, b, alpha=whole[0], beta=whole[1])
        return torch.mm(a, b) if whole[0] == 1 else whole[0] * torch.mm(a, b)

    return run


@operator("Einsum")
def _einsum(node: Node) -> Run:
    equation = node.get("equation", "")
    return lambda *x: torch.einsum(equation, *x)


def split_pads(pads: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """ONNX pads (begins, then ends) as two tuples."""
    half = len(pads) // 2
    return tuple(pads[:half]), tuple(pads[half:])


def torch_pads(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Pads in the order of `torch.nn.functional.pad`: last axis first, begin and end side by side."""
    return [p for pair in zip(reversed(begin), reversed(end), strict=True) for p in pair]


def same_pads(total: Sequence[int], *, upper: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Total padding split in two; the odd one goes to the end for SAME_UPPER, to the beginning for SAME_LOWER.

    A negative total cuts; its halves are rounded towards zero, as onnxruntime does.
    """
    begin = tuple(int((t if upper else t + 1) / 2) for t in total)
    return begin, tuple(t - b for t, b in zip(total, begin, strict=True))


def window_pads(
    node: Node, *, cut: bool
) -> Callable[[Sequence[int], Sequence[int]], tuple[tuple[int, ...], tuple[int, ...]]]:
    """How a convolution or pooling pads, after `pads` or `auto_pad`.

    Args:
        node: with `pads`, `auto_pad`, `strides` and `dilations`.
        cut: whether SAME cuts where a kernel is shorter than its stride, as pooling does in onnxruntime; convolution
            does not.

    Returns:
        (spatial sizes, kernel) -> (begins, ends).
    """
    mode = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    fixed = split_pads(node.get("pads", ()))
    if mode == "NOTSET" and fixed[0]:
        return lambda sizes, kernel: fixed
    if mode in ("NOTSET", "VALID"):
        return lambda sizes, kernel: ((0,) * len(sizes), (0,) * len(sizes))
    strides, dilations = node.get("strides", None), node.get("dilations", None)

    def same(sizes: Sequence[int], kernel: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        one = (1,) * len(sizes)
        total = tuple(
            (math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n
            for n, k, s, d in zip(sizes, kernel, strides or one, dilations or one, strict=True)
        )
        return same_pads(total if cut else [max(0, t) for t in total], upper=mode == "SAME_UPPER")

    return same


_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)


def convolution(node: Node) -> Callable[..., Tensor]:
    """Conv of one, two or three spatial axes as a function of input, weight and bias."""
    strides, dilations, groups = node.get("strides", 1), node.get("dilations", 1), node.get("group", 1)
    pads = window_pads(node, cut=False)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        begin, end = pads(x.shape[2:], weight.shape[2:])
        if begin != end:
            x, begin = F.pad(x, torch_pads(begin, end)), (0,) * len(begin)
        return _CONVOLUTIONS[weight.dim() - 3](x, weight, bias, strides, begin, dilations, groups)

    return run


@operator("Conv")
def _conv(node: Node) -> Run:
    return convolution(node)


@operator("ConvTranspose")
def _conv_transpose(node: Node) -> Run:
    mode = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    groups, shape, fixed = node.get("group", 1), node.get("output_shape", None), split_pads(node.get("pads", ()))
    steps, spread, appended = (node.get(key, None) for key in ("strides", "dilations", "output_padding"))

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        one = (1,) * (weight.dim() - 2)
        strides, dilations, extra = steps or one, spread or one, appended or (0,) * len(one)
        full = [
            s * (n - 1) + d * (k - 1) + 1 + e
            for n, k, s, d, e in zip(x.shape[2:], weight.shape[2:], strides, dilations, extra, strict=True)
        ]
        if shape is None and mode in ("NOTSET", "VALID"):
            begin, end = fixed if fixed[0] and mode == "NOTSET" else ((0,) * len(one), (0,) * len(one))
        else:
            # onnxruntime appends zeros up to a longer `output_shape`, but none up to the length that SAME asks for.
            wanted = shape or [min(f, n * s) for f, n, s in zip(full, x.shape[2:], strides, strict=True)]
            total = [f - w for f, w in zip(full, wanted[-len(one) :], strict=True)]
            begin, end = same_pads([max(0, t) for t in total], upper=mode == "SAME_UPPER")
            end = tuple(t if t < 0 else e for t, e in zip(total, end, strict=True))
        convolve = _TRANSPOSED[len(one) - 1]
        if begin == end:
            return convolve(x, weight, bias, strides, begin, extra, groups, dilations)
        y = convolve(x, weight, None, strides, 0, 0, groups, dilations)
        y = F.pad(y, torch_pads([-b for b in begin], [e - p for e, p in zip(extra, end, strict=True)]))
        return y if bias is None else y + bias.reshape(-1, *one)

    return run
