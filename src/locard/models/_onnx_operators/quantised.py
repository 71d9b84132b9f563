"""Linear quantisation with plain semantics: rounding has no gradient, so none flows through a quantised activation."""

from __future__ import annotations

import torch
from torch import Tensor

from locard.models._onnx_operators.linear import convolution
from locard.models._onnx_operators.table import Node, Run, UnsupportedVariantError, dtype_of, operator

_INTEGERS = {torch.uint8, torch.int8, torch.uint16, torch.int16}


def _along(value: Tensor, x: Tensor, axis: int) -> Tensor:
    """A scale or zero point of one axis, shaped to broadcast against x; one of a single element as it is."""
    if value.numel() == 1:
        return value.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return value.reshape(shape)


def _quantise(x: Tensor, scale: Tensor, zero: Tensor | None, dtype: torch.dtype, axis: int) -> Tensor:
    level = torch.round(x / _along(scale, x, axis))
    if zero is not None:
        level = level + _along(zero, x, axis).to(level.dtype)
    limits = torch.iinfo(dtype)
    return level.clamp(limits.min, limits.max).to(dtype)


@operator("QuantizeLinear", fixed=(1,))
def _quantize_linear(node: Node) -> Run:
    axis, code = node.get("axis", 1), node.get("output_dtype", 0)
    node.refuse(block_size=0, precision=0)
    asked = dtype_of(code) if code else None
    if asked is not None and asked not in _INTEGERS:
        raise UnsupportedVariantError(f"output_dtype {asked}")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        dtype = (asked or torch.uint8) if zero is None else zero.dtype
        return _quantise(x, scale, zero, dtype, axis)

    return run


@operator("DequantizeLinear", fixed=(1,))
def _dequantize_linear(node: Node) -> Run:
    axis = node.get("axis", 1)
    node.refuse(block_size=0, output_dtype=0)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        level = x.to(scale.dtype)
        if zero is not None:
            level = level - _along(zero, x, axis).to(scale.dtype)
        return level * _along(scale, x, axis)

    return run


@operator("DynamicQuantizeLinear")
def _dynamic_quantize_linear(node: Node) -> Run:
    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
        scale = (high - low) / 255
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero = torch.round(-low / scale).clamp(0, 255).to(torch.uint8)
        return _quantise(x, scale, zero, torch.uint8, 0), scale, zero

    return run


def _exact(x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    """Levels less their zero point, as float64: every product sum of 8-bit levels is exact there, on any device."""
    level = x.double()
    return level if zero is None else level - _along(zero, x, axis).double()


@operator("MatMulInteger")
def _matmul_integer(node: Node) -> Run:
    def run(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
        return torch.matmul(_exact(a, a_zero, -2), _exact(b, b_zero, -1)).to(torch.int32)

    return run


@operator("ConvInteger")
def _conv_integer(node: Node) -> Run:
    convolve = convolution(node)

    def run(x: Tensor, weight: Tensor, x_zero: Tensor | None = None, weight_zero: Tensor | None = None) -> Tensor:
        return convolve(_exact(x, x_zero, 1), _exact(weight, weight_zero, 0)).to(torch.int32)

    return run


@operator("QLinearMatMul", fixed=(1, 4, 6))
def _quantised_matmul(node: Node) -> Run:
    def run(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor,
        scale: Tensor,
        zero: Tensor,
    ) -> Tensor:
        total = torch.matmul(_exact(a, a_zero, -2), _exact(b, b_zero, -1))
        total = total * (_along(a_scale, a, -2) * _along(b_scale, b, -1))
        return _quantise(total.to(scale.dtype), scale, zero, zero.dtype, -1)

    return run


@operator("QLinearConv", fixed=(1, 4, 6))
def _quantised_conv(node: Node) -> Run:
    convolve = convolution(node)

    def run(
        x: Tensor,
        x_scale: Tensor,
        x_zero: Tensor,
        weight: Tensor,
        weight_scale: Tensor,
        weight_zero: Tensor,
        scale: Tensor,
        zero: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        total = convolve(_exact(x, x_zero, 1), _exact(weight, weight_zero, 0), None if bias is None else bias.double())
        total = total * _along(x_scale * weight_scale, total, 1)
        return _quantise(total.to(scale.dtype), scale, zero, zero.dtype, 1)

    return run
