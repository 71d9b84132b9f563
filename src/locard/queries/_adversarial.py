"""Steps across a victim's boundary, for all inputs at once: FGSM [1], PGD [2] and DeepFool [3].

Every function takes a gradient view and asks it in batches; an input that has arrived is asked no more. Distances are
in the units of the inputs; `queries.base.reach` says how large a domain is, so that a sampler's parameters can be
shares of it.

[1] Goodfellow, Shlens, Szegedy. Explaining and Harnessing Adversarial Examples. ICLR 2015, section 4. [2] Madry,
Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial Attacks. ICLR 2018, equation 3.
[3] Moosavi-Dezfooli, Fawzi, Frossard. DeepFool. CVPR 2016, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from locard.models import GradientView
    from locard.models.base import Loss
    from locard.records import Domain


def cross_entropy(labels: np.ndarray) -> Loss:
    """Cross-entropy of each input to its label, in torch.

    A model gives its logits batch by batch, in order; the labels are dealt out likewise, so one loss serves one call.

    Args:
        labels: (n,) integers.
    """
    import torch

    dealt = 0

    def loss(logits: torch.Tensor) -> torch.Tensor:
        nonlocal dealt
        own = torch.from_numpy(labels[dealt : dealt + len(logits)]).to(logits.device)
        dealt += len(logits)
        return torch.nn.functional.cross_entropy(logits, own, reduction="none")

    return loss


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
    return domain.deliver(x + radius * np.sign(gradient))


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
    source: np.random.Generator | None = None,
) -> np.ndarray:
    """Steps along the sign of the gradient, projected onto the box of that radius around x [2, equation 3].

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs.
        labels: (n,) classes to move away from, or towards if `targeted`.
        radius: largest change of an entry, one number or one for each entry of an input.
        step: of one step.
        steps: how many.
        domain: what inputs are; points stay in its bounds.
        targeted: whether the labels are targets.
        source: draws a random start in the box; None starts at x.

    Returns:
        (n, *shape) as delivered; rounding to the domain's quantum is the last act. Cost: n * steps gradients.
    """
    low, high = x - radius, x + radius
    if domain.bounds is not None:
        low, high = np.clip(low, *domain.bounds), np.clip(high, *domain.bounds)
    low, high = low.astype(x.dtype), high.astype(x.dtype)
    points = x if source is None else np.clip(x + radius * source.uniform(-1, 1, x.shape), low, high)
    points = points.astype(x.dtype)
    towards = -1 if targeted else 1
    for _ in range(steps):
        _, gradient = victim.input_gradient(points, cross_entropy(labels))
        points = np.clip(points + towards * step * np.sign(gradient), low, high).astype(x.dtype)
    return domain.deliver(points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where DeepFool came from and to.

    Args:
        step: (n, *shape) float32, the sum of all steps r, without overshoot and not clipped.
        own: (n,) class of the input.
        other: (n,) class of the boundary that the last step went to.
        crossed: (n,) bool, whether the label changed.
    """

    step: np.ndarray
    own: np.ndarray
    other: np.ndarray
    crossed: np.ndarray


def deepfool(
    victim: GradientView, x: np.ndarray, *, steps: int = 50, overshoot: float = 0.02, domain: Domain
) -> Crossing:
    """Shortest steps to the nearest boundary, in the L2 norm [3, algorithm 2].

    At each step the logits are taken for linear: to class k the boundary lies |f_k - f_own| / ||w_k|| away, with
    w_k = grad f_k - grad f_own; the step goes to the nearest. It ends when x + (1 + overshoot) * r, clipped to the
    domain's bounds, has another label.

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs.
        steps: the most steps.
        overshoot: share of r that is gone further than r.
        domain: what inputs are.

    Cost: n * classes gradients and n answers a step, for the inputs that have not crossed yet.
    """
    logits = victim.logits(x)
    own, classes = logits.argmax(axis=1), logits.shape[1]
    total = np.zeros_like(x, dtype=np.float32)
    other, crossed = own.copy(), np.zeros(len(x), bool)
    active = np.arange(len(x))
    for _ in range(steps):
        at = _moved(x[active], total[active], overshoot, domain)
        values, slopes = class_gradients(victim, at, classes)
        rows = np.arange(len(active))
        gaps = values - values[rows, own[active], None]
        slopes = slopes.reshape(len(active), classes, -1)
        slopes = slopes - slopes[rows, own[active], None]
        lengths = np.linalg.norm(slopes, axis=2)
        lengths[rows, own[active]] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            far = np.where(lengths > 0, np.abs(gaps) / lengths, np.inf)
        nearest = far.argmin(axis=1)
        moves = np.isfinite(far[rows, nearest])
        slope, length = slopes[rows, nearest], np.maximum(lengths[rows, nearest], np.finfo(np.float32).tiny)
        # A gap of nothing would leave the point on the boundary for ever.
        gap = np.abs(gaps[rows, nearest]) + 1e-6
        stride = np.where(moves, gap / length**2, 0)[:, None] * slope
        total[active] += stride.reshape(-1, *x.shape[1:]).astype(np.float32)
        other[active] = nearest
        now = victim.labels(_moved(x[active], total[active], overshoot, domain))
        crossed[active] = now != own[active]
        active = active[(now == own[active]) & moves]
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
        (n, classes) logits and (n, classes, *shape) gradients. Cost: n * classes gradients.
    """
    parts = [victim.input_gradient(x, lambda logits, k=k: logits[:, k]) for k in range(classes)]
    return parts[0][0], np.stack([gradient for _, gradient in parts], axis=1)


def _moved(x: np.ndarray, step: np.ndarray, overshoot: float, domain: Domain) -> np.ndarray:
    moved = x + (1 + overshoot) * step
    return (moved if domain.bounds is None else np.clip(moved, *domain.bounds)).astype(x.dtype)
