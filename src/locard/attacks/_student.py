"""A student of the thief's own, which learns from bought answers and never sees the victim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from locard.attacks.base import Attack, Copy, Network
from locard.errors import ParameterError, check_number
from locard.models import restrict
from locard.models.fitting import Recipe, build
from locard.models.torch_module import TorchModel
from locard.records import Access
from locard.seeds import derive

if TYPE_CHECKING:
    import torch

    from locard.attacks._answers import Bought
    from locard.models import GradientView, View
    from locard.models.session import Progress
    from locard.records import Domain


# Queries that a query set holds at most: more fit in no memory.
MOST = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractor(Attack):
    """Abstract: an attack that trains a student on bought answers.

    Probabilities are learnt with the soft cross-entropy -sum_k y_k log p_k, labels with the usual one. Counts as a
    theft within 10 points of accuracy and from 80 % agreement with the victim.

    Args:
        answers: "probabilities" or "labels".
        architecture: of the student, a name of `models.architectures`; the thief need not know the victim's.
        width: of the student, where its architecture has one; 0 for the architecture's own.
        epochs: passes over the answers in one training.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    margin: ClassVar[float] = 0.10
    fidelity: ClassVar[float] = 0.80
    less: ClassVar[dict[str, Any]] = {"answers": "labels"}
    network: ClassVar[Network] = "own"

    answers: str = "probabilities"
    architecture: str = "cnn"
    width: int = 0
    epochs: int = 10
    lr: float = 5e-3
    batch: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.answers not in ("probabilities", "labels"):
            raise ParameterError(f"answers must be 'probabilities' or 'labels'; got {self.answers!r}")
        check_number("width", self.width, low=0, whole=True)
        _ = self.recipe

    @property
    def needs(self) -> Access:
        """Labels or probabilities."""
        return Access.PROBABILITIES if self.answers == "probabilities" else Access.LABELS

    @property
    def recipe(self) -> Recipe:
        """Of one training."""
        return Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch)

    def student(self, victim: View, *, seed: int) -> torch.nn.Module:
        """An untrained student with the victim's inputs and classes; the same one for the same seed."""
        return build(
            self.architecture, self.arguments(victim), seed=derive(seed, "extraction/copy"), dtype=victim.domain.dtype
        )

    def hand_over(self, module: torch.nn.Module, victim: View, bought: Bought, epochs: int) -> Copy:
        """The trained student with its papers."""
        return Copy(module=module, architecture=self.architecture, arguments=self.arguments(victim), epochs=epochs,
                    notes=bought.notes)  # fmt: skip

    def arguments(self, victim: View) -> dict[str, Any]:
        """Of the student's architecture."""
        arguments: dict[str, Any] = {"shape": list(victim.domain.shape), "classes": victim.classes}
        return arguments | ({"width": self.width} if self.width else {})


def eyes(module: torch.nn.Module, domain: Domain) -> GradientView:
    """The student as a view, for what chooses queries by its answers and gradients; good until it is trained on."""
    return restrict(TorchModel(module, domain=domain), Access.GRADIENTS)


def ended(progress: Progress | None, done: int, wanted: int) -> None:
    """Say that all is done, where the questions ended before the trainings that were foreseen."""
    if progress is not None and done < wanted:
        progress(wanted, wanted)


def lesson(progress: Progress | None, done: int, wanted: int) -> Progress | None:
    """Progress of one training among several: `done` epochs lie behind, of `wanted` in all."""
    return None if progress is None else lambda epoch, _: progress(done + epoch, wanted)
