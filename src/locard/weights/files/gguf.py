"""GGUF, as llama.cpp writes it: facts with a type each, a directory of tensors, numbers at aligned places.

Sizes of axes stand in the file fastest first and are turned round here, so that a matrix reads as elsewhere: rows are
what comes out.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

from locard.errors import ArtefactError
from locard.weights.files._encodings import ENCODINGS, Encoding
from locard.weights.files._quants import QUANTS
from locard.weights.files.base import LONGEST_NAME, MOST_AXES, MOST_TENSORS, Entry, TensorFile, check_entry, file_size

MOST_FACTS = 100_000
_ALIGNMENT = "general.alignment"
_LONGEST_FACT = 200
_DEEPEST = 4

# By ggml's numbers.
_TYPES: dict[int, Encoding] = {
    0: ENCODINGS["F32"],
    1: ENCODINGS["F16"],
    2: QUANTS["Q4_0"],
    3: QUANTS["Q4_1"],
    6: QUANTS["Q5_0"],
    7: QUANTS["Q5_1"],
    8: QUANTS["Q8_0"],
    12: QUANTS["Q4_K"],
    13: QUANTS["Q5_K"],
    14: QUANTS["Q6_K"],
    24: ENCODINGS["I8"],
    25: ENCODINGS["I16"],
    26: ENCODINGS["I32"],
    27: ENCODINGS["I64"],
    28: ENCODINGS["F64"],
    30: ENCODINGS["BF16"],
}
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


class _Reader:
    """A place in the file's bytes that never leaves them."""

    def __init__(self, data: mmap.mmap, where: str) -> None:
        self.data, self.at, self.where = data, 0, where

    def number(self, form: str) -> int | float:
        size = struct.calcsize(form)
        self._need(size)
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return value

    def whole(self, form: str) -> int:
        return int(self.number(form))

    def text(self, *, most: int) -> str:
        """A string of at most so many bytes; a longer one ends in the error of a damaged file."""
        length = self.whole("<Q")
        if length > most:
            raise ArtefactError(f"{self.where} is damaged: a name of {length:,} bytes; at most {most:,} are read")
        self._need(length)
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.decode(errors="backslashreplace")

    def skip(self, size: int) -> None:
        self._need(size)
        self.at += size

    def _need(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise ArtefactError(f"{self.where} is truncated or damaged: it ends within its directory")


def open_file(path: Path) -> TensorFile:
    """The tensors of one file, and its short facts, such as `llama.attention.head_count`.

    Raises:
        ArtefactError: it is truncated, of a version or with tensors of a type that is not read, or says what cannot be.
    """
    where = f"the file {str(path)!r}"
    size = file_size(path, where)
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            facts, entries = _directory(_Reader(data, where), size)
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    return TensorFile(str(path), [path], entries, facts)


def _directory(reader: _Reader, size: int) -> tuple[dict[str, int | float | str], dict[str, Entry]]:
    where = reader.where
    reader.skip(4)
    version = reader.whole("<I")
    if version not in (2, 3):
        raise ArtefactError(f"{where} is GGUF of version {version} (or of another byte order); 2 and 3 are read")
    tensors, count = reader.whole("<Q"), reader.whole("<Q")
    if tensors > MOST_TENSORS or count > MOST_FACTS:
        raise ArtefactError(
            f"{where} is damaged: it says it has {tensors:,} tensors and {count:,} facts; at most {MOST_TENSORS:,} and "
            f"{MOST_FACTS:,} are read"
        )
    facts: dict[str, int | float | str] = {}
    for _ in range(count):
        name = reader.text(most=LONGEST_NAME)
        value = _value(reader, reader.whole("<I"), 0)
        if value is not None:
            facts[name] = value
    listed = [_tensor(reader) for _ in range(tensors)]
    alignment = facts.get(_ALIGNMENT, 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise ArtefactError(f"{where} is damaged: its alignment is {alignment!r}")
    start = -(-reader.at // alignment) * alignment
    entries: dict[str, Entry] = {}
    for name, shape, kind, offset in listed:
        if name in entries:
            raise ArtefactError(f"{where} is damaged: it has two tensors {name[:80]!r}")
        if kind not in _TYPES:
            known = ", ".join(one.name for one in _TYPES.values())
            raise ArtefactError(
                f"{where}: the tensor {name[:80]!r} is of ggml's type {kind}, which is not read; known: {known}. "
                "Give the model in one of these"
            )
        entry = Entry(shape=shape, encoding=_TYPES[kind], file=0, offset=start + offset)
        check_entry(name, entry, size=size, where=where)
        entries[name] = entry
    return facts, entries


def _tensor(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name, axes = reader.text(most=LONGEST_NAME), reader.whole("<I")
    if axes > MOST_AXES:
        raise ArtefactError(f"{reader.where} is damaged: the tensor {name[:80]!r} has {axes:,} axes")
    sizes = [reader.whole("<Q") for _ in range(axes)]
    if math.prod(sizes) > 1 << 62:
        raise ArtefactError(f"{reader.where} is damaged: the tensor {name[:80]!r} has the shape {sizes}")
    return name, tuple(reversed(sizes)), reader.whole("<I"), reader.whole("<Q")


def _value(reader: _Reader, kind: int, depth: int) -> int | float | str | None:
    """A fact: a number or a short text; None for lists and long texts, which are stepped over."""
    if kind in _NUMBERS:
        return reader.number(_NUMBERS[kind])
    if kind == _STRING:
        length = reader.whole("<Q")
        if length > _LONGEST_FACT:
            reader.skip(length)
            return None
        reader.at -= 8
        return reader.text(most=_LONGEST_FACT)
    if kind == _ARRAY and depth < _DEEPEST:
        inner, length = reader.whole("<I"), reader.whole("<Q")
        if inner in _NUMBERS:
            reader.skip(length * struct.calcsize(_NUMBERS[inner]))
            return None
        # Each item takes at least the eight bytes of its length, so a lie ends soon.
        for _ in range(length):
            if inner == _STRING:
                reader.skip(reader.whole("<Q"))
            else:
                _value(reader, inner, depth + 1)
        return None
    raise ArtefactError(f"{reader.where} is damaged: a fact of type {kind} is not known")
