"""SAC, sample correlation: a copy relates inputs to each other as the victim does [1].

The score is 1 - d with d = Σ |R_f - R_g| / n² over all pairs of n queries, R being the matrix of `Correlation`; as no
single answer is compared, the suspect may have other classes, or more, or fewer. The paper sets a threshold on d from
held-out models; here reference models give the p-value.

Natural queries are answered alike by all good models, so the queries do the work: "m" (CutMix) and "jc" (JPEG, from the
follow-up for faces [2]) need neither labels nor other models, "source" needs labels, "w" a population as well.

[1] Guan, Liang, He. Are You Stealing My Model? Sample Correlation for Fingerprinting Deep Neural Networks. NeurIPS
2022. Formulas and defaults follow the authors' released code; `CutMix` says where its patches differ, `Contrast` what
of SAC-w is not in it. [2] Guan, Liang, Wang, He. Sample Correlation for Fingerprinting Deep Face Recognition. IJCV
2024; its R lacks the factor 1/2, which changes no rank, and it asks 800 images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.errors import unknown
from locard.queries import Sampler
from locard.queries.contrast import Contrast
from locard.queries.cutmix import CutMix
from locard.queries.jpeg import Jpeg
from locard.queries.negative import Negative
from locard.queries.random import Random
from locard.representations import Representation
from locard.representations.correlation import Correlation
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme

_SAMPLERS: dict[str, type[Sampler]] = {"m": CutMix, "normal": Random, "source": Negative, "w": Contrast, "jc": Jpeg}


@schemes.register("sac")
@dataclass(frozen=True, slots=True, kw_only=True)
class SAC(QueryScheme):
    """Agreement on which inputs are alike. Cost: one query each, 100 by default.

    Args:
        variant: where to ask: "m" images mixed by CutMix, "normal" the data as they are, "source" the victim's
            mistakes, "w" those of them that copies repeat and other models do not, "jc" compressed images.
        answers: what is recorded: "logits", "probabilities", "labels", or "values" (regression, embeddings).
    """

    summary: ClassVar[str] = "agreement on how alike any two inputs are"
    citation: ClassVar[Citation | None] = Citation(
        key="guan2022sac",
        authors="Jiyang Guan and Jian Liang and Ran He",
        title="Are You Stealing My Model? Sample Correlation for Fingerprinting Deep Neural Networks",
        venue="NeurIPS",
        year=2022,
        eprint="2210.15427",
    )

    variant: str = "m"
    answers: str = "logits"

    def __post_init__(self) -> None:
        """Check both names."""
        if self.variant not in _SAMPLERS:
            raise unknown("variant of sac", self.variant, _SAMPLERS)
        Correlation(answers=self.answers)

    @property
    def sampler(self) -> Sampler:
        """As the variant says."""
        return _SAMPLERS[self.variant]()

    @property
    def representation(self) -> Representation:
        """The matrix R."""
        return Correlation(answers=self.answers)

    @property
    def metric(self) -> str:
        """Mean absolute difference over all pairs."""
        return "l1"
