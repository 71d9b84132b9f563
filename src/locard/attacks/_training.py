"""What the attacks share that train the stolen network on the thief's labelled data."""

from __future__ import annotations

from dataclasses import dataclass

from locard.attacks.base import Attack
from locard.models.fitting import Recipe
from locard.records import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(Attack):
    """Abstract: train on what was stolen.

    Args:
        epochs: passes over the thief's data.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    epochs: int = 3
    lr: float = 1e-3
    batch: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.recipe

    @property
    def needs(self) -> Access:
        """The module."""
        return Access.MODULE

    @property
    def needs_labels(self) -> bool:
        """They are what is learnt."""
        return True

    @property
    def recipe(self) -> Recipe:
        """Of one training."""
        return Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch)
