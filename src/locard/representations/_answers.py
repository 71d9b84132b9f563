"""The option `answers` of the representations that take any kind of scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from locard.errors import unknown
from locard.records import Access

ANSWERS = {"logits": Access.LOGITS, "probabilities": Access.PROBABILITIES, "values": Access.VALUES,
           "labels": Access.LABELS}  # fmt: skip
SCORES = ("probabilities", "logits", "values")


def access(answers: str) -> Access:
    """The grant that answers of that kind need."""
    return ANSWERS[answers]


def check(answers: str, allowed: tuple[str, ...] = SCORES) -> None:
    """Refuse a kind of answers that a representation does not take.

    Raises:
        ParameterError: it names the nearest.
    """
    if answers not in allowed:
        raise unknown("kind of answers", answers, allowed)


def ask(view: Any, answers: str, x: np.ndarray) -> np.ndarray:
    """A view's answers of that kind: (n, k) float32, or (n,) int64 labels."""
    return getattr(view, answers)(x)
