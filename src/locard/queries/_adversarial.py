"""Steps across a victim's boundary, for all inputs at once: FGSM [1], PGD [2], MI-FGSM [4] and DeepFool [3].

Every function takes a gradient view and asks it in batches; an input that has arrived is asked no more. Distances are
in the units of the inputs; `queries.base.reach` says how large a domain is, so that a sampler's parameters can be
shares of it.

[1] Goodfellow, Shlens, Szegedy. Explaining and Harnessing Adversarial Examples. ICLR 2015, section 4. [2] Madry,
Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial Attacks. ICLR 2018, equation 3.
[3] Moosavi-Dezfooli, Fawzi, Frossard. DeepFool. CVPR 2016, algorithm 2. [4] Dong, Liao, Pang, Su, Zhu, Hu, Li.
Boosting Adversarial Attacks with Momentum. CVPR 2018, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from locard.queries.base import reach

if TYPE_CHECKING:
    import torch

    from locard.models import GradientView
    from locard.models.base import Loss
    from locard.records import Data, Domain

# A gap between two logits below this share of their spread is rounding.
ROUNDING = 1e-6
# Inputs whose gradients of all classes are held at once.
PIECE = 256


def radius_of(data: Data, eps: float) -> float | np.ndarray:
    """`eps` as a share of `reach`, but no less than the domain's quantum: a smaller change is lost on delivery."""
    radius, quantum = eps * reach(data), data.domain.quantum or 0.0
    if isinstance(radius, np.ndarray):
        return np.where(radius > 0, np.maximum(radius, np.float32(quantum)), radius)
    return max(radius, quantum)


def dealt(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], rows: np.ndarray) -> Loss:
    """A loss that needs something of each input, in torch.

    A model gives its logits batch by batch, in order; the rows are dealt out likewise, so one loss serves one call.

    Args:
        loss: maps (b, classes) logits and the b rows that belong to them to (b,) losses.
        rows: (n, ...) numbers, one row an input.
    """
    import torch

    start = 0

    def one_batch(logits: torch.Tensor) -> torch.Tensor:
        nonlocal start
        mine = torch.tensor(rows[start : start + len(logits)], device=logits.device)
        start += len(logits)
        return loss(logits, mine)

    return one_batch


def cross_entropy(labels: np.ndarray) -> Loss:
    """Cross-entropy of each input to its label, in torch; like all that is `dealt` it serves one call.

    Args:
        labels: (n,) integers.
    """
    from torch.nn import functional

    return dealt(lambda logits, own: functional.cross_entropy(logits, own, reduction="none"), labels.astype(np.int64))


def fgsm(
    victim: GradientView, x: np.ndarray, labels: np.ndarray, *, radius: float | np.ndarray, domain: Domain
) -> np.ndarray:
    """One step of `radius` along the sign of the gradient of the cross-entropy, away from the labels [1].

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs.
        labels: (n,) classes to move away from.
        radius: of the step, one number or one for each entry of an input.
        domain: what inputs are.

    Returns:
        (n, *shape) as delivered. Cost: n gradients.
    """
    _, gradient = victim.input_gradient(x, cross_entropy(labels))
    return domain.deliver((x + radius * np.sign(gradient)).astype(x.dtype))


def pgd(
    victim: GradientView,
    x: np.ndarray,
    labels: np.ndarray,
    *,
    radius: float | np.ndarray,
    step: float | np.ndarray,
    steps: int,
    domain: Domain,
    targeted: bool = False,
    momentum: float = 0.0,
    source: np.random.Generator | None = None,
) -> np.ndarray:
    """`climb` the cross-entropy away from the labels, or down it towards them.

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs.
        labels: (n,) classes to move away from, or towards if `targeted`.
        radius: largest change of an entry, one number or one for each entry of an input.
        step: of one step.
        steps: how many.
        domain: what inputs are; points stay in its bounds.
        targeted: whether the labels are targets.
        momentum: see `climb`; with 1 this is MI-FGSM.
        source: draws a random start in the box; None starts at x.

    Returns:
        (n, *shape) as delivered. Cost: n * steps gradients.
    """

    def loss() -> Loss:
        away = cross_entropy(labels)
        return (lambda logits: -away(logits)) if targeted else away

    return climb(victim, x, loss, radius=radius, step=step, steps=steps, domain=domain, momentum=momentum,
                 source=source)  # fmt: skip


def climb(
    victim: GradientView,
    x: np.ndarray,
    loss: Callable[[], Loss],
    *,
    radius: float | np.ndarray,
    step: float | np.ndarray,
    steps: int,
    domain: Domain,
    momentum: float = 0.0,
    source: np.random.Generator | None = None,
) -> np.ndarray:
    """Steps up a loss along the sign of its gradient, projected onto the box of that radius around x [2, equation 3].

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs.
        loss: makes a loss for one call.
        radius: largest change of an entry, one number or one for each entry of an input.
        step: of one step.
        steps: how many.
        domain: what inputs are; points stay in its bounds.
        momentum: share of the sum of the gradients so far, each divided by its L1 norm, that is kept from one step to
            the next [4]; with 0 the gradient alone is followed.
        source: draws a random start in the box; None starts at x.

    Returns:
        (n, *shape) as delivered; rounding to the domain's quantum is the last act, and may lead out of the box by half
        a quantum. Cost: n * steps gradients.
    """
    low, high = x - radius, x + radius
    if domain.bounds is not None:
        low, high = np.clip(low, *domain.bounds), np.clip(high, *domain.bounds)
    low, high = low.astype(x.dtype), high.astype(x.dtype)
    points = x if source is None else np.clip(x + radius * source.uniform(-1, 1, x.shape), low, high)
    points = points.astype(x.dtype)
    course: float | np.ndarray = 0.0
    for _ in range(steps):
        _, gradient = victim.input_gradient(points, loss())
        if momentum:
            length = np.abs(gradient).reshape(len(x), -1).sum(axis=1).reshape(-1, *[1] * (x.ndim - 1))
            gradient = course = momentum * course + gradient / np.maximum(length, np.finfo(np.float32).tiny)
        points = np.clip(points + step * np.sign(gradient), low, high).astype(x.dtype)
    return domain.deliver(points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where DeepFool came from and to.

    Args:
        step: (n, *shape) float32, the sum of all steps r, without overshoot and not clipped.
        own: (n,) class of the input.
        other: (n,) class of the boundary that the last step went to; `own` where there was none.
        crossed: (n,) bool, whether the label changed.
    """

    step: np.ndarray
    own: np.ndarray
    other: np.ndarray
    crossed: np.ndarray


def deepfool(
    victim: GradientView,
    x: np.ndarray,
    *,
    steps: int = 50,
    overshoot: float = 0.02,
    domain: Domain,
    candidates: int = 10,
) -> Crossing:
    """Shortest steps to the nearest boundary, in the L2 norm [3, algorithm 2].

    At each step the logits are taken for linear: to class k the boundary lies |f_k - f_own| / ||w_k|| away, with
    w_k = grad f_k - grad f_own; the step goes to the nearest. It ends when x + (1 + overshoot) * r, clipped to the
    domain's bounds, has another label. Rounding to the domain's quantum is left to the caller.

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs.
        steps: the most steps.
        overshoot: share of r that is gone further than r.
        domain: what inputs are.
        candidates: only so many classes, those with the largest logits at x, are looked at; with many classes the rest
            would take nearly all of the time.

    Cost: n * (candidates - 1) gradients and n answers a step, for the inputs that have not crossed yet.
    """
    order = np.argsort(-victim.logits(x), axis=1, kind="stable")[:, :candidates]
    own = order[:, 0].copy()
    total = np.zeros_like(x, dtype=np.float32)
    other, crossed = own.copy(), np.zeros(len(x), bool)
    active = np.arange(len(x))
    for _ in range(steps):
        at = _moved(x[active], total[active], overshoot, domain)
        stride, nearest = _to_the_nearest(victim, at, order[active])
        total[active] += stride
        other[active] = nearest
        now = victim.labels(_moved(x[active], total[active], overshoot, domain))
        crossed[active] = now != own[active]
        active = active[(now == own[active]) & (nearest != own[active])]
        if len(active) == 0:
            break
    return Crossing(step=total, own=own, other=other, crossed=crossed)


def class_gradients(victim: GradientView, x: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of every logit by the input.

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs.
        classes: how many logits there are.

    Returns:
        (n, classes) logits and (n, classes, *shape) gradients. Cost: n gradients, of `classes` losses each.
    """
    return victim.input_gradient(x, lambda logits: logits[:, :classes])


def _to_the_nearest(victim: GradientView, x: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The step r of DeepFool and the class it goes to, of those in `order`, whose first is the input's own.

    The differences w_k are asked for as such: a class less than all logits, in one forward pass.
    """
    own, rows = order[:, 0], np.arange(len(x))
    if order.shape[1] < 2:
        return np.zeros(x.shape, np.float32), own.copy()
    stride, nearest = np.empty(x.shape, np.float32), np.empty(len(x), own.dtype)
    # In pieces, because all gradients of many classes at once would take much memory.
    for start in range(0, len(x), PIECE):
        at = slice(start, start + PIECE)
        logits, slopes = victim.input_gradient(x[at], dealt(_leads, order[at]))
        # A gap of nothing would leave the point on the boundary for ever.
        least = ROUNDING * np.ptp(logits, axis=1, keepdims=True)
        leads = np.take_along_axis(logits, order[at, 1:], axis=1) - np.take_along_axis(logits, order[at, :1], axis=1)
        lengths = np.linalg.norm(slopes.reshape(*slopes.shape[:2], -1).astype(np.float64), axis=2)
        far = np.divide(
            np.maximum(np.abs(leads), least), lengths, out=np.full(lengths.shape, np.inf), where=lengths > 0
        )
        best, here = far.argmin(axis=1), rows[: len(logits)]
        moves = np.isfinite(far[here, best])
        nearest[at] = np.where(moves, order[at][here, best + 1], own[at])
        size = np.divide(far[here, best], lengths[here, best], out=np.zeros(len(here)), where=moves)
        stride[at] = size.reshape(-1, *[1] * (x.ndim - 1)) * slopes[here, best]
    return stride, nearest


def _leads(logits: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """How far each other class of the order leads the first."""
    ranked = logits.gather(1, order)
    return ranked[:, 1:] - ranked[:, :1]


def _moved(x: np.ndarray, step: np.ndarray, overshoot: float, domain: Domain) -> np.ndarray:
    moved = x + (1 + overshoot) * step
    return (moved if domain.bounds is None else np.clip(moved, *domain.bounds)).astype(x.dtype)
