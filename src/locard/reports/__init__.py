"""Reports: a verdict or a comparison in; terminal, JSON, or one self-contained HTML page out."""

from __future__ import annotations

from locard.reports.html import to_html
from locard.reports.json import to_json
from locard.reports.terminal import to_terminal

__all__ = ["to_html", "to_json", "to_terminal"]
