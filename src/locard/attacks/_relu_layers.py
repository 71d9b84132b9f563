"""Two layers from hidden units: which side each is active on, and what is left to the last layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from locard.attacks._relu_lines import Space
from locard.attacks._relu_search import Found
from locard.attacks._relu_units import CAUTION

# Of branch and bound, which decides signs only where hidden units outnumber the equations.
_NODES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """O(x) = second relu(first x + before) + after.

    Args:
        first: (h, d).
        before: (h,).
        second: (outputs, h).
        after: (outputs,).
        spares: hidden units, the last of them, that are none of the victim's: they carry a linear part.
    """

    first: np.ndarray
    before: np.ndarray
    second: np.ndarray
    after: np.ndarray
    spares: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, d) to (n, outputs)."""
        return self._hidden(x) @ self.second.T + self.after

    def _hidden(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ self.first.T + self.before, 0)

    def fitted(self, x: np.ndarray, f: np.ndarray, scale: np.ndarray) -> Layers:
        """The same with the last layer by least squares of f (n, outputs), of standard errors `scale` (n,).

        What is solved for is the change, so that answers that are too few leave it small.
        """
        design = np.concatenate([self._hidden(x), np.ones((len(x), 1))], axis=1)
        change = _least_squares(design, f - self(x), scale)
        return Layers(first=self.first, before=self.before, second=self.second + change[:-1].T,
                      after=self.after + change[-1], spares=self.spares)  # fmt: skip


def layers(found: Found, space: Space) -> Layers:
    """The network that has these units and gives these answers.

    Less the units the answers are linear. Since c relu(-z) = c relu(z) - c z, the linear part is the sum of -c_i n_i
    over the units that are active on the other side than the one taken, so it tells their signs. Where no choice of
    signs gives it, because units of the victim are active wherever was looked, further hidden units carry it.
    """
    units = found.units
    design = np.concatenate([found.x, np.ones((len(found.x), 1))], axis=1)
    affine = _least_squares(design, found.f - units(found.x), found.scale)
    linear, constant = affine[:-1].T, affine[-1]
    jumps = units.weights[:, :, None] * units.normals[:, None]
    allowed = CAUTION * (np.linalg.norm(units.errors) + found.scale.min())
    flipped = signs(jumps.reshape(len(units), -1), -linear.reshape(-1), allowed)
    if flipped is None:
        flipped = np.zeros(len(units), bool)
    linear = linear + jumps[flipped].sum(axis=0)
    constant = constant + (units.weights[flipped] * units.offsets[flipped, None]).sum(axis=0)
    side = np.where(flipped, -1.0, 1.0)
    rows, shifts, out = _spares(linear, space, allowed)
    made = Layers(
        first=np.concatenate([side[:, None] * units.normals, rows]),
        before=np.concatenate([side * units.offsets, shifts]),
        second=np.concatenate([units.weights, out]).T,
        after=constant - shifts @ out if space.bounds is not None else constant,
        spares=len(rows),
    )
    return made.fitted(found.x, found.f, found.scale)


def signs(jumps: np.ndarray, total: np.ndarray, allowed: float) -> np.ndarray | None:
    """Which rows of `jumps` (h, m) add up to `total` (m,) to within `allowed`, or None where none are found to.

    With as many independent equations as rows, least squares tells. With fewer it is a subset sum. As long as m lies
    above h / 2, random equations mostly leave one solution in [0, 1]^h, and a mixed-integer programme finds it at once.
    """
    if len(jumps) == 0:
        return np.zeros(0, bool)
    solved, _, rank, _ = np.linalg.lstsq(jumps.T, total, rcond=None)
    chosen = solved > 0.5
    if rank < len(jumps):
        from scipy.optimize import Bounds, LinearConstraint, milp

        basis, triangle = np.linalg.qr(jumps.T)
        unit = np.abs(triangle).max(axis=1, keepdims=True) + np.finfo(float).tiny
        goal = (basis.T @ total) / unit[:, 0]
        slack = np.maximum(1e-7, allowed * np.sqrt(len(total)) / unit[:, 0])
        found = milp(np.zeros(len(jumps)), integrality=np.ones(len(jumps), int), bounds=Bounds(0, 1),
                     constraints=LinearConstraint(triangle / unit, goal - slack, goal + slack),
                     options={"node_limit": _NODES})  # fmt: skip
        if found.x is None:
            return None
        chosen = found.x > 0.5
    return chosen if np.abs(jumps[chosen].sum(axis=0) - total).max() <= allowed else None


def _spares(linear: np.ndarray, space: Space, allowed: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hidden units that give a linear map (outputs, d): rows (k, d), shifts (k,) and weights (k, outputs).

    Within bounds, one for each of its ranks that is always active; without, l x = relu(l x) - relu(-l x).
    """
    left, sizes, right = np.linalg.svd(linear, full_matrices=False)
    kept = sizes > allowed * np.sqrt(linear.size)
    rows, out = right[kept], (left * sizes).T[kept]
    if space.bounds is None:
        return np.concatenate([rows, -rows]), np.zeros(2 * len(rows)), np.concatenate([out, -out])
    low, high = space.bounds
    least = np.minimum(rows * low, rows * high).sum(axis=1)
    return rows, 0.01 * np.abs(rows).sum(axis=1) * (high - low) - least, out


def _least_squares(design: np.ndarray, f: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(design / scale[:, None], f / scale[:, None], rcond=None)[0]
