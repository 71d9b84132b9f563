"""How a model's label changes between the two inputs of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError
from locard.queries.base import Queries
from locard.records import Access
from locard.representations._pairs import pairs
from locard.representations.base import Record, representations

if TYPE_CHECKING:
    from locard.models import LabelView


@representations.register("decision-change")
@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionChange:
    """Record `changes`: (pairs,) int64 in [0, classes), (y' - y) mod classes for the labels of each pair.

    0 where the label stays. It is QuRD's form of ModelDiff for labels [1]; unlike `DecisionDistance` it compares only
    models of the same classes in the same order up to a rotation. Cost: one query an input.

    [1] Godinot, Le Merrer, Penzo, Taïani, Trédan. Queries, Representation & Detection: The Next 100 Model
    Fingerprinting Schemes. AAAI 2025; HardDDV in the released code.
    """

    by_class: ClassVar[bool] = True

    @property
    def access(self) -> Access:
        """Labels."""
        return Access.LABELS

    def cost(self, queries: Queries) -> int:
        """One an input."""
        return len(queries.inputs)

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """The queries themselves."""
        return queries.inputs

    def record(self, view: LabelView, queries: Queries) -> Record:
        """See `Representation.record`.

        Raises:
            ParameterError: the queries are no pairs, or the number of classes is not known.
        """
        first, second = pairs(queries)
        if view.classes is None:
            raise ParameterError(
                f"a change of label is counted round the classes, whose number {view.source} does not tell; load it "
                "with classes=..."
            )
        labels = view.labels(queries.inputs)
        return {"changes": (labels[second] - labels[first]) % view.classes}
