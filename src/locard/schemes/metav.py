"""MetaV: a verifier, learnt together with its queries, judges all answers of a suspect at once [1].

The score is V's log-odds that the suspect is derived, its output before the sigmoid, computed in float64; 0 stands for
the paper's threshold of 1/2 on V. V itself comes to 1 for any sure answer, so that its log-odds tell models apart where
it cannot. A suspect that V is surer of than of the victim counts as the victim: the score is the smaller of the two
log-odds, which keeps the order of all below. Here reference models give the p-value, and they must be others than those
of the population.

The method asks nothing of the task but answers of one size. Load a regression or embedding network with
outputs="logits" and set `answers` to "logits": its numbers are then taken as they are. V is a secret like the queries:
who has it can move a copy's answers out of its sight.

[1] Pan, Yan, Zhang, Yang. A Meta-Verifier Approach to Task-Agnostic Model Fingerprinting. KDD 2022. `Meta` says what is
reconstructed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from locard.errors import ArtefactError
from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.meta import Meta, log_odds, verifier_of
from locard.representations import Representation
from locard.representations.logits import Logits
from locard.representations.probabilities import Probabilities
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("metav")
@dataclass(frozen=True, slots=True, kw_only=True)
class MetaV(QueryScheme):
    """What a learnt verifier says of all answers together. Cost: one query each, 100 by default.

    Args:
        answers: what the verifier is given: "probabilities" or "logits".
        hidden: units of the verifier's hidden layer.
        steps: steps in which queries and verifier are learnt.
        models: models of the population in one step.
        lr: Adam's step on the queries, as a share of the domain's range.
        verifier_lr: Adam's step on the verifier.
        validation: share of the population that is kept for validation.
    """

    summary: ClassVar[str] = "what a verifier says that was learnt together with its queries"
    citation: ClassVar[Citation | None] = Citation(
        key="pan2022metav",
        authors="Xudong Pan and Yifan Yan and Mi Zhang and Min Yang",
        title="A Meta-Verifier Approach to Task-Agnostic Model Fingerprinting",
        venue="KDD",
        year=2022,
        eprint="2201.07391",
        doi="10.1145/3534678.3539257",
    )

    answers: str = "probabilities"
    hidden: int = 64
    steps: int = 200
    models: int = 8
    lr: float = 0.01
    verifier_lr: float = 1e-3
    validation: float = 0.25

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Learnt queries, with their verifier."""
        return Meta(
            answers=self.answers,
            hidden=self.hidden,
            steps=self.steps,
            models=self.models,
            lr=self.lr,
            verifier_lr=self.verifier_lr,
            validation=self.validation,
        )

    @property
    def representation(self) -> Representation:
        """The answers as they are."""
        return Logits() if self.answers == "logits" else Probabilities()

    @property
    def metric(self) -> str:
        """How far two models' answers lie apart; `similarity` judges by the verifier."""
        return "l2"

    @property
    def statistic(self) -> str:
        """V's log-odds."""
        return "log-odds of the verifier, at most the victim's"

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """V's log-odds for the second record, at most those for the first."""
        own, theirs = (fp.record.get(self.answers) for fp in (fp1, fp2))
        if own is None or theirs is None or own.shape != theirs.shape or own.dtype.kind != "f":
            found = [sorted((name, array.shape) for name, array in fp.record.items()) for fp in (fp1, fp2)]
            raise ArtefactError(f"two records must hold {self.answers} of one shape; got {found[0]} and {found[1]}")
        verifier = verifier_of(fp1.queries, own.size)
        return float(log_odds(np.stack([own, theirs]).reshape(2, -1).astype(np.float64), verifier).min())
