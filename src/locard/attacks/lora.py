"""Low-rank adaptation: a small change of each weight is trained on the thief's data and merged into the weight [1].

Each weight of a linear or convolutional layer is taken as a matrix W (outputs, rest) and becomes W + (alpha / rank) B A
with alpha = 2 rank; A (rank, rest) begins with entries of variance 1 / rest, B (outputs, rank) at 0, and only they are
trained. Biases and normalisation stay, so each weight of the copy differs from its victim's by a matrix of at most that
rank. [1] adapts attention alone; alpha is common practice, the variance of A our choice. Counts as a theft within 3
points of accuracy.

[1] Hu et al. LoRA: Low-Rank Adaptation of Large Language Models. ICLR 2022, section 4.1. The text was not at hand;
written from what is commonly known of it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._training import Training
from locard.attacks.base import Copy, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import fit, reproducible
from locard.records import Data
from locard.seeds import derive

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress

_ALPHA_PER_RANK = 2


@attacks.register("lora")
@dataclass(frozen=True, slots=True, kw_only=True)
class Lora(Training):
    """Train a low-rank change of each weight and merge it.

    Args:
        rank: of the change, at least 1.
        epochs: passes over the thief's labelled data.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    name: ClassVar[str] = "lora"
    margin: ClassVar[float] = 0.03

    rank: int = 8
    lr: float = 2e-3

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("rank", self.rank, low=1, whole=True)
        Training.__post_init__(self)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        assert data.labels is not None  # noqa: S101
        import torch

        module = copy.deepcopy(victim.module())
        weights = {name: weight for name, weight in module.named_parameters() if weight.ndim >= 2}
        if not weights:
            raise ParameterError(f"{type(module).__name__} has no weight matrix to adapt")
        source = torch.Generator().manual_seed(derive(seed, "lora"))
        pairs = {name: factors(weight, self.rank, source) for name, weight in weights.items()}
        labels = torch.from_numpy(data.labels)

        def merged() -> dict[str, torch.Tensor]:
            return {name: weight + _ALPHA_PER_RANK * (pairs[name][0] @ pairs[name][1]).view_as(weight)
                    for name, weight in weights.items()}  # fmt: skip

        def objective(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            logits = torch.func.functional_call(module, merged(), (x,))
            return torch.nn.functional.cross_entropy(logits, labels[rows])

        fit(module, data.inputs, data.labels, recipe=self.recipe, seed=seed, objective=objective,
            parameters=[factor for pair in pairs.values() for factor in pair], progress=progress)  # fmt: skip
        with reproducible(seed), torch.no_grad():
            for name, weight in merged().items():
                weights[name].copy_(weight)
        return Copy(module=module, epochs=self.epochs)


def factors(weight: torch.Tensor, rank: int, source: torch.Generator) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """B (outputs, rank) of zeros and A (rank, rest) of variance 1 / rest, for a weight of two or more axes."""
    import torch

    outputs, rest = weight.flatten(1).shape
    a = torch.randn(rank, rest, generator=source) / rest**0.5
    return torch.nn.Parameter(weight.new_zeros(outputs, rank)), torch.nn.Parameter(a.to(weight))
