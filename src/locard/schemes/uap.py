"""UAP: how a model answers inputs with and without the victim's universal perturbation, seen by an encoder [1].

One perturbation v that fools the victim on most inputs says much of its whole boundary. The probabilities of a model at
representative points x and at x + v are its profile, in several parallel views; the score is the mean over views of the
cosine between the encoder's embeddings of the suspect's and of the victim's profile, in float64, from -1 to 1.

The paper tests the similarities of the views against those of independent models. Views share one suspect, so that such
a p-value counts the spread of views only, not that of models; here reference models give it, and they must be others
than those of the population. `Universal` says what is reconstructed, for the paper's text was not at hand.

The encoder is a secret like the queries: who has both can move a copy's answers out of its sight.

[1] Peng, Li, Chen, Zhang, Zhu, Xue. Fingerprinting Deep Neural Networks Globally via Universal Adversarial
Perturbations. CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from locard.errors import ArtefactError, ParameterError
from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.universal import Universal, embed, encoder_of, profiles_of
from locard.representations import Representation
from locard.representations.probabilities import Probabilities
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("uap")
@dataclass(frozen=True, slots=True, kw_only=True)
class UAP(QueryScheme):
    """Learnt likeness of answers to a universal perturbation. Cost: one query each, 4 views of 50 pairs by default.

    Args:
        radius: largest change of an entry, as a share of the domain's range.
        delta: share of inputs that the perturbation need not fool.
        rounds: the most passes through the inputs that it is made on.
        seeds: how many these are.
        views: views that are asked.
        lessons: views that the encoder learns from.
        temperature: of the contrastive loss.
        lr: Adam's step on the encoder.
        steps: of the encoder.
    """

    summary: ClassVar[str] = "an encoder's view of answers with and without a universal perturbation"
    citation: ClassVar[Citation | None] = Citation(
        key="peng2022uap",
        authors="Zirui Peng and Shaofeng Li and Guoxing Chen and Cheng Zhang and Haojin Zhu and Minhui Xue",
        title="Fingerprinting Deep Neural Networks Globally via Universal Adversarial Perturbations",
        venue="CVPR",
        year=2022,
        eprint="2202.08602",
    )

    radius: float = 0.4
    delta: float = 0.25
    rounds: int = 5
    seeds: int = 300
    views: int = 4
    lessons: int = 20
    temperature: float = 0.2
    lr: float = 5e-4
    steps: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Points with and without the perturbation, and the encoder."""
        return Universal(radius=self.radius, delta=self.delta, rounds=self.rounds, seeds=self.seeds, views=self.views,
                         lessons=self.lessons, temperature=self.temperature, lr=self.lr, steps=self.steps)  # fmt: skip

    @property
    def representation(self) -> Representation:
        """Probabilities."""
        return Probabilities()

    @property
    def metric(self) -> str:
        """How far two models' answers lie apart; `similarity` judges by the encoder."""
        return "l2"

    @property
    def statistic(self) -> str:
        """Mean cosine of embeddings."""
        return "mean cosine of the encoder's embeddings over views"

    @property
    def default_queries(self) -> int:
        """Fifty pairs a view."""
        return 2 * 50 * self.views

    def check_suspect(self, fingerprint: Fingerprint, suspect: Any) -> None:
        """See `Scheme.check_suspect`.

        Raises:
            ParameterError: the suspect has another number of classes.
        """
        ours, theirs = fingerprint.classes, suspect.classes
        if None not in (ours, theirs) and ours != theirs:
            raise ParameterError(
                f"uap's encoder reads {ours} classes, {suspect.source} has {theirs}: use a scheme that compares models "
                "of other classes (sac, zest with align=true)"
            )

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Mean cosine over views, in [-1, 1]; a view that the encoder maps to 0 counts as 0.

        Raises:
            ArtefactError: records, pairs, views or the encoder are not as they must be.
        """
        own, theirs = (fp.record.get("probabilities") for fp in (fp1, fp2))
        if own is None or theirs is None or own.shape != theirs.shape or own.ndim != 2 or own.dtype.kind != "f":
            found = [sorted((name, array.shape) for name, array in fp.record.items()) for fp in (fp1, fp2)]
            raise ArtefactError(f"two records must hold probabilities of one shape; got {found[0]} and {found[1]}")
        profiles = [profiles_of(fp1.queries, one) for one in (own, theirs)]
        encoder = encoder_of(fp1.queries, profiles[0].shape[1])
        ours, its = (embed(one, encoder) for one in profiles)
        lengths = [np.linalg.norm(one, axis=1) for one in (ours, its)]
        if not lengths[0].all():
            raise ArtefactError("uap's encoder maps the victim's own answers to 0, so that nothing can be like them")
        dots, norms = (ours * its).sum(axis=1), lengths[0] * lengths[1]
        cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
        return float(np.minimum(cosines, 1).mean())
