"""Distillation: a student of the thief's own is trained on the victim's softened answers and on true labels [1].

The loss is alpha T^2 KL(victim_T || student_T) + (1 - alpha) CE(labels, student), softmaxes at temperature T in the
divergence; T^2 keeps the two gradients on one scale. Probabilities are all it takes: log p are the logits but for a
constant in each row, which no softmax sees, so softmax(log p / T) is the victim's answer at temperature T.
Probabilities that an API cut to 0 stay there. Every input of the thief is asked once, before training.

With `features` the student also learns the victim's penultimate activations, in the manner of [2]: a linear map,
trained along and thrown away, leads from the student's to the victim's, which are scaled to a mean square of 1, and the
mean squared difference is added to the loss. [2] fits a middle layer first and distils afterwards; here both happen at
once, on the last layer but one, which every architecture has. Counts as a theft within 5 points of accuracy.

[1] Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. arXiv 1503.02531. [2] Romero, Ballas, Kahou,
Chassang, Gatta, Bengio. FitNets: Hints for Thin Deep Nets. ICLR 2015. The texts were not at hand; written from what is
commonly known of both, the defaults for T and alpha too.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.attacks._answers import Answers
from locard.attacks._head import before_head, head
from locard.attacks.base import Attack, Copy, Network, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import Recipe, build, fit, reproducible
from locard.models.torch_module import device_of, evaluating
from locard.records import Access, Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    import torch
    from torch import nn

    from locard.models import View
    from locard.models.session import Progress

_BATCH = 64


@attacks.register("distil")
@dataclass(frozen=True, slots=True, kw_only=True)
class Distil(Attack):
    """Train a student on the victim's softened answers, perhaps on its features too.

    Args:
        temperature: T, above 0; the higher, the more the small probabilities count.
        alpha: share of the victim's answers in the loss, in [0, 1]; true labels have the rest, and 1 needs none.
        features: weight of the difference of the penultimate activations; 0 asks for no more than probabilities, any
            other needs the module, whose last layer must be dense, as the student's must.
        architecture: of the student, a name of `models.architectures`; "" for the victim's, where its papers say it.
        width: of the student, where its architecture has one; 0 for the architecture's own.
        epochs: passes over the answers.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    name: ClassVar[str] = "distil"
    margin: ClassVar[float] = 0.05
    less: ClassVar[dict[str, Any]] = {"features": 0}
    network: ClassVar[Network] = "own"

    temperature: float = 4.0
    alpha: float = 0.9
    features: float = 0.0
    architecture: str = ""
    width: int = 0
    epochs: int = 10
    lr: float = 5e-3
    batch: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("temperature", self.temperature, above=0, high=1e6)
        check_number("alpha", self.alpha, low=0, high=1)
        check_number("features", self.features, low=0)
        check_number("width", self.width, low=0, whole=True)
        self._recipe()

    @property
    def needs(self) -> Access:
        """Probabilities; the module, where features are matched."""
        return Access.MODULE if self.features else Access.PROBABILITIES

    @property
    def needs_labels(self) -> bool:
        """Unless the victim's answers are all of the loss."""
        return self.alpha < 1

    def _recipe(self) -> Recipe:
        return Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch)

    def _steal(self, victim: Any, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        import torch
        from torch import nn

        if self.features and victim.domain.kind == "text":
            raise ParameterError(f"features are matched for numbers; {victim.source} takes texts: give features=0")
        student, architecture, arguments = self._student(victim, seed)
        classes = arguments["classes"]
        # In random order, so that a budget that ends early leaves no class out.
        data = data.take(generator(seed, "distil/order").permutation(len(data)))
        answers = Answers(victim, Access.PROBABILITIES, most=len(data))
        given = answers.ask(data.inputs)
        inputs, taught = data.inputs[: len(given)], torch.from_numpy(softened(given, self.temperature))
        labels = None if data.labels is None or self.alpha == 1 else torch.from_numpy(data.labels[: len(given)])
        trained, bridge, hints = student, nn.Identity(), None
        if self.features:
            hints = penultimate(victim.module(), inputs, classes)
            with reproducible(derive(seed, "distil/bridge")):
                bridge = nn.Linear(head(student, classes)[1].in_features, hints.shape[1]).to(hints)
            trained = nn.ModuleList([student, bridge])

        def objective(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            logits = student(x)
            loss = self.alpha * divergence(logits, taught[rows], self.temperature)
            if labels is not None:
                loss = loss + (1 - self.alpha) * nn.functional.cross_entropy(logits, labels[rows])
            if hints is not None:
                loss = loss + self.features * nn.functional.mse_loss(bridge(seen.pop()), hints[rows])
            return loss

        with before_head(student, classes) if self.features else nullcontext([]) as seen:
            fit(trained, inputs, given, recipe=self._recipe(), seed=seed, objective=objective, progress=progress)
        return Copy(module=student, architecture=architecture, arguments=arguments, epochs=self.epochs,
                    notes=answers.notes)  # fmt: skip

    def _student(self, victim: View, seed: int) -> tuple[nn.Module, str, dict[str, Any]]:
        architecture = self.architecture or victim.lineage.architecture
        if architecture is None:
            raise ParameterError(
                f"{victim.source} does not say its architecture, which the student's would be: name one, "
                "such as --param architecture=cnn"
            )
        arguments: dict[str, Any] = {"shape": list(victim.domain.shape), "classes": victim.classes}
        if self.width:
            arguments["width"] = self.width
        return (
            build(architecture, arguments, seed=derive(seed, "distil/student"), dtype=victim.domain.dtype),
            architecture,
            arguments,
        )


def softened(answers: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / T), which is p^(1 / T) brought to sum 1.

    Args:
        answers: (n, classes) probabilities; a row of zeros stays one and teaches nothing.
        temperature: T.

    Returns:
        (n, classes) float32.
    """
    # The largest of each row first: of low temperatures the powers alone would all be too small to tell.
    largest = np.maximum(answers.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    powers = (answers / largest).astype(np.float64) ** (1 / temperature)
    return (powers / np.maximum(powers.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def divergence(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(taught || softmax(logits / T)), the mean over the rows.

    Args:
        logits: (n, classes), the student's.
        taught: (n, classes), the victim's probabilities at temperature T.
        temperature: T.
    """
    from torch.nn import functional

    own = functional.log_softmax(logits / temperature, dim=1)
    return temperature**2 * functional.kl_div(own, taught, reduction="batchmean")


def penultimate(module: nn.Module, inputs: np.ndarray, classes: int) -> torch.Tensor:
    """(n, width): what the last layer is given, at a mean square of 1; the module is left as it is."""
    import torch

    with evaluating(module), torch.no_grad(), before_head(module, classes) as seen:
        for start in range(0, len(inputs), _BATCH):
            module(torch.from_numpy(inputs[start : start + _BATCH].copy()).to(device_of(module)))
    hints = torch.cat(seen).cpu()
    return hints / hints.square().mean().sqrt().clamp_min(1e-12)
