"""NumPy archives: an .npz with `x`, perhaps `y`, perhaps `classes`.

What the data are follows from the rank and type of `x`:

- 4, images: (n, c, h, w), or (n, h, w, c). The second axis is the channels if its size is 1, 3 or 4; else the last one
  is, if its size is; else the second. So a shape that could be either is read as torch would.
- 3, grey images: (n, h, w).
- 2, a table: (n, columns).
- 1, strings: texts (a unicode array; arrays of objects are pickles and are never read).

Images of type uint8 are divided by 255 and keep that as their quantum. Other numbers stay as they are; images that lie
in [0, 1] get those bounds, others none.

`y` is (n,) whole numbers from 0 on, or names; `classes` names the classes in order. Without it names are sorted.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from locard.data._files import MAX_FILE, check_file, check_values
from locard.data._labels import from_names, from_numbers
from locard.data.base import Reader, readers
from locard.errors import ArtefactError
from locard.records import Data, Domain

_CHANNELS = (1, 3, 4)
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


@readers.register("npz")
class Npz(Reader):
    """A file that ends in .npz."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By suffix."""
        return Path(name).suffix.lower() == ".npz"

    @classmethod
    def read(cls, name: str) -> Data:
        """See the module. Sizes are checked before anything is allocated, and nothing is unpickled."""
        arrays = _arrays(Path(name), ("x", "y", "classes"))
        if "x" not in arrays:
            raise ArtefactError(f"{name!r} has no array 'x'; expected x and, for labelled data, y")
        inputs, domain = _inputs(arrays["x"], name)
        labels, classes = _labels(arrays.get("y"), arrays.get("classes"), name)
        if labels is not None and len(labels) != len(inputs):
            raise ArtefactError(f"{name!r} holds {len(inputs)} inputs and {len(labels)} labels; expected as many")
        return Data(inputs=inputs, labels=labels, domain=domain, name=name, classes=classes)


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of those names that the archive holds."""
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            return {name: _array(archive, members[f"{name}.npy"], path) for name in names if f"{name}.npy" in members}
    # NotImplementedError: a version or a packing of zip that Python does not read.
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise ArtefactError(f"{str(path)!r} is no .npz file, or a damaged one: {error}; save it again") from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    if info.compress_type not in _PACKINGS or info.flag_bits & _ENCRYPTED:
        raise ArtefactError(
            f"{str(path)!r}: {info.filename} is packed in a way NumPy does not use; save it with np.savez"
        )
    if info.file_size > MAX_FILE:
        raise ArtefactError(
            f"{str(path)!r}: {info.filename} unpacks to {info.file_size:,} bytes; at most {MAX_FILE:,} are read"
        )
    with archive.open(info) as stream:
        shape, dtype, head = _header(stream, info, path)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != info.file_size - head:
        raise ArtefactError(
            f"{str(path)!r}: {info.filename} says it has shape {shape} and type {dtype}, which does not fit its "
            f"{info.file_size:,} bytes; save it again"
        )
    check_values(str(path), math.prod(shape))
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream: IO[bytes], info: zipfile.ZipInfo, path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and the header's length, which NumPy would believe before it allocates."""
    version = np.lib.format.read_magic(stream)
    parse = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if parse is None:
        raise ArtefactError(f"{str(path)!r}: {info.filename} has format {version}; expected plain numbers or strings")
    shape, _, dtype = parse(stream)
    if dtype.kind not in "fiubU":
        raise ArtefactError(
            f"{str(path)!r}: {info.filename} has type {dtype}; expected numbers or unicode strings "
            "(objects would be pickles, which can run code: convert with .astype(str))"
        )
    return shape, dtype, stream.tell()


def _inputs(x: np.ndarray, name: str) -> tuple[np.ndarray, Domain]:
    if x.dtype.kind == "U":
        if x.ndim != 1:
            raise ArtefactError(f"{name!r}: texts must have shape (n,); got {x.shape}")
        return x.astype(object), Domain(kind="text", shape=(), dtype="str")
    if x.ndim not in (2, 3, 4):
        raise ArtefactError(
            f"{name!r}: x has shape {x.shape}; expected images (n, c, h, w) or (n, h, w), a table (n, columns), "
            "or strings (n,)"
        )
    if 0 in x.shape[1:]:
        raise ArtefactError(f"{name!r}: x has shape {x.shape}, so an input holds no number")
    if x.ndim == 2:
        return _finite(x, name), Domain(kind="tabular", shape=x.shape[1:])
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[1] not in _CHANNELS and x.shape[3] in _CHANNELS:
        x = x.transpose(0, 3, 1, 2)
    if x.dtype == np.uint8:
        inputs = np.divide(np.ascontiguousarray(x), np.float32(255))
        return inputs, Domain(kind="image", shape=x.shape[1:], bounds=(0.0, 1.0), quantum=1 / 255)
    inputs = _finite(x, name)
    unit = inputs.size > 0 and inputs.min() >= 0 and inputs.max() <= 1
    return inputs, Domain(kind="image", shape=x.shape[1:], bounds=(0.0, 1.0) if unit else None)


def _finite(x: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        inputs = np.ascontiguousarray(x, np.float32)
    wrong = ~np.isfinite(inputs).all(axis=tuple(range(1, inputs.ndim)))
    if wrong.any():
        raise ArtefactError(
            f"{name!r}: row {int(wrong.argmax())} of x holds NaN, infinity or more than float32 can hold "
            f"({int(wrong.sum())} such rows); leave them out"
        )
    return inputs


def _labels(y: np.ndarray | None, classes: np.ndarray | None, name: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    names: tuple[str, ...] = ()
    if classes is not None:
        names = tuple(classes.tolist()) if classes.ndim == 1 and classes.dtype.kind == "U" else ()
        if not names or len(set(names)) != len(names):
            raise ArtefactError(
                f"{name!r}: classes must be distinct strings, shape (classes,); got {classes.dtype} {classes.shape}"
            )
    if y is None:
        return None, names
    if y.ndim != 1:
        raise ArtefactError(f"{name!r}: y must have shape (n,), one label an input; got {y.shape}")
    if y.dtype.kind != "U":
        labels = from_numbers(y.astype(np.float64), name)
        if names and labels.max(initial=0) >= len(names):
            raise ArtefactError(f"{name!r}: y holds label {labels.max()}, and classes names {len(names)}")
        return labels, names
    if not names:
        return from_names(y.tolist())
    index = {word: number for number, word in enumerate(names)}
    strange = next((word for word in y.tolist() if word not in index), None)
    if strange is not None:
        raise ArtefactError(f"{name!r}: y holds {strange!r}, which classes does not name")
    return np.array([index[word] for word in y.tolist()], np.int64), names
