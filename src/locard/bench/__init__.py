"""Every scheme against every theft: pairs asked once, records that survive, and what they say with its error."""

from __future__ import annotations

from locard.bench.metrics import p_values
from locard.bench.records import Records, Row
from locard.bench.summary import Summary, summarise

__all__ = ["Records", "Row", "Summary", "p_values", "summarise"]
