"""Queries that are learnt together with a verifier of the answers to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import ArtefactError, ParameterError, check_number, unknown
from locard.queries._adam import Adam
from locard.queries._ensemble import Ensemble, ensemble
from locard.queries.base import Population, Queries, movable, pool, reach, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView

WHAT = "queries of a meta-verifier"
ANSWERS = ("probabilities", "logits")
# One derived and one independent model to learn from, and one of each to judge by.
FEWEST = 2
# Steps between two looks at the validation part, and steps of the verifier alone on the queries as they are delivered.
EVERY, LAST = 10, 300
# Of AdamW, on the verifier: without it a verifier that has learnt its few models by heart has no gradient left.
DECAY = 0.01

Verifier = dict[str, Any]


@samplers.register("meta")
@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """Inputs X and a verifier V of a model's answers to all of them, learnt together (MetaV's queries [1]).

    The pool is P+, the victim and the `derived` models of the population, and P-, the `independent` ones. With m(X) the
    answers of model m to all queries as one vector, Adam on X and V minimises

        L = - mean over P+ of log V(m(X)) - mean over P- of log(1 - V(m(X)))

    which weighs both sides alike, however many models each has. V is a network of one hidden layer with ReLU whose
    output is the log-odds of P+. X starts at random inputs of the data, stays in the domain, and is asked as it will be
    delivered (8-bit) in every step. A part of the derived and of the independent models is kept for validation; X and V
    of the step with the smallest L there are taken, and then V alone is fitted on, X being what it is, and again taken
    where L is smallest. The victim is always learnt from.

    The paper's text was not at hand and there is no official code: L and what is learnt are the abstract's, all else is
    reconstructed, above all layers, optimiser, steps and the validation. So that time does not grow with the pool, a
    step takes `models` of its models, half of each side.

    A verifier learns its pool: put independent models of the victim's architecture and data into it, lest V tell
    architectures apart, and many, lest it learn them by heart. The models of the population must be judged nowhere.

    Args:
        answers: what V is given: "probabilities" or "logits".
        hidden: units of V's hidden layer.
        steps: steps of X and V.
        models: models of the pool in one step.
        lr: Adam's step on X, as a share of `reach`; 0 leaves X as drawn from the data.
        verifier_lr: Adam's step on V.
        validation: share of each side that is kept for validation, one model at least.

    The queries carry V: `hidden_weight` (n * classes, hidden), `hidden_bias` (hidden,), `out_weight` (hidden,) and
    `out_bias` (1,), float64; see `log_odds`.

    [1] Pan, Yan, Zhang, Yang. A Meta-Verifier Approach to Task-Agnostic Model Fingerprinting. KDD 2022.
    """

    victim_access: ClassVar[Access] = Access.MODULE
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = True

    answers: str = "probabilities"
    hidden: int = 64
    steps: int = 200
    models: int = 8
    lr: float = 0.01
    verifier_lr: float = 1e-3
    validation: float = 0.25

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.answers not in ANSWERS:
            raise unknown("kind of answers", self.answers, ANSWERS)
        check_number("hidden", self.hidden, high=10_000, low=1)
        check_number("steps", self.steps, low=1)
        check_number("models", self.models, low=2)
        check_number("lr", self.lr, low=0)
        check_number("verifier_lr", self.verifier_lr, above=0)
        check_number("validation", self.validation, above=0, below=1)

    def draw(
        self, victim: ModuleView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: n gradients of `models` models a step, and n answers of each model in validation every ten steps.

        Raises:
            ParameterError: V does not even know the victim.
        """
        movable(data, WHAT)
        others = pool(population, derived=FEWEST, independent=FEWEST, what=WHAT)
        rows = take(
            generator(seed, "meta/start").permutation(len(data)),
            n=n,
            default=default,
            least=1,
            what="inputs to start from",
            way_out="give more data, or ask fewer --queries",
        )
        start = data.domain.deliver(data.inputs[rows])
        truth = np.repeat([True, False], [1 + len(others.derived), len(others.independent)])
        with ensemble((victim, *others.derived, *others.independent), like=victim, what=WHAT) as models:
            school = _School(models=models, truth=truth, held=self._held(truth, seed), soft=self.answers != "logits")
            school.measure(start)
            verifier = _untrained(start.shape[0] * (victim.classes or 0), self.hidden, seed)
            x, verifier = self._together(school, verifier, start, data, seed)
            verifier = self._alone(school, verifier, x)
            said = log_odds(school.answers(np.array([0]), x), verifier).item()
        # Written so that no number counts as not known.
        if not said > 0:
            raise ParameterError(
                f"the verifier does not know {victim.source} itself (log-odds {said:.2g}): its independent models "
                f"answer as it does, or {self.steps} steps are too few: give other models (--population DIR) or more "
                "steps (--param steps=...)"
            )
        return Queries(inputs=x, extras=school.folded(verifier))

    def _held(self, truth: np.ndarray, seed: int) -> np.ndarray:
        """Which models are for validation, (m,) bool: a share of each side; never the victim, which is the first."""
        source, held = generator(seed, "meta/split"), np.zeros(len(truth), bool)
        for side in (np.flatnonzero(truth)[1:], np.flatnonzero(~truth)):
            held[source.permutation(side)[: min(max(1, round(self.validation * len(side))), len(side) - 1)]] = True
        return held

    def _together(
        self, school: _School, verifier: Verifier, start: np.ndarray, data: Data, seed: int
    ) -> tuple[np.ndarray, Verifier]:
        """X as delivered and V, from the step that the models in validation liked best."""
        import torch

        optimiser = torch.optim.AdamW(list(verifier.values()), lr=self.verifier_lr, weight_decay=DECAY)
        order, adam, span, domain = generator(seed, "meta/models"), Adam(start), reach(data), data.domain
        sides = [school.learners[school.truth[school.learners] == side] for side in (True, False)]
        x, least, best = start.astype(np.float32), math.inf, (start, verifier)
        for step in range(1, self.steps + 1):
            at = torch.from_numpy(domain.deliver(x)).requires_grad_(self.lr > 0)
            optimiser.zero_grad()
            for side in sides:
                chosen = order.permutation(side)[: self.models // 2]
                # One model after the other, so that the activations of one are in memory.
                for index in chosen:
                    with torch.enable_grad():
                        said = log_odds(school.one(index, at), verifier)
                        (_surprise(said, school.truth[[index]]).sum() / len(chosen)).backward()
            optimiser.step()
            if at.grad is not None:
                x = x - self.lr * span * adam.step(at.grad.numpy())
                x = (x if domain.bounds is None else np.clip(x, *domain.bounds)).astype(np.float32)
            if step % EVERY == 0 or step == self.steps:
                now = domain.deliver(x)
                loss = school.loss(school.answers(school.judges, now), school.judges, verifier).item()
                if loss < least:
                    least, best = loss, (now, _copy(verifier))
        return best

    def _alone(self, school: _School, verifier: Verifier, x: np.ndarray) -> Verifier:
        """V fitted on X as it will be asked."""
        import torch

        verifier = {name: one.detach().clone().requires_grad_() for name, one in verifier.items()}
        optimiser = torch.optim.AdamW(list(verifier.values()), lr=self.verifier_lr, weight_decay=DECAY)
        lessons, tests = school.answers(school.learners, x), school.answers(school.judges, x)
        least, best = math.inf, verifier
        for _ in range(LAST + 1):
            loss = school.loss(tests, school.judges, verifier).item()
            if loss < least:
                least, best = loss, _copy(verifier)
            optimiser.zero_grad()
            with torch.enable_grad():
                school.loss(lessons, school.learners, verifier).backward()
            optimiser.step()
        return best


@dataclass(slots=True, kw_only=True)
class _School:
    """The pool: its models, which of them are derived, and which are held for validation."""

    models: Ensemble
    truth: np.ndarray
    held: np.ndarray
    soft: bool
    # Logits may be of any size; V is told once and for all how large they are.
    shift: float = 0.0
    scale: float = 1.0

    @property
    def learners(self) -> np.ndarray:
        """Numbers of the models that are learnt from."""
        return np.flatnonzero(~self.held)

    @property
    def judges(self) -> np.ndarray:
        """Numbers of the models in validation."""
        return np.flatnonzero(self.held)

    def measure(self, x: np.ndarray) -> None:
        """Set shift and scale by the learners' answers to x."""
        answers = self.answers(self.learners, x)
        self.shift, self.scale = answers.mean().item(), max(answers.std().item(), 1e-6)

    def one(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """m(X) of one model, standardised: (1, n * classes)."""
        logits = self.models.member(int(index), x)
        answers = logits.softmax(dim=1) if self.soft else logits
        return (answers.reshape(1, -1) - self.shift) / self.scale

    def answers(self, which: np.ndarray, x: np.ndarray) -> torch.Tensor:
        """m(X) of several, (k, n * classes), without gradients."""
        import torch

        with torch.no_grad():
            return torch.cat([self.one(index, torch.from_numpy(x)) for index in which])

    def loss(self, answers: torch.Tensor, which: np.ndarray, verifier: Verifier) -> torch.Tensor:
        """L over those models."""
        truth = self.truth[which]
        losses = _surprise(log_odds(answers, verifier), truth)
        return losses[truth].mean() + losses[~truth].mean()

    def folded(self, verifier: Verifier) -> dict[str, np.ndarray]:
        """V for answers as they come, float64."""
        arrays = {name: one.detach().numpy().astype(np.float64) for name, one in verifier.items()}
        weight = arrays["hidden_weight"] / self.scale
        bias = arrays["hidden_bias"] - self.shift * weight.sum(axis=0)
        return {**arrays, "hidden_weight": weight, "hidden_bias": bias}


def log_odds(answers: Any, verifier: Mapping[str, Any]) -> Any:
    """What V says before its sigmoid, in NumPy or torch.

    Args:
        answers: (k, inputs).
        verifier: `hidden_weight` (inputs, hidden), `hidden_bias` (hidden,), `out_weight` (hidden,) and `out_bias` (1,).

    Returns:
        (k,), above 0 where V takes a model for derived.
    """
    hidden = answers @ verifier["hidden_weight"] + verifier["hidden_bias"]
    return (hidden * (hidden > 0)) @ verifier["out_weight"] + verifier["out_bias"]


def verifier_of(queries: Mapping[str, np.ndarray], inputs: int) -> dict[str, np.ndarray]:
    """V as a fingerprint's queries carry it.

    Args:
        queries: the arrays of a fingerprint.
        inputs: how many numbers V is given.

    Raises:
        ArtefactError: V is missing or does not fit, as a stranger's fingerprint may be.
    """
    hidden = queries["hidden_bias"].size if "hidden_bias" in queries else 0
    shapes = {"hidden_weight": (inputs, hidden), "hidden_bias": (hidden,), "out_weight": (hidden,), "out_bias": (1,)}
    for name, shape in shapes.items():
        array = queries.get(name)
        if array is None or array.shape != shape or array.dtype.kind != "f":
            found = "none" if array is None else f"{array.dtype} {array.shape}"
            raise ArtefactError(f"the verifier's {name} must be floating-point {shape}; got {found}")
    return {name: queries[name].astype(np.float64) for name in shapes}


def _surprise(said: torch.Tensor, truth: np.ndarray) -> torch.Tensor:
    """-log of the probability of the truth, by V's log-odds."""
    import torch

    sign = torch.from_numpy(np.where(truth, -1, 1).astype(np.float32))
    return torch.nn.functional.softplus(sign * said)


def _untrained(inputs: int, hidden: int, seed: int) -> Verifier:
    import torch

    source = generator(seed, "meta/verifier")
    sizes = {"hidden_weight": ((inputs, hidden), inputs), "hidden_bias": ((hidden,), inputs),
             "out_weight": ((hidden,), hidden), "out_bias": ((1,), hidden)}  # fmt: skip
    return {
        name: torch.from_numpy((source.uniform(-1, 1, shape) / math.sqrt(fan)).astype(np.float32)).requires_grad_()
        for name, (shape, fan) in sizes.items()
    }


def _copy(verifier: Verifier) -> Verifier:
    return {name: one.detach().clone() for name, one in verifier.items()}
