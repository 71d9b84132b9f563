"""Data by name or by file; one reader a file."""

from __future__ import annotations

import abc
import os
from pathlib import Path

from locard.errors import ArtefactError
from locard.records import Data
from locard.registry import Registry


class Reader(abc.ABC):
    """Abstract: how one kind of data is read."""

    @classmethod
    @abc.abstractmethod
    def recognises(cls, name: str) -> bool:
        """Whether this reader reads that name or path, without reading it."""

    @classmethod
    @abc.abstractmethod
    def read(cls, name: str) -> Data:
        """The data.

        Raises:
            ArtefactError: missing, damaged or empty.
            ParameterError: an unknown part of the name.
        """


readers: Registry[Reader] = Registry("data reader", "locard.data", "locard.readers")


def read(source: str | os.PathLike[str]) -> Data:
    """Read data.

    Args:
        source: "digits", "emoji", "fashion-mnist", "letters" or "reviews", each with ":train" or ":test" or whole; or
            the path of an .npz with `x` and `y`, an image folder, a .csv or .parquet table, or a .txt with one text a
            line.

    Raises:
        ArtefactError: no reader knows it, or the file is damaged.
    """
    name = os.fspath(source)
    for kind in readers.names():
        if readers.get(kind).recognises(name):
            data = readers.get(kind).read(name)
            if len(data) == 0:
                raise ArtefactError(f"{name!r} holds no data")
            return data
    what = "no such file" if not Path(name).exists() else "of no known kind"
    raise ArtefactError(
        f"no data at {name!r} ({what}); expected digits, emoji, fashion-mnist, letters, reviews, an .npz with x and y, "
        "an image folder, .csv, .parquet or .txt"
    )
