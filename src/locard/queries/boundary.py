"""Points just across the boundary between two classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number, unknown
from locard.queries._adam import Adam
from locard.queries.base import Population, Queries, movable, reach, samplers
from locard.records import Access, Data, Domain
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.models import GradientView, LogitView
    from locard.models.base import Loss

# Inputs whose logit gaps set the scale of the margin: its median is known to a few per cent.
GAPS = 1000
# Aimed at a little deeper than is asked, so that rounding cannot leave a point stuck at a loss of nothing.
AIM = 1.001
_TARGETS = ("random", "least-likely")


@samplers.register("boundary")
@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """Inputs moved from their class i into another class j, with i as the runner-up (IPGuard's queries [1]).

    From a seed x0 of the data with i = arg max Z(x0), Adam minimises

        L(x) = ReLU(Z_i - Z_j + k) + ReLU(max over t outside {i, j} of Z_t - Z_i)

    in the box of the domain until L = 0: then j leads i by k or more and no third class comes between. With two classes
    the second term is 0. k is a depth in logits, so it is set in units of the victim's own: `margin` times the
    median gap between its largest and second largest logit on the data. A deeper point survives more change of the
    model, and is more often answered alike by an independent one.

    We differ from the paper in three ways. L is taken at the point as it will be delivered (8-bit), so that what is
    stored has L = 0, not a neighbour of it. The first seeds in random order that succeed are kept, not the first to
    succeed, which would favour easy boundaries. Seeds are inputs of the data that the victim classifies rightly (where
    labels are at hand), never noise.

    Args:
        margin: k in units of the median logit gap, 0.05 to 2. At 0.5 the weakest copy stood farthest above the
            strongest independent model, of 0.05, 0.1, 0.2, 0.5, 1 and 2, for two small networks on Fashion-MNIST with
            fine-tuned, pruned and quantised copies and 24 independent models.
        lr: Adam's step, as a share of the domain's range, or of each column's standard deviation where it has none.
        steps: the most steps; a seed that has not crossed by then is dropped.
        target: how j is chosen: "random" among the other classes, or "least-likely", arg min Z(x0).

    The queries carry two more arrays: `faces` (n, 2) int64, each point's i and j, and `depth` (1,) float64, k.

    [1] Cao, Jia, Gong. IPGuard: Protecting Intellectual Property of Deep Neural Networks via Fingerprinting the
    Classification Boundary. AsiaCCS 2021.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    margin: float = 0.5
    lr: float = 0.01
    steps: int = 500
    target: str = "random"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("margin", self.margin, above=0)
        check_number("lr", self.lr, above=0)
        check_number("steps", self.steps, low=1)
        if self.target not in _TARGETS:
            raise unknown("target", self.target, _TARGETS)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: about 100 gradients of the victim for each query, and one answer a seed."""
        domain, inputs = data.domain, data.inputs
        movable(data, "boundary points")
        order = generator(seed, "boundary/seeds").permutation(len(data))
        draws = generator(seed, "boundary/targets").random(len(data))
        depth = self.margin * median_gap(victim, domain.deliver(inputs[order[:GAPS]]))
        step = self.lr * reach(data)
        wanted = default if n is None else n
        points, faces, start, found = [inputs[:0]], [np.empty((0, 2), np.int64)], 0, 0
        while found < wanted and start < len(data):
            rows = order[start : start + (wanted - found) * 11 // 10 + 2]
            seeds = domain.deliver(inputs[rows])
            pairs, usable = self._faces(victim.logits(seeds), draws[start : start + len(rows)])
            if data.labels is not None:
                usable &= pairs[:, 0] == data.labels[rows]
            start += len(rows)
            seeds, pairs = seeds[usable], pairs[usable]
            if len(seeds) == 0:
                continue
            moved, done = cross(victim, seeds, pairs, depth=depth, step=step, steps=self.steps, domain=domain)
            points.append(moved[done])
            faces.append(pairs[done])
            found += int(done.sum())
        least = min(default, 10) if n is None else n
        if found < least:
            raise ParameterError(
                f"{least} boundary points are needed; {found} of {start} inputs of {data.name} crossed into another "
                f"class within {self.steps} steps: give more data, ask fewer --queries, or set a smaller margin "
                f"({self.margin:g}), more steps or a larger lr ({self.lr:g})"
            )
        return Queries(
            inputs=np.concatenate(points)[:wanted],
            extras={"faces": np.concatenate(faces)[:wanted], "depth": np.array([depth])},
        )

    def _faces(self, logits: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 2) classes i and j, and whether they are two."""
        own = logits.argmax(axis=1)
        if self.target == "least-likely":
            other = logits.argmin(axis=1)
        else:
            other = (draws * (logits.shape[1] - 1)).astype(np.int64)
            other += other >= own
        return np.stack([own, other], axis=1), own != other


def median_gap(victim: LogitView, inputs: np.ndarray) -> float:
    """The median over some inputs of the gap between a victim's largest and second largest logit.

    Raises:
        ParameterError: it has one class, or gives half of the inputs no one class.
    """
    logits = victim.logits(inputs).astype(np.float64)
    if logits.shape[1] < 2:
        raise ParameterError(f"a boundary needs two classes; {victim.source} has one")
    top = np.partition(logits, -2, axis=1)[:, -2:]
    gap = float(np.median(top[:, 1] - top[:, 0]))
    if gap <= 0:
        raise ParameterError(f"{victim.source} gives half of the data no one class: it has no boundary to stand on")
    return gap


def cross(
    victim: GradientView,
    seeds: np.ndarray,
    faces: np.ndarray,
    *,
    depth: float,
    step: float | np.ndarray,
    steps: int,
    domain: Domain,
) -> tuple[np.ndarray, np.ndarray]:
    """Move all seeds across their faces together; a point that has arrived is asked no more.

    Args:
        victim: whom to ask.
        seeds: (n, *shape), as delivered.
        faces: (n, 2) integers, the classes i and j of `Boundary`.
        depth: k, in logits.
        step: Adam's step, one number or one for each entry of an input.
        steps: the most steps.
        domain: what inputs are.

    Returns:
        (n, *shape) points as delivered, and (n,) bool, whether L = 0 there.
    """
    points, active = seeds.copy(), np.arange(len(seeds))
    x = seeds.astype(np.float32)
    adam = Adam(x)
    for _ in range(steps):
        points[active] = domain.deliver(x)
        logits, gradient = victim.input_gradient(points[active], face_loss(faces[active], AIM * depth))
        moving = ~across(logits, faces[active], depth)
        if not moving.all():
            active, x, gradient = active[moving], x[moving], gradient[moving]
            adam.keep(moving)
        if len(active) == 0:
            break
        x -= step * adam.step(gradient)
        if domain.bounds is not None:
            np.clip(x, *domain.bounds, out=x)
    # Asked once more, as a suspect will be: in another batch a logit may differ in its last bits.
    return points, across(victim.logits(points), faces, depth)


def across(logits: np.ndarray, faces: np.ndarray, depth: float) -> np.ndarray:
    """Whether L = 0: (n,) bool from (n, classes) logits and (n, 2) faces."""
    rows = np.arange(len(logits))
    own, other = logits[rows, faces[:, 0]], logits[rows, faces[:, 1]]
    third = logits.copy()
    third[rows[:, None], faces] = -np.inf
    return (other - own >= depth) & (third.max(axis=1) <= own)


def face_loss(faces: np.ndarray, depth: float) -> Loss:
    """L of `Boundary` in torch. A model gives its logits batch by batch, in order; the faces are dealt out likewise.

    Args:
        faces: (n, 2) integers.
        depth: k.
    """
    import torch

    dealt = 0

    def loss(logits: torch.Tensor) -> torch.Tensor:
        nonlocal dealt
        pair = torch.from_numpy(faces[dealt : dealt + len(logits)]).to(logits.device)
        dealt += len(logits)
        own, other = logits.gather(1, pair).unbind(dim=1)
        third = logits.scatter(1, pair, -torch.inf).amax(dim=1)
        return (own - other + depth).relu() + (third - own).relu()

    return loss
