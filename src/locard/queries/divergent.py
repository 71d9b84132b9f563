"""Pairs of an input and a partner to which a model answers in quite another direction (ModelDiff's queries)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._adversarial import climb, dealt, radius_of
from locard.queries.adversarial import paired
from locard.queries.base import Population, Queries, movable, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.models import GradientView

# The released code's: how far beyond the mean the target lies, and the weight of all outputs but the first.
FAR, REST = 1000.0, 0.1


@samplers.register("divergent")
@dataclass(frozen=True, slots=True, kw_only=True)
class Divergent:
    """Inputs and, for each, a partner pulled away from its own answer by targeted PGD (ModelDiff's notebook [1]).

    With z the victim's logits and z̄ their mean over all seeds, the target of a seed x is t = 1000 (z̄ - z(x)): far
    along the way from its own answer past everybody's. Its partner x' minimises

        L(x') = (z_0 - t_0)² + 0.1 mean over k > 0 of (z_k - t_k)²

    in the box of radius eps around x and in the bounds of the domain, from a random start. The first output weighs ten
    times all others together. It is so in the notebook, and was never explained; the paper's objective of divergence
    and diversity is another. Each partner has a loss of its own, where the notebook takes the mean over a batch, which
    steps along a sign do not tell apart.

    Args:
        eps: largest change of an entry, as a share of `reach`, but no less than a quantum. Rounding to the grid may
            add half a quantum.
        step: of one step, as a share of eps.
        steps: how many.

    The notebook has eps 0.06 and step 0.01 in normalised pixels. Its images have ImageNet's standard deviations, of
    which the mean is 0.226 of the range.

    n must be even; inputs, `pairs` and `units` are those of `Adversarial`.

    [1] Li, Zhang, Liu, Yang, Liu. ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection. ISSTA
    2021, with the settings of the released notebook.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    eps: float = 0.0135
    step: float = 1 / 6
    steps: int = 50

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("eps", self.eps, above=0)
        check_number("step", self.step, above=0)
        check_number("steps", self.steps, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: one answer and `steps` gradients of the victim for each pair.

        Raises:
            ParameterError: n is odd, the inputs cannot be moved, or the victim has one output.
        """
        movable(data, "divergent partners")
        if n is not None and n % 2:
            raise ParameterError(f"divergent queries come in pairs, so --queries must be even; got {n}")
        rows = take(
            generator(seed, "divergent/seeds").permutation(len(data)),
            n=None if n is None else n // 2,
            default=default // 2,
            least=1,
            what="seeds",
            way_out="give more data or ask fewer --queries",
        )
        seeds = data.domain.deliver(data.inputs[rows])
        logits = victim.logits(seeds)
        if logits.shape[1] < 2:
            raise ParameterError(f"answers diverge by their direction, and {victim.source} has one output: it has none")
        targets = (FAR * (logits.mean(axis=0, dtype=np.float64) - logits)).astype(np.float32)
        radius = radius_of(data, self.eps)
        partners = climb(
            victim,
            seeds,
            lambda: dealt(nearness, targets),
            radius=radius,
            step=self.step * radius,
            steps=self.steps,
            domain=data.domain,
            source=generator(seed, "divergent/starts"),
        )
        return paired(seeds, partners)


def nearness(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-L of `Divergent`: (n,) from (n, classes) logits and targets."""
    square = (logits - targets) ** 2
    return -square[:, 0] - REST * square[:, 1:].mean(dim=1)
