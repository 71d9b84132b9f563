"""Emoji: 3,812 colour drawings of 1,906 emoji, 32 x 32, by two makers, in the nine groups of Unicode.

Read from the npm packages emoji-datasource-google and emoji-datasource-twitter (see `_places`); Google's drawings are
under the Apache licence 2.0, Twitter's under CC BY 4.0, which wants their maker named. Each is laid on white and its
64 x 64 pixels are averaged two by two. Skin tones are left out: they would be three drawings in five, of one group and
nearly alike. The two drawings of one emoji are of one group of `Data.groups`, so that a split keeps them together.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from locard.data._files import check_file
from locard.data._places import npm_package
from locard.data.base import Reader, readers
from locard.data.splits import split
from locard.errors import ArtefactError, ParameterError, need
from locard.records import Data, Domain

MAKERS, VERSION = ("google", "twitter"), "16.0.0"
DOMAIN = Domain(kind="image", shape=(3, 32, 32), bounds=(0.0, 1.0), quantum=1 / 255)
CLASSES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)

_SIDE = 64
_LEFT_OUT = "Component"
_MOST_TABLE, _MOST_DRAWING, _MOST = 16 << 20, 1 << 20, 20_000
_FILE = re.compile(r"[0-9a-f]{2,6}(-[0-9a-f]{2,6})*\.png")


@readers.register("emoji")
class Emoji(Reader):
    """All of it is "emoji"; "emoji:train" is a fixed draw of four fifths of the emoji, "emoji:test" the rest."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By name."""
        return name.partition(":")[0] == "emoji"

    @classmethod
    def read(cls, name: str) -> Data:
        """(n, 3, 32, 32) float32 in [0, 1]."""
        _, named, part = name.partition(":")
        if named and part not in ("train", "test"):
            raise ParameterError(f"emoji has the parts train and test; got {part!r}")
        folders = [npm_package(f"emoji-datasource-{maker}", VERSION, of="emoji") for maker in MAKERS]
        table = _table(folders[0] / "emoji.json")
        drawings = [folder / "img" / maker / str(_SIDE) for folder, maker in zip(folders, MAKERS, strict=True)]
        pixels = np.empty((len(table), len(MAKERS), *DOMAIN.shape), np.uint8)
        for row, (file, _) in enumerate(table):
            for column, folder in enumerate(drawings):
                pixels[row, column] = _drawing(folder / file)
        labels = np.array([CLASSES.index(group) for _, group in table], np.int64)
        data = Data(
            inputs=np.divide(pixels.reshape(-1, *DOMAIN.shape), np.float32(255)),
            labels=labels.repeat(len(MAKERS)),
            domain=DOMAIN,
            name="emoji",
            classes=CLASSES,
            groups=np.arange(len(table)).repeat(len(MAKERS)),
        )
        if not part:
            return data
        train = len(MAKERS) * (4 * len(table) // 5)
        return split(data, {"train": train, "test": len(data) - train}, seed=0)[part]


def _table(path: Path) -> list[tuple[str, str]]:
    """File and group of each emoji that both makers draw, in the order of the files' names."""
    check_file(path, limit=_MOST_TABLE)
    try:
        rows: Any = json.loads(path.read_bytes())
        found = sorted(
            (str(row["image"]), str(row["category"]))
            for row in rows
            if row["category"] != _LEFT_OUT and all(row[f"has_img_{maker}"] for maker in MAKERS)
        )
    except OSError as error:
        raise ArtefactError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtefactError(f"{str(path)!r} is no table of emoji: {error}; install it again") from error
    for file, group in found:
        # A name from a file must not lead out of its folder.
        if not _FILE.fullmatch(file):
            raise ArtefactError(f"{str(path)!r} names the drawing {file!r}; expected code points such as 1f600.png")
        if group not in CLASSES:
            raise ArtefactError(f"{str(path)!r} has the category {group!r}; expected one of {', '.join(CLASSES)}")
    if not 5 <= len(found) <= _MOST or len({file for file, _ in found}) < len(found):
        raise ArtefactError(f"{str(path)!r} lists {len(found):,} emoji; expected 5 to {_MOST:,}, each once")
    return found


def _drawing(path: Path) -> np.ndarray:
    """(3, 32, 32) uint8."""
    pillow = need("PIL.Image", extra="images", why="the data set emoji")
    check_file(path, limit=_MOST_DRAWING)
    try:
        with pillow.open(path, formats=("PNG",)) as image:
            size = image.size
            whole = np.asarray(image.convert("RGBA"), np.uint32) if size == (_SIDE, _SIDE) else None
    # A damaged file makes a decoder raise anything: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise ArtefactError(f"{str(path)!r} is no PNG image, or a damaged one: {error}; install it again") from error
    if whole is None:
        raise ArtefactError(f"{str(path)!r} has {size[0]} x {size[1]} pixels; expected {_SIDE} x {_SIDE}")
    colours, alpha = whole[..., :3], whole[..., 3:]
    # In whole numbers, so that the pixels are the same on every machine.
    white = colours * alpha + 255 * (255 - alpha)
    total = white.reshape(_SIDE // 2, 2, _SIDE // 2, 2, 3).sum(axis=(1, 3))
    return ((total + 2 * 255) // (4 * 255)).astype(np.uint8).transpose(2, 0, 1)
