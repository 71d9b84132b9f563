"""Points where all classes meet, several to a unit, units chosen by how well they tell copies from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._adam import Adam
from locard.queries._adversarial import dealt
from locard.queries.base import Population, Queries, movable, pool, reach, samplers
from locard.records import Access, Data, Domain
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import GradientView
    from locard.models.base import Loss

# A pool that agrees with itself has no spread; this much keeps the thresholds between the two means.
LEAST_SPREAD = 1e-3


@samplers.register("iris")
@dataclass(frozen=True, slots=True, kw_only=True)
class Iris:
    """Composite points near the place where all decision regions meet (IrisFP's queries [1]).

    From an input x, Adam moves `variants` + 1 copies of it, each to a random class c of its own, so that the victim's
    probabilities come near 1 / C + `lift` for c and equal shares of the rest for the others, at a small change:

        KL(target || p(x + d)) + `sparsity` * mean |d|

    The copies are a unit. Of `candidates` units for each one wanted, those are kept whose share of matching labels
    tells derived from independent models of the population best, by Cohen's d; and each unit gets a threshold of its
    own, the mean of the two pools' means weighted by 1 over their standard deviations, at which both err equally often
    if their shares are normal. The population's models choose queries and must be judged nowhere.

    The paper's text was not at hand: objective, selection and thresholds follow a summary of it; Adam's settings, the
    numbers below and the form of the L1 term (a mean over the entries, in shares of the domain's range) are ours.

    Args:
        lift: how far the chosen class is raised above 1 / C.
        variants: points of a unit beside the first.
        candidates: units that are tried for each one kept.
        sparsity: weight of the change.
        lr: Adam's step, as a share of `reach`.
        steps: how many.

    n, the number of queries, must be a multiple of `variants` + 1. The queries carry `units` (n,) int64 and
    `thresholds` (units,) float64, in (0, 1].

    [1] Geng, Yang, Chen, Luo. IrisFP: Adversarial-Example-based Model Fingerprinting with Enhanced Uniqueness and
    Robustness. CVPR 2026.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = True

    lift: float = 0.2
    variants: int = 4
    candidates: int = 3
    sparsity: float = 0.1
    lr: float = 0.01
    steps: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("lift", self.lift, above=0, below=1)
        check_number("variants", self.variants, low=1, high=1000)
        check_number("candidates", self.candidates, low=1)
        check_number("sparsity", self.sparsity, low=0)
        check_number("lr", self.lr, above=0)
        check_number("steps", self.steps, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: `steps` gradients of the victim and one answer of each model of the population for each candidate point.
        """
        movable(data, "points where classes meet")
        others = pool(population, derived=2, independent=2, what="points where classes meet", like=victim)
        size = self.variants + 1
        if n is not None and n % size:
            raise ParameterError(
                f"each unit has {size} points, so --queries must be a multiple of {size}; got {n}: ask another number, "
                "or set another number of variants (--param variants=...)"
            )
        wanted = max(1, default // size) if n is None else n // size
        units, targets = self._candidates(victim, data, wanted * self.candidates, seed)
        least = min(wanted, 3) if n is None else wanted
        if len(units) < least:
            raise ParameterError(
                f"{least} units are needed; {len(units)} inputs of {data.name} led to points of {size} chosen classes: "
                "give more data, ask fewer --queries, or take more steps (--param steps=...)"
            )
        flat = units.reshape(-1, *data.domain.shape)
        copies, strangers = (
            np.stack([(_labels(model, flat).reshape(targets.shape) == targets).mean(axis=1) for model in models])
            for models in (others.derived, others.independent)
        )
        kept = np.argsort(-cohens_d(copies, strangers), kind="stable")[:wanted]
        return Queries(
            inputs=units[kept].reshape(-1, *data.domain.shape),
            extras={
                "units": np.repeat(np.arange(len(kept)), size),
                "thresholds": thresholds(copies[:, kept], strangers[:, kept]),
            },
        )

    def _candidates(self, victim: GradientView, data: Data, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(units, points, *shape) whose points all have their class, and (units, points) the classes."""
        classes, size = victim.classes, self.variants + 1
        if classes is None or classes < 2:
            raise ParameterError(f"classes meet where there are two or more, and {victim.source} does not have them")
        if 1 / classes + self.lift >= 1:
            raise ParameterError(f"lift must leave something for {classes - 1} other classes; got {self.lift:g}")
        rows = generator(seed, "iris/seeds").permutation(len(data))[:most]
        targets = generator(seed, "iris/classes").integers(0, classes, (len(rows), size))
        seeds = np.repeat(data.domain.deliver(data.inputs[rows]), size, axis=0)
        points = self._moved(victim, seeds, targets.ravel(), classes, reach(data), data.domain)
        right = (victim.labels(points) == targets.ravel()).reshape(targets.shape).all(axis=1)
        return points.reshape(*targets.shape, *data.domain.shape)[right], targets[right]

    def _moved(
        self, victim: GradientView, seeds: np.ndarray, targets: np.ndarray, classes: int, span: float | np.ndarray,
        domain: Domain,
    ) -> np.ndarray:  # fmt: skip
        """The seeds after all steps, as delivered."""
        goal = np.full((len(targets), classes), (1 - 1 / classes - self.lift) / (classes - 1), np.float32)
        goal[np.arange(len(targets)), targets] = 1 / classes + self.lift
        x, adam = seeds.astype(np.float32), Adam(seeds)
        pull = self.sparsity / max(1, int(np.prod(domain.shape)))
        for _ in range(self.steps):
            _, gradient = victim.input_gradient(x.astype(domain.dtype), divergence(goal))
            x -= self.lr * span * adam.step(gradient * span + pull * np.sign(x - seeds))
            if domain.bounds is not None:
                np.clip(x, *domain.bounds, out=x)
        return domain.deliver(x.astype(domain.dtype))


def _labels(model: Any, inputs: np.ndarray) -> np.ndarray:
    return model.labels(inputs)


def divergence(goal: np.ndarray) -> Loss:
    """KL(goal || softmax of the logits) of each input, in torch; the goals are dealt out batch by batch.

    Args:
        goal: (n, classes) float32 probabilities, all positive.
    """
    return dealt(lambda logits, wanted: (wanted * (wanted.log() - logits.log_softmax(dim=1))).sum(dim=1), goal)


def cohens_d(copies: np.ndarray, strangers: np.ndarray) -> np.ndarray:
    """How many pooled standard deviations lie between the means, of each column.

    Args:
        copies: (models, units) shares of matching labels of derived models, two models or more.
        strangers: (models, units) those of independent models.

    Returns:
        (units,) float64.
    """
    sizes = len(copies) - 1, len(strangers) - 1
    spread = sizes[0] * copies.var(axis=0, ddof=1) + sizes[1] * strangers.var(axis=0, ddof=1)
    return (copies.mean(axis=0) - strangers.mean(axis=0)) / np.sqrt(spread / sum(sizes) + LEAST_SPREAD**2)


def thresholds(copies: np.ndarray, strangers: np.ndarray) -> np.ndarray:
    """The mean of the two pools' means weighted by 1 over their standard deviations: (units,), see `cohens_d`."""
    weights = [1 / (np.sqrt(pool.var(axis=0, ddof=1)) + LEAST_SPREAD) for pool in (copies, strangers)]
    means = [pool.mean(axis=0) for pool in (copies, strangers)]
    return np.clip((weights[0] * means[0] + weights[1] * means[1]) / (weights[0] + weights[1]), LEAST_SPREAD, 1)
