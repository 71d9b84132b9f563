"""IrisFP: composite points where all classes meet, each judged by its own threshold [1].

A unit matches if the share of its points that the suspect labels as the victim does reaches the unit's threshold; the
score is the share of matching units. `Iris` says what is reconstructed, for the paper's text was not at hand. It
compares the score with one more threshold; here reference models give the p-value, and they must be others than those
of the population.

[1] Geng, Yang, Chen, Luo. IrisFP: Adversarial-Example-based Model Fingerprinting with Enhanced Uniqueness and
Robustness. CVPR 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from locard.errors import ArtefactError
from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.base import unit_means
from locard.queries.iris import Iris
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("irisfp")
@dataclass(frozen=True, slots=True, kw_only=True)
class IrisFP(QueryScheme):
    """Agreement on points where all classes meet. Cost: one label query a point; 40 units of 5 by default.

    Args:
        lift: how far the chosen class is raised above 1 / C.
        variants: points of a unit beside the first.
        candidates: units that are tried for each one kept.
        sparsity: weight of the change.
        lr: Adam's step, as a share of the domain's range.
        steps: how many.
    """

    summary: ClassVar[str] = "agreement on composite points where all classes meet"
    citation: ClassVar[Citation | None] = Citation(
        key="geng2026irisfp",
        authors="Ziye Geng and Guang Yang and Yihang Chen and Changqing Luo",
        title="IrisFP: Adversarial-Example-based Model Fingerprinting with Enhanced Uniqueness and Robustness",
        venue="CVPR",
        year=2026,
        eprint="2603.24996",
    )

    lift: float = 0.2
    variants: int = 4
    candidates: int = 3
    sparsity: float = 0.1
    lr: float = 0.01
    steps: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Composite points."""
        return Iris(lift=self.lift, variants=self.variants, candidates=self.candidates, sparsity=self.sparsity,
                    lr=self.lr, steps=self.steps)  # fmt: skip

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ, within a unit."""
        return "hamming"

    @property
    def statistic(self) -> str:
        """Share of units that match."""
        return "share of matching units"

    @property
    def default_queries(self) -> int:
        """Forty units, 200 queries, as the paper's budget."""
        return 40 * (self.variants + 1)

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Share of units whose labels agree as often as their threshold says, in [0, 1].

        Raises:
            ArtefactError: units or thresholds are not as they must be.
        """
        shares = unit_means(fp1.queries, self.agreement(fp1, fp2), size=self.variants + 1)
        limits = fp1.queries.get("thresholds")
        if limits is None or limits.shape != shares.shape or limits.dtype.kind != "f" or not (limits <= 1).all():
            raise ArtefactError(f"irisfp needs a threshold of at most 1 for each of {len(shares)} units")
        return float(np.mean(shares >= limits))
