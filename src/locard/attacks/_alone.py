"""What the attacks share that take the stolen network and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from locard.attacks.base import Attack
from locard.records import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone(Attack):
    """Abstract: the module is all it takes."""

    @property
    def needs(self) -> Access:
        """The module."""
        return Access.MODULE

    @property
    def needs_data(self) -> bool:
        """None."""
        return False
