"""Extraction through an API: a model of the thief's own is trained on the victim's answers [1].

The thief asks its own inputs, and then convex mixtures of random pairs of them, so that few inputs make a large query
set (the paper asks unrelated images instead; mixtures lie near the data, and every one of them is a query that counts).
Probabilities are learnt with the soft cross-entropy -sum_k y_k log p_k, labels with the usual one. The victim is asked
once, before training. Counts as a theft within 10 points of accuracy and from 80 % agreement with the victim.

[1] Orekondy, Schiele, Fritz. Knockoff Nets: Stealing Functionality of Black-Box Models. CVPR 2019, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.attacks._answers import Answers
from locard.attacks.base import Attack, Copy, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import Recipe, build, fit
from locard.records import Access, Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    from locard.models import LabelView
    from locard.models.session import Progress


@attacks.register("extraction")
@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction(Attack):
    """Train a copy on the victim's answers.

    Args:
        answers: "probabilities" or "labels".
        architecture: of the copy, a name of `models.architectures`; the thief need not know the victim's.
        width: of the copy, where its architecture has one; 0 for the architecture's own.
        queries: the most inputs to ask; 0 for the thief's own inputs and no mixtures.
        epochs: passes over the answers.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    name: ClassVar[str] = "extraction"
    margin: ClassVar[float] = 0.10
    fidelity: ClassVar[float] = 0.80

    answers: str = "probabilities"
    architecture: str = "cnn"
    width: int = 0
    queries: int = 0
    epochs: int = 10
    lr: float = 5e-3
    batch: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.answers not in ("probabilities", "labels"):
            raise ParameterError(f"answers must be 'probabilities' or 'labels'; got {self.answers!r}")
        check_number("width", self.width, low=0)
        check_number("queries", self.queries, low=0)
        self._recipe()

    @property
    def needs(self) -> Access:
        """Labels or probabilities."""
        return Access.PROBABILITIES if self.answers == "probabilities" else Access.LABELS

    def _recipe(self) -> Recipe:
        return Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch)

    def _steal(self, victim: LabelView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        if victim.classes is None:
            raise ParameterError(f"{victim.source} does not say how many classes it has; extraction needs to know")
        inputs = query_set(data, self.queries or len(data), seed=seed)
        answers = Answers(victim, self.needs)
        targets = answers.ask(inputs)
        arguments: dict[str, Any] = {"shape": list(victim.domain.shape), "classes": victim.classes}
        if self.width:
            arguments["width"] = self.width
        module = build(self.architecture, arguments, seed=derive(seed, "extraction/copy"))
        fit(module, inputs[: len(targets)], targets, recipe=self._recipe(), seed=seed, progress=progress)
        return Copy(module=module, architecture=self.architecture, arguments=arguments, epochs=self.epochs,
                    notes=answers.notes)  # fmt: skip


def query_set(data: Data, n: int, *, seed: int) -> np.ndarray:
    """Up to `n` distinct inputs: the thief's own in random order, then mixtures u * a + (1 - u) * b of random pairs.

    Args:
        data: the thief's inputs.
        n: how many to ask; the thief's own come first.
        seed: of order, pairs and shares.

    Returns:
        (m, *shape) as the victim's domain takes them, m <= n: delivered mixtures that coincide are asked once.

    Raises:
        ParameterError: the inputs are no real numbers, so there are no mixtures of them.
    """
    if data.domain.kind not in ("image", "tabular") or data.inputs.dtype.kind != "f":
        raise ParameterError(f"extraction asks images or tables of real numbers; {data.name} holds {data.domain.text}")
    source = generator(seed, "extraction/queries")
    own = data.inputs[source.permutation(len(data))[:n]]
    more = n - len(own)
    if more > 0:
        pairs = source.integers(0, len(own), (2, more))
        shares = source.random((more, *[1] * len(data.domain.shape)))
        mixed = shares * own[pairs[0]] + (1 - shares) * own[pairs[1]]
        own = np.concatenate([own, mixed.astype(own.dtype)])
    asked = data.domain.deliver(own)
    _, first = np.unique(asked.reshape(len(asked), -1), axis=0, return_index=True)
    return asked[np.sort(first)]
