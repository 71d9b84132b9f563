"""Operators that reduce axes, or order, accumulate and count along one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from locard.models._onnx_operators.table import Host, Node, Run, number, numbers, operator

Reduction: TypeAlias = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    count = x.numel() // max(1, torch.sum(x, axes).numel())
    return torch.div(torch.sum(x, axes, keep), count, rounding_mode="trunc").to(x.dtype)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda x, axes, keep: _sum(torch.abs(x), axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: torch.amax(x, axes, keep),
    "ReduceMean": _mean,
    "ReduceMin": lambda x, axes, keep: torch.amin(x, axes, keep),
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(torch.square(x), axes, keep),
}


@operator(*_REDUCTIONS, host=(1,))
def _reduce(node: Node) -> Run:
    function, keep = _REDUCTIONS[node.op], bool(node.get("keepdims", 1))
    fixed, keep_all = tuple(node.get("axes", ())), bool(node.get("noop_with_empty_axes", 0))

    def run(x: Tensor, axes: Host | None = None) -> Tensor:
        chosen = fixed if axes is None else numbers(axes)
        if chosen:
            return function(x, chosen, keep)
        if keep_all:
            return function(x[None], (0,), False)
        return function(x, tuple(range(x.dim())), keep) if x.dim() else function(x[None], (0,), False)

    return run


def _extreme(node: Node, find: Callable[[Tensor, int, bool], Tensor]) -> Run:
    axis, keep, last = node.get("axis", 0), bool(node.get("keepdims", 1)), bool(node.get("select_last_index", 0))
    if last:
        return lambda x: x.shape[axis] - 1 - find(torch.flip(x, (axis,)), axis, keep)
    return lambda x: find(x, axis, keep)


@operator("ArgMax")
def _argmax(node: Node) -> Run:
    return _extreme(node, torch.argmax)


@operator("ArgMin")
def _argmin(node: Node) -> Run:
    return _extreme(node, torch.argmin)


@operator("TopK", host=(1,))
def _top_k(node: Node) -> Run:
    axis, largest, fixed = node.get("axis", -1), bool(node.get("largest", 1)), node.get("k", 0)

    def run(x: Tensor, k: Host | None = None) -> tuple[Tensor, Tensor]:
        # torch.topk leaves the order of equal values open; the specification wants the lower index first.
        values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
        count = fixed if k is None else number(k)
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)

    return run


@operator("CumSum", host=(1,))
def _cumulative_sum(node: Node) -> Run:
    exclusive, reverse = bool(node.get("exclusive", 0)), bool(node.get("reverse", 0))

    def run(x: Tensor, axis: Host) -> Tensor:
        along = number(axis)
        y = torch.flip(x, (along,)) if reverse else x
        total = torch.cumsum(y, along, dtype=x.dtype)
        if exclusive:
            total = total - y
        return torch.flip(total, (along,)) if reverse else total

    return run
