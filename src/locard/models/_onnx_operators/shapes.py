"""Operators on shapes: reading, changing, joining, splitting and filling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from locard.models._onnx_operators.table import Host, Node, Run, dtype_of, number, numbers, operator, tensor_of


@operator("Identity")
def _identity(node: Node) -> Run:
    return lambda x: x


@operator("Shape")
def _shape(node: Node) -> Run:
    start, end = node.get("start", 0), node.get("end", None)
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


@operator("Size")
def _size(node: Node) -> Run:
    return lambda x: torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@operator("Reshape", host=(1,))
def _reshape(node: Node) -> Run:
    copy_zeros = not node.get("allowzero", 0)

    def run(x: Tensor, shape: Host) -> Tensor:
        sizes = numbers(shape)
        if copy_zeros and 0 in sizes:
            sizes = tuple(size or x.shape[axis] for axis, size in enumerate(sizes))
        return x.reshape(sizes)

    return run


@operator("Flatten")
def _flatten(node: Node) -> Run:
    axis = node.get("axis", 1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze", host=(1,))
def _squeeze(node: Node) -> Run:
    fixed = tuple(node.get("axes", ()))

    def run(x: Tensor, axes: Host = fixed) -> Tensor:
        chosen = numbers(axes)
        if any(x.shape[axis] != 1 for axis in chosen):
            raise ValueError(f"axes {chosen} of shape {tuple(x.shape)} are not all of length 1")
        return x.squeeze(chosen) if chosen else x.squeeze()

    return run


@operator("Unsqueeze", host=(1,))
def _unsqueeze(node: Node) -> Run:
    fixed = tuple(node.get("axes", ()))

    def run(x: Tensor, axes: Host = fixed) -> Tensor:
        chosen = numbers(axes)
        for axis in sorted(axis % (x.dim() + len(chosen)) for axis in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


@operator("Transpose")
def _transpose(node: Node) -> Run:
    order = node.get("perm", None)
    return lambda x: x.permute(tuple(range(x.dim() - 1, -1, -1)) if order is None else order)


@operator("Concat")
def _concat(node: Node) -> Run:
    axis = node.get("axis", 0)
    return lambda *x: torch.cat(x, axis)


@operator("Split", host=(1,))
def _split(node: Node) -> Run:
    axis, fixed, count = node.get("axis", 0), tuple(node.get("split", ())), len(node.outputs)

    def run(x: Tensor, split: Host = fixed) -> tuple[Tensor, ...]:
        sizes = numbers(split)
        if not sizes:
            each = -(-x.shape[axis] // count)
            sizes = (*(each,) * (count - 1), x.shape[axis] - each * (count - 1))
        return tuple(torch.split(x, list(sizes), axis))

    return run


@operator("Expand", host=(1,))
def _expand(node: Node) -> Run:
    return lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, numbers(shape)))


@operator("Tile", host=(1,))
def _tile(node: Node) -> Run:
    return lambda x, repeats: x.repeat(numbers(repeats))


@operator("ConstantOfShape", host=(0,))
def _constant_of_shape(node: Node) -> Run:
    given = node.get("value", None)
    fill = torch.zeros(1) if given is None else tensor_of(given)
    value = fill.item()

    def run(shape: Host) -> Tensor:
        device = shape.device if isinstance(shape, Tensor) else None
        return torch.full(numbers(shape), value, dtype=fill.dtype, device=device)

    return run


@operator("Range")
def _range(node: Node) -> Run:
    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        first, stop, step = start.item(), limit.item(), delta.item()
        if (stop - first) * step <= 0:
            return torch.empty(0, dtype=start.dtype, device=start.device)
        return torch.arange(first, stop, step, dtype=start.dtype, device=start.device)

    return run


@operator("EyeLike")
def _eye_like(node: Node) -> Run:
    code, shift = node.get("dtype", None), node.get("k", 0)
    dtype = None if code is None else dtype_of(code)

    def run(x: Tensor) -> Tensor:
        rows, columns = (torch.arange(n, device=x.device) for n in x.shape)
        return (rows[:, None] + shift == columns).to(dtype or x.dtype)

    return run


@operator("Trilu", host=(1,))
def _trilu(node: Node) -> Run:
    cut = torch.triu if node.get("upper", 1) else torch.tril
    return lambda x, k=(0,): cut(x, number(k))


@operator("DepthToSpace")
def _depth_to_space(node: Node) -> Run:
    block, mode = node.get("blocksize", 1), node.choice("mode", "DCR", "CRD")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if mode == "CRD":
            y = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        else:
            y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, c // block**2, h * block, w * block)

    return run


@operator("SpaceToDepth")
def _space_to_depth(node: Node) -> Run:
    block = node.get("blocksize", 1)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * block**2, h // block, w // block)

    return run
