"""The engine: extract, respond, calibrate, verify, compare. It hands out views, keeps the journal, plans one pass."""

from __future__ import annotations

from locard.engine.calibrate import calibrate
from locard.engine.compare import compare
from locard.engine.extract import extract
from locard.engine.lineage import compare_weights
from locard.engine.respond import respond
from locard.engine.verify import verify

__all__ = ["calibrate", "compare", "compare_weights", "extract", "respond", "verify"]
