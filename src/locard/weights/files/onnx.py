"""ONNX: the initialisers and constants of a graph, and of the graphs within it, without the onnx package.

A matrix that a `MatMul` multiplies from the right is handed out turned, (out, in), as torch keeps it, and one that the
exporter left without a name is called after its node ("encoder.0.dense.weight"). Whole numbers that onnxruntime's
quantiser made (`X_quantized` with `X_scale` and perhaps `X_zero_point`) are handed out as the floats `X`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from locard.errors import ArtefactError
from locard.models._onnx_wire import fields
from locard.weights.files._encodings import ENCODINGS
from locard.weights.files.base import MOST_TENSORS, Entry, TensorFile, check_entry, file_size

# Numbers of fields in onnx.proto.
_GRAPH_OF_MODEL = 7
_NODE, _INITIALIZER = 1, 5
_INPUT, _OUTPUT, _NODE_NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 5, 6, 11
_DIMS, _TYPE, _FLOATS, _NAME, _RAW, _DOUBLES, _EXTERNAL = 1, 2, 4, 8, 9, 10, 13
_DEEPEST = 30
MOST_NODES = 1_000_000
_TURNED = ("MatMul", "MatMulInteger", "FusedMatMul")
_TYPES = {1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64",
          12: "U32", 13: "U64", 16: "BF16", 17: "F8_E4M3", 19: "F8_E5M2"}  # fmt: skip


@dataclass(slots=True)
class _Found:
    """What a walk over a graph gathers."""

    tensors: list[tuple[str, tuple[int, int]]] = field(default_factory=list)
    users: dict[str, tuple[str, str]] = field(default_factory=dict)
    nodes: int = 0


def open_file(path: Path) -> TensorFile:
    """The tensors of one graph; their numbers may lie in other files of its folder.

    Raises:
        ArtefactError: it is no protocol buffer, truncated, or keeps tensors outside its folder or where they cannot be.
    """
    where = f"the file {str(path)!r}"
    size = file_size(path, where)
    files, entries = [path], {}
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            message = memoryview(data)
            try:
                found = _Found()
                for number, value, start, end in fields(message, 0, size):
                    if number == _GRAPH_OF_MODEL and value is None:
                        _graph(message, start, end, found, 0)
                for name, span in found.tensors:
                    entry = _entry(message, span, name, files, where)
                    if entry is not None:
                        entries[_free(name, entries)] = entry
            finally:
                message.release()
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ArtefactError(f"{where} is no ONNX file, or a damaged one: {error}") from error
    sizes = [size, *(file_size(one, f"the file {str(one)!r}") for one in files[1:])]
    for name, entry in entries.items():
        check_entry(name, entry, size=sizes[entry.file], where=where)
    return TensorFile(str(path), files, _named(_dequantised(entries), found.users))


def _graph(message: memoryview, at: int, end: int, found: _Found, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    for number, value, start, stop in fields(message, at, end):
        if value is not None:
            continue
        if number == _INITIALIZER:
            found.tensors.append((_text(message, start, stop, _NAME), (start, stop)))
        elif number == _NODE:
            found.nodes += 1
            _node(message, start, stop, found, depth)
        if len(found.tensors) > MOST_TENSORS or found.nodes > MOST_NODES:
            raise ValueError(f"it has more than {MOST_TENSORS:,} tensors or {MOST_NODES:,} nodes")


def _node(message: memoryview, at: int, end: int, found: _Found, depth: int) -> None:
    inputs: list[str] = []
    attributes: list[tuple[int, int]] = []
    name = operator = output = ""
    for number, value, start, stop in fields(message, at, end):
        if value is not None:
            continue
        if number == _INPUT:
            inputs.append(_plain(message, start, stop))
        elif number == _OUTPUT:
            output = output or _plain(message, start, stop)
        elif number == _NODE_NAME:
            name = _plain(message, start, stop)
        elif number == _OPERATOR:
            operator = _plain(message, start, stop)
        elif number == _ATTRIBUTE:
            attributes.append((start, stop))
    for tensor in inputs[1:2]:
        found.users.setdefault(tensor, (operator, name))
    for begin, finish in attributes:
        for number, value, start, stop in fields(message, begin, finish):
            if value is not None:
                continue
            if number == _ATTRIBUTE_TENSOR:
                found.tensors.append((output or _text(message, start, stop, _NAME), (start, stop)))
            elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                _graph(message, start, stop, found, depth + 1)


def _entry(message: memoryview, span: tuple[int, int], name: str, files: list[Path], where: str) -> Entry | None:
    """A tensor's place; None where its numbers lie one by one in variable lengths, as whole numbers may."""
    dims: list[int] = []
    kind = 0
    place: tuple[int, int] | None = None
    outside: dict[str, str] = {}
    for number, value, start, stop in fields(message, *span):
        if number == _DIMS:
            dims += [value] if value is not None else list(_packed(message, start, stop))
        elif number == _TYPE and value is not None:
            kind = value
        elif number in (_FLOATS, _RAW, _DOUBLES) and value is None:
            place = (start, stop)
        elif number == _EXTERNAL and value is None:
            outside[_text(message, start, stop, 1)] = _text(message, start, stop, 2)
    if kind not in _TYPES or any(size >= 1 << 62 for size in dims):
        return None
    entry = Entry(shape=tuple(dims), encoding=ENCODINGS[_TYPES[kind]], file=0, offset=0)
    if outside:
        return _outside(entry, outside, files, where)
    if place is None:
        return None
    if place[1] - place[0] != entry.nbytes:
        raise ArtefactError(
            f"{where} is damaged: the tensor {name[:80]!r} has {place[1] - place[0]:,} bytes for the {entry.nbytes:,} "
            "of its shape"
        )
    return replace(entry, offset=place[0])


def _outside(entry: Entry, facts: dict[str, str], files: list[Path], where: str) -> Entry:
    location, offset = facts.get("location", ""), facts.get("offset", "0")
    home = files[0].parent.resolve()
    if not location or "\0" in location or not (home / location).resolve().is_relative_to(home):
        raise ArtefactError(f"{where} keeps tensors in {location[:80]!r}, outside its own folder; save it in one file")
    if not (offset.isascii() and offset.isdigit() and len(offset) < 19):
        raise ArtefactError(f"{where} is damaged: it keeps a tensor at {offset[:40]!r} of {location[:80]!r}")
    path = home / location
    if path not in files:
        files.append(path)
    return replace(entry, file=files.index(path), offset=int(offset))


def _dequantised(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Whole numbers with a scale become floats under the name without the suffix."""
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        stem = name.removesuffix("_quantized")
        scale, zero = f"{stem}_scale", f"{stem}_zero_point"
        if stem == name or scale not in entries or entry.encoding.name not in ("I8", "U8"):
            found[name] = entry
            continue
        zero = zero if zero in entries else None
        per = {max(1, *entries[one].shape) if entries[one].shape else 1 for one in (scale, zero) if one is not None}
        # A scale for each index of the first axis or of the last one.
        if all(n == 1 or n in (entry.shape[0], entry.shape[-1]) for n in per if entry.shape):
            found[stem] = replace(entry, scale=scale, zero=zero)
        else:
            found[name] = entry
    return found


def _named(entries: dict[str, Entry], users: dict[str, tuple[str, str]]) -> dict[str, Entry]:
    """Matrices turned as torch keeps them, and named after their nodes where the exporter gave a number only."""
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        operator, node = users.get(name) or users.get(f"{name}_quantized") or ("", "")
        label = name
        if operator in _TURNED and len(entry.shape) == 2:
            rows, columns = entry.shape
            entry = replace(entry, shape=(columns, rows), strides=(1, columns))
            path = [part for part in node.split("/")[:-1] if part]
            if name.startswith("onnx::") and path:
                label = ".".join([*path, "weight"])
        found[_free(label, found)] = entry
    return found


def _free(name: str, taken: dict[str, Entry]) -> str:
    """The name, with a number behind it where a tensor of another graph has it."""
    if name and name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def _packed(message: memoryview, at: int, end: int) -> Iterator[int]:
    """Whole numbers written one behind the other, seven bits a byte."""
    value = shift = 0
    for byte in message[at:end]:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


def _text(message: memoryview, at: int, end: int, wanted: int) -> str:
    """The first text in a field of that number, or ""."""
    for number, value, start, stop in fields(message, at, end):
        if number == wanted and value is None:
            return _plain(message, start, stop)
    return ""


def _plain(message: memoryview, start: int, stop: int) -> str:
    return bytes(message[start : min(stop, start + 512)]).decode(errors="backslashreplace")
