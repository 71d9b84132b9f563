"""The few facts of an ONNX file that onnxruntime does not tell, read off its bytes without the onnx package.

Only the framing of protocol buffers is decoded, and of the fields only those named here (the numbers are those of
onnx.proto). Tensors are stepped over, not copied, so the cost is that of walking the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_GRAPH_OF_MODEL = 7
_NODE_OF_GRAPH = 1
_OUTPUT_OF_NODE, _OPERATOR_OF_NODE, _INPUT_OF_NODE = 2, 4, 1
_ENTRY_OF_TENSOR = 13
_KEY, _VALUE = 1, 2

# Every way from a message down to a tensor: {message: {field: message below}}.
_BELOW = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# The wire format nests messages without an end; protobuf itself stops at 100.
_DEEPEST = 100


def external_files(content: bytes) -> list[str]:
    """Names of the files that hold tensors of this model, as the model spells them, sorted.

    Args:
        content: the bytes of an .onnx file.

    Raises:
        ValueError: they are no protocol buffer.
    """
    if b"location" not in content:
        return []
    found: set[str] = set()
    pending: list[tuple[str, memoryview, int]] = [("model", memoryview(content), 0)]
    while pending:
        kind, message, depth = pending.pop()
        if depth > _DEEPEST:
            raise ValueError("its messages are nested too deeply")
        if kind == "tensor":
            found |= _locations(message)
            continue
        below = _BELOW[kind]
        pending += [(below[number], part, depth + 1) for number, part in _parts(message) if number in below]
    return sorted(found)


def operator_of(content: bytes, output: str) -> str:
    """The operator that computes an output of the graph, seen through Identity; "" if no node does.

    Args:
        content: the bytes of an .onnx file.
        output: name of the output.

    Raises:
        ValueError: they are no protocol buffer.
    """
    makers: dict[str, tuple[str, str]] = {}
    for number, graph in _parts(memoryview(content)):
        if number == _GRAPH_OF_MODEL:
            for field, node in _parts(graph):
                if field == _NODE_OF_GRAPH:
                    makers.update(_maker(node))
    for _ in range(len(makers) + 1):
        operator, source = makers.get(output, ("", ""))
        if operator != "Identity":
            return operator
        output = source
    return ""


def _maker(node: memoryview) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each output of a node, with the operator and its first input."""
    operator, source, outputs = "", "", []
    for number, part in _parts(node):
        if number == _OPERATOR_OF_NODE:
            operator = _text(part)
        elif number == _INPUT_OF_NODE and not source:
            source = _text(part)
        elif number == _OUTPUT_OF_NODE:
            outputs.append(_text(part))
    yield from ((output, (operator, source)) for output in outputs)


def _locations(tensor: memoryview) -> set[str]:
    entries = [dict(_parts(part)) for number, part in _parts(tensor) if number == _ENTRY_OF_TENSOR]
    return {_text(entry[_VALUE]) for entry in entries if {_KEY, _VALUE} <= entry.keys() and entry[_KEY] == b"location"}


def _text(part: memoryview) -> str:
    return bytes(part).decode(errors="surrogateescape")


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have bytes: their numbers and the bytes."""
    for number, value, start, end in fields(message, 0, len(message)):
        if value is None:
            yield number, message[start:end]


def fields(message: memoryview, at: int, end: int) -> Iterator[tuple[int, int | None, int, int]]:
    """The fields of the message that lies in these bytes.

    Args:
        message: bytes, such as those of a file.
        at: where the message begins.
        end: where it ends.

    Yields:
        A field's number; the value where it is a number, or None where it is bytes; where those begin and end. Fields
        of four or eight bytes are passed over.

    Raises:
        ValueError: it is no protocol buffer.
    """
    while at < end:
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value, at, at
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if length > end - at:
                raise ValueError("a field is longer than the file")
            yield tag >> 3, None, at, at + length
            at += length
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} is not used by ONNX")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at this place, and the place behind it."""
    value = shift = 0
    while shift < 64:
        if at >= len(message):
            raise ValueError("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number has more than ten bytes")
