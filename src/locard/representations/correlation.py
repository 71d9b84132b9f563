"""How alike a model's answers to any two queries are (SAC [1])."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Queries
from locard.records import Access
from locard.representations._answers import access, ask, check
from locard.representations.base import Record, representations

# Queries whose correlations are held at most: 0.4 GB of them.
MOST = 10_000
# Rows computed together: what they need in float64 stays in the caches.
STRIP = 64
# What a label is worth as a row of scores, before the softmax: the released code's two numbers.
SAID, UNSAID = 1.0, 0.01


@representations.register("correlation")
@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Record `correlation`: (n, n) float32 in [0, 1], R = (1 - O Oᵀ) / 2 with the rows of O of length 1.

    O are the answers, (n, classes). R knows nothing of which class is which nor of how many there are: it is the same
    under any rotation of the answers, any renaming of classes and any positive factor on a row, and models of different
    class counts can be compared. Its diagonal is 0. Two rows of zeros count as alike, one and another as unrelated
    (R = 1/2).

    Args:
        answers: "logits", "probabilities", "values" (regression, embeddings), or "labels": a label stands for the
            softmax of 1 at the label and 0.01 elsewhere.

    Cost: one query an input. Memory: n² numbers of 4 bytes.

    [1] Guan, Liang, He. Are You Stealing My Model? Sample Correlation for Fingerprinting Deep Neural Networks. NeurIPS
    2022; R and the form for labels follow the released code.
    """

    by_class: ClassVar[bool] = False

    answers: str = "logits"

    def __post_init__(self) -> None:
        """Check the name of the answers."""
        check(self.answers, ("logits", "probabilities", "labels", "values"))

    @property
    def access(self) -> Access:
        """The rung of the answers."""
        return access(self.answers)

    def cost(self, queries: Queries) -> int:
        """One an input."""
        return len(queries.inputs)

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """The queries themselves."""
        return queries.inputs

    def record(self, view: Any, queries: Queries) -> Record:
        """See `Representation.record`.

        Raises:
            ParameterError: labels are asked for, and the number of classes is not known.
        """
        n = len(queries.inputs)
        if n > MOST:
            raise ParameterError(f"a correlation holds the square of its queries, at most {MOST:,} of them; got {n:,}")
        if self.answers == "labels":
            labels = view.labels(queries.inputs)
            if view.classes is None:
                raise ParameterError(
                    f"the correlation of labels depends on the number of classes, which {view.source} does not tell; "
                    "load it with classes=..., or record its scores (answers=probabilities)"
                )
            rows = spoken(labels, view.classes)
        else:
            rows = ask(view, self.answers, queries.inputs)
        return {"correlation": correlation(rows)}


def spoken(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels as rows of scores.

    Args:
        labels: (n,) integers in [0, classes).
        classes: number of classes.

    Returns:
        (n, classes) float64, the softmax of `SAID` at the label and `UNSAID` elsewhere.
    """
    scores = np.full((len(labels), classes), np.exp(UNSAID))
    scores[np.arange(len(labels)), labels] = np.exp(SAID)
    return scores / scores.sum(axis=1, keepdims=True)


def correlation(rows: np.ndarray) -> np.ndarray:
    """R of `Correlation`.

    Args:
        rows: (n, classes) answers.

    Returns:
        (n, n) float32 in [0, 1], symmetric, 0 on the diagonal.
    """
    rows = np.asarray(rows, np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    silent = length[:, 0] == 0
    found = np.empty((len(rows), len(rows)), np.float32)
    for start in range(0, len(rows), STRIP):
        here = slice(start, start + STRIP)
        strip = rows[here] @ rows[start:].T
        strip[np.ix_(silent[here], silent[start:])] = 1.0
        strip *= -0.5
        strip += 0.5
        np.clip(strip, 0.0, 1.0, out=strip)
        # The same sum in another order may round to another number, and R is symmetric.
        above = np.triu(strip[:, : len(strip)], 1)
        strip[:, : len(strip)] = above + above.T
        found[here, start:] = strip
        found[start:, here] = strip.T
    return found
