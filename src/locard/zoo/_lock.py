"""A folder that one process at a time may write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Wait until no other process holds the folder, and hold it; made if it is not there.

    The kernel lets go when a process ends, however it ends. Where there is no such lock (Windows, some network file
    systems) nothing is held, and two builds must not share a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
