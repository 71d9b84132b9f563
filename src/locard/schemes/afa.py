"""AFA: adversarial marks that survive small changes of the victim, because its ghosts agree on them [1].

The score is the share of marks that the suspect gives the victim's label, which is their target; the paper compares it
with a threshold, here reference models give the p-value. Ghosts are changes near the logits, so marks are made to
survive fine-tuning; nothing in them is made to survive distillation.

[1] Zhao, Hu, Liu, Ma, Chen, Hassan. AFA: Adversarial fingerprinting authentication for deep neural networks. Computer
Communications 150, 2020. There is no code and the paper's text was not at hand; `GhostEnsemble` says what is
reconstructed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from locard.queries import Sampler
from locard.queries.ghost_ensemble import GhostEnsemble
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("afa")
@dataclass(frozen=True, slots=True, kw_only=True)
class AFA(QueryScheme):
    """Agreement on marks of a ghost ensemble. Cost: one label query each, 100 by default.

    Args:
        ghosts: drawn at each step.
        dropout: share of the last layer's inputs that a ghost is without.
        radius: largest change of an entry, as a share of the domain's range.
        steps: how many.
        stable: share of fresh ghosts that must agree on a mark.
        target: how the target is chosen: "random" or "least-likely".
    """

    summary: ClassVar[str] = "agreement on adversarial marks that the victim's dropout ghosts share"
    citation: ClassVar[Citation | None] = Citation(
        key="zhao2020afa",
        authors="Jingjing Zhao and Qingyue Hu and Gaoyang Liu and Xiaoqiang Ma and Fei Chen and Mohammad Mehedi Hassan",
        title="AFA: Adversarial fingerprinting authentication for deep neural networks",
        venue="Computer Communications",
        year=2020,
        doi="10.1016/j.comcom.2019.12.016",
        journal=True,
    )

    ghosts: int = 10
    dropout: float = 0.2
    radius: float = 0.1
    steps: int = 50
    stable: float = 0.9
    target: str = "random"

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Marks of a ghost ensemble."""
        return GhostEnsemble(ghosts=self.ghosts, dropout=self.dropout, radius=self.radius, steps=self.steps,
                             stable=self.stable, target=self.target)  # fmt: skip

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ."""
        return "hamming"
