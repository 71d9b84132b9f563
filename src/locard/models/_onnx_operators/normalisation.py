"""Normalisation layers, in inference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from locard.models._onnx_operators.table import Node, Run, UnsupportedVariantError, operator


@operator("BatchNormalization", fixed=(3, 4))
def _batch_normalization(node: Node) -> Run:
    epsilon = node.get("epsilon", 1e-5)
    node.refuse(spatial=1, training_mode=0)
    if any(node.wants(output) for output in range(1, 5)):
        raise UnsupportedVariantError("statistics as outputs, which is training")

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        # An exporter that stores equal tensors once may have made a statistic of what is a weight elsewhere.
        return F.batch_norm(x, mean.detach(), variance.detach(), scale, bias, False, 0.0, epsilon)

    return run


@operator("InstanceNormalization")
def _instance_normalization(node: Node) -> Run:
    epsilon = node.get("epsilon", 1e-5)
    # One group a channel is the same; torch's own instance norm refuses a single spatial element, which ONNX allows.
    return lambda x, scale, bias: torch.group_norm(x, x.shape[1], scale, bias, epsilon)


@operator("GroupNormalization")
def _group_normalization(node: Node) -> Run:
    groups, epsilon, per_group = node.get("num_groups", 1), node.get("epsilon", 1e-5), node.version < 21

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if per_group:
            each = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return torch.group_norm(x, groups, scale, bias, epsilon)

    return run


@operator("LayerNormalization")
def _layer_normalization(node: Node) -> Run:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    statistics = node.wants(1) or node.wants(2)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        shape = x.shape[axis:]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            y = F.layer_norm(x, shape, scale, bias, epsilon)
        else:
            y = F.layer_norm(x, shape, None, None, epsilon) * scale
            y = y if bias is None else y + bias
        if not statistics:
            return y
        axes = tuple(range(-len(shape), 0))
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return y, mean, torch.rsqrt(variance + epsilon)

    return run


@operator("RMSNormalization")
def _rms_normalization(node: Node) -> Run:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    return lambda x, scale: F.rms_norm(x, x.shape[axis:], None, epsilon) * scale


@operator("LpNormalization")
def _lp_normalization(node: Node) -> Run:
    axis, order = node.get("axis", -1), node.get("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, order, axis, keepdim=True)
        return torch.where(norm == 0, torch.zeros_like(x), x / norm)

    return run


@operator("LRN")
def _local_response(node: Node) -> Run:
    size, alpha, beta, k = node.get("size", 1), node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    before = (size - 1) // 2

    def run(x: Tensor) -> Tensor:
        squares = torch.square(x).movedim(1, -1)
        window = F.pad(squares, (before, size - 1 - before)).unfold(-1, size, 1).sum(-1).movedim(-1, 1)
        return x / (k + alpha / size * window) ** beta

    return run
