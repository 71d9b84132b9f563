"""Jacobian-based data set augmentation: a few seeds, and steps along the sign of the substitute's own gradient [1].

Each round the substitute F learns the victim's answers to all of S, and S_{r+1} = S_r and {x + lambda * sign(grad
F_y(x)(x))} with y(x) the victim's label, clipped to the domain and on its grid. The gradient is that of the log-odds of
F_y, whose sign is that of F_y's and which does not vanish where F is certain. [2] steps towards a random other class
instead, in one step or several.

The papers' texts were not at hand; sizes, defaults and variants are as recalled. The substitute is trained on from
round to round. [1] wants adversarial examples that transfer, not a copy; more seeds make a better one.

[1] Papernot, McDaniel, Goodfellow, Jha, Celik, Swami. Practical Black-Box Attacks against Machine Learning. AsiaCCS
2017, algorithm 1. [2] Juuti, Szyller, Marchal, Asokan. PRADA: Protecting against DNN Model Stealing Attacks. EuroS&P
2019 (T-RND).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.attacks._answers import Bought
from locard.attacks._pool import query_set
from locard.attacks._student import MOST, Extractor, ended, eyes, lesson
from locard.attacks.base import Copy, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import fit, reproducible
from locard.queries._adversarial import climb, dealt, radius_of
from locard.records import Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    import torch

    from locard.models import LabelView
    from locard.models.session import Progress


@attacks.register("jbda")
@dataclass(frozen=True, slots=True, kw_only=True)
class JBDA(Extractor):
    """Grow a few inputs to a query set along a substitute's gradients, and train it on the victim's answers.

    Args:
        queries: the most inputs to ask.
        seeds: inputs of the thief's own to begin with; all where it has fewer.
        rounds: of augmentation; without caps each doubles the inputs.
        size: lambda, a share of the domain's range, or of each column's standard deviation where there is none; no less
            than the quantum.
        step: "own", towards the class that the victim gave, or "random", towards a random other one.
        parts: of one step, each with a gradient of its own.
        period: rounds after which the direction is turned round, and back after as many more; 0 for never.
        most: the most new inputs of one round, drawn at random; 0 for no such cap.

    The rest as in `Extractor`. Cost: min(seeds * 2^rounds, queries) queries, less those that coincide; rounds + 1
    trainings of `epochs` passes over what is there by then.
    """

    name: ClassVar[str] = "jbda"

    queries: int = 20_000
    seeds: int = 500
    rounds: int = 6
    size: float = 0.1
    step: str = "own"
    parts: int = 1
    period: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        Extractor.__post_init__(self)
        if self.step not in ("own", "random"):
            raise ParameterError(f"step must be 'own' or 'random'; got {self.step!r}")
        check_number("queries", self.queries, low=1, high=MOST, whole=True)
        check_number("seeds", self.seeds, low=1, whole=True)
        check_number("rounds", self.rounds, low=0, whole=True)
        check_number("size", self.size, above=0, high=1)
        check_number("parts", self.parts, low=1, whole=True)
        check_number("period", self.period, low=0, whole=True)
        check_number("most", self.most, low=0, whole=True)

    def _steal(self, victim: LabelView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        module = self.student(victim, seed=seed)
        bought = Bought(victim, self.needs, most=self.queries)
        bought.ask(query_set(data, min(self.seeds, len(data)), seed=seed))
        wanted, done = (self.rounds + 1) * self.epochs, 0
        for number in range(self.rounds + 1):
            fit(module, bought.inputs, bought.targets, recipe=self.recipe, seed=derive(seed, f"jbda/{number}"),
                progress=lesson(progress, done, wanted))  # fmt: skip
            done += self.epochs
            if (
                number == self.rounds
                or not bought.left
                or not bought.ask(self._augment(module, bought, data, number, seed))
            ):
                break
        ended(progress, done, wanted)
        return self.hand_over(module, victim, bought, done)

    def _augment(self, module: torch.nn.Module, bought: Bought, data: Data, number: int, seed: int) -> np.ndarray:
        """The new inputs of one round, delivered."""
        source = generator(seed, f"jbda/{number}")
        rows = source.permutation(len(bought))[: min(bought.left, self.most or len(bought))]
        inputs, towards = bought.inputs[rows], bought.labels[rows]
        student = eyes(module, data.domain)
        if self.step == "random":
            classes = student.classes or 0
            towards = (towards + source.integers(1, classes, len(towards))) % classes
        turn = -1 if self.period and number // self.period % 2 else 1
        radius = radius_of(data, self.size)
        # One thread: where a gradient is nearly 0, the number of threads would choose its sign.
        with reproducible(derive(seed, "jbda/gradients")):
            return climb(student, inputs, lambda: dealt(lambda logits, own: turn * log_odds(logits, own), towards),
                         radius=radius, step=radius / self.parts, steps=self.parts, domain=data.domain)  # fmt: skip


def log_odds(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Log F_y / (1 - F_y) of the softmax F of (n, K) logits, y the (n,) classes."""
    rows = classes[:, None]
    return logits.gather(1, rows)[:, 0] - logits.scatter(1, rows, float("-inf")).logsumexp(1)
