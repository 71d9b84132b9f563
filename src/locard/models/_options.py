"""Checks of what a caller, or a file that describes a model, says about it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from locard.errors import ParameterError, unknown
from locard.records import Domain


def refuse_unknown(options: Iterable[str], known: Iterable[str], *, of: str) -> None:
    """A `ParameterError` for the first option that is not known, with the nearest known ones."""
    for name in options:
        if name not in known:
            raise unknown(f"option of {of}", name, known)


def batch_rows(value: Any) -> int:
    """A batch size, or a `ParameterError`."""
    if type(value) is not int or value < 1:
        raise ParameterError(f"batch_size must be a whole number >= 1; got {value!r}")
    return value


def path_with_suffix(source: Any, suffix: str) -> bool:
    """Whether a source is a path, and no URL, that ends in this suffix in any case."""
    if not isinstance(source, str | os.PathLike):
        return False
    path = os.fspath(source)
    return isinstance(path, str) and path.lower().endswith(suffix) and "://" not in path


def adopt(own: Domain, like: Domain | None) -> Domain:
    """The domain of a source that knows shape and dtype of its inputs and no more, in the light of the one expected.

    Args:
        own: what the source says.
        like: the domain to assume where the shapes agree; its kind, bounds, quantum and columns are kept.

    Returns:
        `like` in the source's dtype, or `own` where the two cannot be the same inputs.
    """
    if like is None or like.shape != own.shape or np.dtype(like.dtype).kind != np.dtype(own.dtype).kind:
        return own
    return replace(like, dtype=own.dtype)
