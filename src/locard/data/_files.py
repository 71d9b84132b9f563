"""Bounds on what a stranger's file may make a reader allocate."""

from __future__ import annotations

from pathlib import Path

from locard.errors import ArtefactError

MAX_FILE = 2 << 30
MAX_VALUES = 1 << 30


def check_file(path: Path, *, limit: int = MAX_FILE) -> None:
    """Refuse what is no file, or a larger one than `limit` bytes.

    Raises:
        ArtefactError: missing, a folder or a device, too large, or not to be looked at.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ArtefactError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not path.is_file():
        raise ArtefactError(f"{str(path)!r} is not a file")
    if size > limit:
        raise ArtefactError(f"{str(path)!r} has {size:,} bytes; at most {limit:,} are read: give a part of the data")


def check_values(name: str, count: int) -> None:
    """Refuse to make more than `MAX_VALUES` numbers (4 GiB as float32).

    Raises:
        ArtefactError: more.
    """
    if count > MAX_VALUES:
        raise ArtefactError(
            f"{name!r} holds {count:,} numbers; at most {MAX_VALUES:,} are read: give a part of the data"
        )
