"""Locard: was this model derived from that one? Model fingerprinting, with error rates."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locard.engine import calibrate, compare, extract, respond, verify
    from locard.fingerprint import Fingerprint
    from locard.models import load
    from locard.records import Access, Domain

__version__ = "0.1.0"
__all__ = ["Access", "Domain", "Fingerprint", "calibrate", "compare", "extract", "load", "respond", "verify"]

_HOME = {
    "Access": "locard.records",
    "Domain": "locard.records",
    "Fingerprint": "locard.fingerprint",
    "calibrate": "locard.engine",
    "compare": "locard.engine",
    "extract": "locard.engine",
    "load": "locard.models",
    "respond": "locard.engine",
    "verify": "locard.engine",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `import locard` costs nothing that its user does not ask for.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'locard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
