"""Texts, one a line of a UTF-8 file, perhaps each with a tab and a label behind it.

Labels are whole numbers from 0 on, or names, which are numbered in sorted order. Blank lines are passed over.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from locard.data._files import check_file
from locard.data._labels import from_words
from locard.data.base import Reader, readers
from locard.errors import ArtefactError
from locard.records import Data, Domain

DOMAIN = Domain(kind="text", shape=(), dtype="str")
MAX_BYTES = 256 << 20


@readers.register("text")
class TextLines(Reader):
    """A file that ends in .txt."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By suffix."""
        return Path(name).suffix.lower() == ".txt"

    @classmethod
    def read(cls, name: str) -> Data:
        """(n,) strings."""
        lines = _lines(Path(name))
        tabs = [line.count("\t") for _, line in lines]
        if not any(tabs):
            return Data(inputs=texts([line for _, line in lines]), labels=None, domain=DOMAIN, name=name)
        for (number, _), count in zip(lines, tabs, strict=True):
            if count != 1:
                raise ArtefactError(
                    f"{name!r}, line {number}: {count} tabs; expected one before the label in every line, or "
                    "none in the file"
                )
        pairs = [line.split("\t") for _, line in lines]
        labels, classes = from_words([label.strip() for _, label in pairs], name)
        return Data(inputs=texts([text for text, _ in pairs]), labels=labels, domain=DOMAIN, name=name, classes=classes)


def texts(items: list[str]) -> np.ndarray:
    """(n,) object array of strings."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines with something in them, with their numbers."""
    check_file(path, limit=MAX_BYTES)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ArtefactError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{str(path)!r} is no UTF-8 at byte {error.start}; save it as UTF-8") from error
    # str.splitlines would also cut at form feeds and the like, which are part of a text.
    return [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
