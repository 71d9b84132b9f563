"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8, ten classes (UCI, BSD-3)."""

from __future__ import annotations

import numpy as np

from locard.data.base import Reader, readers
from locard.data.splits import split
from locard.errors import ParameterError, need
from locard.records import Data, Domain

DOMAIN = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0), quantum=1 / 16)


@readers.register("digits")
class Digits(Reader):
    """All of it as "digits"; a fixed split into 1,200 and 597 as "digits:train" and "digits:test"."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By name."""
        return name.partition(":")[0] == "digits"

    @classmethod
    def read(cls, name: str) -> Data:
        """(n, 1, 8, 8) float32 in [0, 1]."""
        datasets = need("sklearn.datasets", extra="sklearn", why="the data set digits")
        x, y = datasets.load_digits(return_X_y=True)
        images = (x.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
        data = Data(inputs=images, labels=y.astype(np.int64), domain=DOMAIN, name="digits",
                    classes=tuple("0123456789"))  # fmt: skip
        part = name.partition(":")[2]
        if not part:
            return data
        if part not in ("train", "test"):
            raise ParameterError(f"digits has the parts train and test; got {part!r}")
        return split(data, {"train": 1200, "test": 597}, seed=0)[part]
