"""Inputs that drive single neurons of the victim further than any of the data do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._adam import Adam
from locard.queries._certain import most_certain
from locard.queries._layers import hidden, neurons, watched
from locard.queries.base import Population, Queries, movable, reach, samplers
from locard.records import Access, Data, Domain
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView

# Inputs whose activations say how far the data drive a neuron, and steps between two looks at who is too slow.
REFERENCE, LOOK = 2000, 25
WHAT = "tests of neurons"


@samplers.register("neurons")
@dataclass(frozen=True, slots=True, kw_only=True)
class Neurons:
    """White-box tests: from an input, Adam raises one neuron of a layer to `factor` times its maximum on data [1].

    Each neuron is tried from the `seeds` inputs that the victim is most certain of (of labelled data, those it gets
    right), all tests in batches whatever their neuron; a test that has arrived, as delivered (8-bit), is asked no more.
    Neurons in random order take turns, the next one with the next seed, until there are n tests. The released code
    tries all pairs, so that their number follows from the victim; here the caller names it. A neuron that none of 2,000
    inputs drives above 0 has no maximum to exceed and is left out; one whose tests never arrive has none.

    Settings follow the authors' released code. A test that, at the pace of its last 25 steps, would not arrive in
    those that are left is given up: that is ours, and saves most of the time.

    Args:
        layer: its name, or "" for the last hidden one. A channel is a neuron, by its mean over places.
        seeds: inputs from which each neuron is tried.
        factor: how far a neuron must be driven, in its maxima over the data.
        lr: Adam's step, as a share of `reach`.
        steps: the most steps.

    The queries carry `neurons` (n,) int64, the neuron that each is for.

    [1] Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song. Copy, Right? A Testing Framework for Copyright Protection of
    Deep Learning Models. IEEE S&P 2022.
    """

    victim_access: ClassVar[Access] = Access.MODULE
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    layer: str = ""
    seeds: int = 100
    factor: float = 3.0
    lr: float = 0.01
    steps: int = 1000

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("seeds", self.seeds, low=1)
        check_number("factor", self.factor, above=0)
        check_number("lr", self.lr, above=0)
        check_number("steps", self.steps, low=1)

    def draw(
        self, victim: ModuleView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: up to `steps` gradients of the victim for each test that is tried, and one answer for each input of the
        data.

        Raises:
            ParameterError: inputs cannot be moved, there is no such layer, or too few tests arrive.
        """
        movable(data, WHAT)
        name = hidden(victim.layers(), self.layer, victim.source)
        starts = data.domain.deliver(data.inputs[most_certain(victim, data, most=self.seeds)])
        source = generator(seed, "neurons")
        shown = data.domain.deliver(data.inputs[source.permutation(len(data))[:REFERENCE]])
        limits = self.factor * neurons(victim.activations(shown, [name])[name]).max(axis=0)
        alive = source.permutation(np.flatnonzero(limits > 0))
        wanted = default if n is None else n
        pairs = _turns(len(alive), len(starts))
        parts, whose, tried = [starts[:0]], [alive[:0]], 0
        with watched(victim, name, what=WHAT) as activations:
            while sum(map(len, whose)) < wanted and tried < len(pairs):
                turn, start = pairs[tried : tried + (wanted - sum(map(len, whose))) * 5 // 4 + 4].T
                tried += len(turn)
                points, arrived = self._driven(activations, starts[start], alive[turn], limits, data)
                parts.append(points[arrived])
                whose.append(alive[turn][arrived])
        found = np.concatenate(whose)[:wanted]
        if len(found) < (1 if n is None else n):
            raise ParameterError(
                f"{1 if n is None else n} {WHAT} are needed; {len(found)} of {tried} arrive in layer {name!r} of "
                f"{victim.source}, {len(alive)} of whose {len(limits)} neurons {data.name} drives at all: ask fewer "
                "--queries, or set a smaller factor, more steps or another layer (--param factor=...)"
            )
        return Queries(inputs=np.concatenate(parts)[:wanted], extras={"neurons": found.astype(np.int64)})

    def _driven(
        self,
        activations: Callable[[torch.Tensor], torch.Tensor],
        starts: np.ndarray,
        whose: np.ndarray,
        limits: np.ndarray,
        data: Data,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, *shape) where each test ended, as delivered, and (n,) bool, whether its neuron exceeds its limit."""
        import torch

        span, domain, ends = reach(data), data.domain, starts.copy()
        arrived, active = np.zeros(len(starts), bool), np.arange(len(starts))
        x, adam, before = starts.astype(np.float32), Adam(starts), np.full(len(starts), -np.inf)
        for step in range(self.steps + 1):
            points = domain.deliver(x.astype(domain.dtype))
            at = torch.from_numpy(points).requires_grad_()
            rows = activations(at).gather(1, torch.from_numpy(whose[active])[:, None])[:, 0]
            height = rows.detach().numpy().astype(np.float64)
            there = height > limits[whose[active]]
            ends[active[there]], arrived[active[there]] = points[there], True
            keep = ~there
            if step % LOOK == 0:
                short = limits[whose[active]] - height
                keep &= short <= (height - before) * (self.steps - step) / LOOK
                before = height
            if step == self.steps or not keep.any():
                break
            slope = torch.autograd.grad(rows.sum(), at)[0].numpy()
            active, x, before = active[keep], x[keep], before[keep]
            adam.keep(keep)
            x = _inside(x - self.lr * span * adam.step(-span * slope[keep]), domain)
        return ends, arrived


def _turns(neurons: int, seeds: int) -> np.ndarray:
    """All pairs of a neuron and a seed, (neurons * seeds, 2): all neurons once, each with the next seed, then again."""
    turn = np.tile(np.arange(neurons), seeds)
    start = (turn + np.repeat(np.arange(seeds), neurons)) % max(seeds, 1)
    return np.stack([turn, start], axis=1)


def _inside(x: np.ndarray, domain: Domain) -> np.ndarray:
    return (x if domain.bounds is None else np.clip(x, *domain.bounds)).astype(np.float32)
