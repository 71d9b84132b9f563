"""The smallest L2 step across a victim's boundary, by optimisation (Carlini and Wagner's L2 attack [1])."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from locard.queries._adversarial import dealt

if TYPE_CHECKING:
    import torch

    from locard.models import GradientView
    from locard.records import Domain

# Adam's own constants.
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8
# Ten times in a search a point is looked at, and given up if its loss has not fallen by this share.
LOOKS, STALLED = 10, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Smallest:
    """What was found.

    Args:
        points: (n, *shape) as delivered; the inputs themselves where nothing was found.
        distance: (n,) float64, L2 length of the change in units of `scale`; infinite where nothing was found.
    """

    points: np.ndarray
    distance: np.ndarray


def carlini_wagner(
    victim: GradientView,
    x: np.ndarray,
    labels: np.ndarray,
    *,
    scale: float | np.ndarray,
    domain: Domain,
    targeted: bool = False,
    confidence: float | np.ndarray = 0.0,
    constant: float = 0.01,
    searches: int = 9,
    steps: int = 100,
    lr: float = 0.01,
) -> Smallest:
    """The nearest points that leave their label, or take it if `targeted`, by `confidence` logits [1, section VI-A].

    With d = (x' - x) / scale and g(x') = max over k of Z_k - Z_label, k other than the label (with the opposite sign if
    targeted), Adam minimises ||d||² + c * max(confidence - g(x'), 0). A binary search finds for each input the smallest
    c that succeeds: c grows tenfold until it does, then the interval is halved. Of all points met that succeed the
    nearest is kept.

    We differ from the paper in four ways. The box is kept by clipping, not by x = (tanh(w) + 1) / 2, whose slope
    vanishes at the ends: black pixels would stay black for hundreds of steps. The loss is taken at the point as it will
    be delivered (8-bit), where success is judged and distance measured. Adam's step falls to nothing along half a
    cosine, so that 100 steps do for most ends; an entry then moves lr * steps / 2 at the most, in units of `scale`. And
    c is held to succeed only by points met since its last look: Adam's first strides cross a near boundary whatever c.

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs, as delivered.
        labels: (n,) classes to leave, or to take if `targeted`.
        scale: unit of d, one number or one for each entry of an input: `reach` of the data.
        domain: what inputs are; points stay in its bounds.
        targeted: whether the labels are targets.
        confidence: by how many logits, one number or one for each input.
        constant: the first c.
        searches: values of c that are tried.
        steps: the most steps for one c; a point whose loss stalls is asked no more.
        lr: Adam's first step, in units of `scale`.

    Cost: n * searches * steps gradients at the most.

    [1] Carlini, Wagner. Towards Evaluating the Robustness of Neural Networks. IEEE S&P 2017.
    """
    confidence = np.broadcast_to(np.asarray(confidence, np.float64), len(x))
    task = _Task(victim=victim, x=x, labels=labels, scale=scale, domain=domain, sign=-1 if targeted else 1)
    best = Smallest(points=x.copy(), distance=np.full(len(x), np.inf))
    c, low, high = np.full(len(x), float(constant)), np.zeros(len(x)), np.full(len(x), np.inf)
    for _ in range(searches):
        won = _search(task, best, c, confidence, steps=steps, lr=lr)
        low, high = np.where(won, low, c), np.where(won, c, high)
        c = np.where(np.isfinite(high), (low + high) / 2, c * 10)
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """Whom to ask about what; `sign` is -1 where the labels are targets."""

    victim: GradientView
    x: np.ndarray
    labels: np.ndarray
    scale: float | np.ndarray
    domain: Domain
    sign: int

    def look(self, rows: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The points at x + scale * d as delivered, g there, and its gradient by d."""
        points = self.domain.deliver((self.x[rows] + self.scale * d).astype(self.x.dtype))
        labels = self.labels[rows].astype(np.int64)
        logits, slope = self.victim.input_gradient(points, dealt(_excess, labels))
        others, mine = logits.astype(np.float64), (np.arange(len(rows)), labels)
        own = others[mine]
        others[mine] = -np.inf
        return points, self.sign * (others.max(axis=1) - own), (self.sign * self.scale * slope).astype(np.float32)

    def shares(self, change: np.ndarray) -> np.ndarray:
        """A change of inputs in units of `scale`; an entry of no scale, a constant column, does not move."""
        return np.divide(change, self.scale, out=np.zeros(change.shape, np.float32), where=np.asarray(self.scale) > 0)

    def inside(self, rows: np.ndarray, d: np.ndarray) -> np.ndarray:
        """The d nearest to this one that keeps its point in the bounds."""
        if self.domain.bounds is None:
            return d
        return self.shares(np.clip(self.x[rows] + self.scale * d, *self.domain.bounds) - self.x[rows])


def _search(task: _Task, best: Smallest, c: np.ndarray, confidence: np.ndarray, *, steps: int, lr: float) -> np.ndarray:
    """Adam from d = 0 with one c for each input, for all together; `best` is kept up to date.

    Returns:
        (n,) bool, whether a point met on the way succeeds.
    """
    won, active, axes = np.zeros(len(c), bool), np.arange(len(c)), (-1, *[1] * (task.x.ndim - 1))
    d = np.zeros(task.x.shape, np.float32)
    first, second, before = np.zeros_like(d), np.zeros_like(d), np.full(len(c), np.inf)
    for t in range(1, steps + 1):
        points, gap, slope = task.look(active, d)
        short = confidence[active] - gap
        there, length = (short <= 0) & (gap > 0), _length(task.shares(points - task.x[active]))
        won[active[there]] = True
        better = there & (length < best.distance[active])
        best.points[active[better]], best.distance[active[better]] = points[better], length[better]
        if t % max(1, steps // LOOKS) == 0 and t < steps:
            loss = _length(d) ** 2 + c[active] * np.maximum(short, 0)
            falling = loss < (1 - STALLED) * before
            active, d, first, second, before = (
                active[falling],
                d[falling],
                first[falling],
                second[falling],
                loss[falling],
            )
            slope, short = slope[falling], short[falling]
            if len(active) == 0:
                break
            # A success on the way down says nothing about where this c leads to.
            won[active] = False
        pull = np.where(short > 0, c[active], 0).astype(np.float32).reshape(axes)
        gradient = 2 * d - pull * slope
        first += (1 - _FIRST) * (gradient - first)
        second += (1 - _SECOND) * (gradient * gradient - second)
        step = lr * (1 + np.cos(np.pi * (t - 1) / steps)) / 2
        d = d - np.float32(step / (1 - _FIRST**t)) * first / (np.sqrt(second / np.float32(1 - _SECOND**t)) + _TINY)
        d = task.inside(active, d)
    return won


def _length(d: np.ndarray) -> np.ndarray:
    return np.linalg.norm(d.reshape(len(d), -1).astype(np.float64), axis=1)


def _excess(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By how much the largest other logit exceeds the label's."""
    labels = labels[:, None]
    own = logits.gather(1, labels)[:, 0]
    return logits.scatter(1, labels, -float("inf")).amax(dim=1) - own
