"""Randomised smoothing at inference: the copy answers what most noisy versions of a query are taken for [1].

An adversarial example, or a point placed next to a boundary, must be one for most of its noisy neighbours to count.
The noise is a bank of `copies` draws from N(0, sigma^2 I), drawn once and added to every query, where [1] draws anew
for each; a server that did so would differ from this copy only by chance, and our copies answer a query always alike.
Noise is not clipped to the domain, as in [1]; nothing is certified, nothing is abstained from, and the network is not
trained under noise, so a large sigma costs accuracy. A copy with copies=1 is one with noise on its inputs. Each query
costs the thief `copies` passes. Counts as a theft within 5 points of accuracy.

The paper's text was not at hand; what is used is its idea alone.

[1] Cohen, Rosenfeld, Kolter. Certified Adversarial Robustness via Randomized Smoothing. ICML 2019.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._alone import Alone
from locard.attacks.base import Copy, Network, attacks
from locard.errors import ParameterError, check_number
from locard.records import Data
from locard.seeds import derive

if TYPE_CHECKING:
    from locard.models import ModuleView
    from locard.models.session import Progress


@attacks.register("smooth")
@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth(Alone):
    """Answer what noisy versions of a query are taken for.

    Args:
        sigma: standard deviation of the noise, as a share of the domain's range, or in the inputs' own units where it
            has none.
        copies: noisy versions of a query.
        combine: "labels", the versions' majority, or "probabilities", their mean. Logits are the logarithms of the
            share of votes, with one more vote dealt out by the mean probabilities, or of the mean.
    """

    name: ClassVar[str] = "smooth"
    margin: ClassVar[float] = 0.05
    network: ClassVar[Network] = "unnamed"

    sigma: float = 0.05
    copies: int = 16
    combine: str = "labels"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("sigma", self.sigma, low=0, high=1e6)
        check_number("copies", self.copies, low=1, whole=True)
        if self.combine not in ("labels", "probabilities"):
            raise ParameterError(f"combine must be 'labels' or 'probabilities'; got {self.combine!r}")

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        import torch

        from locard.attacks._wrappers import Smoothed, check_inputs

        check_inputs(victim, self.name)
        bounds = victim.domain.bounds
        size = self.sigma * (1 if bounds is None else bounds[1] - bounds[0])
        source = torch.Generator().manual_seed(derive(seed, "smooth"))
        bank = size * torch.randn((self.copies, *victim.domain.shape), generator=source)
        module = Smoothed(copy.deepcopy(victim.module()), bank, votes=self.combine == "labels")
        return Copy(module=module)
