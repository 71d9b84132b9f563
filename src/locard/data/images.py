"""A folder of images: each sub-folder a class, or images alone without labels.

PNG, JPEG, BMP and WebP, all of one size, all grey or all RGB, 8 bits. Classes and files are in sorted order; names that
begin with a dot, and files with other suffixes, are passed over. Pixels are read as stored: a camera's note that the
picture is to be turned (EXIF) is not followed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from locard.data._files import check_file, check_values
from locard.data.base import Reader, readers
from locard.errors import ArtefactError, need
from locard.records import Data, Domain

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_PIXELS = 1 << 24

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_CHANNELS = {"L": 1, "RGB": 3}
_WORDS = {"L": "grey", "RGB": "RGB"}
# Model folders may hold pictures too, for their readers.
_MODELS = ("config.json", "model.json")


@readers.register("images")
class ImageFolder(Reader):
    """A folder with an image in it or in a folder of it, which is no model folder."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By the names of what is in it; the search ends at the first image."""
        folder = Path(name)
        if not folder.is_dir() or any((folder / model).exists() for model in _MODELS):
            return False
        return any(_is_image(Path(path)) for path in chain(_names(folder), *map(_names, _folders(folder))))

    @classmethod
    def read(cls, name: str) -> Data:
        """(n, channels, height, width) float32 in [0, 1]."""
        files, labels, classes = _files(Path(name))
        pixels = _pixels(files)
        inputs = np.divide(pixels, np.float32(255))
        domain = Domain(kind="image", shape=inputs.shape[1:], bounds=(0.0, 1.0), quantum=1 / 255)
        return Data(inputs=inputs, labels=labels, domain=domain, name=name, classes=classes)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _names(folder: Path) -> Iterator[str]:
    """Files of a folder in any order; none where it may not be read."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.path for entry in entries if entry.is_file())
    except OSError:
        return


def _folders(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if _is_image(item) and not item.is_dir())


def _files(folder: Path) -> tuple[list[Path], np.ndarray | None, tuple[str, ...]]:
    """All images in order, their labels and the names of the classes."""
    try:
        flat, folders = _images(folder), _folders(folder)
        if not folders:
            return flat, None, ()
        if flat:
            raise ArtefactError(
                f"{str(folder)!r} holds images by themselves ({flat[0].name}) and sub-folders ({folders[0].name}); "
                "expected sub-folders alone, one a class, or images alone"
            )
        files, sizes = [], []
        for each in folders:
            inner = _images(each)
            if nested := _folders(each):
                raise ArtefactError(
                    f"{str(nested[0])!r} is a folder in a class; expected images alone in each class's folder"
                )
            if not inner:
                raise ArtefactError(
                    f"{str(each)!r} holds no image ({', '.join(SUFFIXES)}); fill or remove this class's folder"
                )
            files += inner
            sizes.append(len(inner))
    except OSError as error:
        raise ArtefactError(f"{str(folder)!r} cannot be read: {error.strerror or error}") from error
    return files, np.repeat(np.arange(len(folders), dtype=np.int64), sizes), tuple(each.name for each in folders)


def _pixels(files: list[Path]) -> np.ndarray:
    """(n, channels, height, width) uint8; the first image says what the others must be like."""
    pillow = need("PIL.Image", extra="images", why="an image folder")
    pixels, mode, size = np.empty(0, np.uint8), "", (0, 0)
    for row, file in enumerate(files):
        check_file(file)
        try:
            with warnings.catch_warnings():
                # Pillow's own bound on what unpacks to too many pixels is only a warning below a second bound.
                warnings.simplefilter("error", pillow.DecompressionBombWarning)
                with pillow.open(file, formats=_FORMATS) as image:
                    if row == 0:
                        mode, size = image.mode, image.size
                        pixels = np.empty((len(files), *_shape(image, file, len(files))), np.uint8)
                    _check_like(image, file, mode, size, files[0])
                    pixels[row] = _channels_first(np.asarray(image))
        except ArtefactError:
            raise
        except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
            raise ArtefactError(
                f"{str(file)!r} unpacks to too many pixels; images of up to {MAX_PIXELS:,} are read"
            ) from error
        # A damaged file makes a decoder raise anything: OSError, SyntaxError, ValueError, struct.error, ...
        except Exception as error:
            raise ArtefactError(
                f"{str(file)!r} is no {', '.join(_FORMATS)} image, or a damaged one: {error}"
            ) from error
    return pixels


def _shape(image: Image, file: Path, n: int) -> tuple[int, int, int]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ArtefactError(f"{str(file)!r} has {width} x {height} pixels; images of up to {MAX_PIXELS:,} are read")
    if image.mode not in _CHANNELS:
        raise ArtefactError(
            f"{str(file)!r} has the mode {image.mode}; expected grey (L) or RGB, 8 bits, no transparency, no palette: "
            "convert the images as the model's own training did"
        )
    check_values(str(file.parent), n * width * height * _CHANNELS[image.mode])
    return _CHANNELS[image.mode], height, width


def _check_like(image: Image, file: Path, mode: str, size: tuple[int, int], first: Path) -> None:
    if getattr(image, "is_animated", False):
        raise ArtefactError(f"{str(file)!r} is a moving picture; expected a still one")
    if image.size != size or image.mode != mode:
        ours, theirs = (
            f"{_WORDS.get(m, f'mode {m}')}, {w} x {h}" for m, (w, h) in ((image.mode, image.size), (mode, size))
        )
        raise ArtefactError(
            f"{str(file)!r} is {ours}; {first.name} is {theirs}: all must be alike, so resize or convert them as the "
            "model's own training did"
        )


def _channels_first(array: np.ndarray) -> np.ndarray:
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
