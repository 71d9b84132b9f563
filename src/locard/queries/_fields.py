"""Gradient fields of a model along straight ways to inputs (ModelGiF [1]).

[1] Song, Xu, Wu, Chen, Song. ModelGiF: Gradient Fields for Model Functional Distance. ICCV 2023; after the authors'
released code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from locard.queries._adversarial import dealt

if TYPE_CHECKING:
    from locard.models import GradientView

# Points whose gradients are held at once, in bytes.
PIECE = 64 << 20


def fields(view: GradientView, x: np.ndarray, baseline: np.ndarray, *, nodes: int, kept: int) -> np.ndarray:
    """Cumulative gradient fields.

    With Gauss-Legendre nodes a_k in (0, 1) and weights w_k, t the class that the model gives x, and m_t its logit,
    F_k = (x - x0) * sum over j <= k of w_j grad m_t(x0 + a_j (x - x0)). The last F are integrated gradients.

    Args:
        view: whom to ask.
        x: (n, *shape) inputs.
        baseline: x0, (*shape) or what broadcasts to it.
        nodes: on each way.
        kept: of the F_k, evenly spaced, the last among them.

    Returns:
        (n, kept, entries) float32. Cost: n answers and n * nodes gradients.
    """
    places, weights = np.polynomial.legendre.leggauss(nodes)
    places, weights = (places + 1) / 2, weights / 2
    steps = -(-np.arange(1, kept + 1) * nodes // kept) - 1
    targets = view.logits(x).argmax(axis=1)
    way = (x - baseline).astype(np.float32)
    found = np.empty((len(x), len(steps), way[0].size), np.float32)
    size = max(1, PIECE // max(1, nodes * way[0].nbytes))
    shape = (nodes, *[1] * (x.ndim - 1))
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        points = baseline + places.reshape(shape) * way[rows][:, None]
        own = np.repeat(targets[rows], nodes)[:, None]
        flat = points.reshape(-1, *x.shape[1:]).astype(x.dtype)
        _, slopes = view.input_gradient(flat, dealt(lambda logits, own: logits.gather(1, own)[:, 0], own))
        slopes = slopes.reshape(len(points), nodes, -1) * weights[:, None].astype(np.float32)
        total = np.cumsum(slopes, axis=1, dtype=np.float64)[:, steps]
        found[rows] = way[rows].reshape(len(points), 1, -1) * total
    return found


def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far two fields lie apart at each input: (n,) mean over steps of 1 - cos, in [0, 2], from (n, steps, entries).

    Two vectors of zeros are at 0, one and another at 1.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=2), np.linalg.norm(b, axis=2)
    product = np.einsum("nse,nse->ns", a, b)
    both = (lengths[0] > 0) & (lengths[1] > 0)
    cosines = np.divide(product, lengths[0] * lengths[1], out=np.zeros_like(product), where=both)
    cosines[(lengths[0] == 0) & (lengths[1] == 0)] = 1
    return (1 - cosines).mean(axis=1)
