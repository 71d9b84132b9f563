"""Evidence: from scores to p-values, power and combined verdicts. NumPy and SciPy on plain numbers."""

from __future__ import annotations

from locard.evidence.combine import Combined, bonferroni, combine, conformal_rank
from locard.evidence.conformal import STRATA, p_value, p_values, stratified
from locard.evidence.identity import unchanged
from locard.evidence.metrics import aruc, auroc, tpr_at_fpr
from locard.evidence.power import clopper_pearson, power

__all__ = [
    "STRATA",
    "Combined",
    "aruc",
    "auroc",
    "bonferroni",
    "clopper_pearson",
    "combine",
    "conformal_rank",
    "p_value",
    "p_values",
    "power",
    "stratified",
    "tpr_at_fpr",
    "unchanged",
]
