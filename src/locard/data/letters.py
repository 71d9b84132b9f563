"""Letter recognition: 20,000 printed capitals, each told by 16 whole numbers from 0 to 15 (Frey and Slate 1991).

Read from the R package mlbench as Debian packs it (GPL-2), without R: see `_places`. Columns are statistics of the
letter's pixels; the label is which of the 26 letters it is.
"""

from __future__ import annotations

import numpy as np

from locard.data._places import r_package
from locard.data.base import Reader, readers
from locard.errors import ArtefactError, ParameterError
from locard.records import Data, Domain

CLASSES = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LABEL = "lettr"
COLUMNS = ("x.box", "y.box", "width", "high", "onpix", "x.bar", "y.bar", "x2bar", "y2bar", "xybar", "x2ybr", "xy2br",
           "x.ege", "xegvy", "y.ege", "yegvx")  # fmt: skip
DOMAIN = Domain(kind="tabular", shape=(len(COLUMNS),), bounds=(0.0, 15.0), quantum=1.0, columns=COLUMNS)


@readers.register("letters")
class Letters(Reader):
    """All of it is "letters"; "letters:train" and "letters:test" are the first 16,000 and the rest, as is usual."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By name."""
        return name.partition(":")[0] == "letters"

    @classmethod
    def read(cls, name: str) -> Data:
        """(n, 16) float32, whole numbers in [0, 15]."""
        # Here, because it imports lzma, which some Pythons are built without.
        from locard.data._rdata import read_rda

        _, named, part = name.partition(":")
        if named and part not in ("train", "test"):
            raise ParameterError(f"letters has the parts train and test; got {part!r}")
        path = r_package("mlbench", of="letters") / "LetterRecognition.rda"
        table = read_rda(path, "LetterRecognition")
        if tuple(table) != (LABEL, *COLUMNS):
            raise ArtefactError(f"{str(path)!r} has the columns {', '.join(table)}; expected {LABEL} and 16 numbers")
        words = table[LABEL]
        if not isinstance(words, list) or not set(words) <= set(CLASSES):
            raise ArtefactError(f"{str(path)!r}: the column {LABEL} must hold letters from A to Z")
        try:
            numbers = np.stack([np.asarray(table[column], np.float32) for column in COLUMNS], axis=1)
        except ValueError as error:
            raise ArtefactError(f"{str(path)!r} has words in a column that must hold numbers") from error
        if not (np.isin(numbers, np.arange(16))).all():
            raise ArtefactError(f"{str(path)!r} holds other numbers than 0 to 15; install it again")
        labels = np.array([CLASSES.index(word) for word in words], np.int64)
        data = Data(inputs=numbers, labels=labels, domain=DOMAIN, name=name, classes=CLASSES)
        cut = 4 * len(data) // 5
        rows = {"": slice(None), "train": slice(cut), "test": slice(cut, None)}[part]
        return data.take(np.arange(len(data))[rows])
