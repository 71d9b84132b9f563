"""Points beyond the victim's nearest boundary: far enough for copies, near enough to tell others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import AccessError, ParameterError, check_number
from locard.queries._adversarial import dealt, deepfool
from locard.queries.base import Population, Queries, movable, pool, samplers
from locard.records import Access, Data, Domain
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import GradientView

# Halvings of the line to the boundary: its length is known to a thousandth.
HALVINGS = 10
# How the share of the pool that the bounds must hold for is relaxed until enough anchors are left.
RELAXED = 0.1
_TINY = np.finfo(np.float64).tiny


@samplers.register("anchored")
@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """Anchors moved beyond the nearest boundary by a factor between two bounds (AnaFP's queries [1]).

    From an anchor x, an input with a large margin, d is the shortest step to another class. The query is x + t d with

        1 + e / (c |d|)  <  t  <  m / (L |d|)

    where, with g the logit of the anchor's class less that of the class behind the boundary, c is the slope of the
    victim's g at the boundary, e how far the g of derived models lies from the victim's there, m the g of independent
    models at the anchor and L its slope. Above the lower bound a derived model has crossed too, below the upper one an
    independent model has not, as far as g is linear. The bounds are taken so that each holds for the share `cover` of
    the population's models; where too few anchors have room between them, the share is lowered by a tenth at a time,
    and `cover` of the queries says what it came to. t is the middle of the room, where the smaller of the two distances
    to a bound is largest; anchors with most room are kept.

    The paper's text was not at hand: the bounds follow a summary of it, where shifts and slopes are those of single
    logits, twice of which bounds a difference (hence its 2 e and 2 L). We take the difference itself, at the boundary
    and to first order, where the paper searches a grid because its lower bound moves with t; which quantiles and which
    room are our reading. d is found by DeepFool and bisection, not by Carlini and Wagner's search, which is
    some hundred times as dear. The population's models choose queries and must be judged nowhere.

    Args:
        anchor: only inputs with a margin above this quantile of all margins are anchors.
        cover: share of the population that the bounds are to hold for, at first.
        candidates: anchors that are tried for each query asked for.

    The queries carry `stretch` (n,) float64, t; `room` (n,) float64, the width between the bounds; and `cover` (1,).

    [1] Yang, Geng, Chen, Luo. Fingerprinting Deep Neural Networks for Ownership Protection: An Analytical Approach.
    ICLR 2026.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = True

    anchor: float = 0.5
    cover: float = 0.9
    candidates: int = 10

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("anchor", self.anchor, low=0, below=1)
        check_number("cover", self.cover, above=0, high=1)
        check_number("candidates", self.candidates, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: one answer an input, then for each candidate some tens of gradients of the victim for each class, one
        answer of each derived model, and two gradients of each independent one.
        """
        movable(data, "anchored points")
        others = pool(population, derived=1, independent=1, what="anchored points", like=victim)
        _need(others.derived, Access.LOGITS)
        _need(others.independent, Access.GRADIENTS)
        wanted = default if n is None else n
        x, own = self._anchors(victim, data, wanted * self.candidates, seed)
        crossing = deepfool(victim, x, domain=data.domain)
        x, own = x[crossing.crossed], own[crossing.crossed]
        if len(x) == 0:
            raise ParameterError(
                f"none of {len(crossing.crossed)} inputs of {data.name} can be moved across a boundary of "
                f"{victim.source}: give other data"
            )
        step = to_boundary(victim, x, own, crossing.step[crossing.crossed] * 1.02, data.domain)
        other = victim.labels(_within(x + 1.001 * step, data.domain))
        moved = other != own
        x, own, step, other = x[moved], own[moved], step[moved], other[moved]
        length = np.linalg.norm(step.reshape(len(step), -1).astype(np.float64), axis=1)
        low_parts, high_parts = self._bounds(victim, others, x, step, own, other, length, data.domain)
        cover, kept = self.cover, np.empty(0, np.int64)
        least = min(default, 10) if n is None else n
        stretch, room, points, reached = length, length, x, cover
        while len(kept) < least and cover > 0:
            low, high = 1 + np.quantile(low_parts, cover, axis=0), np.quantile(high_parts, 1 - cover, axis=0)
            stretch, room = (low + high) / 2, high - low
            shape = (-1, *[1] * (x.ndim - 1))
            points = data.domain.deliver((x + stretch.reshape(shape) * step).astype(x.dtype))
            sound = np.flatnonzero(room > 0)
            if len(sound):
                # Rounding and the box can undo the step.
                sound = sound[victim.labels(points[sound]) == other[sound]]
            kept = sound[np.argsort(-room[sound], kind="stable")][:wanted]
            reached, cover = cover, round(cover - RELAXED, 9)
        if len(kept) < least:
            raise ParameterError(
                f"{least} anchored points are needed; {len(kept)} of {len(x)} anchors of {data.name} have room between "
                "what copies and what other models do there: give more data, ask fewer --queries, lower the margin of "
                "anchors (--param anchor=...), or give copies nearer to the victim"
            )
        return Queries(
            inputs=points[kept],
            extras={"stretch": stretch[kept], "room": room[kept], "cover": np.array([reached])},
        )

    def _anchors(self, victim: GradientView, data: Data, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs with a large margin in random order, and their classes."""
        inputs = data.domain.deliver(data.inputs)
        logits = victim.logits(inputs)
        if logits.shape[1] < 2:
            raise ParameterError(f"a boundary needs two classes; {victim.source} has one")
        own = logits.argmax(axis=1)
        gap = margin(logits, own)
        usable = gap >= np.quantile(gap, self.anchor)
        if data.labels is not None:
            usable &= own == data.labels
        rows = generator(seed, "anchored/anchors").permutation(np.flatnonzero(usable))[:most]
        if len(rows) == 0:
            raise ParameterError(f"{victim.source} classifies no input of {data.name} rightly with a large margin")
        return inputs[rows], own[rows]

    def _bounds(
        self, victim: GradientView, others: Population, x: np.ndarray, step: np.ndarray, own: np.ndarray,
        other: np.ndarray, length: np.ndarray, domain: Domain,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """By derived models e / (c |d|), (m, n), and by independent models m / (L |d|), (k, n)."""
        boundary = _within(x + step, domain)
        slope = _slope(victim, boundary, own, other)
        here = _between(victim, boundary, own, other, victim.classes)
        shifts = np.stack([np.abs(_between(model, boundary, own, other, victim.classes) - here)
                           for model in others.derived])  # fmt: skip
        near = np.stack([
            np.maximum(_between(model, x, own, other, victim.classes), 0)
            / np.maximum(_slope(model, x, own, other), _TINY)
            for model in others.independent
        ])  # fmt: skip
        return shifts / np.maximum(slope * length, _TINY), near / length


def margin(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The logit of the own class less the largest other: (n,) float64 from (n, classes) and (n,)."""
    values = logits.astype(np.float64)
    rows = np.arange(len(values))
    mine = values[rows, own]
    values[rows, own] = -np.inf
    return mine - values.max(axis=1)


def to_boundary(victim: Any, x: np.ndarray, own: np.ndarray, step: np.ndarray, domain: Domain) -> np.ndarray:
    """The steps, shortened by bisection to where the label changes.

    Args:
        victim: whom to ask, at LABELS.
        x: (n, *shape) inputs.
        own: (n,) their labels.
        step: (n, *shape) steps into another class.
        domain: what inputs are.

    Returns:
        (n, *shape) steps that just change the label. Cost: n answers for each of ten halvings.
    """
    low, high, shape = np.zeros(len(x)), np.ones(len(x)), (-1, *[1] * (x.ndim - 1))
    for _ in range(HALVINGS if len(x) else 0):
        middle = (low + high) / 2
        crossed = victim.labels(_within((x + middle.reshape(shape) * step).astype(x.dtype), domain)) != own
        high, low = np.where(crossed, middle, high), np.where(crossed, low, middle)
    return (high.reshape(shape) * step).astype(x.dtype)


def _slope(model: Any, x: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) L2 norm of the gradient of Z_own - Z_other."""
    difference = dealt(lambda logits, pair: logits.gather(1, pair).diff(dim=1)[:, 0], np.stack([own, other], axis=1))
    _, gradient = model.input_gradient(x, difference)
    return np.linalg.norm(gradient.reshape(len(x), -1).astype(np.float64), axis=1)


def _between(model: Any, x: np.ndarray, own: np.ndarray, other: np.ndarray, classes: int | None) -> np.ndarray:
    """(n,) float64, Z_own - Z_other of a model that must have so many classes."""
    if model.classes != classes:
        raise ParameterError(f"the victim has {classes} classes, {model.source} of the population has {model.classes}")
    logits, rows = model.logits(x).astype(np.float64), np.arange(len(x))
    return logits[rows, own] - logits[rows, other]


def _within(x: np.ndarray, domain: Domain) -> np.ndarray:
    return x if domain.bounds is None else np.clip(x, *domain.bounds).astype(x.dtype)


def _need(models: tuple[Any, ...], access: Access) -> None:
    method = "input_gradient" if access is Access.GRADIENTS else "logits"
    for model in models:
        if not hasattr(model, method):
            raise AccessError(f"anchored points need {access.text} of a population's models; {model.source} gives less")
