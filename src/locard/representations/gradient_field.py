"""How a model's answer grows along the way to an input (ModelGiF's gradient fields [1])."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._fields import fields
from locard.queries.base import Queries
from locard.records import Access
from locard.representations.base import Record, representations

if TYPE_CHECKING:
    from locard.models import GradientView


@representations.register("gradient-field")
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientField:
    """Record `fields`: (inputs, kept, entries) float32, cumulative gradients of the model's own class (`fields`).

    The ways begin at the queries' `baseline`, or at 0 (or the nearest bound) where they carry none. The target is the
    class that the asked model itself gives the input, so models of other classes can be compared.

    Args:
        nodes: of the quadrature on each way.
        kept: of the cumulative sums, evenly spaced; the released code keeps all, which are alike from one to the next
            and take `nodes` / `kept` times the memory.

    Cost: one answer and `nodes` gradients an input; gradients are asked between inputs, off the 8-bit grid, as no API
    would be.

    [1] Song, Xu, Wu, Chen, Song. ModelGiF: Gradient Fields for Model Functional Distance. ICCV 2023.
    """

    by_class: ClassVar[bool] = False

    nodes: int = 50
    kept: int = 10

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("nodes", self.nodes, low=1, high=10_000)
        check_number("kept", self.kept, low=1, high=self.nodes)

    @property
    def access(self) -> Access:
        """Gradients."""
        return Access.GRADIENTS

    def cost(self, queries: Queries) -> int:
        """One answer and `nodes` gradients an input."""
        return len(queries.inputs) * (self.nodes + 1)

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """None: gradients are no answers that a journal keeps."""
        return None

    def record(self, view: GradientView, queries: Queries) -> Record:
        """See `Representation.record`.

        Raises:
            ParameterError: the baseline is no input of the domain.
        """
        bounds = view.domain.bounds
        baseline = queries.extras.get("baseline")
        if baseline is None:
            baseline = np.zeros(view.domain.shape, np.float32)
        elif baseline.shape != view.domain.shape or baseline.dtype.kind != "f" or not np.isfinite(baseline).all():
            raise ParameterError(
                f"the baseline must be one input of shape {view.domain.shape}; got {baseline.dtype} {baseline.shape}"
            )
        if bounds is not None:
            baseline = np.clip(baseline, *bounds)
        return {"fields": fields(view, queries.inputs, baseline, nodes=self.nodes, kept=self.kept)}
