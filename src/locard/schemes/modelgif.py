"""ModelGiF: a copy's answers grow along the ways to inputs as the victim's do [1].

The score is 1 - d, where d is the mean over references and steps of 1 - cos between the two models' cumulative gradient
fields (`GradientField`). Gradients of the suspect are needed; other classes, heads and architectures are not in the
way. The paper reports areas under the curve and no threshold; here reference models give the p-value.

By default references are random. The released code ranks them by how far independent models lie from the victim there
and takes the farthest; but it ranks by the same twenty models that are then the negatives of its results, so these are
better than the method is. With `references=ranked` a population ranks, whose models may calibrate nothing.

[1] Song, Xu, Wu, Chen, Song. ModelGiF: Gradient Fields for Model Functional Distance. ICCV 2023; formulas and defaults
follow the authors' released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.errors import unknown
from locard.queries import Sampler
from locard.queries.references import RankedReferences, References
from locard.representations import Representation
from locard.representations.gradient_field import GradientField
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme

_SAMPLERS: dict[str, type[References | RankedReferences]] = {"random": References, "ranked": RankedReferences}
REFERENCES = 256


@schemes.register("modelgif")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGiF(QueryScheme):
    """Agreement of gradient fields. Cost: an answer and `nodes` gradients a reference; 256 references by default.

    Args:
        references: "random", or "ranked" by a population.
        nodes: of the quadrature on the way to each.
        kept: cumulative sums that are kept of each way.
    """

    summary: ClassVar[str] = "agreement of gradient fields along the ways to reference inputs"
    citation: ClassVar[Citation | None] = Citation(
        key="song2023modelgif",
        authors="Jie Song and Zhengqi Xu and Sai Wu and Gang Chen and Mingli Song",
        title="ModelGiF: Gradient Fields for Model Functional Distance",
        venue="ICCV",
        year=2023,
        eprint="2309.11013",
    )

    references: str = "random"
    nodes: int = 50
    kept: int = 10

    def __post_init__(self) -> None:
        """Check the name and the ranges."""
        if self.references not in _SAMPLERS:
            raise unknown("kind of references", self.references, _SAMPLERS)
        _ = self.representation

    @property
    def sampler(self) -> Sampler:
        """References and where the ways to them begin."""
        return _SAMPLERS[self.references](each=self.nodes + 1)

    @property
    def representation(self) -> Representation:
        """Gradient fields."""
        return GradientField(nodes=self.nodes, kept=self.kept)

    @property
    def metric(self) -> str:
        """Mean over references and steps of 1 - cos."""
        return "cosine"

    @property
    def default_queries(self) -> int:
        """As many references as the released code's best row."""
        return REFERENCES * (self.nodes + 1)
