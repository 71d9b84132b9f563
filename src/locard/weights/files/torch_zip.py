"""torch's checkpoints (a zip archive with a pickle in it), read without running what the pickle says.

A pickle is a program for a small stack machine, and its calls are how a hostile file runs code. Here the program is
only followed on paper: of all names a few are understood (those by which torch rebuilds tensors from storages, and
ordered dictionaries), every other call yields a mute object that keeps its arguments, so that tensors inside it are
still found. Nothing is imported by a file's wish, and nothing is called.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locard.errors import ArtefactError
from locard.models._archive import members
from locard.weights.files._encodings import ENCODINGS
from locard.weights.files.base import MOST_AXES, MOST_TENSORS, Entry, TensorFile, check_entry, file_size

# A pickle of a model takes some hundred bytes a tensor; an object here takes up to a hundred bytes a byte of it.
MAX_PICKLE = 8 << 20
MOST_CONTAINERS = 300_000
_LONGEST_PATH = 500
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "Float8_e4m3fnStorage": "F8_E4M3", "Float8_e5m2Storage": "F8_E5M2",
}  # fmt: skip
_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2")
_WRAPPED = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_LOCAL_HEADER = 30


@dataclass(frozen=True, slots=True)
class _Name:
    """A global that the pickle names."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    encoding: str
    items: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Mute:
    """The result of a call that was not made."""

    parts: list[Any] = field(default_factory=list)


class _Mark:
    pass


def open_file(path: Path) -> TensorFile:
    """The tensors of one checkpoint, each named by the keys that lead to it ("state_dict.fc.weight").

    Raises:
        ArtefactError: it is no zip archive of torch, truncated, compressed, of big-endian numbers, or its pickle lies
            about the storages beside it.
    """
    where = f"the file {str(path)!r}"
    size = file_size(path, where)
    names = members(path, where)
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ArtefactError(f"{where} is a zip archive, but no checkpoint of torch: it has no data.pkl")
    top = pickles[0].removesuffix("data.pkl")
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
            if f"{top}byteorder" in names and archive.read(f"{top}byteorder")[:16].strip() != b"little":
                raise ArtefactError(f"{where} holds big-endian numbers; save it on a little-endian machine")
            info = archive.getinfo(pickles[0])
            if info.file_size > MAX_PICKLE:
                raise ArtefactError(f"{where} has a data.pkl of {info.file_size:,} bytes; at most {MAX_PICKLE:,}")
            tensors = dict(_tensors(_follow(archive.read(info), where), where))
            entries = {name: _entry(name, one, top, archive, stream, where) for name, one in tensors.items()}
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    # A damaged member ends in errors of zipfile, zlib, struct and more, all of one meaning.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, ValueError) as error:
        raise ArtefactError(f"{where} is damaged: {error}") from error
    for name, entry in entries.items():
        check_entry(name, entry, size=size, where=where)
    return TensorFile(str(path), [path], entries)


def _entry(name: str, tensor: _Tensor, top: str, archive: zipfile.ZipFile, stream: Any, where: str) -> Entry:
    """Where a tensor's numbers lie in the archive."""
    shown, storage = repr(name[:80]), tensor.storage
    try:
        info = archive.getinfo(f"{top}data/{storage.key}")
    except KeyError:
        raise ArtefactError(f"{where} is damaged: the storage of the tensor {shown} is missing") from None
    encoding = ENCODINGS[storage.encoding]
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ArtefactError(f"{where}: the tensor {shown} is compressed or encrypted; save it with torch.save")
    if storage.items * encoding.stored.itemsize > info.file_size:
        raise ArtefactError(f"{where} is damaged: the storage of the tensor {shown} is shorter than the pickle says")
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    count = math.prod(tensor.shape)
    # More numbers than the storage has are one number shown many times, which would fill memory.
    if count and (last >= storage.items or count > storage.items):
        raise ArtefactError(f"{where} is damaged: the tensor {shown} of shape {tensor.shape} leaves its storage")
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL_HEADER)
    if header[:4] != b"PK\x03\x04" or len(header) < _LOCAL_HEADER:
        raise ArtefactError(f"{where} is damaged: the storage of the tensor {shown} is not where its directory says")
    start = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
    offset = start + tensor.offset * encoding.stored.itemsize
    return Entry(shape=tensor.shape, encoding=encoding, file=0, offset=offset,
                 strides=None if _one_after_the_other(tensor) else tensor.strides)  # fmt: skip


def _one_after_the_other(tensor: _Tensor) -> bool:
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _tensors(root: Any, where: str) -> Iterator[tuple[str, _Tensor]]:
    """Every tensor below, with its path of keys; what is met again is passed over."""
    pending: list[tuple[str, Any]] = [("", root)]
    seen: set[int] = set()
    taken: set[str] = set()
    while pending:
        path, value = pending.pop()
        if isinstance(value, _Tensor):
            if path in taken:
                continue
            taken.add(path)
            if len(taken) > MOST_TENSORS:
                raise ArtefactError(f"{where} holds more than {MOST_TENSORS:,} tensors")
            yield path or "tensor", value
            continue
        if not isinstance(value, dict | list | tuple | _Mute) or id(value) in seen:
            continue
        seen.add(id(value))
        if len(seen) > MOST_CONTAINERS or len(pending) > MOST_CONTAINERS:
            raise ArtefactError(f"{where} holds more than {MOST_CONTAINERS:,} lists and dictionaries")
        if isinstance(value, dict):
            below = [(str(key)[:200] if isinstance(key, str | int) else "", one) for key, one in value.items()]
        elif isinstance(value, _Mute):
            below = [("", one) for one in value.parts]
        else:
            below = [(str(i), one) for i, one in enumerate(value)]
        pending += reversed(
            [
                (f"{path}.{key}".strip(".")[:_LONGEST_PATH], one)
                for key, one in below
                if isinstance(one, dict | list | tuple | _Mute | _Tensor)
            ]
        )


def _follow(content: bytes, where: str) -> Any:
    """What a pickle would build, with mute objects in the place of what it would call."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                return stack.pop()
            _step(opcode.name, argument, stack, memo)
    # A damaged pickle ends in an empty stack, a missing memo, a name that is no text: all of one meaning.
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtefactError(f"{where} is damaged: its pickle does not hold together: {error}") from error
    raise ArtefactError(f"{where} is damaged: its pickle has no end")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_TUPLE": tuple}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT", "BINUNICODE",
           "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING",
           "SHORT_BINSTRING", "STRING", "BYTEARRAY8"}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME"}


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """One instruction."""
    if name in _NOTHING:
        return
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
        stack.append(_EMPTY[name]())
    elif name == "MARK":
        stack.append(_Mark())
    elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
        memo[int(argument)] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[int(argument)])
    elif name in _TUPLES:
        stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
    elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
        items = _marked(stack)
        stack.append(tuple(items) if name == "TUPLE" else _mapping({}, items) if name == "DICT" else items)
    elif name in ("APPEND", "APPENDS", "ADDITEMS"):
        items = [stack.pop()] if name == "APPEND" else _marked(stack)
        _grow(stack[-1], items)
    elif name in ("SETITEM", "SETITEMS"):
        items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _marked(stack)
        target = stack[-1]
        _mapping(target, items) if isinstance(target, dict) else _grow(target, [_mapping({}, items)])
    elif name == "GLOBAL":
        module, _, attribute = argument.partition(" ")
        stack.append(_Name(module, attribute))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_Name(str(module), str(attribute)))
    elif name == "BINPERSID":
        stack.append(_storage(stack.pop()))
    elif name in ("REDUCE", "NEWOBJ"):
        arguments, function = stack.pop(), stack.pop()
        stack.append(_call(function, arguments))
    elif name == "NEWOBJ_EX":
        named, arguments, _ = stack.pop(), stack.pop(), stack.pop()
        stack.append(_Mute([arguments, named]))
    elif name == "BUILD":
        state = stack.pop()
        _grow(stack[-1], [state])
    elif name == "POP":
        stack.pop()
    elif name == "POP_MARK":
        _marked(stack)
    elif name == "DUP":
        stack.append(stack[-1])
    else:
        raise ValueError(f"the instruction {name} is not one that torch writes")


def _marked(stack: list[Any]) -> list[Any]:
    """What lies above the last mark, taken off with it."""
    items: list[Any] = []
    while not isinstance(stack[-1], _Mark):
        items.append(stack.pop())
    stack.pop()
    return items[::-1]


def _mapping(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Only what any model would use as a key; hashing a deep tuple of a stranger could take for ever.
        target[key if isinstance(key, str | int | float | bool | bytes | None) else id(key)] = value
    return target


def _grow(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, _Mute):
        target.parts.extend(items)
    # An ordered dictionary's state, or what hangs on a tensor, holds no weights.
    elif not isinstance(target, dict | _Tensor | _Name | _Storage):
        raise TypeError("something is added to what holds nothing")


def _storage(value: Any) -> Any:
    """("storage", FloatStorage, key, device, items)."""
    if not isinstance(value, tuple) or len(value) < 5 or value[0] != "storage":
        return _Mute()
    kind, key, items = value[1], value[2], value[4]
    name = kind.name if isinstance(kind, _Name) else ""
    if name not in _STORAGES or not isinstance(key, str) or type(items) is not int or items < 0:
        return _Mute()
    return _Storage(key, _STORAGES[name], items)


def _call(function: Any, arguments: Any) -> Any:
    name = function.name if isinstance(function, _Name) and function.module in ("torch._utils", "collections") else ""
    if name == "OrderedDict" and arguments == ():
        return {}
    if name in _WRAPPED and isinstance(arguments, tuple) and arguments and isinstance(arguments[0], _Tensor):
        return arguments[0]
    if name in _REBUILD and isinstance(arguments, tuple) and len(arguments) >= 4:
        storage, offset, shape, strides = arguments[:4]
        if isinstance(storage, _Storage):
            if type(offset) is not int or offset < 0 or not _sizes(shape) or not _sizes(strides):
                raise ValueError("a tensor's offset, shape or strides are no whole numbers")
            if len(shape) != len(strides):
                raise ValueError(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
            return _Tensor(storage, offset, shape, strides)
    return _Mute([arguments])


def _sizes(value: Any) -> bool:
    return (
        isinstance(value, tuple) and len(value) <= MOST_AXES and all(type(n) is int and 0 <= n < 1 << 62 for n in value)
    )
