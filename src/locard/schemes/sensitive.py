"""Sensitive samples: whether a model is still the one that was fingerprinted, to the weight [1].

The claim is `identical`: the opposite of all others, as here a fine-tuned copy must fail. Queries lie where labels hang
by the smallest change of the weights (`Sensitive`); one label that differs says that something was changed. No
reference is needed, as an unchanged model that computes as the victim did answers as it did.

That holds as far as the numerics are the same. Another precision moves the answers of an unchanged model; `margin` says
how much of that the queries bear, and the victim's owner must know in what precision an honest copy will be run. A
change so small that none of the queries' labels moves is not seen, and neither is one that was made with the queries at
hand.

Of the ways to compare that the release has, the top label is taken. Rounded probabilities (whose number of digits it
gets wrong, as its 10^n is an exclusive or) would differ by rounding alone from one machine to another.

[1] He, Zhang, Lee. Sensitive-Sample Fingerprinting of Deep Neural Networks. CVPR 2019. `Sensitive` says where we differ
from the authors' released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.sensitive import Sensitive
from locard.records import Claim
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("sensitive")
@dataclass(frozen=True, slots=True, kw_only=True)
class SensitiveSamples(QueryScheme):
    """Labels that hang by the smallest change of the weights. Cost: one label query each, 10 by default.

    Args:
        of: what is made sensitive: "probabilities", "logits", or "log-probabilities", the released proxy.
        layer: whose weights: "" for the last layer that has some, a layer by name, or "all".
        radius: root of the mean squared change of an input, as a share of the domain's range.
        lr: Adam's first step, as a share of the domain's range.
        steps: of the search.
        candidates: inputs that are tried.
        margin: least gap between the two largest logits, as a share of the spread of all logits.
    """

    claim: ClassVar[Claim] = "identical"
    summary: ClassVar[str] = "labels that hang by the smallest change of the weights"
    citation: ClassVar[Citation | None] = Citation(
        key="he2019sensitive",
        authors="Zecheng He and Tianwei Zhang and Ruby B. Lee",
        title="Sensitive-Sample Fingerprinting of Deep Neural Networks",
        venue="CVPR",
        year=2019,
        eprint="1808.03277",
        doi="10.1109/CVPR.2019.00486",
    )

    of: str = "probabilities"
    layer: str = ""
    radius: float = 10 / 255
    lr: float = 2 / 255
    steps: int = 150
    candidates: int = 100
    margin: float = 3e-4

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """Points where labels change with the weights."""
        return Sensitive(
            of=self.of,
            layer=self.layer,
            radius=self.radius,
            lr=self.lr,
            steps=self.steps,
            candidates=self.candidates,
            margin=self.margin,
        )

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ."""
        return "hamming"

    @property
    def default_queries(self) -> int:
        """Ten, as released."""
        return 10

    @property
    def statistic(self) -> str:
        """Share of labels that are the same."""
        return "share of labels unchanged"

    def check_suspect(self, fingerprint: Fingerprint, suspect: Any) -> None:
        """See `Scheme.check_suspect`; any is taken, as another number of classes is a change like others."""
