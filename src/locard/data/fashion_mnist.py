"""Fashion-MNIST: 70,000 grey images of clothes, 28 x 28, ten classes (Xiao, Rasul and Vollgraf 2017; MIT licence).

Read from Debian's package `dataset-fashion-mnist`, or from the folder that the variable LOCARD_FASHION_MNIST names:
four gzipped idx files under their usual names.
"""

from __future__ import annotations

import math
import os
import zlib
from pathlib import Path

import numpy as np

from locard.data._files import check_file
from locard.data.base import Reader, readers
from locard.errors import ArtefactError, ParameterError
from locard.records import Data, Domain

VARIABLE = "LOCARD_FASHION_MNIST"
FOLDER = Path("/usr/share/datasets/fashion-mnist")
DOMAIN = Domain(kind="image", shape=(1, 28, 28), bounds=(0.0, 1.0), quantum=1 / 255)
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_PREFIXES = {"train": "train", "test": "t10k"}
_MOST = 60_000
_MOST_PACKED = 64 << 20


@readers.register("fashion-mnist")
class FashionMnist(Reader):
    """All of it is "fashion-mnist"; "fashion-mnist:train" and "fashion-mnist:test" are its own 60,000 and 10,000."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By name."""
        return name.partition(":")[0] == "fashion-mnist"

    @classmethod
    def read(cls, name: str) -> Data:
        """(n, 1, 28, 28) float32 in [0, 1]; the training images first."""
        _, named, part = name.partition(":")
        if named and part not in _PREFIXES:
            raise ParameterError(f"fashion-mnist has the parts train and test; got {part!r}")
        folder = Path(os.environ.get(VARIABLE) or FOLDER)
        if not folder.is_dir():
            raise ArtefactError(
                f"fashion-mnist is not in {str(folder)!r}: run `apt-get install dataset-fashion-mnist` (`make system` "
                f"does), or name the folder of its four .gz files in {VARIABLE}"
            )
        pairs = [_pair(folder, prefix) for key, prefix in _PREFIXES.items() if part in ("", key)]
        inputs = np.empty((sum(len(images) for images, _ in pairs), *DOMAIN.shape), np.float32)
        start = 0
        for images, _ in pairs:
            np.divide(images[:, None], np.float32(255), out=inputs[start : start + len(images)])
            start += len(images)
        labels = np.concatenate([labels for _, labels in pairs]).astype(np.int64)
        return Data(inputs=inputs, labels=labels, domain=DOMAIN, name=name, classes=CLASSES)


def _pair(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) and labels (n,), both uint8."""
    images = _idx(folder / f"{prefix}-images-idx3-ubyte.gz", DOMAIN.shape[1:])
    labels = _idx(folder / f"{prefix}-labels-idx1-ubyte.gz", ())
    if len(images) != len(labels):
        raise ArtefactError(
            f"{str(folder)!r} holds {len(images)} {prefix} images and {len(labels)} labels; install it again"
        )
    if labels.max(initial=0) >= len(CLASSES):
        raise ArtefactError(
            f"{str(folder)!r} holds the {prefix} label {labels.max()}; expected 0 to 9: install it again"
        )
    return images, labels


def _idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """One gzipped idx file of unsigned bytes: a big-endian header (magic, sizes), then the values.

    Args:
        path: the file.
        item: the shape that one item must have.

    Returns:
        (n, *item) uint8, on the bytes that were read.

    Raises:
        ArtefactError: missing, no gzip, truncated, or another header than expected. Unpacking stops at the size that
            the largest part has, whatever the file says.
    """
    check_file(path, limit=_MOST_PACKED)
    head, each = 8 + 4 * len(item), math.prod(item)
    limit = head + _MOST * each
    unpacker = zlib.decompressobj(wbits=31)
    try:
        raw = unpacker.decompress(path.read_bytes(), limit + 1)
    except (OSError, zlib.error) as error:
        raise ArtefactError(f"{str(path)!r} is no gzip file, or a damaged one: {error}; install it again") from error
    if len(raw) > limit:
        raise ArtefactError(f"{str(path)!r} unpacks to more than {limit:,} bytes, the size of {_MOST:,} items")
    if not unpacker.eof or len(raw) < head:
        raise ArtefactError(f"{str(path)!r} is truncated; install it again")
    magic, n, *shape = np.frombuffer(raw, ">u4", head // 4).tolist()
    expected = 0x0800 + 1 + len(item)
    if magic != expected or tuple(shape) != item:
        raise ArtefactError(
            f"{str(path)!r} is no idx file of {'x'.join(map(str, item)) or 'single'} bytes: magic number {magic:#06x}, "
            f"sizes {shape}; expected {expected:#06x}, {list(item)}"
        )
    if n == 0 or len(raw) != head + n * each:
        raise ArtefactError(f"{str(path)!r} says it holds {n:,} items; its size fits {(len(raw) - head) // each:,}")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(n, *item)
