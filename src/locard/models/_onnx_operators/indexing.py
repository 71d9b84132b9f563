"""Operators that pick or place elements: Slice, Gather and Scatter with their kin, OneHot, NonZero."""

from __future__ import annotations

import torch
from torch import Tensor

from locard.models._onnx_operators.table import Host, Node, Run, number, numbers, operator, plain


def _wrap(index: Tensor, length: int) -> Tensor:
    """Negative indices count from the end."""
    index = index.long()
    return torch.where(index < 0, index + length, index)


@operator("Slice", host=(1, 2, 3, 4))
def _slice(node: Node) -> Run:
    first, last, along = (tuple(node.get(key, ())) for key in ("starts", "ends", "axes"))

    def run(
        x: Tensor, starts: Host = first, ends: Host = last, axes: Host | None = along or None, steps: Host | None = None
    ) -> Tensor:
        begin, end = numbers(starts), numbers(ends)
        chosen = range(len(begin)) if axes is None else numbers(axes)
        strides = (1,) * len(begin) if steps is None else numbers(steps)
        parts = [slice(None)] * x.dim()
        for axis, b, e, step in zip(chosen, begin, end, strides, strict=True):
            if step > 0:
                # torch warns of ends beyond 32 bits, which exporters write for "to the end".
                parts[axis] = slice(*slice(b, e, step).indices(x.shape[axis]))
                continue
            places = torch.tensor(range(x.shape[axis])[b:e:step], dtype=torch.int64, device=x.device)
            x = x.index_select(axis, places)
        return x[tuple(parts)]

    return run


@operator("Gather")
def _gather(node: Node) -> Run:
    axis, known = node.get("axis", 0), node.constant(1)
    if known is not None and known.dim() == 0:
        place = int(known)
        return lambda x, _: x.select(axis, place)

    def run(x: Tensor, index: Tensor) -> Tensor:
        at = axis % x.dim()
        picked = x.index_select(at, _wrap(index, x.shape[at]).reshape(-1))
        return picked.reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])

    return run


@operator("GatherElements")
def _gather_elements(node: Node) -> Run:
    axis = node.get("axis", 0)
    return lambda x, index: torch.gather(x, axis, _wrap(index, x.shape[axis]))


@operator("GatherND")
def _gather_nd(node: Node) -> Run:
    batch = node.get("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        shape = index.shape[:batch]
        rows = index.long().reshape(-1, *index.shape[batch:])
        data = x.reshape(-1, *x.shape[batch:])
        lead = torch.arange(data.shape[0], device=x.device).reshape(-1, *[1] * (rows.dim() - 2))
        picked = data[(lead, *rows.unbind(-1))]
        return picked.reshape(*shape, *picked.shape[1:])

    return run


_REDUCERS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("Scatter", "ScatterElements")
def _scatter_elements(node: Node) -> Run:
    axis, reduction = node.get("axis", 0), node.choice("reduction", "none", *_REDUCERS)

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        places = _wrap(index, x.shape[axis])
        if reduction == "none":
            return torch.scatter(x, axis, places, updates)
        return torch.scatter_reduce(x, axis, places, updates, _REDUCERS[reduction])

    return run


@operator("ScatterND")
def _scatter_nd(node: Node) -> Run:
    reduction = node.choice("reduction", "none", "add")
    return lambda x, index, updates: torch.index_put(x, index.long().unbind(-1), updates, reduction == "add")


@operator("OneHot", host=(1,))
def _one_hot(node: Node) -> Run:
    axis = node.get("axis", -1)

    def run(index: Tensor, depth: Host, values: Tensor) -> Tensor:
        count = int(number(depth))
        at = axis % (index.dim() + 1)
        classes = torch.arange(count, device=index.device).reshape(-1, *[1] * (index.dim() - at))
        return torch.where(_wrap(index, count).unsqueeze(at) == classes, values[1], values[0])

    return run


def _non_zero(x: Tensor) -> Tensor:
    return torch.nonzero(x).t()


plain({"NonZero": _non_zero})
