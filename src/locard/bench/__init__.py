"""Every scheme against every theft: pairs asked once, records that survive, and what they say with its error."""

from __future__ import annotations

from locard.bench.records import Records, Row

__all__ = ["Records", "Row"]
