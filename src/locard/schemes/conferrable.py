"""Conferrable adversarial examples: a copy repeats mistakes that only copies make [1].

The score is the matching rate (the paper's CAEAcc), the share of queries that the suspect gives the label the victim
gave. Ports call a model a surrogate from 0.75 on; here reference models give the p-value, and they must be others than
those of the population.

[1] Lukas, Zhang, Kerschbaum. Deep Neural Network Fingerprinting by Conferrable Adversarial Examples. ICLR 2021. There
is no official code; `Conferrable` says what is reconstructed and where we differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.queries import Sampler
from locard.queries.conferrable import Conferrable
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("conferrable")
@dataclass(frozen=True, slots=True, kw_only=True)
class ConferrableExamples(QueryScheme):
    """Agreement on mistakes that copies share. Cost: one label query each, 100 by default.

    Args:
        radius: largest change of an entry, as a share of the domain's range.
        score: least conferrability of a query.
        alpha: weight of conferrability.
        beta: weight of leaving the victim's own answer.
        gamma: weight of the surrogates' agreement with the victim.
        dropout: probability that a model is left out of a step.
        lr: Adam's step, as a share of the domain's range.
        steps: the most steps for one query.
    """

    summary: ClassVar[str] = "agreement on adversarial examples that copies share and other models do not"
    citation: ClassVar[Citation | None] = Citation(
        key="lukas2021conferrable",
        authors="Nils Lukas and Yuxuan Zhang and Florian Kerschbaum",
        title="Deep Neural Network Fingerprinting by Conferrable Adversarial Examples",
        venue="ICLR",
        year=2021,
        eprint="1912.00888",
    )

    radius: float = 0.2
    score: float = 0.85
    alpha: float = 1.0
    beta: float = 0.1
    gamma: float = 1.0
    dropout: float = 0.3
    lr: float = 0.004
    steps: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Conferrable examples."""
        return Conferrable(
            radius=self.radius,
            score=self.score,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            dropout=self.dropout,
            lr=self.lr,
            steps=self.steps,
        )

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ."""
        return "hamming"
