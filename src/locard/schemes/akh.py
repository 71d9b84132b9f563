"""AKH, the Anna Karenina heuristic: copies repeat the victim's mistakes [1].

Queries are inputs that the victim misclassifies; the score is the share that the suspect answers as the victim does
(1 - d, where d is the paper's Hamming distance over N queries). The paper ranks models and gives no threshold; here
reference models give the p-value. A model against itself scores 1 whatever the data (one-sided error).

Independent models do share mistakes, on mislabelled and ambiguous inputs, and share more of them when they trained on
the same data; calibrate with references of both kinds. With `discount`, which is ours, a query counts for as much as
it would surprise that an independent model answers it like the victim (`Individual`); `docs/studies` measures what
that mends.

[1] Godinot, Le Merrer, Penzo, Taïani, Trédan. Queries, Representation & Detection: The Next 100 Model Fingerprinting
Schemes. AAAI 2025. The multi-query form follows the authors' released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.errors import ArtefactError
from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.individual import Individual
from locard.queries.negative import Negative
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import QURD, Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("akh")
@dataclass(frozen=True, slots=True, kw_only=True)
class AKH(QueryScheme):
    """Agreement on the victim's mistakes. Cost: one label query each, 100 by default.

    Args:
        discount: whether mistakes that independent models make too count for less; needs a population.
    """

    summary: ClassVar[str] = "agreement on inputs the victim gets wrong"
    citation: ClassVar[Citation | None] = QURD

    discount: bool = False

    @property
    def sampler(self) -> Sampler:
        """The victim's mistakes."""
        return Individual() if self.discount else Negative()

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ."""
        return "hamming"

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Share of labels that agree, by weight where the queries have weights; in [0, 1]."""
        agree = self.agreement(fp1, fp2)
        if agree is None:
            raise ArtefactError(
                f"two records of akh must hold labels; got {sorted(fp1.record)} and {sorted(fp2.record)}"
            )
        if not self.discount:
            return float(agree.mean())
        weights = fp1.queries.get("weights")
        if weights is None or weights.shape != agree.shape or weights.dtype.kind != "f" or not (weights > 0).all():
            raise ArtefactError(
                "akh with discount=true needs a positive weight for each query; take the fingerprint anew"
            )
        return float(1 - weights[~agree].sum() / weights.sum())
