"""Views: what a scheme is handed of a model, with the methods its access allows and no others.

A view stops mistakes, not malice inside one process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import AccessError
from locard.models.session import Session, ViewParameters
from locard.records import Access, Domain, Lineage

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import torch

    from locard.models.base import Loss, Model


class View:
    """What every view tells of its model, at no cost."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def domain(self) -> Domain:
        """What the inputs are."""
        return self._session.model.domain

    @property
    def classes(self) -> int | None:
        """Number of classes, or None."""
        return self._session.model.classes

    @property
    def digest(self) -> str:
        """The model's identity."""
        return self._session.model.digest

    @property
    def asked(self) -> int:
        """Distinct queries that the model has answered through this view so far."""
        return self._session.asked

    @property
    def from_journal(self) -> int:
        """Answers that were known already instead, from the journal or from earlier questions."""
        return self._session.from_journal

    @property
    def source(self) -> str:
        """Where the model was read from, for people."""
        return self._session.model.source

    @property
    def lineage(self) -> Lineage:
        """What is known of the model's making."""
        return self._session.model.lineage

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"


class LabelView(View):
    """Access LABELS."""

    __slots__ = ()

    def labels(self, x: np.ndarray) -> np.ndarray:
        """Most likely class of each input.

        Args:
            x: (n, *shape), as the domain says.

        Returns:
            (n,) int64 in [0, classes).

        Cost: n queries, less those answered before.
        """
        return self._session.answer(x, Access.LABELS)


class ProbabilityView(LabelView):
    """Access PROBABILITIES."""

    __slots__ = ()

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities: (n, classes) floats, rows that add up to 1 unless the view cuts or rounds them."""
        return self._session.answer(x, Access.PROBABILITIES)


class LogitView(ProbabilityView):
    """Access LOGITS."""

    __slots__ = ()

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Class scores before the softmax: (n, classes) float32, or float64 where the domain's inputs are."""
        return self._session.answer(x, Access.LOGITS)


class GradientView(LogitView):
    """Access GRADIENTS."""

    __slots__ = ()

    def input_gradient(self, x: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and the gradient of a per-input loss by the input.

        Args:
            x: (n, *shape) float32, as the domain says.
            loss: maps (n, classes) logits to (n,) losses, or to (n, k) of them, in torch.

        Returns:
            (n, classes) logits and (n, *shape) gradients, or (n, k, *shape), float32; k losses take one forward pass.

        Cost: n queries, never answered from the journal.
        """
        return self._session.input_gradient(x, loss)


class ValueView(View):
    """Access VALUES: answers that are no class scores."""

    __slots__ = ()

    def values(self, x: np.ndarray) -> np.ndarray:
        """Answers: (n, k) float32, or float64 where the domain's inputs are."""
        return self._session.answer(x, Access.VALUES)


class WeightView(View):
    """Access WEIGHTS: named tensors, no way to run them."""

    __slots__ = ()

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by name."""
        return self._session.model.weights()


class ModuleView(GradientView):
    """Access MODULE: the runnable torch module, with its weights and activations."""

    __slots__ = ()

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by name."""
        return self._session.model.weights()

    def module(self) -> torch.nn.Module:
        """The module: un-normalised inputs in, logits out. Calls to it are not counted."""
        return self._session.model.module()

    def layers(self) -> dict[str, tuple[int, ...]]:
        """Names of the layers in the order they run, with the shape of one input's activations."""
        return self._session.model.layers()

    def activations(self, x: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """What the named layers give: (n, *shape of the layer) float32 by name.

        Cost: n queries, never answered from the journal.
        """
        return self._session.activations(x, layers)

    def weight_gram(self, x: np.ndarray, loss: Loss) -> np.ndarray:
        """Inner products of the gradients by all weights at any two inputs.

        Args:
            x: (n, *shape), as the domain says.
            loss: maps (n, classes) logits to (n,) losses, in torch.

        Returns:
            (n, n) float64, symmetric.

        Cost: n queries, never answered from the journal.
        """
        return self._session.weight_gram(x, loss)


_VIEWS: dict[Access, type[View]] = {
    Access.LABELS: LabelView,
    Access.PROBABILITIES: ProbabilityView,
    Access.LOGITS: LogitView,
    Access.GRADIENTS: GradientView,
    Access.VALUES: ValueView,
    Access.WEIGHTS: WeightView,
    Access.MODULE: ModuleView,
}


def view(session: Session, access: Access) -> Any:
    """The view for one grant over a session that holds it.

    Raises:
        AccessError: the session does not hold it.
    """
    if access not in _VIEWS:
        raise AccessError(f"a view shows one grant; {access.text} is several")
    if access not in session.access.implied:
        raise AccessError(f"a view at {access.text} is asked of a session that grants {session.access.text}")
    return _VIEWS[access](session)


def restrict(
    model: Model,
    access: Access,
    *,
    budget: int | None = None,
    top_k: int | None = None,
    decimals: int | None = None,
    noise: float = 0.0,
    seed: int = 0,
    journal: str | os.PathLike[str] | None = None,
) -> Any:
    """A view of a model at one access level, with its own count and budget.

    Args:
        model: the model.
        access: one grant.
        budget: the most queries that may be sent, or None.
        top_k: keep the k largest probabilities, or None.
        decimals: round to so many decimals, or None.
        noise: standard deviation of noise on probabilities or logits.
        seed: seed of the noise.
        journal: file that keeps each answer as it arrives, so that a killed run pays for none twice; or None.

    Raises:
        AccessError: the model cannot give that access.
    """
    parameters = ViewParameters(top_k=top_k, decimals=decimals, noise=noise, seed=seed)
    return view(Session(model, access, parameters=parameters, budget=budget, journal=journal), access)
