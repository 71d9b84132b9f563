"""Reviews of fine foods: 5,000 English texts with the verdict "great" or "other" (McAuley and Leskovec 2013).

Read from the R package modeldata as Debian packs it (MIT), without R: see `_places`. Its own 4,000 are the part train,
1,000 the part test; the texts are as they came from a web page, with marks such as <br />.
"""

from __future__ import annotations

import numpy as np

from locard.data._places import r_package
from locard.data.base import Reader, readers
from locard.data.text import DOMAIN, texts
from locard.errors import ArtefactError, ParameterError
from locard.records import Data

CLASSES = ("great", "other")
_TABLES = {"train": "training_data", "test": "testing_data"}


@readers.register("reviews")
class Reviews(Reader):
    """All of it is "reviews"; "reviews:train" and "reviews:test" are its own parts."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By name."""
        return name.partition(":")[0] == "reviews"

    @classmethod
    def read(cls, name: str) -> Data:
        """(n,) strings; the training texts first."""
        # Here, because it imports lzma, which some Pythons are built without.
        from locard.data._rdata import read_rdb

        _, named, part = name.partition(":")
        if named and part not in _TABLES:
            raise ParameterError(f"reviews has the parts train and test; got {part!r}")
        index = r_package("modeldata", of="reviews") / "Rdata.rdx"
        inputs: list[str] = []
        labels: list[int] = []
        for key, name_of_table in _TABLES.items():
            if part not in ("", key):
                continue
            table = read_rdb(index, name_of_table)
            words, verdicts = table.get("review"), table.get("score")
            if not isinstance(words, list) or not isinstance(verdicts, list) or not set(verdicts) <= set(CLASSES):
                raise ArtefactError(
                    f"{str(index)!r}: the table {name_of_table} must have texts in a column review, and {CLASSES[0]} "
                    f"or {CLASSES[1]} in a column score"
                )
            inputs += words
            labels += map(CLASSES.index, verdicts)
        return Data(inputs=texts(inputs), labels=np.array(labels, np.int64), domain=DOMAIN, name=name, classes=CLASSES)
