"""AKH, the Anna Karenina heuristic: copies repeat the victim's mistakes [1].

Queries are inputs that the victim misclassifies; the score is the share that the suspect answers as the victim does
(1 - d, where d is the paper's Hamming distance over N queries). The paper ranks models and gives no threshold; here
reference models give the p-value. A model against itself scores 1 whatever the data (one-sided error).

Independent models do share mistakes, on mislabelled and ambiguous inputs, and share more of them when they trained on
the same data; calibrate with references of both kinds.

[1] Godinot, Le Merrer, Penzo, Taïani, Trédan. Queries, Representation & Detection: The Next 100 Model Fingerprinting
Schemes. AAAI 2025. The multi-query form follows the authors' released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.queries import Sampler
from locard.queries.negative import Negative
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import QURD, Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("akh")
@dataclass(frozen=True, slots=True, kw_only=True)
class AKH(QueryScheme):
    """Agreement on the victim's mistakes. Cost: one label query each, 100 by default."""

    summary: ClassVar[str] = "agreement on inputs the victim gets wrong"
    citation: ClassVar[Citation | None] = QURD

    @property
    def sampler(self) -> Sampler:
        """The victim's mistakes."""
        return Negative()

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ."""
        return "hamming"
