"""Checks of an architecture's arguments; they come from files, so each has a limit."""

from __future__ import annotations

import math
from typing import Any

from locard.errors import ParameterError

WIDEST = 1 << 16
LARGEST_INPUT = 1 << 22


def whole(name: str, value: Any, *, low: int = 1, high: int = WIDEST) -> int:
    """A whole number in [low, high], or a `ParameterError` that names the argument."""
    if type(value) is not int or not low <= value <= high:
        raise ParameterError(f"{name} must be a whole number in [{low}, {high}]; got {value!r}")
    return value


def wholes(name: str, value: Any, *, low: int = 1, most: int = 16) -> tuple[int, ...]:
    """Up to `most` whole numbers, each at least `low`."""
    if not isinstance(value, list | tuple) or len(value) > most:
        raise ParameterError(f"{name} must be a list of at most {most} whole numbers; got {value!r}")
    return tuple(whole(f"{name}[{i}]", one, low=low) for i, one in enumerate(value))


def input_shape(value: Any) -> tuple[int, ...]:
    """The shape of one input, of at most `LARGEST_INPUT` numbers."""
    shape = wholes("shape", value, most=8)
    if not shape or math.prod(shape) > LARGEST_INPUT:
        texts = "" if shape else ": texts, which have none, take the architecture bag"
        raise ParameterError(f"shape must hold 1 to {LARGEST_INPUT:,} numbers; got {value!r}{texts}")
    return shape


def image_shape(value: Any, *, smallest: int) -> tuple[int, int, int]:
    """(channels, height, width) with sides of at least `smallest`."""
    shape = input_shape(value)
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise ParameterError(f"shape must be (channels, height, width) with sides >= {smallest}; got {value!r}")
    return shape[0], shape[1], shape[2]
