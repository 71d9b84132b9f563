"""Walks through the victim's regions, class after class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._adversarial import cross_entropy
from locard.queries.base import Population, Queries, movable, reach, samplers
from locard.records import Access, Data, Domain
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import GradientView

# A scale that is known this well, or is so small, will not come to flip the last step alone.
NARROW, NARROWEST = 1.001, 1e-4


@samplers.register("trajectory")
@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Adversarial trajectories (ADV-TRA's queries [1]).

    From an input of the data a walk of signed gradient steps goes towards a random class; the step sizes are
    s, s d, s d² ... with d = `decay`, and s is set so that of the first `length` / 2 steps only the last has the label
    of that class. The same sizes in reverse order then go as far into that class. From there the walk sets out for the
    next class, until it has been in `classes` of them. A point of a walk is a probe, a walk is a unit.

    The paper's text was not at hand; this follows the authors' released code but for three things. The code searches s
    by a rule that shrinks it where a walk arrives too soon and, as written, never lets it grow where a walk does not
    arrive; ours doubles and bisects. It also learns each step size by gradient, with a loss whose minimum is the
    geometric sequence; ours starts there. And where one class's walk begins at the point where the last one ended, the
    point is asked once, not twice. Points are rounded to the domain's grid before the next step is taken from them.

    Args:
        length: steps towards and into each class, an even number.
        classes: classes that a walk goes through, its own included; all where the victim has fewer.
        decay: each step towards a boundary over the one before.
        step: first guess of s, as a share of `reach`.
        tries: the most walks that look for s; a seed for which none is found is dropped.

    n, the number of queries, must be a multiple of the points of a walk, 1 + (classes - 1) * length. The queries carry
    `units` (n,) int64, the number of the walk that a point belongs to.

    [1] Xu, Wang, Liu, Yang, Peng, Liu. United We Stand, Divided We Fall: Fingerprinting Deep Neural Networks via
    Adversarial Trajectories. NeurIPS 2024.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    length: int = 4
    classes: int = 10
    decay: float = 0.95
    step: float = 0.05
    tries: int = 40

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("length", self.length, low=2)
        if self.length % 2:
            raise ParameterError(f"length must be even: half of it leads to a class, half into it; got {self.length}")
        check_number("classes", self.classes, low=2)
        check_number("decay", self.decay, above=0, high=1)
        check_number("step", self.step, above=0, high=1)
        check_number("tries", self.tries, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: some 15 * length / 2 gradients of the victim for each class of each walk."""
        movable(data, "trajectories")
        if victim.classes is None or victim.classes < 2:
            raise ParameterError(f"a trajectory goes from class to class, and {victim.source} does not have two")
        points = 1 + (min(self.classes, victim.classes) - 1) * self.length
        if n is not None and n % points:
            raise ParameterError(
                f"each trajectory has {points} points, so --queries must be a multiple of {points}; got {n}: ask "
                "another number, or set other classes or length (--param classes=...)"
            )
        # As many walks by default whatever the number of classes.
        wanted = max(1, default // (1 + (self.classes - 1) * self.length)) if n is None else n // points
        order = generator(seed, "trajectory/seeds").permutation(len(data))
        source = generator(seed, "trajectory/classes")
        walks, start = [np.empty((0, points, *data.domain.shape), np.dtype(data.domain.dtype))], 0
        while sum(map(len, walks)) < wanted and start < len(data):
            rows = order[start : start + (wanted - sum(map(len, walks))) * 5 // 4 + 4]
            start += len(rows)
            walks.append(self._walks(victim, data, rows, source))
        found = np.concatenate(walks)[:wanted]
        least = min(wanted, 3) if n is None else wanted
        if len(found) < least:
            raise ParameterError(
                f"{least} trajectories are needed; {len(found)} of {start} inputs of {data.name} gave one: give more "
                f"data, ask fewer --queries, or go through fewer classes than {self.classes} (--param classes=...)"
            )
        return Queries(
            inputs=found.reshape(-1, *data.domain.shape),
            extras={"units": np.repeat(np.arange(len(found)), points)},
        )

    def _walks(self, victim: GradientView, data: Data, rows: np.ndarray, source: np.random.Generator) -> np.ndarray:
        """(walks, points, *shape): whole walks from those of the rows that give one."""
        domain, span = data.domain, reach(data)
        starts = domain.deliver(data.inputs[rows])
        own = victim.labels(starts)
        # Drawn for all rows, so that what one row gives does not hang on another.
        draws = source.random((len(rows), victim.classes or 0))
        if data.labels is not None:
            right = own == data.labels[rows]
            starts, own, draws = starts[right], own[right], draws[right]
        draws[np.arange(len(own)), own] = np.inf
        targets = np.argsort(draws, axis=1)[:, : min(self.classes, draws.shape[1]) - 1]
        walks = starts[:, None]
        for stage in range(targets.shape[1]):
            if len(walks) == 0:
                return np.empty((0, 1 + targets.shape[1] * self.length, *walks.shape[2:]), walks.dtype)
            path, arrived = self._to(victim, walks[:, -1], targets[:, stage], span, domain)
            walks, targets = np.concatenate([walks[arrived], path], axis=1), targets[arrived]
        return walks

    def _to(
        self, victim: GradientView, starts: np.ndarray, targets: np.ndarray, span: float | np.ndarray, domain: Domain
    ) -> tuple[np.ndarray, np.ndarray]:
        """(arrived, length, *shape) points of the walks that arrive, and which do, (n,) bool."""
        half = self.length // 2
        sizes = self.decay ** np.arange(half)
        scale = np.full(len(starts), self.step)
        low, high = np.zeros(len(starts)), np.full(len(starts), np.inf)
        paths = np.empty((len(starts), half, *starts.shape[1:]), starts.dtype)
        arrived = np.zeros(len(starts), bool)
        active = np.arange(len(starts))
        for _ in range(self.tries):
            path, labels = walk(victim, starts[active], targets[active], scale[active, None] * sizes, span, domain)
            there = labels == targets[active, None]
            early = there[:, :-1].any(axis=1)
            done = there[:, -1] & ~early
            paths[active[done]], arrived[active[done]] = path[done], True
            high[active[early]] = scale[active[early]]
            short = ~early & ~done
            low[active[short]] = scale[active[short]]
            active = active[~done]
            at, to = low[active], high[active]
            scale[active] = np.where(np.isinf(to), 2 * at, np.where(at > 0, np.sqrt(at * np.minimum(to, 1)), to / 2))
            active = active[(at <= 1) & (to > NARROW * at) & (to > NARROWEST)]
            if len(active) == 0:
                break
        if not arrived.any():
            return np.empty((0, self.length, *starts.shape[1:]), starts.dtype), arrived
        path, targets = paths[arrived], targets[arrived]
        beyond, _ = walk(victim, path[:, -1], targets, scale[arrived, None] * sizes[::-1], span, domain)
        return np.concatenate([path, beyond], axis=1), arrived


def walk(
    victim: GradientView,
    starts: np.ndarray,
    targets: np.ndarray,
    sizes: np.ndarray,
    span: float | np.ndarray,
    domain: Domain,
) -> tuple[np.ndarray, np.ndarray]:
    """Signed gradient steps down the cross-entropy to the targets, all walks together.

    Args:
        victim: whom to ask.
        starts: (n, *shape), as delivered.
        targets: (n,) classes.
        sizes: (n, steps) of each step, as shares of `span`.
        span: what `reach` gives.
        domain: what inputs are; each point is delivered before the next step.

    Returns:
        (n, steps, *shape) points after each step, and (n, steps) their labels. Cost: n gradients a step, n answers.
    """
    x, points, labels = starts, [], []
    for step in range(sizes.shape[1]):
        logits, gradient = victim.input_gradient(x, cross_entropy(targets))
        labels.append(logits.argmax(axis=1))
        size = sizes[:, step].reshape(-1, *[1] * (x.ndim - 1)) * span
        x = domain.deliver((x - size * np.sign(gradient)).astype(x.dtype))
        points.append(x)
    labels.append(victim.labels(x))
    return np.stack(points, axis=1), np.stack(labels[1:], axis=1)
