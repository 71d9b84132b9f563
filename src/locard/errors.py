"""Every error a user can meet. A message says what came, what was expected, and what to do."""

from __future__ import annotations

import difflib
import importlib
from math import inf
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class LocardError(Exception):
    """Something outside Locard is not as it must be; the command line prints it as one line and exits with 2."""


class AccessError(LocardError):
    """A scheme, view or command needs an access that was not granted or that the model cannot give."""


class BudgetError(LocardError):
    """The queries allowed are spent, or fewer than a scheme needs; answers already paid for are kept."""


class CalibrationError(LocardError):
    """A question about error rates that the reference models at hand cannot answer."""


class ArtefactError(LocardError):
    """A file is not what it should be: a fingerprint, a model or a data set that cannot be read safely."""


class ParameterError(LocardError):
    """An argument or an input has the wrong shape, type, range, name or value."""


class RemoteModelError(LocardError):
    """An endpoint does not answer, or answers what the protocol does not allow."""


class MissingExtraError(LocardError):
    """A package that belongs to an optional extra is not installed."""


def need(module: str, *, extra: str, why: str) -> ModuleType:
    """Import a package of an optional extra.

    Args:
        module: dotted name to import.
        extra: the extra of Locard that installs it.
        why: what it is needed for, as the subject of the message ("reading .pt2 files").

    Returns:
        The imported module.

    Raises:
        MissingExtraError: it is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != root:
            raise
        raise MissingExtraError(
            f"{why} needs the package {root!r}, which is not installed: pip install 'locard[{extra}]'"
        ) from error


def unknown(kind: str, name: str, known: Iterable[str]) -> ParameterError:
    """The error for a name that is not in a table, with the nearest known names."""
    names, name = sorted(known), name if len(name) <= 80 else f"{name[:77]}..."
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return ParameterError(f"unknown {kind} {name!r}; {hint}")


def check_number(
    name: str,
    value: float,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Refuse a number outside an interval, always with the same sentence.

    Args:
        name: the argument's name.
        value: what came.
        low: smallest allowed value, included.
        high: largest allowed value, included.
        above: excluded lower end.
        below: excluded upper end.
        whole: whether it is a count, which no float is.

    Raises:
        ParameterError: the value is no finite number, no whole one, or lies outside.
    """
    left = f"[{low}" if low is not None else f"({above}" if above is not None else "(-inf"
    right = f"{high}]" if high is not None else f"{below})" if below is not None else "inf)"
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < inf  # pyright: ignore[reportUnnecessaryIsInstance]
    if whole and number and not isinstance(value, int):
        raise ParameterError(f"{name} must be a whole number; got {value!r}")
    if (
        not number
        or (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
        or (below is not None and value >= below)
    ):
        raise ParameterError(f"{name} must lie in {left}, {right}; got {value!r}")
