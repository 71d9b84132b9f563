"""Tables in R's own files: one in an `.rda`, many in a pair of `.rdx` and `.rdb`; nothing in them is run.

Of R's serialisation [1] only what tables of numbers, words and categories are made of is read, in its portable (XDR)
form, versions 2 and 3. All sizes are held against what is left of the file before memory is taken, unpacking stops at a
bound, and whatever else a file holds (functions, environments, compact sequences) is refused by its number.

[1] R Core Team. R Internals, section 1.8, "Serialization Formats".
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from locard.data._files import check_file
from locard.errors import ArtefactError

MOST_PACKED, MOST_UNPACKED = 64 << 20, 256 << 20
_DEEPEST = 32
_MEMORY = 128 << 20
_NULL, _REFERENCE, _SYMBOL, _PAIRS, _CHARACTERS, _LIST = 254, 255, 1, 2, 9, 19
_LOGICAL, _WHOLE, _REAL, _STRINGS = 10, 13, 14, 16
_NUMBERS = {_LOGICAL: ">i4", _WHOLE: ">i4", _REAL: ">f8"}
_WORDS_NOT_UTF8 = 1 << 1 | 1 << 2

Column = np.ndarray | list[str]


class _WrongError(Exception):
    """What is wrong with the bytes, in words that follow the file's name."""


@dataclass(frozen=True, slots=True)
class _Vector:
    """One vector of R with its attributes."""

    values: Any
    attributes: dict[str, Any] = field(default_factory=dict)


def read_rda(path: Path, name: str) -> dict[str, Column]:
    """One table of an `.rda` file, perhaps gzipped or packed by bzip2 or xz.

    Args:
        path: the file.
        name: of the table.

    Returns:
        Columns by name in their order: float64 or int32 arrays, or lists of strings; categories are strings.

    Raises:
        ArtefactError: missing, damaged, too large, or without such a table.
    """
    check_file(path, limit=MOST_PACKED)
    try:
        raw = _unpacked(path.read_bytes())
        if raw[:5] != b"RDX2\n" and raw[:5] != b"RDX3\n":
            raise _WrongError("is no file of R data in the portable form")
        return _table(_names(_Reader(raw, 5).whole()), name)
    except OSError as error:
        raise ArtefactError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except _WrongError as wrong:
        raise ArtefactError(f"{str(path)!r} {wrong}; install it again") from wrong


def read_rdb(index: Path, name: str) -> dict[str, Column]:
    """One table of a lazy-load database, the `.rdb` beside its index.

    Args:
        index: the `.rdx` file.
        name: of the table.

    Returns:
        As `read_rda`.

    Raises:
        ArtefactError: as `read_rda`.
    """
    path, inner = index, index.with_suffix(".rdb")
    try:
        check_file(index, limit=MOST_PACKED)
        tables = _names(_names(_Reader(_unpacked(index.read_bytes()), 0).whole()).get("variables"))
        place = tables.get(name)
        if place is None:
            raise _WrongError(f"holds no table {name!r}")
        if not isinstance(place.values, np.ndarray) or len(place.values) != 2:
            raise _WrongError(f"does not say where {name!r} lies")
        start, size = (int(one) for one in place.values)
        path = inner
        check_file(inner, limit=MOST_PACKED)
        with inner.open("rb") as stream:
            stream.seek(max(start, 0))
            chunk = stream.read(max(size, 0))
        if start < 0 or size < 5 or len(chunk) < size:
            raise _WrongError(f"ends before {name!r}, which its index places at {start:,}, {size:,} bytes long")
        return _table({name: _Reader(_chunk(chunk), 0).whole()}, name)
    except OSError as error:
        raise ArtefactError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except _WrongError as wrong:
        raise ArtefactError(f"{str(path)!r} {wrong}; install it again") from wrong


def _unpacked(raw: bytes) -> bytes:
    """A whole file, by the first bytes of what packed it."""
    if raw[:2] == b"\x1f\x8b":
        return _drain(zlib.decompressobj(wbits=31), raw)
    if raw[:3] == b"BZh":
        return _drain(bz2.BZ2Decompressor(), raw)
    if raw[:6] == b"\xfd7zXZ\0":
        return _drain(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY), raw)
    return raw


def _chunk(raw: bytes) -> bytes:
    """A piece of a database: the unpacked size, perhaps a letter that says how it is packed, and the bytes."""
    (size,), how = struct.unpack(">I", raw[:4]), raw[4:5]
    if how == b"Z":
        # The largest window that R asks for.
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 64 << 20}]
        whole = _drain(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters), raw[5:], size)
    elif how == b"2":
        whole = _drain(bz2.BZ2Decompressor(), raw[5:], size)
    else:
        whole = _drain(zlib.decompressobj(), raw[4:], size)
    if len(whole) != size:
        raise _WrongError(f"holds a table of {len(whole):,} bytes that says it has {size:,}")
    return whole


def _drain(unpacker: Any, raw: bytes, most: int = MOST_UNPACKED) -> bytes:
    most = min(most, MOST_UNPACKED)
    try:
        whole = unpacker.decompress(raw, most + 1)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise _WrongError(f"is damaged: {error}") from error
    if len(whole) > most:
        raise _WrongError(f"unpacks to more than {most:,} bytes")
    if not unpacker.eof:
        raise _WrongError("is truncated")
    return whole


class _Reader:
    """Walks one serialised value from its first byte to its last."""

    def __init__(self, raw: bytes, at: int) -> None:
        self._raw, self._at = raw, at
        self._symbols: list[str] = []

    def whole(self) -> Any:
        """The value, behind the header."""
        if self._take(2) != b"X\n":
            raise _WrongError("is no file of R data in the portable form")
        version, _, _ = (self._int() for _ in range(3))
        if version not in (2, 3):
            raise _WrongError(f"has the version {version} of R's format; 2 and 3 are read")
        if version == 3:
            self._take(self._count(1))
        return self._item(0)

    def _item(self, depth: int) -> Any:
        """A `_Vector`, a dictionary for R's list of pairs, the string of a symbol, or None for R's NULL."""
        if depth > _DEEPEST:
            raise _WrongError(f"is nested more than {_DEEPEST} deep")
        flags = self._int()
        kind, attributes = flags & 0xFF, bool(flags & 0x200)
        if kind == _NULL:
            return None
        if kind == _REFERENCE:
            number = flags >> 8 or self._int()
            if not 0 < number <= len(self._symbols):
                raise _WrongError(f"refers to a name {number} that it does not have")
            return self._symbols[number - 1]
        if kind == _SYMBOL:
            self._symbols.append(self._word(self._int()))
            return self._symbols[-1]
        if kind == _PAIRS:
            return self._pairs(flags, depth)
        if kind in _NUMBERS:
            dtype = np.dtype(_NUMBERS[kind])
            values = np.frombuffer(self._take(self._count(dtype.itemsize) * dtype.itemsize), dtype)
        elif kind == _STRINGS:
            values = [self._word(self._int()) for _ in range(self._count(4))]
        elif kind == _LIST:
            values = [self._item(depth + 1) for _ in range(self._count(4))]
        else:
            raise _WrongError(f"holds R's type {kind}, which is none of a plain table's")
        named = self._item(depth + 1) if attributes else {}
        if not isinstance(named, dict):
            raise _WrongError("holds attributes that are no pairs")
        return _Vector(values, named)

    def _pairs(self, flags: int, depth: int) -> dict[str, Any]:
        """R's list of pairs; a long one is a loop, not a recursion."""
        pairs: dict[str, Any] = {}
        while flags & 0xFF == _PAIRS:
            if flags & 0x200:
                self._item(depth + 1)
            name = self._item(depth + 1) if flags & 0x400 else None
            if not isinstance(name, str):
                raise _WrongError("holds a value without a name")
            pairs[name] = self._item(depth + 1)
            flags = self._int()
        if flags & 0xFF != _NULL:
            raise _WrongError("holds a list of pairs that does not end")
        return pairs

    def _word(self, flags: int) -> str:
        if flags & 0xFF != _CHARACTERS:
            raise _WrongError(f"holds R's type {flags & 0xFF} where a string was expected")
        if self._raw[self._at : self._at + 4] == b"\xff\xff\xff\xff":
            raise _WrongError("holds a string that is missing (NA)")
        raw = self._take(self._count(1))
        try:
            return raw.decode("latin-1" if flags >> 12 & _WORDS_NOT_UTF8 else "utf-8")
        except UnicodeDecodeError as error:
            raise _WrongError(f"holds a string that is no UTF-8: {raw[:20]!r}") from error

    def _count(self, each: int) -> int:
        """A number of items of at least so many bytes, which must fit into what is left."""
        count = self._int()
        if not 0 <= count * each <= len(self._raw) - self._at:
            raise _WrongError(f"says that {count:,} items follow where {len(self._raw) - self._at:,} bytes are left")
        return count

    def _int(self) -> int:
        return struct.unpack(">i", self._take(4))[0]

    def _take(self, size: int) -> bytes:
        if size > len(self._raw) - self._at:
            raise _WrongError("is truncated")
        self._at += size
        return self._raw[self._at - size : self._at]


def _names(value: Any) -> dict[str, Any]:
    """The items of a list of R by their names."""
    if isinstance(value, dict):
        return value
    names = value.attributes.get("names") if isinstance(value, _Vector) else None
    words = names.values if isinstance(names, _Vector) else None
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words) or len(words) != len(value.values):
        raise _WrongError("holds no list with names where one was expected")
    return dict(zip(words, value.values, strict=True))


def _table(tables: dict[str, Any], name: str) -> dict[str, Column]:
    if name not in tables:
        raise _WrongError(f"holds no table {name!r}")
    columns = {key: _column(one, key) for key, one in _names(tables[name]).items()}
    if len({len(column) for column in columns.values()}) != 1:
        raise _WrongError(f"holds a table {name!r} whose columns differ in length")
    return columns


def _column(vector: Any, name: str) -> Column:
    if not isinstance(vector, _Vector) or not isinstance(vector.values, np.ndarray | list):
        raise _WrongError(f"has a column {name!r} of no plain values")
    values, levels = vector.values, vector.attributes.get("levels")
    if isinstance(values, list):
        if not all(isinstance(one, str) for one in values):
            raise _WrongError(f"has a column {name!r} of no plain values")
        return values
    if levels is None:
        return values.astype(values.dtype.newbyteorder("="))
    words = levels.values if isinstance(levels, _Vector) else ()
    if len(values) and not (values.min() >= 1 and values.max() <= len(words)):
        raise _WrongError(f"has a column {name!r} with a category that has no name")
    return [str(words[int(code) - 1]) for code in values]
