"""DeepFool fingerprint: pairs that bracket the victim's nearest boundaries, which a copy leaves in place [1].

A pair matches if the suspect gives both of its points the victim's labels; the score is the share of pairs that match.
The points stand so near to the boundary that any change of the model may move it past them: expect exact and quantised
copies to match and more heavily changed ones not to. Here reference models give the p-value.

[1] Wang, Chang. Fingerprinting Deep Neural Networks - a DeepFool Approach. ISCAS 2021. There is no official code and
the paper's text was not at hand; `locard.queries.deepfool` says what is reconstructed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.base import unit_means
from locard.queries.deepfool import DeepFool
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("deepfool")
@dataclass(frozen=True, slots=True, kw_only=True)
class DeepFoolFingerprint(QueryScheme):
    """Agreement on both sides of the nearest boundaries. Cost: one label query a point; 100 pairs by default.

    Args:
        overshoot: how far from the boundary a pair stands, as a share of the way to it.
        steps: the most steps of DeepFool.
    """

    summary: ClassVar[str] = "agreement on pairs that bracket the victim's nearest boundaries"
    citation: ClassVar[Citation | None] = Citation(
        key="wang2021deepfool",
        authors="Si Wang and Chip-Hong Chang",
        title="Fingerprinting Deep Neural Networks - a DeepFool Approach",
        venue="ISCAS",
        year=2021,
        doi="10.1109/ISCAS51556.2021.9401119",
    )

    overshoot: float = 0.02
    steps: int = 50

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Boundary pairs."""
        return DeepFool(overshoot=self.overshoot, steps=self.steps)

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ, within a pair."""
        return "hamming"

    @property
    def statistic(self) -> str:
        """Share of pairs with both labels right."""
        return "share of matching pairs"

    @property
    def default_queries(self) -> int:
        """A hundred pairs."""
        return 200

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Share of pairs whose two labels agree, in [0, 1]."""
        return float(np.mean(unit_means(fp1.queries, self.agreement(fp1, fp2), size=2) == 1))
