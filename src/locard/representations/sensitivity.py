"""Which inputs a model is sensitive at in the same way: Gram matrices of its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from locard.errors import ParameterError, unknown
from locard.queries.base import Queries
from locard.records import Access
from locard.representations.base import Record, representations

BY, OF = ("inputs", "weights"), ("logit", "log-probability")


@representations.register("sensitivity")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Record `sensitivity`: (n, n) float32 in [-1, 1], the cosine of a model's gradients at any two inputs.

    The gradient is that of the score the model gives its own answer, by the input or by all of its weights. By the
    weights two inputs are alike if a step of training on one would serve the other. Neither form knows which class is
    which, nor in what order the hidden neurons are, and models of any architecture can be compared. The diagonal is 1.
    Two gradients of zeros count as alike, one and another as unrelated (0). With training inputs as queries this is the
    sensitivity at random training points; the form is ours, no paper prescribes it.

    Args:
        by: "inputs", or "weights" (needs MODULE).
        of: "logit", or "log-probability", which is flat where the model is sure.

    Cost: one gradient an input. By the weights they are taken one input at a time; see `Model.weight_gram`.
    """

    by_class: ClassVar[bool] = False

    by: str = BY[0]
    of: str = OF[0]

    def __post_init__(self) -> None:
        """Check the names."""
        if self.by not in BY:
            raise unknown("sensitivity by", self.by, BY)
        if self.of not in OF:
            raise unknown("sensitivity of", self.of, OF)

    @property
    def access(self) -> Access:
        """Gradients, or the module."""
        return Access.MODULE if self.by == "weights" else Access.GRADIENTS

    def cost(self, queries: Queries) -> int:
        """One an input."""
        return len(queries.inputs)

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """None, as gradients are answered from no journal."""
        return None

    def record(self, view: Any, queries: Queries) -> Record:
        """See `Representation.record`.

        Raises:
            ParameterError: gradients by the input are asked of inputs that cannot be moved.
        """
        x = queries.inputs
        if self.by == "weights":
            return {"sensitivity": cosines(view.weight_gram(x, self._own))}
        if x.dtype.kind != "f":
            raise ParameterError(
                f"sensitivity by the inputs needs inputs that a gradient can move; {view.source} takes "
                f"{view.domain.text}: set by=weights"
            )
        _, gradient = view.input_gradient(x, self._own)
        rows = gradient.reshape(len(x), -1).astype(np.float64)
        return {"sensitivity": cosines(rows @ rows.T)}

    def _own(self, logits: Any) -> Any:
        """The loss, in torch, which this room does not import: (n,) from (n, classes)."""
        scores = logits if self.of == "logit" else logits.log_softmax(dim=1)
        return scores.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]


def cosines(gram: np.ndarray) -> np.ndarray:
    """A Gram matrix of rows as that of the rows brought to length 1.

    Args:
        gram: (n, n) float64, all inner products.

    Returns:
        (n, n) float32 in [-1, 1], 1 on the diagonal.
    """
    length = np.sqrt(np.maximum(np.diagonal(gram), 0))
    both = np.outer(length, length)
    result = np.divide(gram, both, out=np.zeros_like(gram), where=both > 0)
    silent = length == 0
    result[np.ix_(silent, silent)] = 1.0
    np.fill_diagonal(result, 1.0)
    return np.clip(result, -1, 1).astype(np.float32)
