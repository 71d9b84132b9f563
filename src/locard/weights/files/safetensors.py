"""safetensors: eight bytes of length, a JSON directory, numbers.

The directory is read here and not by the library, whose NumPy side has no bfloat16 and loads a tensor whole.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, TypeGuard

from locard.errors import ArtefactError
from locard.weights.files._encodings import ENCODINGS
from locard.weights.files.base import MOST_TENSORS, Entry, TensorFile, check_entry, file_size

# Of the largest number of tensors it takes less.
MAX_HEADER = 32 << 20


def open_file(path: Path) -> TensorFile:
    """The tensors of one file.

    Raises:
        ArtefactError: it is truncated, its directory is no JSON, names a tensor twice, or says what cannot be.
    """
    return TensorFile(str(path), [path], entries(path, 0))


def entries(path: Path, file: int) -> dict[str, Entry]:
    """The tensors that a file's directory names.

    Args:
        path: the file.
        file: its number among those mapped.

    Raises:
        ArtefactError: as `open_file` says.
    """
    where = f"the file {str(path)!r}"
    size = file_size(path, where)
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise ArtefactError(f"{where} is truncated or no safetensors file: its header is longer than the file")
            if length > MAX_HEADER:
                raise ArtefactError(f"{where} has a header of {length:,} bytes; at most {MAX_HEADER:,} are read")
            raw = stream.read(length)
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{where} is damaged: its header is no JSON: {error}") from error
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise ArtefactError(f"{where}: its header must be a JSON object of at most {MOST_TENSORS:,} tensors")
    found: dict[str, Entry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, value in header.items():
        if name == "__metadata__":
            continue
        entry, end = _entry(name, value, file, 8 + length, where)
        check_entry(name, entry, size=size, where=where)
        found[name] = entry
        spans.append((entry.offset, end, name))
    spans.sort()
    for (_, end, one), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            raise ArtefactError(f"{where} is damaged: the tensors {one[:80]!r} and {other[:80]!r} share bytes")
    return found


def _entry(name: str, value: Any, file: int, start: int, where: str) -> tuple[Entry, int]:
    """A tensor of the directory, and where its bytes end."""
    wrong = f"{where} is damaged: the entry of the tensor {name[:80]!r}"
    if not isinstance(value, dict):
        raise ArtefactError(f"{wrong} is no JSON object")
    shape, offsets, dtype = value.get("shape"), value.get("data_offsets"), value.get("dtype")
    if not (_wholes(shape) and _wholes(offsets)) or len(offsets) != 2:
        raise ArtefactError(f"{wrong} lacks a shape or two data_offsets of whole numbers")
    if not isinstance(dtype, str) or dtype not in ENCODINGS:
        raise ArtefactError(f"{where}: the tensor {name[:80]!r} is of dtype {str(dtype)[:40]!r}, which is not read; "
                            f"known: {', '.join(ENCODINGS)}")  # fmt: skip
    entry = Entry(shape=tuple(shape), encoding=ENCODINGS[dtype], file=file, offset=start + offsets[0])
    if offsets[1] - offsets[0] != entry.nbytes:
        raise ArtefactError(f"{wrong} gives {offsets[1] - offsets[0]:,} bytes to the {entry.nbytes:,} of its shape")
    return entry, start + offsets[1]


def _wholes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) <= 64 and all(type(n) is int and 0 <= n < 1 << 62 for n in value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found
