"""IPGuard: points just across a class boundary, whose labels a copy keeps [1].

The score is the matching rate, the share of points that the suspect gives the label the victim gave; the paper compares
it with a threshold, here reference models give the p-value. Later tests are less kind than the paper's: pruned and
quantised copies are found, distilled and adversarially retrained ones mostly not.

[1] Cao, Jia, Gong. IPGuard: Protecting Intellectual Property of Deep Neural Networks via Fingerprinting the
Classification Boundary. AsiaCCS 2021. There is no official code; `Boundary` says where we differ from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.queries import Sampler
from locard.queries.boundary import Boundary
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("ipguard")
@dataclass(frozen=True, slots=True, kw_only=True)
class IPGuard(QueryScheme):
    """Agreement just across the victim's class boundaries. Cost: one label query each, 100 by default.

    Args:
        margin: how deep behind the boundary, in units of the victim's median logit gap.
        lr: Adam's step, as a share of the domain's range.
        steps: the most steps for one point.
        target: the class to cross into: "random" or "least-likely".
    """

    summary: ClassVar[str] = "agreement on points just across the victim's class boundaries"
    citation: ClassVar[Citation | None] = Citation(
        key="cao2021ipguard",
        authors="Xiaoyu Cao and Jinyuan Jia and Neil Zhenqiang Gong",
        title="IPGuard: Protecting Intellectual Property of Deep Neural Networks via Fingerprinting the Classification "
        "Boundary",
        venue="AsiaCCS",
        year=2021,
        eprint="1910.12903",
    )

    margin: float = 0.5
    lr: float = 0.01
    steps: int = 500
    target: str = "random"

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Boundary points."""
        return Boundary(margin=self.margin, lr=self.lr, steps=self.steps, target=self.target)

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ."""
        return "hamming"
