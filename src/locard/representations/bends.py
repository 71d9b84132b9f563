"""How a model's answers bend between three inputs (TAFA [1])."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Queries
from locard.records import Access
from locard.representations._answers import access, ask, check
from locard.representations.base import Record, representations


@representations.register("bends")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bends:
    """Record `bends`: (units, answers) float32, s(x-) - 2 s(x) + s(x+) for each triple of inputs.

    0 wherever the model is linear, however steep. Triples are the inputs three by three, as the sampler
    "activation-boundary" gives them.

    Args:
        answers: "logits", "probabilities" or "values" (regression, embeddings). Coarsely rounded ones lose bends.

    Cost: three queries a unit.

    [1] Pan, Zhang, Lu, Yang. TAFA: A Task-Agnostic Fingerprinting Algorithm for Neural Networks. ESORICS 2021.
    """

    by_class: ClassVar[bool] = True

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
            ParameterError: the inputs are no triples.
        """
        if len(queries.inputs) % 3:
            raise ParameterError(f"bends are read off triples of inputs; got {len(queries.inputs)} inputs")
        rows = ask(view, self.answers, queries.inputs).astype(np.float64)
        before, here, after = rows.reshape(-1, 3, rows.shape[1]).swapaxes(0, 1)
        return {"bends": (before - 2 * here + after).astype(np.float32)}
