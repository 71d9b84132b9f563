"""ADV-TRA: walks through the victim's regions, which a copy divides as the victim does [1].

A unit is a walk of many points. It matches if less than half of its labels are otherwise than the victim's (the paper's
mutation rate below 0.5); the score is the share of walks that match. The paper compares it with a threshold, here
reference models give the p-value.

Published tests disagree: near-perfect in the paper, much less after adversarial training in later ones.

[1] Xu, Wang, Liu, Yang, Peng, Liu. United We Stand, Divided We Fall: Fingerprinting Deep Neural Networks via
Adversarial Trajectories. NeurIPS 2024. `Trajectory` says where we differ from the released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from locard.errors import check_number
from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.base import unit_means
from locard.queries.trajectory import Trajectory
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme

WALKS = 100


@schemes.register("adv-tra")
@dataclass(frozen=True, slots=True, kw_only=True)
class AdvTra(QueryScheme):
    """Agreement along walks from class to class. Cost: one label query a point; 100 walks of 37 points by default.

    Args:
        length: steps towards and into each class, an even number.
        classes: classes that a walk goes through.
        decay: each step towards a boundary over the one before.
        step: first guess of the first step, as a share of the domain's range.
        tries: the most walks that look for the right steps.
        mutation: a walk matches if a smaller share of its labels than this differs.
    """

    summary: ClassVar[str] = "agreement along adversarial walks through many classes"
    citation: ClassVar[Citation | None] = Citation(
        key="xu2024advtra",
        authors="Tianlong Xu and Chen Wang and Gaoyang Liu and Yang Yang and Kai Peng and Wei Liu",
        title="United We Stand, Divided We Fall: Fingerprinting Deep Neural Networks via Adversarial Trajectories",
        venue="NeurIPS",
        year=2024,
    )

    length: int = 4
    classes: int = 10
    decay: float = 0.95
    step: float = 0.05
    tries: int = 40
    mutation: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler
        check_number("mutation", self.mutation, above=0, high=1)

    @property
    def sampler(self) -> Sampler:
        """Walks."""
        return Trajectory(length=self.length, classes=self.classes, decay=self.decay, step=self.step, tries=self.tries)

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ, within a walk."""
        return "hamming"

    @property
    def statistic(self) -> str:
        """Share of walks that match."""
        return "share of matching walks"

    @property
    def default_queries(self) -> int:
        """A hundred walks."""
        return WALKS * (1 + (self.classes - 1) * self.length)

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Share of walks with a mutation rate below `mutation`, in [0, 1]."""
        mutated = 1 - unit_means(fp1.queries, self.agreement(fp1, fp2))
        return float(np.mean(mutated < self.mutation))
