"""Any Python callable as a model: a batch of inputs in, one row of answers an input out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from locard.errors import ParameterError
from locard.models._options import batch_rows, refuse_unknown
from locard.models.base import BATCH, Adapter, Model, adapters
from locard.records import Access, Domain

OUTPUTS = {
    "labels": Access.LABELS,
    "probabilities": Access.PROBABILITIES,
    "logits": Access.LOGITS,
    "values": Access.VALUES,
}

_OPTIONS = ("domain", "outputs", "classes", "name", "identity", "batch_size")


def native_access(outputs: str) -> Access:
    """The rung that an adapter's `outputs` option names; another word is a `ParameterError`."""
    try:
        return OUTPUTS[outputs]
    except KeyError:
        raise ParameterError(f"outputs must be one of {', '.join(OUTPUTS)}; got {outputs!r}") from None


class CallableModel(Model):
    """A callable from (n, *shape) to answers.

    Args:
        function: takes inputs as the domain says; gives (n, classes) floats, or (n,) integers for labels.
        domain: what its inputs are.
        outputs: "labels", "probabilities", "logits" or "values".
        classes: number of classes, or None.
        name: for people.
        identity: text that names what is computed, such as a version; by default the name. Two callables with one
            identity share a journal.
        batch_size: inputs in one call.
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        *,
        domain: Domain,
        outputs: str = "probabilities",
        classes: int | None = None,
        name: str | None = None,
        identity: str | None = None,
        batch_size: int = BATCH,
    ) -> None:
        self._function, self.domain, self.classes = function, domain, classes
        self.native = native_access(outputs)
        self.grants = self.native.implied
        module, qualname = (
            getattr(function, "__module__", ""),
            getattr(function, "__qualname__", type(function).__name__),
        )
        self.source = name or f"callable {qualname}"
        self.batch_size = batch_rows(batch_size)
        self._identity = identity or name or f"{module}.{qualname}@{id(function):x}"

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return hashlib.sha256(f"callable:{self._identity}".encode()).hexdigest()

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._function(x))


@adapters.register("callable")
class CallableAdapter(Adapter):
    """Anything that can be called and that no other adapter claims."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """Whether it can be called."""
        return callable(source)

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Wrap it; `domain` must be given here or by `like`."""
        refuse_unknown(options, _OPTIONS, of="a callable")
        domain = options.pop("domain", like)
        if domain is None:
            raise ParameterError("a callable does not say what its inputs are: give domain=Domain(...)")
        return CallableModel(source, domain=domain, **options)
