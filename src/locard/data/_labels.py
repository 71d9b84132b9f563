"""Labels as files have them: whole numbers stay, names are numbered in sorted order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locard.errors import ArtefactError

_TOP = 2**31


def from_words(words: Sequence[str], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices from text.

    Args:
        words: one an input. If all are whole numbers ("3", "3.0") they are the indices; if not all are numbers, they
            are names.
        name: what holds them, for messages.

    Returns:
        (n,) int64, and the names in the order of their indices; () for numbers.

    Raises:
        ArtefactError: an empty label, a number that is not whole, negative or too large; the row is named.
    """
    for row, word in enumerate(words, 1):
        if not word.strip():
            raise ArtefactError(f"{name!r}, row {row}: the label is empty; fill it, or leave the row out")
    try:
        # float() would read the name "1_2" as 12.
        numbers = np.array([float(word) if "_" not in word else float("no number") for word in words])
    except ValueError:
        return from_names(words)
    return from_numbers(numbers, name), ()


def from_names(words: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Indices of names in their sorted order, and that order."""
    classes = tuple(sorted(set(words)))
    index = {word: number for number, word in enumerate(classes)}
    return np.fromiter((index[word] for word in words), np.int64, len(words)), classes


def from_numbers(numbers: np.ndarray, name: str) -> np.ndarray:
    """Numbers as (n,) int64 class indices.

    Raises:
        ArtefactError: one is not whole, negative or too large; its row is named.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~((numbers >= 0) & (numbers < _TOP) & (numbers == np.floor(numbers)))
    if wrong.any():
        row = int(wrong.argmax())
        raise ArtefactError(
            f"{name!r}, row {row + 1}: {numbers[row]:g} is no label; expected names, or whole numbers from 0 on"
        )
    return numbers.astype(np.int64)
