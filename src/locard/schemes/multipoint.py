"""Multipoints: where several classes meet, a copy keeps the order of their sectors; our own design.

Around each point where m classes meet, one probe lies in the sector of each; the m labels in order are the point's
word. With `score` "word" a suspect scores the share of points whose whole word it says, with "unit" the mean over
points of u = max(0, matches - 1) / (m - 1). A model that is of one opinion all around a point has one match at most,
and both scores are 0 there. Independent models of the same task are not of one opinion at the default margin; only
reference models tell what they score. `Multipoint` says where the probes lie.

Nothing of this is from a paper. Near it are fingerprints at points where all classes meet (`irisfp`, and tamper
detection by points of largest entropy); ours differ in how the points are found and in the probes around them.
docs/studies/multipoints.md measures what the probes tell at equal numbers of queries: fine-tuned, pruned, quantised and
noisy copies are found, as ipguard finds them, which leaves more room between copies and others; copies extracted
through labels are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from locard.errors import ArtefactError, unknown
from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.base import unit_means
from locard.queries.multipoint import Multipoint
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme

SCORES = ("word", "unit")


@schemes.register("multipoint")
@dataclass(frozen=True, slots=True, kw_only=True)
class Multipoints(QueryScheme):
    """Agreement on the sectors around points where classes meet. Cost: one label query a probe, 99 by default.

    Args:
        classes: m, how many classes meet, and probes to a point.
        margin: by how much a probe's class leads the others, in units of the victim's median logit gap.
        lead: how far below all other classes must stay, in the same units.
        steps: the most Gauss-Newton steps for one point.
        score: "word", the share of points with all labels right, or "unit", the mean of u.
    """

    summary: ClassVar[str] = "agreement on the sectors around points where several classes meet"
    citation: ClassVar[Citation | None] = None

    classes: int = 3
    margin: float = 0.6
    lead: float = 0.05
    steps: int = 30
    score: str = "word"

    def __post_init__(self) -> None:
        """Check the ranges and the name."""
        _ = self.sampler
        if self.score not in SCORES:
            raise unknown("score of multipoint", self.score, SCORES)

    @property
    def sampler(self) -> Sampler:
        """Probes around multipoints."""
        return Multipoint(classes=self.classes, margin=self.margin, lead=self.lead, steps=self.steps)

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ, within a point."""
        return "hamming"

    @property
    def statistic(self) -> str:
        """As `score` says."""
        return "share of whole words" if self.score == "word" else "mean share of a point's matches beyond the first"

    @property
    def default_queries(self) -> int:
        """As many whole points as make up about a hundred queries."""
        return max(1, 100 // self.classes) * self.classes

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Share of whole words, or the mean of u, in [0, 1].

        Raises:
            ArtefactError: the probes are not m to a point.
        """
        shares = unit_means(fp1.queries, self.agreement(fp1, fp2))
        sizes = np.bincount(fp1.queries["units"])
        if (sizes != self.classes).any():
            raise ArtefactError(
                f"multipoint with classes={self.classes} needs so many probes to a point; got {sizes.min()} to "
                f"{sizes.max()}"
            )
        if self.score == "word":
            return float(np.mean(shares == 1))
        return float(np.mean(np.maximum(np.rint(shares * self.classes) - 1, 0) / (self.classes - 1)))
