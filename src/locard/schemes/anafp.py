"""AnaFP: points just so far beyond a boundary that copies have crossed it too and other models have not [1].

The score is the matching rate. The paper's text was not at hand; `Anchored` says what is reconstructed. It compares the
rate with a threshold; here reference models give the p-value, and they must be others than those of the population.

[1] Yang, Geng, Chen, Luo. Fingerprinting Deep Neural Networks for Ownership Protection: An Analytical Approach. ICLR
2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.queries import Sampler
from locard.queries.anchored import Anchored
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("anafp")
@dataclass(frozen=True, slots=True, kw_only=True)
class AnaFP(QueryScheme):
    """Agreement at a chosen depth beyond the nearest boundary. Cost: one label query each, 100 by default.

    Args:
        anchor: only inputs with a margin above this quantile of all margins are anchors.
        cover: share of the population that the bounds are to hold for, at first.
        candidates: anchors that are tried for each query.
    """

    summary: ClassVar[str] = "agreement on points stretched beyond the nearest boundary between two bounds"
    citation: ClassVar[Citation | None] = Citation(
        key="yang2026anafp",
        authors="Guang Yang and Ziye Geng and Yihang Chen and Changqing Luo",
        title="Fingerprinting Deep Neural Networks for Ownership Protection: An Analytical Approach",
        venue="ICLR",
        year=2026,
        eprint="2603.21411",
    )

    anchor: float = 0.5
    cover: float = 0.9
    candidates: int = 10

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Anchored points."""
        return Anchored(anchor=self.anchor, cover=self.cover, candidates=self.candidates)

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ."""
        return "hamming"
