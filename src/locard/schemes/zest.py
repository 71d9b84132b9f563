"""Zest of LIME: a copy explains its answers as the victim does [1].

Around each reference input a linear model of the answers in the input's segments is fitted (`LocalExplanations`); the
score is 1 - d, d being the cosine distance of all weights as one vector. It compares models of any architecture. The
paper calls a pair related if d is below the mean distance of a few independent pairs; here reference models give the
p-value.

The released code first permutes classes until the two models look most alike, even where their classes agree, which
can only raise a score, whoever the suspect is. Here classes are compared as they are, and a suspect with another number
of them is refused, unless `align` is set: then every model is aligned, references too, so that their scores stay
comparable.

The paper's 128 references of 1,000 masks make 128,000 queries. Equal masks of a reference are asked once: where images
are small and have eight segments, a suspect is asked a quarter of that. `Segments` says what is done for small images,
tables and texts.

[1] Jia, Chen, Guan, Shamsabadi, Papernot. A Zest of LIME: Towards Architecture-Independent Model Distances. ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.queries import Sampler
from locard.queries.segments import Segments
from locard.representations import Representation
from locard.representations.local_explanations import LocalExplanations
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme

REFERENCES = 128


@schemes.register("zest")
@dataclass(frozen=True, slots=True, kw_only=True)
class Zest(QueryScheme):
    """Agreement of local explanations. Cost: 128 references, each under 1,000 masks, by default.

    Args:
        masks: masks for each reference; the number of queries is a multiple of it.
        pieces: fewest segments of an image.
        answers: what is explained: "probabilities", "logits", or "values" (regression, embeddings).
        align: pair the two models' classes off by likeness before they are compared.
    """

    summary: ClassVar[str] = "agreement of local linear explanations"
    citation: ClassVar[Citation | None] = Citation(
        key="jia2022zest",
        authors="Hengrui Jia and Hongyu Chen and Jonas Guan and Ali Shahin Shamsabadi and Nicolas Papernot",
        title="A Zest of LIME: Towards Architecture-Independent Model Distances",
        venue="ICLR",
        year=2022,
    )

    masks: int = 1000
    pieces: int = 8
    answers: str = "probabilities"
    align: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler, self.representation

    @property
    def sampler(self) -> Sampler:
        """References with masks."""
        return Segments(masks=self.masks, pieces=self.pieces)

    @property
    def representation(self) -> Representation:
        """Weights of the segments."""
        return LocalExplanations(answers=self.answers)

    @property
    def metric(self) -> str:
        """Cosine distance of all weights."""
        return "aligned-cosine" if self.align else "flat-cosine"

    @property
    def default_queries(self) -> int:
        """As many references as the paper's."""
        return REFERENCES * self.masks
