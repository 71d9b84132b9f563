"""The interpreter: a graph of plain records becomes a torch module that calls one function a node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from locard.errors import ArtefactError, ParameterError
from locard.models._onnx_operators.reader import Graph, GraphInput, first_line, refuse_unsupported
from locard.models._onnx_operators.table import OPERATORS, Node, Run, UnsupportedVariantError, numbers, tensor_of

_LEFT_OUT, _UNWANTED = 0, 1
"""Slots: what a left-out input reads (None), and where an unwanted output goes."""

_DEEPEST = 16
"""Most dots in a name that become nested modules; torch walks them by recursion."""

_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError, AttributeError, MemoryError)
"""What torch and Python raise at attributes or shapes that do not go together."""


class Step(NamedTuple):
    """One call of a forward pass.

    Attributes:
        run: the operator's function.
        taken: slots of its inputs.
        given: slots of its outputs.
        dead: slots that no later step reads.
        node: for messages.
    """

    run: Run
    taken: tuple[int, ...]
    given: tuple[int, ...]
    dead: tuple[int, ...]
    node: Node


@final
class OnnxModule(nn.Module):
    """Runs a translated graph; see `onnx_graph.to_torch`, which makes it.

    Attributes:
        onnx_names: name in the file of each parameter and buffer.
        source: what the graph was read from.
    """

    def __init__(self, source: str, inputs: tuple[GraphInput, ...]) -> None:
        super().__init__()
        self.source = source
        self.onnx_names: dict[str, str] = {}
        self._inputs = inputs
        self.load(blank=[], held=[], steps=[], answers=())

    def load(
        self, *, blank: list[Any], held: list[tuple[int, nn.Module, str]], steps: list[Step], answers: tuple[int, ...]
    ) -> None:
        """Take the program.

        Args:
            blank: value of each slot before a run: host operands, else None.
            held: slot of each parameter and buffer, the submodule that holds it and its key there.
            steps: in order.
            answers: slots of the outputs.
        """
        self._blank, self._held, self._steps, self._answers = blank, held, steps, answers

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The graph's inputs, in order, to its output, or a tuple of them.

        Raises:
            ParameterError: an input has another shape or kind than the file declares.
            ArtefactError: a node cannot compute what it is given.
        """
        self._check(inputs)
        values = self._blank.copy()
        values[2 : 2 + len(inputs)] = inputs
        for slot, owner, key in self._held:
            values[slot] = getattr(owner, key)
        read = values.__getitem__
        for step in self._steps:
            run, taken, given, dead, _ = step
            try:
                result = run(*map(read, taken))
            except torch.OutOfMemoryError:
                raise
            except _FAILURES as error:
                raise self._failure(step, [values[slot] for slot in taken], error) from error
            if type(result) is tuple:
                for slot, value in zip(given, result, strict=False):
                    values[slot] = value
            else:
                values[given[0]] = result
            for slot in dead:
                values[slot] = None
        answers = tuple(map(read, self._answers))
        return answers[0] if len(answers) == 1 else answers

    def extra_repr(self) -> str:
        """One line on what is run."""
        return f"{self.source}, {len(self._steps)} nodes"

    def _check(self, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs) != len(self._inputs):
            names = ", ".join(repr(entry.name) for entry in self._inputs)
            raise ParameterError(f"{self.source} takes {len(self._inputs)} inputs ({names}); got {len(inputs)}")
        for entry, x in zip(self._inputs, inputs, strict=True):
            if x.is_floating_point() != entry.floating or not _fits(x.shape, entry.shape):
                kind = "floating-point" if entry.floating else "whole"
                shape = "any shape" if entry.shape is None else f"shape ({', '.join(map(str, entry.shape))})"
                raise ParameterError(
                    f"{self.source} takes {kind} numbers of {shape} as {entry.name!r}; got {x.dtype} of shape "
                    f"{tuple(x.shape)}. If the batch size is fixed in the file, export it again with a free first axis"
                )

    def _failure(self, step: Step, inputs: list[Any], error: Exception) -> ArtefactError:
        got = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else str(x) for x in inputs)
        return ArtefactError(
            f"{self.source}: {step.node.op} at {step.node.name!r} fails on inputs {got}: {first_line(error)}; "
            "check the input's shape, or export the model again"
        )


def _fits(shape: torch.Size, declared: tuple[int | str, ...] | None) -> bool:
    if declared is None:
        return True
    return len(shape) == len(declared) and all(type(b) is str or a == b for a, b in zip(shape, declared, strict=True))


def translate(graph: Graph) -> OnnxModule:
    """Turn a graph into a module.

    Raises:
        ArtefactError: a node in a form that is not mapped (all are listed), or one with attributes that make no sense.
    """
    return _Translation(graph).module()


class _Translation:
    """The state of one translation.

    Slots number the values of a forward pass: two special ones (see `_LEFT_OUT`), the inputs, then results, parameters,
    buffers and host operands as they come up. A tensor's slot is found by its name, a host operand's by its name and
    what it was made into.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes, self._alias = _without_identities(graph)
        self._outputs = tuple(self._alias.get(name, name) for name in graph.outputs)
        self._parameters = self._weights_proper()
        try:
            self._known = {name: tensor_of(array) for name, array in (*graph.weights.items(), *graph.constants.items())}
        except UnsupportedVariantError as error:
            raise ArtefactError(
                f"{graph.source} holds a tensor of {error}, which torch does not compute with"
            ) from error
        self._blank: list[Any] = [None] * (2 + len(graph.inputs))
        self._slots: dict[str | tuple[str, str], int] = {entry.name: 2 + i for i, entry in enumerate(graph.inputs)}
        self._tensors: dict[str, int] = {}
        self._steps: list[Step] = []
        self._unsupported: list[tuple[Node, str]] = []

    def module(self) -> OnnxModule:
        """Everything, once."""
        for node in self._nodes:
            self._add(node)
        refuse_unsupported(self._graph.source, self._unsupported)
        answers = tuple(self._tensor_slot(name) for name in self._outputs)
        module = OnnxModule(self._graph.source, self._graph.inputs)
        held = _register(module, self._graph, self._known, self._parameters, self._used())
        module.load(
            blank=self._blank,
            held=[(slot, *held[name]) for name, slot in self._tensors.items()],
            steps=_with_ends(self._steps, answers),
            answers=answers,
        )
        return module

    def _weights_proper(self) -> set[str]:
        """Floating-point weights that some node reads as a tensor to be differentiated by."""
        proper = set(self._outputs)
        for node in self._nodes:
            entry = OPERATORS[node.op]
            for index, name in enumerate(node.inputs):
                number = index in entry.scalar and name in self._graph.weights and self._graph.weights[name].ndim == 0
                if not number and index not in entry.host and index not in entry.fixed:
                    proper.add(name)
        return {name for name, array in self._graph.weights.items() if name in proper and array.dtype.kind not in "biu"}

    def _used(self) -> set[str]:
        """Names that become parameters or buffers: what runs, and each weight that a node reads, if only to fold it."""
        read = {name for node in self._nodes for name in node.inputs if name in self._graph.weights}
        return read | self._tensors.keys()

    def _add(self, node: Node) -> None:
        """Append a step for the node, or compute it now if it depends on no input and no parameter."""
        entry = OPERATORS[node.op]
        try:
            run = entry.build(replace(node, known=self._known))
            read = [name for name in node.inputs if name]
            free = self._parameters if node.op not in ("Shape", "Size") else ()
            if all(name in self._known and name not in free for name in read):
                self._fold(node, run)
                return
        except UnsupportedVariantError as error:
            self._unsupported.append((node, str(error)))
            return
        except _FAILURES as error:
            raise ArtefactError(
                f"{self._graph.source}: {node.op} at {node.name!r} makes no sense: {first_line(error)}; "
                "export the model again"
            ) from error
        taken = tuple(self._operand(node, index, name) for index, name in enumerate(node.inputs))
        given = tuple(self._new_slot(name) if name else _UNWANTED for name in node.outputs)
        self._steps.append(Step(run=run, taken=taken, given=given, dead=(), node=node))

    def _fold(self, node: Node, run: Run) -> None:
        host = OPERATORS[node.op].host
        operands = [
            None if not name else numbers(self._known[name]) if index in host else self._known[name]
            for index, name in enumerate(node.inputs)
        ]
        with torch.no_grad():
            result = run(*operands)
        self._known.update(zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=False))
        if node.op == "DequantizeLinear":
            # The file keeps a weight in integers; it is one all the same.
            self._parameters.update(node.outputs)

    def _operand(self, node: Node, index: int, name: str) -> int:
        """The slot that the node reads at this position."""
        if not name:
            return _LEFT_OUT
        entry, value = OPERATORS[node.op], self._known.get(name)
        if value is not None and index in entry.host:
            return self._host_slot((name, "numbers"), numbers(value))
        if value is not None and index in entry.scalar and value.dim() == 0:
            return self._host_slot((name, "number"), value.item())
        return self._tensor_slot(name)

    def _host_slot(self, key: tuple[str, str], value: Any) -> int:
        if key not in self._slots:
            self._blank[self._new_slot(key)] = value
        return self._slots[key]

    def _tensor_slot(self, name: str) -> int:
        if name in self._known and name not in self._tensors:
            self._tensors[name] = self._new_slot(name)
        if name not in self._slots:
            raise ArtefactError(f"{self._graph.source}: nothing in the graph computes {name!r}; export the model again")
        return self._slots[name]

    def _new_slot(self, key: str | tuple[str, str]) -> int:
        self._slots[key] = len(self._blank)
        self._blank.append(None)
        return self._slots[key]


def _without_identities(graph: Graph) -> tuple[list[Node], dict[str, str]]:
    """The other nodes, reading what the Identity nodes read, and the name behind each Identity's output."""
    alias: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        if node.op == "Identity":
            alias[node.outputs[0]] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    return nodes, alias


def _with_ends(steps: list[Step], answers: tuple[int, ...]) -> list[Step]:
    """The steps, each with the slots of results and inputs that nothing reads after it."""
    ended: list[Step] = []
    seen = {_LEFT_OUT, *answers}
    for step in reversed(steps):
        last = {slot for slot in (*step.taken, *step.given) if slot not in seen}
        seen |= last - {_UNWANTED}
        ended.append(step._replace(dead=tuple(sorted(last))))
    return ended[::-1]


def _register(
    module: OnnxModule, graph: Graph, known: Mapping[str, Tensor], parameters: set[str], used: set[str]
) -> dict[str, tuple[nn.Module, str]]:
    """Give the module its parameters and buffers, in the file's order.

    Returns:
        Which submodule holds which name, under what key.
    """
    held: dict[str, tuple[nn.Module, str]] = {}
    for name in (*graph.weights, *(name for name in known if name not in graph.weights)):
        if name not in used:
            continue
        owner, key, path = _place(module, name)
        if name in parameters:
            owner.register_parameter(key, nn.Parameter(known[name]))
        else:
            owner.register_buffer(key, known[name], persistent=name in graph.weights)
        held[name] = owner, key
        module.onnx_names[path] = name
    return held


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str, str]:
    """A free place for a name: the submodule that its dots lead to, the key there, and both as one path."""
    parts = [re.sub(r"\W", "_", part) or "_" for part in name.split(".")]
    if len(parts) > _DEEPEST:
        parts = ["_".join(parts)]
    path: list[str] = []
    for part in parts[:-1]:
        while not isinstance(module._modules.get(part), nn.Module) and hasattr(module, part):
            part += "_"
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
        path.append(part)
    key = parts[-1]
    while hasattr(module, key):
        key += "_"
    return module, key, ".".join([*path, key])
