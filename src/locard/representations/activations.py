"""What the neurons of one layer give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.queries._layers import hidden, neurons
from locard.queries.base import Queries
from locard.records import Access
from locard.representations.base import Record, representations

if TYPE_CHECKING:
    from locard.models import ModuleView


@representations.register("activations")
@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Record `activations`: (n, neurons) float32, what each neuron of a layer gives; of a channel its mean over places.

    They are as the layer gives them: before a ReLU that is called as a function, after one that is a layer of its own.
    Two models can be compared only if the layers have as many neurons, and a distance means something only if the
    neurons stand in one order: copies keep it, a thief can permute it.

    Args:
        layer: its name, or "" for the last hidden one, the last but one that runs.

    Cost: one query an input.
    """

    by_class: ClassVar[bool] = False

    layer: str = ""

    @property
    def access(self) -> Access:
        """The module."""
        return Access.MODULE

    def cost(self, queries: Queries) -> int:
        """One an input."""
        return len(queries.inputs)

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """None, as activations are answered from no journal."""
        return None

    def record(self, view: ModuleView, queries: Queries) -> Record:
        """See `Representation.record`.

        Raises:
            ParameterError: the model has no such layer.
        """
        name = hidden(view.layers(), self.layer, view.source)
        return {"activations": neurons(view.activations(queries.inputs, [name])[name])}
