"""ModelDiff: a copy's answers move with the victim's between the two inputs of a pair [1].

From an input to its partner the victim's answer turns by some angle, and so does a suspect's, by an angle of its own;
the score is the cosine between the two vectors of angles (`DecisionDistance`). As no answer is compared with another
model's, the suspect may have other classes, or more, or fewer, or give values instead of scores.

All angles are positive and models of one task turn much alike, so strangers score far above 0: only references give a
score its meaning, and they should answer the suspect's task. In small networks on Fashion-MNIST copies of the weights
stood above every stranger of the victim's task; extracted models did not, nor copies with a new last layer for fewer
classes. The paper ranks instead: a model is derived from the parent that scores strictly above every reference of
another origin.

Three things differ from the released notebook. There pairs are made from the derived model; here from the victim, as
its owner has no other. Seeds are not augmented. A suspect whose answers do not move at all scores 0, where the notebook
has no number.

[1] Li, Zhang, Liu, Yang, Liu. ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection. ISSTA
2021. Loss and settings follow the authors' notebook, the only path of the released code that computes this distance;
`Divergent` says where it parts with the paper. The notebook's settings were at hand, the paper's text was not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from locard.errors import ArtefactError, ParameterError
from locard.fingerprint import Fingerprint
from locard.queries import Population, Sampler
from locard.queries.divergent import Divergent
from locard.records import Access, Data
from locard.representations import Representation
from locard.representations.decision_distance import DecisionDistance
from locard.schemes.base import Citation, parameters, schemes
from locard.schemes.query import QueryScheme


@schemes.register("modeldiff")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDiff(QueryScheme):
    """Agreement on how far answers move between pairs. Cost: two queries a pair, 100 pairs by default.

    Args:
        eps: largest change of an entry, as a share of the domain's range.
        step: of one step, as a share of eps.
        steps: of the search for a partner; as many gradients of the victim for each pair.
        answers: what a suspect is asked for: "logits", "probabilities", or "values" (regression, embeddings). Of the
            victim, which must be a classifier, "values" are its logits.
    """

    summary: ClassVar[str] = "agreement on how far answers move between an input and its partner"
    citation: ClassVar[Citation | None] = Citation(
        key="li2021modeldiff",
        authors="Yuanchun Li and Ziqi Zhang and Bingyan Liu and Ziyue Yang and Yunxin Liu",
        title="ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection",
        venue="ISSTA",
        year=2021,
        eprint="2106.08890",
        doi="10.1145/3460319.3464816",
    )

    eps: float = 0.0135
    step: float = 1 / 6
    steps: int = 50
    answers: str = "logits"

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler, self.representation

    @property
    def sampler(self) -> Sampler:
        """Inputs and partners that the victim answers in another direction."""
        return Divergent(eps=self.eps, step=self.step, steps=self.steps)

    @property
    def representation(self) -> Representation:
        """Angles between a suspect's answers."""
        return DecisionDistance(answers=self.answers)

    @property
    def metric(self) -> str:
        """Cosine distance of all angles."""
        return "flat-cosine"

    @property
    def default_queries(self) -> int:
        """The notebook's 100 pairs."""
        return 200

    @property
    def victim_access(self) -> Access:
        """Gradients, whatever a suspect is asked for."""
        return Access.GRADIENTS

    @property
    def statistic(self) -> str:
        """Cosine."""
        return "cosine of decision distances"

    def extract(
        self, name: str, victim: Any, data: Data, *, population: Population | None, queries: int | None, seed: int
    ) -> Fingerprint:
        """See `Scheme.extract`.

        Raises:
            ParameterError: no partner changes the victim's answer.
        """
        scores = replace(self, answers="logits") if self.answers == "values" else self
        fp = QueryScheme.extract(scores, name, victim, data, population=population, queries=queries, seed=seed)
        if not fp.record["distances"].any():
            raise ParameterError(
                f"no partner changes the answer of {victim.source}, so nothing could be recognised: set a larger eps "
                f"({self.eps:g})"
            )
        return replace(fp, params=parameters(self), suspect_access=self.suspect_access.text)

    def check_suspect(self, fingerprint: Fingerprint, suspect: Any) -> None:
        """See `Scheme.check_suspect`.

        Raises:
            ParameterError: the suspect has one output.
        """
        if suspect.classes == 1:
            raise ParameterError(
                f"modeldiff compares directions of answers, and {suspect.source} answers one number, which has none; "
                "it needs two or more"
            )

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Cosine of the two vectors of decision distances, in [0, 1]; 0 where one of them is 0."""
        a, b = (np.asarray(fp.record.get("distances", ())) for fp in (fp1, fp2))
        if a.shape != b.shape or a.ndim != 1 or len(a) == 0 or {a.dtype.kind, b.dtype.kind} != {"f"}:
            raise ArtefactError(
                f"two records must hold as many decision distances; got {a.dtype} {a.shape} and {b.dtype} {b.shape}"
            )
        a, b = a.astype(np.float64), b.astype(np.float64)
        lengths = np.linalg.norm(a), np.linalg.norm(b)
        if 0 in lengths:
            return 0.0
        return min(float((a / lengths[0]) @ (b / lengths[1])), 1.0)
