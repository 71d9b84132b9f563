"""A stranger's ONNX file, read into plain records: checked first, and no path in it followed out of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from locard.errors import ArtefactError, unknown
from locard.models._onnx_operators.table import DTYPES, NEWEST_OPSET, OLDEST_OPSET, OPERATORS, Node

_DEFAULT_DOMAINS = ("", "ai.onnx")
_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_CONSTANT_KINDS = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInput:
    """One input that the caller gives.

    Attributes:
        name: as the file has it.
        floating: whether its elements are floating-point numbers.
        shape: lengths, or the names of free axes; None if the file says nothing.
    """

    name: str
    floating: bool
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What a model file says, checked.

    Attributes:
        source: what it was read from, for messages.
        nodes: what the outputs need, each after what it reads; no Constant among them.
        weights: initialisers, and floating-point Constant nodes with at least one axis, by name.
        constants: the other Constant nodes, by name.
        inputs: in the order of the file, without those that have an initialiser.
        outputs: the outputs asked for.
    """

    source: str
    nodes: tuple[Node, ...]
    weights: Mapping[str, np.ndarray]
    constants: Mapping[str, np.ndarray]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]


def read(model: str | Path | ModelProto, outputs: Sequence[str] | None) -> Graph:
    """Read and check a model; the arguments and errors are those of `onnx_graph.to_torch`."""
    if isinstance(model, ModelProto):
        source, folder, proto = "the ONNX model", None, ModelProto()
        proto.CopyFrom(model)
    else:
        source, folder, proto = str(model), Path(model).parent, _parsed(Path(model))
    _refuse_non_text(proto, source)
    opsets = _opsets(proto, source)
    _keep_needed(proto, outputs, source)
    _refuse_unmapped(proto, opsets, source)
    inputs = _inputs(proto, source)
    _load_external_data(proto, folder, source)
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ArtefactError(f"{source} is no valid ONNX model: {first_line(error)}; export it again") from error
    return _graph(proto, opsets, inputs, source)


def refuse_unsupported(source: str, found: Sequence[tuple[Node, str]]) -> None:
    """Raise one error for all nodes that cannot be mapped, each with what is special about it; for none, no error."""
    if not found:
        return
    named: dict[str, list[str]] = {}
    for node, variant in found:
        opset = "no opset imported" if node.opset is None else f"opset {node.opset}"
        named.setdefault(f"{node.op} ({opset}{', ' if variant else ''}{variant})", []).append(repr(node.name))
    listed = "; ".join(f"{what} at {', '.join(names)}" for what, names in named.items())
    raise ArtefactError(
        f"{source} cannot become a torch module, which gradients and weights need: not supported are {listed}. "
        "Verifying needs no gradients: labels, probabilities and logits come from the ONNX file as it is. "
        "For gradients, load the torch model that it was exported from, or name the outputs that do without these"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, for messages of one line."""
    text = str(error).strip()
    return _printable(text.splitlines()[0]) if text else type(error).__name__


def _printable(text: str) -> str:
    """A stranger's text for a message: no line end or terminal code comes through."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _parsed(path: Path) -> ModelProto:
    try:
        return ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror}; give the path of an .onnx file") from error
    except (DecodeError, ValueError) as error:
        raise ArtefactError(f"{path} is no ONNX file, or a damaged one; export or download it again") from error


def _refuse_non_text(proto: ModelProto, source: str) -> None:
    """Protobuf hands out a name that is no UTF-8 as bytes; past here every name is text."""
    graph = proto.graph
    names = chain(
        (entry.domain for entry in proto.opset_import),
        (tensor.name for tensor in graph.initializer),
        (entry.name for entry in chain(graph.input, graph.output)),
        chain.from_iterable((node.name, node.op_type, node.domain, *node.input, *node.output) for node in graph.node),
        (attribute.name for node in graph.node for attribute in node.attribute),
        (axis.dim_param for entry in graph.input for axis in entry.type.tensor_type.shape.dim),
        chain.from_iterable((entry.key, entry.value) for tensor in _tensors(proto) for entry in tensor.external_data),
    )
    if not all(isinstance(name, str) for name in names):
        raise ArtefactError(f"{source} is damaged: a name in it is no text; export or download it again")


def _opsets(proto: ModelProto, source: str) -> dict[str, int]:
    """Imported opset of each domain, the default one under ""; refuses what the operator table was not written for."""
    if not proto.graph.node:
        raise ArtefactError(f"{source} is no ONNX file with a graph, or a damaged one; export or download it again")
    opsets = {"" if entry.domain in _DEFAULT_DOMAINS else entry.domain: entry.version for entry in proto.opset_import}
    opset, newest = opsets.setdefault("", 1), onnx.defs.onnx_opset_version()
    if newest < opset <= NEWEST_OPSET:
        raise ArtefactError(
            f"{source} uses ONNX opset {opset}, and the installed onnx {onnx.__version__} knows opsets to {newest}; "
            "upgrade it: pip install --upgrade onnx"
        )
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ArtefactError(
            f"{source} uses ONNX opset {opset}; expected {OLDEST_OPSET} to {NEWEST_OPSET}. "
            "Export it with an opset_version in that range, or convert it with onnx.version_converter"
        )
    return opsets


def _keep_needed(proto: ModelProto, outputs: Sequence[str] | None, source: str) -> None:
    """Drop the outputs that were not asked for, and all nodes that no output depends on."""
    known = [output.name for output in proto.graph.output]
    for name in outputs or ():
        if name not in known:
            raise unknown(f"output of {source}", name, map(_printable, known))
    asked = list(outputs or known)
    wanted = set(asked)
    kept: list[NodeProto] = []
    for node in reversed(proto.graph.node):
        if any(name in wanted for name in node.output if name):
            kept.append(node)
            wanted.update(node.input)
    kept.reverse()
    graph = onnx.GraphProto()
    graph.CopyFrom(proto.graph)
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(kept)
    # Types and shapes of results are the file's opinion, which nothing here depends on: the checker need not judge it.
    graph.output.extend(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in asked)
    proto.graph.CopyFrom(graph)


def _refuse_unmapped(proto: ModelProto, opsets: dict[str, int], source: str) -> None:
    found: list[tuple[Node, str]] = []
    for entry in proto.graph.node:
        node = _node(entry, opsets)
        if any(attribute.type in _SUBGRAPHS for attribute in entry.attribute):
            found.append((node, "a subgraph"))
        elif node.version == 0 or node.op not in (*OPERATORS, "Constant"):
            found.append((node, ""))
    refuse_unsupported(source, found)


def _node(entry: NodeProto, opsets: dict[str, int]) -> Node:
    """A node without its attributes, which only the checker makes safe to read."""
    domain = "" if entry.domain in _DEFAULT_DOMAINS else entry.domain
    opset, version = opsets.get(domain), 0
    if not domain and opset is not None:
        try:
            schema = onnx.defs.get_schema(entry.op_type, opset, "")
            version = 0 if schema.deprecated else schema.since_version
        except onnx.defs.SchemaError:
            version = 0
    return Node(
        op=_printable(f"{domain}::{entry.op_type}" if domain else entry.op_type),
        name=entry.name or next((name for name in entry.output if name), ""),
        opset=opset,
        version=version,
        attributes={},
        inputs=tuple(entry.input),
        outputs=tuple(entry.output),
    )


def _inputs(proto: ModelProto, source: str) -> tuple[GraphInput, ...]:
    """What the caller gives; shapes left open are filled in afterwards for the checker, which wants every field."""
    held = {tensor.name for tensor in proto.graph.initializer}
    inputs: list[GraphInput] = []
    for entry in proto.graph.input:
        kind = entry.type.tensor_type
        dtype = DTYPES.get(kind.elem_type)
        if dtype is None:
            raise ArtefactError(
                f"{source}: input {entry.name!r} is no tensor of numbers, which is all that torch takes"
            )
        shape = None
        if kind.HasField("shape"):
            shape = tuple(
                axis.dim_value
                if axis.HasField("dim_value") and axis.dim_value >= 0
                else _printable(axis.dim_param) or f"axis {place}"
                for place, axis in enumerate(kind.shape.dim)
            )
        kind.shape.SetInParent()
        if entry.name not in held:
            inputs.append(GraphInput(name=entry.name, floating=dtype.is_floating_point, shape=shape))
    return tuple(inputs)


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the graph; those of subgraphs, which are refused, are left out."""
    yield from proto.graph.initializer
    for node in proto.graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _load_external_data(proto: ModelProto, folder: Path | None, source: str) -> None:
    """Read the data that lie in files beside the model, and in no other place."""
    for tensor in _tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if folder is None:
            raise ArtefactError(
                f"{source} keeps tensor {tensor.name!r} in another file, {location!r}; "
                "give the path of the .onnx file, or load it with onnx.load, which reads such files"
            )
        target = (folder / location).resolve()
        if not location or not target.is_relative_to(folder.resolve()) or not target.is_file():
            raise ArtefactError(
                f"{source} keeps tensor {tensor.name!r} in {location!r}; expected a file in the model's own folder. "
                "Put the data file back beside the model, or save the model in one file"
            )
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except (onnx.checker.ValidationError, ValueError, OSError) as error:
            raise ArtefactError(
                f"{source}: tensor {tensor.name!r} cannot be read from {location!r}: {first_line(error)}; "
                "export or download both files again"
            ) from error
        # onnx before 1.22 leaves these as they are.
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _graph(proto: ModelProto, opsets: dict[str, int], inputs: tuple[GraphInput, ...], source: str) -> Graph:
    weights = {tensor.name: _array(tensor, tensor.name, source) for tensor in proto.graph.initializer}
    constants: dict[str, np.ndarray] = {}
    nodes: list[Node] = []
    for entry in proto.graph.node:
        node = replace(_node(entry, opsets), attributes=_attributes(entry, source))
        if node.op != "Constant":
            nodes.append(node)
            continue
        kind, value = next(iter(node.attributes.items()))
        if kind not in _CONSTANT_KINDS:
            refuse_unsupported(source, [(node, kind)])
        array = np.asarray(value, dtype=_CONSTANT_KINDS[kind])
        (weights if array.ndim and array.dtype.kind == "f" else constants)[node.outputs[0]] = array
    return Graph(
        source=source,
        nodes=tuple(nodes),
        weights=weights,
        constants=constants,
        inputs=inputs,
        outputs=tuple(output.name for output in proto.graph.output),
    )


def _array(tensor: TensorProto, name: str, source: str) -> np.ndarray:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtefactError(f"{source}: tensor {name!r} is damaged: {first_line(error)}; export it again") from error


def _attributes(entry: NodeProto, source: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for attribute in entry.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, TensorProto):
            value = _array(value, entry.name, source)
        elif isinstance(value, bytes):
            value = value.decode(errors="replace")
        values[attribute.name] = value
    return values
