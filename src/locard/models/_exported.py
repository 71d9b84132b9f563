"""An exported program as an ordinary module; imported only where torch is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch import nn
from torch.fx.graph import CodeGen
from torch.utils._sympy.numbers import int_oo

from locard.errors import ArtefactError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_GUARDS = "_guards_fn"


class ExportedModule(nn.Module):
    """A program as a module that takes any batch size, under the names that its parameters had.

    It infers as it was exported, whatever its mode. Constants and buffers that the original did not save are buffers
    here, so that all that the program computes with shows in its state.

    Args:
        program: one tensor (n, ...) in, one tensor (n, ...) out.

    Raises:
        ArtefactError: it has several inputs or outputs, a batch size that is no plain number or symbol, or was exported
            in training mode.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        spec = input_spec(program)
        _refuse_training(program)
        self.dtype = spec.dtype
        self.smallest, self.largest = _batch_range(program, spec)
        source: Any = program.module()
        for name, value in program.constants.items():
            _keep(source, name, value)
        for name, part in source.named_children():
            if name != _GUARDS:
                self.add_module(name, part)
        for name, value in source.named_parameters(recurse=False):
            self.register_parameter(name, value)
        for name, value in source.named_buffers(recurse=False):
            self.register_buffer(name, value)
        self.graph = _plain(source.graph)
        self.code = self.graph.python_code("self").src.strip()
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, ...), in batches that the program takes; short ones are filled up with their last row."""
        if self.largest is None and self.smallest == 1:
            # So that what holds this program can be exported in its turn, which takes a batch of no known size.
            return self._ask(x.to(self.dtype))
        parts = []
        for chunk in (x,) if self.largest is None else x.split(self.largest):
            rows = len(chunk)
            if rows < self.smallest:
                chunk = torch.cat([chunk, chunk[-1:].expand(self.smallest - rows, *chunk.shape[1:])])
            parts.append(self._ask(chunk.to(self.dtype))[:rows])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def extra_repr(self) -> str:
        """The program's code, so that two programs with the same weights are not taken for one."""
        return self.code

    def _ask(self, x: torch.Tensor) -> torch.Tensor:
        (answers,) = torch.fx.Interpreter(self, graph=self.graph).run(x)
        return answers.float() if answers.dtype in (torch.float16, torch.bfloat16) else answers


def input_spec(program: ExportedProgram) -> torch.Tensor:
    """The program's single input as a tensor without memory.

    Raises:
        ArtefactError: it has several inputs or outputs, or its input is no tensor with a batch axis.
    """
    signature = program.graph_signature
    inputs, outputs = list(signature.user_inputs), list(signature.user_outputs)
    if len(inputs) != 1 or len(outputs) != 1:
        raise ArtefactError(
            f"it takes {len(inputs)} inputs and gives {len(outputs)} outputs; expected one tensor in and one out: "
            "export a module that answers its class scores alone"
        )
    specs = {node.name: node.meta.get("val") for node in program.graph.nodes}
    spec = specs.get(inputs[0])
    if not isinstance(spec, torch.Tensor) or spec.ndim < 2:
        raise ArtefactError(f"its input must be a tensor (n, ...); got {spec!r}")
    return spec


def _batch_range(program: ExportedProgram, spec: torch.Tensor) -> tuple[int, int | None]:
    """The smallest and largest batch it takes; None for no limit."""
    size = spec.shape[0]
    if isinstance(size, int):
        return size, size
    expression = size.node.expr
    if not isinstance(expression, sympy.Symbol):
        raise ArtefactError(f"its batch size is bound to be {expression}; export it with a free or a fixed batch size")
    allowed = program.range_constraints.get(expression)
    if allowed is None:
        return 1, None
    return max(1, int(allowed.lower)), None if allowed.upper in (int_oo, sympy.oo) else int(allowed.upper)


def _refuse_training(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
        if schema is None:
            continue
        given = dict(zip((one.name for one in schema.arguments), node.args, strict=False)) | node.kwargs
        # Normalisation by the batch's own statistics is training only where there are running ones beside them.
        moving = given.get("running_mean") is not None or "dropout" in schema.name
        if moving and (given.get("train") is True or given.get("training") is True):
            raise ArtefactError(
                f"it was exported in training mode ({schema.name}), so its answers move; export it after .eval()"
            )


def _keep(module: nn.Module, name: str, value: Any) -> None:
    """Make a constant, or a buffer that is not saved, an ordinary buffer."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if isinstance(value, torch.Tensor):
        owner.__dict__.pop(leaf, None)
        owner.register_buffer(leaf, value)


def _plain(graph: torch.fx.Graph) -> torch.fx.Graph:
    """The graph from tensors to tensors, without the checks of the batch size, which are met beforehand."""
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == _GUARDS:
            graph.erase_node(node)
    graph.set_codegen(CodeGen())
    return graph
