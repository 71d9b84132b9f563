"""A bag of hashed words and neighbouring words, averaged, then dense layers; for texts."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from locard.errors import ParameterError
from locard.models.architectures import architectures
from locard.models.architectures._arguments import whole, wholes

# A mark alone, such as "!", says much in a review.
_WORD = re.compile(r"\w+|[!?]")


@architectures.register("bag")
class Bag(nn.Module):
    """The mean of the vectors of a text's words and of its runs of words, as fastText has it, then dense layers [1].

    A run's vector is found by its hash (CRC-32), so there is no vocabulary: a model says all that it needs of a text,
    and words that it never saw are drawn at random. Upper and lower case are one.

    [1] Joulin, Grave, Bojanowski, Mikolov. Bag of Tricks for Efficient Text Classification. EACL 2017.

    Args:
        shape: of one input: [], since a text has none.
        classes: number of classes.
        buckets: vectors that runs are hashed to; one more stands for nothing.
        width: of a vector.
        hidden: widths of the hidden layers; empty for one dense layer.
        grams: words in the longest run.
        words: how many of a text are read, from its beginning.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        classes: int,
        buckets: int = 8192,
        width: int = 32,
        hidden: Sequence[int] = (32,),
        grams: int = 2,
        words: int = 256,
    ) -> None:
        super().__init__()
        if wholes("shape", shape, most=8):
            raise ParameterError(f"bag takes texts, whose shape is []; got {list(shape)!r}")
        self.buckets, width = whole("buckets", buckets, high=1 << 20), whole("width", width, high=4096)
        self.grams, self.words = whole("grams", grams, high=8), whole("words", words)
        widths = [width, *wholes("hidden", hidden), whole("classes", classes)]
        self.vectors = nn.EmbeddingBag(self.buckets + 1, width, mode="mean", padding_idx=0)
        # torch's own spread of 1 would dwarf the dense weights, and pruning by size would then take all of those.
        nn.init.normal_(self.vectors.weight[1:], std=0.1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def extra_repr(self) -> str:
        """How texts are read; a model's identity is taken from here, since no weight says it."""
        return f"grams={self.grams}, words={self.words}"

    def encode(self, texts: Sequence[str] | np.ndarray) -> torch.Tensor:
        """(n, length) int64: a number in [1, buckets] for each run of words of a text, then zeros; length >= 1."""
        rows = [list(self._runs(text)) for text in texts]
        numbers = np.zeros((len(rows), max(1, *map(len, rows)) if rows else 1), np.int64)
        for row, runs in zip(numbers, rows, strict=True):
            row[: len(runs)] = runs
        return torch.from_numpy(numbers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, length) int64, as `encode` gives them, to (n, classes) logits."""
        x = self.vectors(x)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)

    def _runs(self, text: str) -> Iterator[int]:
        words = list(itertools.islice((found[0] for found in _WORD.finditer(text.lower())), self.words))
        for length in range(1, self.grams + 1):
            for start in range(len(words) - length + 1):
                # A lone surrogate has no UTF-8 of its own, and a stranger's text may hold one.
                run = " ".join(words[start : start + length]).encode("utf-8", "surrogatepass")
                yield zlib.crc32(run) % self.buckets + 1
