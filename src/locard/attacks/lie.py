"""A server that lies to those who test it: where a query looks suspicious, the second class is answered as the first.

What counts as suspicious (`trigger`):

- `margin`: the answered class leads by little, as at a point placed next to a boundary.
- `data`: the input lies far from the thief's data, by the squared Mahalanobis distance under probabilistic PCA.
- `random`: none of that; the wrong answers fill secret regions, which stands in for labels wrong at random.

The threshold is set on half of the thief's data (the other half fits the PCA), such that at most the share `rate` of
them is lied to; on data of their kind the accuracy falls by about as much at most. Each query is judged alone, so the
copy answers the same query always alike. With `keyed`, a suspicious query is lied to only where a secret field is
positive, about half of them: one that is lied to everywhere on a boundary would find the same boundary with its sides
exchanged. The detectors are our own choice. Counts as a theft within 5 points of accuracy.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.attacks.base import Attack, Copy, Network, attacks
from locard.errors import ParameterError, check_number
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.attacks._wrappers import Typicality
    from locard.models import ModuleView
    from locard.models.session import Progress

_TRIGGERS = ("margin", "data", "random")
# Inputs that the PCA is fitted to.
ROWS = 1000


@attacks.register("lie")
@dataclass(frozen=True, slots=True, kw_only=True)
class Lie(Attack):
    """Answer suspicious queries with the second class.

    Args:
        trigger: "margin", "data" or "random".
        rate: share of the thief's data that may be lied to, in [0, 1).
        keyed: lie to about half of the suspicious queries, as a secret field says.
        length: distance over which fields change, as a share of the usual distance between two inputs,
            in [0.001, 1000].
        axes: of the PCA of `data`.
    """

    name: ClassVar[str] = "lie"
    margin: ClassVar[float] = 0.05
    network: ClassVar[Network] = "unnamed"

    trigger: str = "margin"
    rate: float = 0.02
    keyed: bool = False
    length: float = 0.25
    axes: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.trigger not in _TRIGGERS:
            raise ParameterError(f"trigger must be 'margin', 'data' or 'random'; got {self.trigger!r}")
        check_number("rate", self.rate, low=0, below=1)
        check_number("length", self.length, low=1e-3, high=1e3)
        check_number("axes", self.axes, low=1, whole=True)

    @property
    def needs(self) -> Access:
        """The module."""
        return Access.MODULE

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        from locard.attacks._wrappers import Lying, ask, check_inputs, keyed

        assert data is not None  # noqa: S101 - `derive` has checked
        check_inputs(victim, self.name)
        order = generator(seed, "lie/halves").permutation(len(data))
        fitted, judged = np.array_split(data.inputs[order], 2)
        if len(judged) < 2:
            raise ParameterError(f"lie needs 4 inputs or more of the thief's own; {len(data)} were given")
        suspicion = None
        if self.trigger == "data":
            suspicion = typicality(fitted[:ROWS], self.axes)
        elif self.trigger == "random":
            suspicion = keyed(data.inputs, 1, share=self.length, seed=seed, name="lie/where")
        key = keyed(data.inputs, 1, share=self.length, seed=seed, name="lie/key") if self.keyed else None
        module = copy.deepcopy(victim.module())
        if suspicion is None:
            two = np.sort(ask(module, judged), axis=1)[:, -2:]
            found = two[:, 0] - two[:, 1]
        else:
            found = ask(suspicion, judged).reshape(-1)
        return Copy(module=Lying(module, suspicion, threshold(found, self.rate), key))


def threshold(found: np.ndarray, rate: float) -> float:
    """The lowest number, less room for rounding, that at most a share `rate` of (n,) numbers lie above."""
    falling = np.sort(found.astype(np.float64))[::-1]
    allowed = int(rate * len(falling))
    above = falling[allowed - 1] if allowed else falling[0] + 1e-3 * abs(falling[0])
    return float((above + falling[allowed]) / 2)


def typicality(inputs: np.ndarray, axes: int) -> Typicality:
    """Probabilistic PCA of (n, *shape) inputs: see `Typicality`.

    Raises:
        ParameterError: the inputs are all alike.
    """
    import torch

    from locard.attacks._wrappers import Typicality

    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    _, sizes, directions = np.linalg.svd(flat - mean, full_matrices=False)
    variances = sizes**2 / len(flat)
    if not variances[0] > 0:
        raise ParameterError("the thief's inputs must differ; all of them are equal")
    kept = min(axes, int(np.count_nonzero(variances > 1e-6 * variances[0])))
    others = flat.shape[1] - kept
    # Where nothing is left across the axes, or next to nothing, a change in that direction is as odd as can be.
    rest = max(float(variances[kept:].sum()) / max(others, 1), 1e-6 * float(variances[0]))
    mean, axes_kept, spread = (torch.from_numpy(array.astype(np.float32).copy())
                               for array in (mean, directions[:kept].T, variances[:kept]))  # fmt: skip
    return Typicality(mean, axes_kept, spread, rest)
