"""How a broken law is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from locard.errors import LocardError


class ConformanceError(AssertionError):
    """A law of the conformance suite does not hold."""


def law(holds: object, message: str) -> None:
    """Raise a `ConformanceError` with that message unless the law holds."""
    if not holds:
        raise ConformanceError(message)


@contextmanager
def refused(kind: type[LocardError], what: str, *words: str) -> Iterator[None]:
    """The body must raise that error, on one line, with those words in its message."""
    try:
        yield
    except kind as error:
        text = str(error)
        law("\n" not in text and text, f"{what}: the message must be one line; got {text!r}")
        for word in words:
            law(word in text, f"{what}: the message must name {word!r}; got {text!r}")
    else:
        raise ConformanceError(f"{what}: {kind.__name__} expected, nothing raised")
