"""Data sets: named ones and readers of files; disjoint splits."""

from __future__ import annotations

from locard.data.base import Reader, read, readers
from locard.data.splits import split

__all__ = ["Reader", "read", "readers", "split"]
