"""The thief's side: one file for each way to steal or derive a model."""

from __future__ import annotations

from locard.attacks.base import Acceptance, Attack, Copy, Effort, Stolen, accept, attacks, bare, build

__all__ = ["Acceptance", "Attack", "Copy", "Effort", "Stolen", "accept", "attacks", "bare", "build"]
