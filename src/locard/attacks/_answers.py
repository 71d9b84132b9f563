"""A victim's answers, bought until the thief's budget ends: what every extraction through an API stands on."""

from __future__ import annotations

from typing import Any

import numpy as np

from locard.errors import BudgetError
from locard.records import Access

_CHUNK = 256


class Answers:
    """Answers of one victim to one thief.

    Args:
        victim: a view that gives them.
        access: LABELS or PROBABILITIES.
        most: the most inputs that the thief means to ask.

    Attributes:
        spent: what the view said when its budget ended, or None; once it has ended, nothing more is asked.
    """

    def __init__(self, victim: Any, access: Access, *, most: int) -> None:
        self._ask = victim.probabilities if access is Access.PROBABILITIES else victim.labels
        self._soft, self._classes = access is Access.PROBABILITIES, victim.classes or 0
        self._most, self._given = most, 0
        self.spent: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """A note where the budget ended early."""
        if self.spent is None:
            return ()
        return (f"{self._given:,} of {self._most:,} queries were answered: {self.spent}",)

    def ask(self, inputs: np.ndarray) -> np.ndarray:
        """The answers to the first m of n inputs, m < n where the budget ends there.

        Args:
            inputs: (n, *shape) in the victim's domain.

        Returns:
            (m,) int64 labels, or (m, classes) float32 that sum to 1 in each row.

        Raises:
            BudgetError: it ended before the first answer that this thief ever had.
        """
        parts: list[np.ndarray] = []
        try:
            for start in range(0, len(inputs), _CHUNK):
                chunk = inputs[start : start + _CHUNK]
                try:
                    parts.append(self._ask(chunk))
                except BudgetError:
                    # What was paid for before the budget ended is kept by the view, and free to ask again one by one.
                    for row in range(len(chunk)):
                        parts.append(self._ask(chunk[row : row + 1]))
        except BudgetError as spent:
            if not parts and not self._given:
                raise
            self.spent = str(spent)
        if not parts:
            return np.empty((0, self._classes), np.float32) if self._soft else np.empty(0, np.int64)
        answers = np.concatenate(parts)
        self._given += len(answers)
        if not self._soft:
            return answers
        # An API may round, cut to the largest few, or add noise; what is left is brought back to a distribution.
        answers = np.clip(answers, 0, None)
        # Where all was rounded away, nothing is known.
        answers[answers.sum(axis=1) == 0] = 1
        return (answers / answers.sum(axis=1, keepdims=True)).astype(np.float32)


class Bought:
    """What a thief has: the inputs it asked, each once, and the victim's answers to them.

    Args:
        victim: a view that gives answers.
        access: LABELS or PROBABILITIES.
        most: the most inputs to ask.
    """

    def __init__(self, victim: Any, access: Access, *, most: int) -> None:
        self._answers, self._most = Answers(victim, access, most=most), most
        self._asked: set[bytes | str] = set()
        self._inputs: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []

    def __len__(self) -> int:
        """The number of answers."""
        return len(self._asked)

    @property
    def inputs(self) -> np.ndarray:
        """(n, *shape), in the order they were asked."""
        return np.concatenate(self._inputs)

    @property
    def targets(self) -> np.ndarray:
        """(n,) int64 labels, or (n, classes) float32 probabilities."""
        return np.concatenate(self._targets)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, the likeliest class of each answer."""
        targets = self.targets
        return targets if targets.ndim == 1 else targets.argmax(axis=1)

    @property
    def left(self) -> int:
        """How many more may be asked; 0 once the victim's budget has ended."""
        return 0 if self._answers.spent is not None else self._most - len(self)

    @property
    def notes(self) -> tuple[str, ...]:
        """A note where the budget ended early."""
        return self._answers.notes

    def new(self, inputs: np.ndarray) -> np.ndarray:
        """Row numbers, ascending, of the inputs that were not asked and are not like one before them."""
        first: dict[bytes | str, int] = {}
        for row, one in enumerate(inputs):
            first.setdefault(_key(one), row)
        return np.array([row for key, row in first.items() if key not in self._asked], np.int64)

    def ask(self, inputs: np.ndarray) -> int:
        """Buy answers to the `new` ones among some delivered inputs, as far as they may be asked.

        Returns:
            How many were bought: the first of the new ones.

        Raises:
            BudgetError: the victim's budget ended before the first answer.
        """
        inputs = inputs[self.new(inputs)[: self.left]]
        if len(inputs) == 0:
            return 0
        answers = self._answers.ask(inputs)
        inputs = inputs[: len(answers)]
        self._asked.update(map(_key, inputs))
        self._inputs.append(inputs)
        self._targets.append(answers)
        return len(answers)


def _key(one: np.ndarray | str) -> bytes | str:
    """What tells one input from another."""
    return one if isinstance(one, str) else one.tobytes()
