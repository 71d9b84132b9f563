"""How far a model's answer moves between the two inputs of a pair (ModelDiff's decision distance vector [1])."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Queries
from locard.records import Access
from locard.representations._answers import access, ask, check
from locard.representations._pairs import pairs
from locard.representations.base import Record, representations


@representations.register("decision-distance")
@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionDistance:
    """Record `distances`: (pairs,) float32 in [0, 2], 1 - cos(z(x), z(x')) for each pair (x, x').

    z are the answers, (n, classes). It knows nothing of which class is which nor of how many there are, so models of
    different outputs can be compared; a constant added to all logits changes it. Equal answers are exactly 0 apart,
    and so are two of nothing but zeros; an answer of zeros is 1 from any other.

    Args:
        answers: "logits", "probabilities" or "values" (regression, embeddings).

    Cost: one query an input.

    [1] Li, Zhang, Liu, Yang, Liu. ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection. ISSTA
    2021.
    """

    by_class: ClassVar[bool] = False

    answers: str = "logits"

    def __post_init__(self) -> None:
        """Check the name of the answers."""
        check(self.answers)

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
            ParameterError: the queries are no pairs, or an answer is one number, which has no direction.
        """
        first, second = pairs(queries)
        rows = ask(view, self.answers, queries.inputs)
        if rows.shape[1] < 2:
            raise ParameterError(
                f"a decision distance is an angle between answers, and {view.source} answers one number; it needs two "
                "or more"
            )
        return {"distances": decision_distance(rows[first], rows[second])}


def decision_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cos between the rows of two tables.

    Args:
        a: (m, k) answers.
        b: (m, k) answers.

    Returns:
        (m,) float32 in [0, 2], computed in float64 as half the squared distance of the rows brought to length 1, which
        does not cancel where rows are nearly alike.
    """
    a, b = (np.asarray(rows, np.float64) for rows in (a, b))
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b)]
    a, b = (
        np.divide(r, length, out=np.zeros_like(r), where=length > 0) for r, length in zip((a, b), lengths, strict=True)
    )
    half = ((a - b) ** 2).sum(axis=1) / 2
    one_silent = ((lengths[0] > 0) != (lengths[1] > 0))[:, 0]
    return np.where(one_silent, 1.0, np.minimum(half, 2.0)).astype(np.float32)
