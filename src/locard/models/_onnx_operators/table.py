"""The operator table: what a builder is told of a node, and how it enters itself.

A builder reads the attributes once and returns the function that the interpreter calls with the node's inputs, in their
order, None for an optional one that is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

Run: TypeAlias = Callable[..., Tensor | tuple[Tensor, ...]]
Host: TypeAlias = Tensor | tuple[Any, ...]
"""A host operand: a flat tuple of Python numbers where the graph fixes it, a tensor where it is computed."""

OLDEST_OPSET: Final = 7
NEWEST_OPSET: Final = 28

DTYPES: Final[Mapping[int, torch.dtype]] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    16: torch.bfloat16,
}
"""Element types of TensorProto.DataType that torch computes with."""


class UnsupportedVariantError(Exception):
    """A known operator in a form that is not mapped; the text completes 'Resize: ...'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the graph, free of onnx types.

    Attributes:
        op: operator type, with its domain in front if that is not the default one ("com.microsoft::FusedConv").
        name: the node's name, or that of its first output.
        opset: version of the operator's domain that the model imports; None if it imports none.
        version: version of the operator's specification in force; 0 if this opset has no such operator.
        attributes: numbers, lists of numbers, text, arrays; a subgraph is None.
        inputs: names, "" for an optional input left out.
        outputs: names, "" for an optional output left out.
        known: values that the file fixes (initialisers, constants, folded nodes), by name.
    """

    op: str
    name: str
    opset: int | None
    version: int
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    known: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute's value, or what the specification says when it is absent."""
        return self.attributes.get(attribute, default)

    def choice(self, attribute: str, *allowed: str) -> str:
        """A text attribute out of those mapped; the first is the default.

        Raises:
            UnsupportedVariantError: the value is another one.
        """
        value = self.get(attribute, allowed[0])
        if value not in allowed:
            raise UnsupportedVariantError(f"{attribute} {value!r}")
        return value

    def refuse(self, **variants: object) -> None:
        """Raise `UnsupportedVariantError` for the first attribute whose value differs from the one given."""
        for attribute, only in variants.items():
            value = self.get(attribute, only)
            if value != only:
                raise UnsupportedVariantError(f"{attribute} {value!r}")

    def has(self, index: int) -> bool:
        """Whether the optional input at this position is there."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def wants(self, index: int) -> bool:
        """Whether the optional output at this position is asked for."""
        return index < len(self.outputs) and self.outputs[index] != ""

    def constant(self, index: int) -> Tensor | None:
        """The input at this position where the file fixes it."""
        return self.known.get(self.inputs[index]) if self.has(index) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """How one operator is run.

    Attributes:
        build: node -> function of the node's inputs.
        host: inputs that are read as Python numbers (shapes, axes, bounds): a flat tuple where the file fixes them, so
            that no call copies them off a device; never weights.
        scalar: inputs that become one Python number where the file fixes them and they have no axes, and are then no
            weights; else they stay tensors.
        fixed: inputs that stay tensors but are no weights (statistics, quantisation scales).
    """

    build: Callable[[Node], Run]
    host: frozenset[int]
    scalar: frozenset[int]
    fixed: frozenset[int]


OPERATORS: Final[dict[str, Operator]] = {}


def operator(
    *names: str, host: tuple[int, ...] = (), scalar: tuple[int, ...] = (), fixed: tuple[int, ...] = ()
) -> Callable[[Callable[[Node], Run]], Callable[[Node], Run]]:
    """Decorator that enters a builder in the table under some operator types; see `Operator` for the positions."""

    def enter(build: Callable[[Node], Run]) -> Callable[[Node], Run]:
        entry = Operator(build=build, host=frozenset(host), scalar=frozenset(scalar), fixed=frozenset(fixed))
        OPERATORS.update(dict.fromkeys(names, entry))
        return build

    return enter


def plain(functions: Mapping[str, Run]) -> None:
    """Enter operators without attributes: the function itself is run."""
    for name, function in functions.items():
        operator(name)(lambda _, run=function: run)


def numbers(value: Host) -> tuple[Any, ...]:
    """A host operand as a flat tuple of Python numbers."""
    return value if isinstance(value, tuple) else tuple(value.reshape(-1).tolist())


def number(value: Host) -> Any:
    """A host operand of one element as a Python number."""
    return numbers(value)[0]


def tensor_of(array: np.ndarray) -> Tensor:
    """A tensor that owns its memory, from what `onnx.numpy_helper.to_array` returns.

    Raises:
        UnsupportedVariantError: an element type that torch does not compute with (strings, 4-bit and 8-bit floats).
    """
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if array.dtype.kind not in "biuf" or array.dtype.isbuiltin != 1:
        raise UnsupportedVariantError(f"element type {array.dtype.name}")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True))


def dtype_of(code: int) -> torch.dtype:
    """The torch type of a TensorProto.DataType number.

    Raises:
        UnsupportedVariantError: torch has none to compute with.
    """
    if code not in DTYPES:
        raise UnsupportedVariantError(f"element type number {code}")
    return DTYPES[code]
