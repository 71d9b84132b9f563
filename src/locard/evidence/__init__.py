"""Evidence: from scores to p-values, power and combined verdicts. NumPy and SciPy on plain numbers."""

from __future__ import annotations

from locard.evidence.combine import Combined, bonferroni, combine, conformal_rank
from locard.evidence.conformal import STRATA, p_value, stratified
from locard.evidence.identity import unchanged
from locard.evidence.metrics import auroc
from locard.evidence.power import clopper_pearson, power

__all__ = [
    "STRATA",
    "Combined",
    "auroc",
    "bonferroni",
    "clopper_pearson",
    "combine",
    "conformal_rank",
    "p_value",
    "power",
    "stratified",
    "unchanged",
]
