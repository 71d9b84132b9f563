"""The logits of each query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.queries.base import Queries
from locard.records import Access
from locard.representations.base import Record, representations

if TYPE_CHECKING:
    from locard.models import LogitView


@representations.register("logits")
@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """Record `logits`: (n, classes) float32, the scores before the softmax. Cost: one query an input."""

    by_class: ClassVar[bool] = True

    @property
    def access(self) -> Access:
        """Logits."""
        return Access.LOGITS

    def cost(self, queries: Queries) -> int:
        """One an input."""
        return len(queries.inputs)

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """The queries themselves."""
        return queries.inputs

    def record(self, view: LogitView, queries: Queries) -> Record:
        """See `Representation.record`."""
        return {"logits": view.logits(queries.inputs)}
