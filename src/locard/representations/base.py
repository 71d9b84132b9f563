"""The contract of a representation."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np

from locard.queries.base import Queries
from locard.records import Access
from locard.registry import Registry

Record = dict[str, np.ndarray]


class Representation(Protocol):
    """Asks queries and reduces the answers.

    A frozen dataclass whose fields are the parameters that change the value.

    Attributes:
        by_class: whether two records can only be compared class by class.
    """

    by_class: ClassVar[bool]

    @property
    def access(self) -> Access:
        """The grant it needs of a model."""
        ...

    def cost(self, queries: Queries) -> int:
        """Queries that `record` asks."""
        ...

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """All inputs that `record` will ask, so that a battery is asked in one pass.

        None when they are made piece by piece, because they do not fit in memory at once.
        """
        ...

    def record(self, view: Any, queries: Queries) -> Record:
        """Arrays by name, reduced from a view's answers; a pure function of the answers."""
        ...


representations: Registry[Representation] = Registry(
    "representation", "locard.representations", "locard.representations"
)
