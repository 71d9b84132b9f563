"""A network's graph, walked once: which axes must be permuted alike, and how scales pass through each operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from locard.errors import ParameterError
from locard.weights._factors import Axis, Factors

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

# What multiplies a unit: a positive number, or -1.
Kind = Literal["magnitude", "sign"]
BOTH: tuple[Kind, ...] = ("magnitude", "sign")
MAGNITUDE: tuple[Kind, ...] = ("magnitude",)
SIGN: tuple[Kind, ...] = ("sign",)


@dataclass(eq=False, slots=True)
class Value:
    """A tensor of the graph.

    Args:
        shape: of it.
        axes: the factors of each axis.
        offset: see `Place`.
    """

    shape: tuple[int, ...]
    axes: list[Axis]
    offset: float = 0.0


# An axis of a value, or None for all its axes one after the other, as in memory.
Spot = tuple[Value, int | None]
Leaf = tuple[Value, int, int]
Rule = Callable[["Trace", Value, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Link:
    """Axes that one operation permutes alike.

    Args:
        step: number of the operation.
        spots: the axes.
        straight: whether the operation is linear along them and treats no coordinate apart, so that a matrix passes.
        moves: whether it only hands the entries on, from the first spot to the second.
    """

    step: int
    spots: tuple[Spot, ...]
    straight: bool
    moves: bool


@dataclass(slots=True)
class Trace:
    """What the operations demand.

    Args:
        factors: of all axes.
        links: axes permuted alike.
        equations: terms of exponents that add up to 0, and of which kind.
        read: axes that an operation adds over, weight by weight.
        tensors: the network's state, in its order, as far as it is used; names that share memory share a value.
    """

    factors: Factors = field(default_factory=Factors)
    links: list[Link] = field(default_factory=list)
    equations: list[tuple[list[tuple[Spot, int]], tuple[Kind, ...]]] = field(default_factory=list)
    read: list[Spot] = field(default_factory=list)
    tensors: dict[str, Value] = field(default_factory=dict)
    step: int = 0

    def value(self, shape: Sequence[int]) -> Value:
        """A tensor with axes of its own."""
        return Value(tuple(shape), [self.factors.axis(size) for size in shape])

    def fix(self, value: Value, *axes: int) -> None:
        """Keep axes in order; all of them where none is named."""
        for axis in axes or range(len(value.axes)):
            self.factors.fix(value.axes[axis])

    def tie(self, *spots: Spot, straight: bool = False, moves: bool = False) -> None:
        """Permute axes alike."""
        for other in spots[1:]:
            self.factors.tie(self._axis(spots[0]), self._axis(other))
        self.links.append(Link(self.step, spots, straight, moves))

    def balance(self, *terms: tuple[Spot, int], kinds: tuple[Kind, ...] = BOTH) -> None:
        """Let the exponents along these axes, times the numbers, add up to 0."""
        self.equations.append((list(terms), kinds))

    def still(self, *spots: Spot, kinds: tuple[Kind, ...] = BOTH) -> None:
        """Let nothing be scaled along these axes."""
        for spot in spots:
            self.balance((spot, 1), kinds=kinds)

    def hand_on(self, source: Spot, target: Spot) -> None:
        """The target's entries are the source's, in order."""
        self.tie(source, target, straight=True, moves=True)
        self.balance((source, 1), (target, -1))

    def view(self, value: Value, shape: Sequence[int]) -> Value:
        """The value in another shape."""
        made = self.value(shape)
        self.hand_on((value, None), (made, None))
        return made

    def leaves(self, spot: Spot) -> list[tuple[Leaf, int]]:
        """The places of an axis's factors, and the factors."""
        value, axis = spot
        axes = range(len(value.axes)) if axis is None else (axis,)
        return [((value, k, j), leaf) for k in axes for j, leaf in enumerate(self.factors.leaves(value.axes[k]))]

    def _axis(self, spot: Spot) -> Axis:
        value, axis = spot
        return [one for part in value.axes for one in part] if axis is None else value.axes[axis]


def walk(program: ExportedProgram, rules: Mapping[str, Rule]) -> Trace:
    """Follow a program from its inputs to its outputs, whose axes stay in order.

    Args:
        program: functional, of static shapes.
        rules: by the operation's name; all axes of an operation without a rule stay in order.

    Raises:
        ParameterError: a shape depends on the inputs.
    """
    trace, known = Trace(), dict[Any, Any]()
    shared: dict[Any, Value] = {}
    used: set[int] = set()
    crossed = _crossed(program.state_dict)
    for node in program.graph.nodes:
        trace.step += 1
        if node.op == "placeholder":
            name = _saved(program, node.name)
            known[node] = _like(trace, node.meta.get("val"))
            if name is None:
                for value in values(known[node]):
                    trace.fix(value)
                continue
            # Where there is no memory to share, as on the device meta, a tensor stands for itself.
            saved = program.state_dict[name]
            known[node] = shared.setdefault((saved.data_ptr() or name, saved.shape, saved.stride()), known[node])
            trace.tensors[name] = known[node]
            if name in crossed:
                trace.fix(known[node])
            if node.users:
                used.add(id(known[node]))
        elif node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem":
            known[node] = known[node.args[0]][node.args[1]]
        else:
            known[node] = _like(trace, node.meta.get("val"))
            _follow(trace, node, known, rules)
    trace.tensors = {name: trace.tensors[name] for name in program.state_dict if id(trace.tensors.get(name)) in used}
    return trace


def _crossed(state: Mapping[str, torch.Tensor]) -> set[str]:
    """Tensors that share memory with another one and are not simply the same: a transposed view, a slice."""
    spans = sorted((one.data_ptr(), -_extent(one), one.shape, one.stride(), name) for name, one in state.items()
                   if one.numel() and one.data_ptr())  # fmt: skip
    found: set[str] = set()
    for number, (start, extent, shape, stride, name) in enumerate(spans):
        for other, _, its_shape, its_stride, its_name in spans[number + 1 :]:
            if other >= start - extent:
                break
            if (start, shape, stride) != (other, its_shape, its_stride):
                found |= {name, its_name}
    return found


def _extent(tensor: torch.Tensor) -> int:
    steps = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (steps + 1) * tensor.element_size()


def _saved(program: ExportedProgram, input_name: str) -> str | None:
    """The name in the network's state; a buffer that is not saved is nobody's to permute."""
    signature = program.graph_signature
    name = signature.inputs_to_parameters.get(input_name) or signature.inputs_to_buffers.get(input_name)
    return name if name in program.state_dict else None


def _follow(trace: Trace, node: Any, known: dict[Any, Any], rules: Mapping[str, Rule]) -> None:
    out = known[node]
    schema = getattr(node.target, "_schema", None)
    rule = None if schema is None else rules.get(schema.name.removeprefix("aten::"))
    parts = values(out)
    if schema is not None and not parts:
        # An assertion; what gives nothing changes no answer.
        return
    if rule is None or schema is None:
        for value in values([_read(node.args, known), _read(list(node.kwargs.values()), known), out]):
            trace.fix(value)
        return
    if len(schema.returns) > 1:
        # What a normalisation or pooling tells besides its answer.
        for value in parts[1:]:
            trace.fix(value)
    given = dict(zip((one.name for one in schema.arguments), node.args, strict=False)) | node.kwargs
    rule(trace, parts[0], {name: _read(one, known) for name, one in given.items()} | {"out": out})


def values(found: Any) -> list[Value]:
    """The tensors among arguments, in lists too."""
    if isinstance(found, Value):
        return [found]
    return [value for one in found for value in values(one)] if isinstance(found, list) else []


def _read(argument: Any, known: dict[Any, Any]) -> Any:
    from torch.fx import Node

    if isinstance(argument, list | tuple):
        return [_read(one, known) for one in argument]
    return known[argument] if isinstance(argument, Node) else argument


def _like(trace: Trace, meta: Any) -> Any:
    if isinstance(meta, list | tuple):
        return [_like(trace, one) for one in meta]
    if not hasattr(meta, "shape"):
        return None
    if not all(isinstance(size, int) for size in meta.shape):
        raise ParameterError(
            "symmetries are read off a graph whose shapes are known; this one computes a shape from its inputs. Give "
            "the module that the file was made from"
        )
    return trace.value(meta.shape)
