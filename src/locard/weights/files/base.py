"""A file's tensors: names, shapes and encodings at once, numbers when asked for."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from locard.errors import ArtefactError, unknown
from locard.weights.files._encodings import Encoding

MOST_TENSORS = 200_000
LONGEST_NAME = 1 << 12
MOST_AXES = 8
# Pages of a map count as memory of the process until they are given back; smaller tensors are not worth the call.
GIVEN_BACK = 1 << 20

Rows = slice | np.ndarray | None


class Tensors(Protocol):
    """Named tensors that are read when asked for."""

    @property
    def source(self) -> str:
        """Where they come from, for people."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes by name, in the file's order."""
        ...

    def matrix(self, name: str, rows: Rows = None, columns: Rows = None) -> np.ndarray:
        """A tensor, or a part of it, as a matrix: its first axis by all others.

        Args:
            name: of the tensor.
            rows: of the first axis; None for all.
            columns: places in the flattened other axes; None for all.

        Returns:
            (rows, columns) float32.

        Raises:
            ParameterError: there is no such tensor.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a tensor lies.

    Args:
        shape: sizes of its axes, slowest first.
        encoding: of its numbers.
        file: number of the file among those mapped.
        offset: of its first byte.
        strides: steps between neighbours along each axis, in items; None for rows one after the other.
        scale: name of a tensor that the numbers are multiplied by after `zero` was taken away; or None.
        zero: name of that tensor, or None.
    """

    shape: tuple[int, ...]
    encoding: Encoding
    file: int
    offset: int
    strides: tuple[int, ...] | None = None
    scale: str | None = None
    zero: str | None = None

    @property
    def nbytes(self) -> int:
        """Of all its numbers where they lie one after the other."""
        return math.prod(self.shape) // self.encoding.block * self.encoding.stored.itemsize


class TensorFile:
    """Tensors in one mapped file or several.

    Args:
        source: the path, for people.
        files: the files, mapped when the first number of one is asked for.
        entries: the tensors by name; they were held against the files' sizes by the reader (`check_entry`).
        facts: what else the file, or a configuration beside it, says: numbers of heads.

    Cost: a read takes the memory of what it returns; pages that were looked at are given back to the system.
    """

    def __init__(
        self,
        source: str,
        files: list[Path],
        entries: Mapping[str, Entry],
        facts: Mapping[str, int | float | str] | None = None,
    ) -> None:
        self.source, self.files, self.entries = source, files, dict(entries)
        self.facts: dict[str, int | float | str] = dict(facts or {})
        self._maps: dict[int, mmap.mmap] = {}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes by name, in the file's order."""
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def encodings(self) -> Mapping[str, str]:
        """Names of encodings by name of tensor: "BF16", "Q4_0"."""
        return {name: entry.encoding.name for name, entry in self.entries.items()}

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __len__(self) -> int:
        return len(self.entries)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the maps; a later read maps anew."""
        for one in self._maps.values():
            one.close()
        self._maps.clear()

    def read(self, name: str) -> np.ndarray:
        """A whole tensor in its own shape, float32."""
        return self.matrix(name).reshape(self._entry(name).shape)

    def matrix(self, name: str, rows: Rows = None, columns: Rows = None) -> np.ndarray:
        """See `Tensors.matrix`."""
        entry = self._entry(name)
        with self._stored(entry) as items:
            found = _decoded(items, entry, rows, columns)
        if entry.scale is not None:
            found = self._scaled(found, entry, rows, columns)
        return found

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise unknown(f"tensor of {self.source}:", name, self.entries)
        return self.entries[name]

    def _scaled(self, found: np.ndarray, entry: Entry, rows: Rows, columns: Rows) -> np.ndarray:
        """Integers with a scale and a zero for all, or for each index of the first or last axis."""
        width = math.prod(entry.shape[1:])
        for name, act in ((entry.zero, np.subtract), (entry.scale, np.multiply)):
            if name is None:
                continue
            value = self.matrix(name).ravel()
            if len(value) == 1:
                found = act(found, value)
            elif len(value) == entry.shape[0]:
                found = act(found, value[slice(None) if rows is None else rows, None])
            else:
                along = np.tile(value, width // len(value))
                found = act(found, along[slice(None) if columns is None else columns])
        return found

    @contextmanager
    def _stored(self, entry: Entry) -> Iterator[np.ndarray]:
        """The stored items as (rows, items of one row), on the map; its pages are given back afterwards."""
        data = self._map(entry.file)
        size = math.prod(entry.shape)
        rows = entry.shape[0] if entry.shape else 1
        if size == 0:
            yield np.zeros((rows, size // max(rows, 1)), entry.encoding.stored)
            return
        if entry.strides is not None:
            last = sum((n - 1) * step for n, step in zip(entry.shape, entry.strides, strict=True))
            flat = np.frombuffer(data, entry.encoding.stored, last + 1, entry.offset)
            steps = [step * flat.itemsize for step in entry.strides]
            items = np.lib.stride_tricks.as_strided(flat, entry.shape, steps, writeable=False).reshape(rows, -1)
            touched = (last + 1) * flat.itemsize
        else:
            count = size // entry.encoding.block
            items = np.frombuffer(data, entry.encoding.stored, count, entry.offset).reshape(rows, count // rows)
            touched = entry.nbytes
        yield items
        del items
        if touched >= GIVEN_BACK:
            start = -(-entry.offset // mmap.PAGESIZE) * mmap.PAGESIZE
            length = (entry.offset + touched) // mmap.PAGESIZE * mmap.PAGESIZE - start
            if length > 0:
                data.madvise(mmap.MADV_DONTNEED, start, length)

    def _map(self, file: int) -> mmap.mmap:
        if file not in self._maps:
            path = self.files[file]
            try:
                with path.open("rb") as stream:
                    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise ArtefactError(f"{self.source}: {path.name} cannot be read: {error}") from error
            need = max((e.offset + e.nbytes for e in self.entries.values() if e.file == file), default=0)
            if len(data) < need:
                raise ArtefactError(f"{self.source}: {path.name} became shorter while it was read; read it again")
            self._maps[file] = data
        return self._maps[file]


def _decoded(items: np.ndarray, entry: Entry, rows: Rows, columns: Rows) -> np.ndarray:
    """The chosen rows and columns of stored items as float32."""
    if rows is not None:
        items = items[rows]
    block = entry.encoding.block
    if block == 1:
        return entry.encoding.decode(items if columns is None else items[:, columns])
    if columns is None:
        return entry.encoding.decode(items)
    wanted = np.arange(items.shape[1] * block)[columns] if isinstance(columns, slice) else np.asarray(columns)
    held, place = np.unique(wanted // block, return_inverse=True)
    return entry.encoding.decode(items[:, held])[:, place * block + wanted % block]


def check_entry(name: str, entry: Entry, *, size: int, where: str) -> None:
    """Refuse a tensor that does not lie in its file.

    Args:
        name: of the tensor.
        entry: what the file says of it.
        size: of the file, in bytes.
        where: the file, for the message.

    Raises:
        ArtefactError: a shape out of range, or bytes beyond the end.
    """
    shown = repr(name if len(name) <= 80 else f"{name[:77]}...")
    if len(name) > LONGEST_NAME or len(entry.shape) > MOST_AXES or any(n < 0 for n in entry.shape):
        raise ArtefactError(f"{where}: the tensor {shown} has a name or shape out of range: {entry.shape}")
    row = entry.shape[-1] if entry.shape else 1
    if row % entry.encoding.block:
        raise ArtefactError(
            f"{where}: the tensor {shown} has rows of {row} numbers, no multiple of the {entry.encoding.block} in a "
            f"block of {entry.encoding.name}"
        )
    if entry.offset < 0 or entry.offset + entry.nbytes > size:
        raise ArtefactError(
            f"{where}: the tensor {shown} needs bytes {entry.offset:,} to {entry.offset + entry.nbytes:,}; the file "
            f"has {size:,}: it is truncated or damaged"
        )


def file_size(path: Path, where: str) -> int:
    """Bytes of a regular file.

    Raises:
        ArtefactError: it is missing, empty or no file.
    """
    try:
        # A device or pipe would be read without end, or never.
        if not path.is_file():
            raise ArtefactError(f"{where}: there is no such file" if not path.exists() else f"{where} is not a file")
        size = path.stat().st_size
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise ArtefactError(f"{where} is empty; download or write it again")
    return size


def open_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Look at the tensors of a file or folder.

    Args:
        path: a `.safetensors`, `.gguf`, `.onnx` file, a torch checkpoint (zip), or a folder with one of these, or with
            an index of several (as `save_pretrained` writes them), or a Locard model folder.

    Returns:
        The tensors; numbers are not yet read.

    Raises:
        ArtefactError: it is missing, of no kind that is read, truncated, or lies about its sizes.

    Cost: reads the directory of the file, not its numbers.
    """
    from locard.weights.files import _folder

    target = Path(path)
    folder = target if target.is_dir() else target.parent
    opened = _folder.open_folder(target) if target.is_dir() else _open_file(target)
    opened.facts = {**_folder.facts_beside(folder), **opened.facts}
    opened.source = os.fspath(path)
    return opened


def _open_file(target: Path) -> TensorFile:
    from locard.weights.files import gguf, onnx, safetensors, torch_zip

    where = f"the model {str(target)!r}"
    file_size(target, where)
    try:
        with target.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    if start[:4] == b"GGUF":
        return gguf.open_file(target)
    if start[:4] == b"PK\x03\x04":
        return torch_zip.open_file(target)
    if target.suffix == ".onnx":
        return onnx.open_file(target)
    if start[8:9] == b"{" or target.suffix == ".safetensors":
        return safetensors.open_file(target)
    raise ArtefactError(
        f"{where} is no safetensors, GGUF or ONNX file and no zip archive of torch; tensors are read from these, and "
        "from folders that hold them"
    )
