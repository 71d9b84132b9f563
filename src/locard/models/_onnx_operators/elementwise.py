"""Operators that work element by element: arithmetic, comparison, logic, activations, casts."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from locard.models._onnx_operators.table import (
    Host,
    Node,
    Run,
    UnsupportedVariantError,
    dtype_of,
    number,
    operator,
    plain,
)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(base: Tensor, exponent: Tensor | float) -> Tensor:
    result = torch.pow(base, exponent)
    return result if result.dtype == base.dtype else result.to(base.dtype)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _maximum(*x: Tensor) -> Tensor:
    return reduce(torch.maximum, x)


def _minimum(*x: Tensor) -> Tensor:
    return reduce(torch.minimum, x)


def _sum(*x: Tensor) -> Tensor:
    return reduce(torch.add, x)


def _mean(*x: Tensor) -> Tensor:
    return _sum(*x) / len(x)


plain(
    {
        "Abs": torch.abs,
        "Acos": torch.acos,
        "Acosh": torch.acosh,
        "Add": torch.add,
        "And": torch.logical_and,
        "Asin": torch.asin,
        "Asinh": torch.asinh,
        "Atan": torch.atan,
        "Atanh": torch.atanh,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseNot": torch.bitwise_not,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "Ceil": torch.ceil,
        "Cos": torch.cos,
        "Cosh": torch.cosh,
        "Div": _divide,
        "Equal": torch.eq,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Floor": torch.floor,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "HardSwish": F.hardswish,
        "IsNaN": torch.isnan,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Log": torch.log,
        "Max": _maximum,
        "Mean": _mean,
        "Min": _minimum,
        "Mish": F.mish,
        "Mul": torch.mul,
        "Neg": torch.neg,
        "Not": torch.logical_not,
        "Or": torch.logical_or,
        "PRelu": _prelu,
        "Reciprocal": torch.reciprocal,
        "Relu": torch.relu,
        "Round": torch.round,
        "Sigmoid": torch.sigmoid,
        "Sign": torch.sign,
        "Sin": torch.sin,
        "Sinh": torch.sinh,
        "Softplus": F.softplus,
        "Softsign": F.softsign,
        "Sqrt": torch.sqrt,
        "Sub": torch.sub,
        "Sum": _sum,
        "Tan": torch.tan,
        "Tanh": torch.tanh,
        "Where": torch.where,
        "Xor": torch.logical_xor,
    }
)


@operator("Pow", scalar=(1,))
def _pow(node: Node) -> Run:
    return _power


@operator("Mod")
def _mod(node: Node) -> Run:
    return torch.fmod if node.get("fmod", 0) else torch.remainder


@operator("IsInf")
def _is_inf(node: Node) -> Run:
    negative, positive = bool(node.get("detect_negative", 1)), bool(node.get("detect_positive", 1))
    if negative and positive:
        return torch.isinf
    if negative or positive:
        return torch.isneginf if negative else torch.isposinf
    return lambda x: torch.zeros_like(x, dtype=torch.bool)


@operator("Clip", host=(1, 2))
def _clip(node: Node) -> Run:
    if node.version < 11:
        low, high = node.get("min", -math.inf), node.get("max", math.inf)
        return lambda x: torch.clamp(x, low, high)

    def run(x: Tensor, low: Host | None = None, high: Host | None = None) -> Tensor:
        if low is None and high is None:
            return x
        return torch.clamp(x, None if low is None else number(low), None if high is None else number(high))

    return run


@operator("LeakyRelu")
def _leaky_relu(node: Node) -> Run:
    slope = node.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@operator("Elu")
def _elu(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@operator("Selu")
def _selu(node: Node) -> Run:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@operator("Celu")
def _celu(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(node: Node) -> Run:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


@operator("Gelu")
def _gelu(node: Node) -> Run:
    approximate = node.choice("approximate", "none", "tanh")
    return lambda x: F.gelu(x, approximate=approximate)


@operator("Swish")
def _swish(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return F.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)


@operator("Shrink")
def _shrink(node: Node) -> Run:
    bias, bound = node.get("bias", 0.0), node.get("lambd", 0.5)
    return lambda x: torch.where(x < -bound, x + bias, torch.where(x > bound, x - bias, torch.zeros_like(x)))


def _along(node: Node, function: Any) -> Run:
    """Softmax and its kin: along one axis since version 13, before over all axes from `axis` on, flattened together."""
    axis = node.get("axis", -1 if node.version >= 13 else 1)
    if node.version >= 13:
        return lambda x: function(x, axis)

    def run(x: Tensor) -> Tensor:
        start = axis % x.dim() if axis < 0 else axis
        return function(x.reshape(math.prod(x.shape[:start]), math.prod(x.shape[start:])), 1).reshape(x.shape)

    return run


@operator("Softmax")
def _softmax(node: Node) -> Run:
    return _along(node, torch.softmax)


@operator("LogSoftmax")
def _log_softmax(node: Node) -> Run:
    return _along(node, torch.log_softmax)


@operator("Hardmax")
def _hardmax(node: Node) -> Run:
    def hardmax(x: Tensor, axis: int) -> Tensor:
        return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)

    return _along(node, hardmax)


@operator("Cast")
def _cast(node: Node) -> Run:
    dtype = dtype_of(node.get("to", 0))
    return lambda x: x.to(dtype)


@operator("CastLike")
def _cast_like(node: Node) -> Run:
    return lambda x, like: x.to(like.dtype)


@operator("Dropout", host=(1, 2))
def _dropout(node: Node) -> Run:
    if node.has(2):
        training = node.constant(2)
        if training is None or bool(training.any()):
            raise UnsupportedVariantError("training_mode")
    if node.wants(1):
        kind = None if node.version < 10 else torch.bool
        return lambda x, *_: (x, torch.ones_like(x, dtype=kind))
    return lambda x, *_: x
