"""What every adapter is: a model behind one small contract.

An adapter owns the input range, normalisation, device, dtype, mode and batch size of its model. It answers at one
native rung; the rungs below follow from it. Nobody outside this room calls an adapter directly: callers get a view (see
`views`), which counts.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import AccessError, LocardError, ParameterError
from locard.records import LADDER, Access, Domain, Lineage
from locard.registry import Registry

if TYPE_CHECKING:
    import torch

# Inputs in one call: of a function that anybody wrote, and of a network on a processor, whose caches what lies between
# the layers of a larger batch leaves (benchmarks/batch_size.py). Each layer costs Python time in each pass, so one that
# has many is asked as many as a function.
BATCH, NETWORK_BATCH, MANY_LAYERS = 256, 64, 16

Loss = Callable[["torch.Tensor"], "torch.Tensor"]


class Model(abc.ABC):
    """Abstract: one model behind one adapter.

    Attributes:
        domain: what its inputs are.
        classes: number of classes, or None for `VALUES`.
        native: the rung that `_forward` answers at: LABELS, PROBABILITIES, LOGITS or VALUES.
        grants: everything it can give.
        source: where it was read from, for people.
        lineage: what is known of its making.
        batch_size: inputs in one forward pass.
        remote: whether asking costs its user money or leaves this machine.
    """

    domain: Domain
    classes: int | None
    native: Access
    grants: Access
    source: str
    lineage: Lineage = Lineage()
    batch_size: int = BATCH
    remote: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """The model's identity: SHA-256 over what it computes; for an endpoint over URL, name and version."""

    @abc.abstractmethod
    def _forward(self, x: np.ndarray) -> np.ndarray:
        """Native answers to one batch: (n, C) floats, or (n,) integers at LABELS."""

    def stream(self, x: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Native answers in chunks as they arrive, in any order, so that a caller can keep each at once.

        Args:
            x: (n, *shape), checked against the domain.

        Yields:
            Rows of `x`, and their checked answers.
        """
        for start in range(0, len(x), self.batch_size):
            rows = slice(start, min(start + self.batch_size, len(x)))
            yield rows, self._checked(self._run(x[rows]), rows.stop - rows.start)

    def input_gradient(self, x: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and the gradient of a per-input loss by the input; adapters that grant GRADIENTS override this.

        Args:
            x: (n, *shape) float32, as the domain says.
            loss: maps (n, C) logits to (n,) losses, or to (n, k) of them, in torch; it is called once on each batch, in
                the order of `x`.

        Returns:
            (n, C) logits and (n, *shape) gradients, or (n, k, *shape), float32.

        Raises:
            AccessError: this model has no gradients.
        """
        raise AccessError(f"{self.source} gives {self.grants.text} and no gradients; load the original torch model")

    def layers(self) -> dict[str, tuple[int, ...]]:
        """Names of the layers in the order they run, with the shape of one input's activations; see `activations`.

        Raises:
            AccessError: this model is no torch module.
        """
        raise AccessError(f"{self.source} gives {self.grants.text} and does not show its layers")

    def activations(self, x: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """What the named layers give; adapters that grant MODULE override this and `layers`.

        Args:
            x: (n, *shape), checked against the domain.
            layers: names that `layers` lists.

        Returns:
            (n, *shape of the layer) float32 by name.

        Raises:
            AccessError: this model is no torch module.
            ParameterError: there is no such layer.
        """
        raise AccessError(f"{self.source} gives {self.grants.text} and does not show its layers")

    def weight_gram(self, x: np.ndarray, loss: Loss) -> np.ndarray:
        """Inner products of the gradients by all weights at any two inputs; adapters that grant MODULE override this.

        Args:
            x: (n, *shape), checked against the domain.
            loss: maps (n, C) logits to (n,) losses in torch; it is called once on each batch, in the order of `x`.

        Returns:
            (n, n) float64, symmetric. The gradients themselves, n times as many numbers as weights, are never all held.

        Raises:
            AccessError: this model is no torch module.
            ParameterError: it has no weights, or gives no gradient by them.
        """
        raise AccessError(f"{self.source} gives {self.grants.text} and no gradients by its weights")

    def weights(self) -> dict[str, np.ndarray]:
        """Named tensors; adapters that grant WEIGHTS override this.

        Raises:
            AccessError: this model does not show its weights.
        """
        raise AccessError(f"{self.source} gives {self.grants.text} and does not show its weights")

    def module(self) -> torch.nn.Module:
        """The runnable torch module, un-normalised inputs in, logits out; adapters that grant MODULE override this.

        Raises:
            AccessError: this model is no torch module.
        """
        raise AccessError(f"{self.source} gives {self.grants.text} and is no torch module")

    def _run(self, x: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._forward(x))
        except LocardError:
            raise
        except Exception as error:
            raise self.failure(x, error) from error

    def failure(self, x: np.ndarray, error: Exception) -> ParameterError:
        """One line for whatever a stranger's model raised on a batch, which is most often about its inputs."""
        message = str(error).strip()
        return ParameterError(
            f"{self.source} fails on a batch of shape {x.shape} ({self.domain.text}): "
            f"{type(error).__name__}: {message.splitlines()[0] if message else 'no message'}"
        )

    def _checked(self, answers: np.ndarray, n: int) -> np.ndarray:
        """Refuse answers of the wrong shape, type or range, and bring them to one dtype."""
        if self.native is Access.LABELS:
            return self._checked_labels(answers, n)
        if answers.ndim != 2 or answers.shape[0] != n or answers.dtype.kind not in "fiu":
            raise ParameterError(
                f"{self.source} must answer numbers of shape ({n}, classes); got {answers.dtype} {answers.shape}"
            )
        if self.classes is not None and answers.shape[1] != self.classes:
            raise ParameterError(f"{self.source} answers {answers.shape[1]} numbers an input; expected {self.classes}")
        # Twice the digits are kept only where inputs have them: many a function answers float64 by accident.
        exact = self.domain.dtype == "float64" and answers.dtype == np.float64
        answers = answers.astype(np.float64 if exact else np.float32, copy=False)
        if not np.isfinite(answers).all():
            bad = int((~np.isfinite(answers)).any(axis=1).sum())
            raise ParameterError(f"{self.source} answers NaN or infinity to {bad} of {n} inputs")
        if self.native is Access.PROBABILITIES and (
            answers.min(initial=0) < -1e-4 or np.abs(answers.sum(axis=1) - 1).max(initial=0) > 1e-2
        ):
            raise ParameterError(
                f"{self.source} says it gives probabilities, but its answers are negative or do not add up to 1; "
                "say outputs='logits' if they are logits"
            )
        return answers

    def _checked_labels(self, answers: np.ndarray, n: int) -> np.ndarray:
        if answers.shape != (n,) or answers.dtype.kind not in "iub":
            raise ParameterError(
                f"{self.source} must answer whole numbers of shape ({n},); got {answers.dtype} {answers.shape}"
            )
        answers = answers.astype(np.int64, copy=False)
        if answers.min(initial=0) < 0 or (self.classes is not None and answers.max(initial=0) >= self.classes):
            most = "or above" if self.classes is None else f"to {self.classes - 1}"
            raise ParameterError(
                f"{self.source} answers labels from {answers.min()} to {answers.max()}; expected 0 {most}"
            )
        return answers


def convert(answers: np.ndarray, native: Access, rung: Access) -> np.ndarray:
    """Answers of one rung as those of a lower one: softmax, then arg max.

    Raises:
        AccessError: `rung` lies above `native`, or one of them is `VALUES` and the other not.
    """
    if native is rung or (native is Access.LOGITS and rung is Access.GRADIENTS):
        return answers
    if native not in LADDER or rung not in LADDER or LADDER.index(rung) > LADDER.index(native):
        raise AccessError(f"answers at {native.text} cannot be turned into {rung.text}")
    if rung is Access.LABELS:
        return answers.argmax(axis=1).astype(np.int64)
    shifted = np.exp(answers - answers.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


class Adapter(abc.ABC):
    """Abstract: how one kind of source becomes a `Model`. One adapter a file, entered in `adapters`."""

    @classmethod
    @abc.abstractmethod
    def recognises(cls, source: Any) -> bool:
        """Whether this adapter reads that source (a path, a URL, an object), judged without running or loading it."""

    @classmethod
    @abc.abstractmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """The model.

        Args:
            source: what `recognises` said yes to.
            like: the domain to assume where the source does not say its own.
            trust: whether files whose reading can run code may be read.
            **options: the adapter's own (domain, outputs, mean, std, batch_size, ...).
        """


adapters: Registry[Adapter] = Registry("model adapter", "locard.models", "locard.adapters")
