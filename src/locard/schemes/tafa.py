"""TAFA: where the victim bends, a copy bends the same way [1].

A unit is a triple of inputs across surfaces where hidden units switch (`ActivationBoundary`). It matches if the
suspect's bend, along the victim's direction, is at least `share` of the victim's; the score is the share of units that
match. Surfaces are there whatever the task, so values of a regression serve as well as logits; labels do not, and
smooth activations hardly bend. Here reference models give the p-value.

[1] Pan, Zhang, Lu, Yang. TAFA: A Task-Agnostic Fingerprinting Algorithm for Neural Networks. ESORICS 2021. There is no
code and the paper's text was not at hand; `ActivationBoundary` says what is reconstructed. The successor is `metav`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from locard.errors import ArtefactError, check_number
from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.activation_boundary import ActivationBoundary, read
from locard.representations import Representation
from locard.representations.bends import Bends
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("tafa")
@dataclass(frozen=True, slots=True, kw_only=True)
class TAFA(QueryScheme):
    """Agreement on where answers bend. Cost: three queries a unit, 100 units by default.

    Args:
        eta: the step of a triple in every entry, as a share of the domain's range.
        share: of the victim's bend that a match must reach.
        answers: "logits", or "values" (regression, embeddings).
    """

    summary: ClassVar[str] = "agreement on where and how a piecewise linear function bends"
    citation: ClassVar[Citation | None] = Citation(
        key="pan2021tafa",
        authors="Xudong Pan and Mi Zhang and Yifan Lu and Min Yang",
        title="TAFA: A Task-Agnostic Fingerprinting Algorithm for Neural Networks",
        venue="ESORICS",
        year=2021,
        doi="10.1007/978-3-030-88418-5_26",
    )

    eta: float = 0.02
    share: float = 0.5
    answers: str = "logits"

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler
        check_number("share", self.share, above=0, below=1)

    @property
    def sampler(self) -> Sampler:
        """Triples across bends."""
        return ActivationBoundary(eta=self.eta, answers=self.answers)

    @property
    def representation(self) -> Representation:
        """Bends."""
        return Bends(answers=self.answers)

    @property
    def metric(self) -> str:
        """Distance of two bends, where a distance is asked for."""
        return "cosine"

    @property
    def statistic(self) -> str:
        """Share of matching bends."""
        return "share of matching bends"

    @property
    def default_queries(self) -> int:
        """A hundred triples."""
        return 300

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Share of units whose bend reaches `share` of the victim's in its direction, in [0, 1].

        Raises:
            ArtefactError: a record holds no bends of the victim's shape.
        """
        direction, strength = read(fp1.queries)
        bends = fp2.record.get("bends")
        if bends is None or bends.shape != direction.shape:
            found = "none" if bends is None else str(bends.shape)
            raise ArtefactError(f"tafa needs a record of bends of shape {direction.shape}; got {found}")
        along = np.einsum("uo,uo->u", bends.astype(np.float64), direction.astype(np.float64))
        return float(np.mean(along >= self.share * strength))
