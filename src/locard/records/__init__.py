"""The plain records that travel between rooms. NumPy only, no behaviour beyond checking themselves."""

from __future__ import annotations

from locard.records.access import LADDER, Access
from locard.records.inputs import Data, Domain, Kind, digest_arrays
from locard.records.lineage import Lineage
from locard.records.verdict import (
    FLAGGED,
    Calibration,
    Claim,
    Comparison,
    Cost,
    Decision,
    Evidence,
    Exhibit,
    Notice,
    Null,
    Party,
    Power,
    Reference,
    Verdict,
)
from locard.records.weights import BlockFinding, Extent, Findings, WeightsVerdict

__all__ = [
    "FLAGGED",
    "LADDER",
    "Access",
    "BlockFinding",
    "Calibration",
    "Claim",
    "Comparison",
    "Cost",
    "Data",
    "Decision",
    "Domain",
    "Evidence",
    "Exhibit",
    "Extent",
    "Findings",
    "Kind",
    "Lineage",
    "Notice",
    "Null",
    "Party",
    "Power",
    "Reference",
    "Verdict",
    "WeightsVerdict",
    "digest_arrays",
]
