"""Which channels of a network belong together, read off the graph that `torch.export` makes of it.

A stream is a set of channels that can only go together: all that layers write to one residual stream, or the outputs of
one layer alone. Each operation is one of five: a layer reads one stream and begins another; a batch norm, a depthwise
convolution or a pointwise operation with constants keeps a stream; a pointwise operation of two streams joins them;
pooling, averages and reshapes move the axis that the channels lie along; any other keeps its stream whole.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from locard.errors import ParameterError
from locard.models._quiet import quiet
from locard.records import Domain

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

OUTPUT = "the output"
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_PRODUCTS = ("addmm", "mm", "matmul")
_TURNS = ("t", "numpy_T")
_SAME = ("alias", "clone", "contiguous", "detach", "lift_fresh_copy", "to")
# torch marks the rest itself.
_POINTWISE = ("dropout", "feature_dropout", "hardswish", *_SAME)
_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool")
_REDUCTIONS = ("mean", "sum", "amax")
_RESHAPES = ("flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view")
_NO_READERS = ("sym_size", "_assert_tensor_metadata")


class Part(NamedTuple):
    """One tensor of a stream: along `axis`, each channel is `block` neighbouring entries."""

    tensor: str
    axis: int
    block: int = 1


@dataclass(slots=True, eq=False)
class Stream:
    """Channels that can only go together.

    Args:
        width: how many.
        writers: the weights whose outputs they are.
        parts: all tensors with something for each channel: weights that write and read it, biases, batch norms.
        whole: what forbids that channels go, `OUTPUT` or the operation that they meet; None if nothing does.
    """

    width: int
    writers: list[Part]
    parts: list[Part]
    whole: str | None = None

    @property
    def layers(self) -> str:
        """The names of the layers that write it."""
        return ", ".join(writer.tensor.removesuffix(".weight") for writer in self.writers)


class _Lie(NamedTuple):
    """Where a stream lies in a value: along `axis`, each channel is `block` neighbouring entries."""

    stream: Stream
    axis: int
    block: int


def streams(module: torch.nn.Module, domain: Domain) -> list[Stream]:
    """The streams of a network, in the order in which it writes them.

    Args:
        module: in evaluation mode, without the normalisation in front.
        domain: of its inputs.

    Raises:
        ParameterError: texts, or torch cannot export the module.
    """
    import torch

    if domain.kind == "text":
        raise ParameterError(
            f"channels are told apart by the graph of a network of numbers; {type(module).__name__} takes {domain.text}"
        )
    try:
        example = torch.zeros((2, *domain.shape), dtype=getattr(torch, domain.dtype))
        with torch.no_grad(), quiet("torch.export"):
            program = torch.export.export(module, (example,))
    # The module is its owner's code, and torch says what it cannot export in errors of many kinds.
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ParameterError(
            f"channels are told apart by a module's graph, and torch cannot export {type(module).__name__}: {said}"
        ) from error
    walk = _Walk(module, program)
    for node in program.graph.nodes:
        walk.step(node)
    return walk.streams


class _Walk:
    """One way through a graph, from the inputs to the output."""

    def __init__(self, module: torch.nn.Module, program: torch.export.ExportedProgram) -> None:
        tensors = {**dict(module.named_parameters(remove_duplicate=False)),
                   **dict(module.named_buffers(remove_duplicate=False))}  # fmt: skip
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.held = {node: names[node.name] for node in program.graph.nodes if names.get(node.name) in tensors}
        self.tensors, uses = tensors, Counter[int]()
        for node, name in self.held.items():
            uses[id(tensors[name])] += _readers(node)
        self.shared = {name for name, tensor in tensors.items() if uses[id(tensor)] > 1}
        self.lies: dict[Node, _Lie] = {}
        self.streams: list[Stream] = []

    def step(self, node: Node) -> None:
        """Follow the streams through one operation."""
        name = _operation(node)
        inputs = [one for one in node.all_input_nodes if one in self.lies]
        if name in (*_CONVOLUTIONS, "linear", *_PRODUCTS):
            self._layer(node, name)
        elif not inputs or name in _NO_READERS:
            return
        elif name == "batch_norm" and self._normalised(node):
            self.lies[node] = self.lies[inputs[0]]
        elif _pointwise(node, name):
            self._joined(node, inputs)
        else:
            lie = self.lies[inputs[0]]
            moved = _moved(node, name, inputs[0], lie) if len(inputs) == 1 else None
            if moved is None:
                self._keep_whole(inputs, name)
            else:
                self.lies[node] = moved

    def _layer(self, node: Node, name: str) -> None:
        x, weight, bias = (_argument(node, at) for at in ((1, 2, 0) if name == "addmm" else (0, 1, 2)))
        held, turned = self._resolve(weight)
        convolution, before, after = name in _CONVOLUTIONS, x.meta["val"].shape, node.meta["val"].ndim
        if held is None or self.tensors[held].ndim != (after if convolution else 2):
            self._keep_whole([x, weight], name)
            return
        shape, read = self.tensors[held].shape, self.lies.get(x)
        fits = read is not None and read.axis == (1 if convolution else len(before) - 1)
        # A weight is (outputs, inputs, ...); in a product of matrices, (inputs, outputs) unless it is turned.
        out, into = (1, 0) if name in _PRODUCTS and not turned else (0, 1)
        own = [Part(held, out)]
        added, _ = self._resolve(bias)
        if added is not None and self.tensors[added].shape[-1:] == shape[out : out + 1]:
            own.append(Part(added, self.tensors[added].ndim - 1))
        shared = any(part.tensor in self.shared for part in own)
        grouped = convolution and shape[1] != before[1]
        if read is not None and fits and grouped and shape[1] == 1 and shape[0] == read.stream.width and not shared:
            read.stream.parts += own
            self.lies[node] = read
            return
        stream = Stream(shape[out], own[:1], own)
        self.streams.append(stream)
        self.lies[node] = _Lie(stream, 1 if convolution else after - 1, 1)
        if shared:
            self._keep_whole([x, node], "a second use of its weight")
        elif grouped:
            self._keep_whole([x, node], "a grouped convolution")
        elif read is not None and fits:
            read.stream.parts.append(Part(held, into, read.block))
        else:
            self._keep_whole([x], name)

    def _normalised(self, node: Node) -> bool:
        """Whether a batch norm is one of channels, and of tensors of its own; they are the stream's from now on."""
        arguments = [_argument(node, at) for at in range(5)]
        lie = self.lies.get(arguments[0])
        held = [self._resolve(one)[0] for one in arguments[1:] if one is not None]
        if lie is None or lie.axis != 1 or None in held or self.shared.intersection(held):
            return False
        lie.stream.parts += [Part(one, 0, lie.block) for one in held if one is not None]
        return True

    def _joined(self, node: Node, inputs: list[Node]) -> None:
        """Streams that meet entry by entry are one; constants of a channel each are its parts."""
        first = self.lies[inputs[0]]
        behind = inputs[0].meta["val"].ndim - first.axis
        parts: list[Part] = []
        for other in node.all_input_nodes:
            value, lie = other.meta.get("val"), self.lies.get(other)
            axis = getattr(value, "ndim", 0) - behind
            if lie is not None and (lie.axis, lie.block, lie.stream.width) == (axis, first.block, first.stream.width):
                continue
            if lie is None and (value is None or axis < 0 or value.shape[axis] == 1):
                continue
            held, turned = self._resolve(other)
            if lie is not None or held is None or turned or held in self.shared:
                self._keep_whole(inputs, _operation(node))
                return
            parts.append(Part(held, axis, first.block))
        first.stream.parts += parts
        for other in inputs[1:]:
            self._join(first.stream, self.lies[other].stream)
        self.lies[node] = first._replace(axis=node.meta["val"].ndim - behind)

    def _join(self, one: Stream, other: Stream) -> None:
        if one is other:
            return
        one.writers += other.writers
        one.parts += other.parts
        one.whole = one.whole or other.whole
        self.streams.remove(other)
        self.lies = {node: lie._replace(stream=one) if lie.stream is other else lie for node, lie in self.lies.items()}

    def _keep_whole(self, nodes: list[Node], why: str) -> None:
        for lie in (self.lies[node] for node in nodes if node in self.lies):
            lie.stream.whole = lie.stream.whole or why

    def _resolve(self, node: Node | None) -> tuple[str | None, bool]:
        """The tensor of the module that a value is, None if it is computed; and whether it is turned."""
        turned = False
        while node is not None and node not in self.held and _operation(node) in (*_TURNS, *_SAME):
            turned ^= _operation(node) in _TURNS
            node = node.all_input_nodes[0]
        return (None if node is None else self.held.get(node)), turned


def _operation(node: Node) -> str:
    """Its name, without the overload and without the mark of one that works in place."""
    return OUTPUT if node.op == "output" else str(getattr(node.target, "__name__", "")).partition(".")[0].rstrip("_")


def _argument(node: Node, at: int) -> Any:
    return node.args[at] if at < len(node.args) else None


def _readers(node: Node) -> int:
    """How many operations read a value, where one that gives it on as it is does not count itself."""
    users = [user for user in node.users if _operation(user) not in _NO_READERS]
    return sum(_readers(user) if _operation(user) in (*_TURNS, *_SAME) else 1 for user in users)


def _pointwise(node: Node, name: str) -> bool:
    import torch

    return name in _POINTWISE or torch.Tag.pointwise in getattr(node.target, "tags", ())


def _moved(node: Node, name: str, source: Node, lie: _Lie) -> _Lie | None:
    """Where a stream lies after an operation that keeps its channels apart and in order; None after any other."""
    before, axis = source.meta["val"].shape, lie.axis
    over = _argument(node, 1)
    if name.startswith(_POOLS):
        # The digit of "max_pool2d"; with indices it gives two values.
        flat = len(before) - int(name[name.index("pool") + 4])
        return lie if axis < flat and name.endswith("d") else None
    if name == "slice":
        return None if int(over or 0) % len(before) == axis else lie
    if name in _REDUCTIONS and isinstance(over, list | tuple):
        dropped = {int(one) % len(before) for one in over}
        if axis in dropped:
            return None
        return lie if _argument(node, 2) else lie._replace(axis=axis - sum(one < axis for one in dropped))
    if name in _RESHAPES:
        # Entries stay in their order, so the channels lie where as many entries follow from.
        after, entries = node.meta["val"].shape, math.prod(before[axis:])
        for at in range(len(after) - 1, 0, -1):
            size = entries // math.prod(after[at + 1 :])
            if math.prod(after[at:]) == entries and size % lie.stream.width == 0:
                return lie._replace(axis=at, block=int(size) // lie.stream.width)
    return None
