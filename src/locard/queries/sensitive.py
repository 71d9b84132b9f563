"""Inputs whose labels small changes of the weights change (Sensitive-Sample Fingerprinting's queries [1])."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number, unknown
from locard.queries._adam import Adam
from locard.queries._layers import hidden
from locard.queries.base import Population, Queries, movable, reach, samplers
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView

PROXY, ALL = "log-probabilities", "all"
OF = ("probabilities", "logits", PROXY)
# The cover chooses among so many times the points that are wanted.
POOL = 2
# Gradients by the weights that are in memory at once, in bytes, and the released code's guard of its logarithm.
HELD, GUARD = 128 << 20, 1e-8


@samplers.register("sensitive")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitive:
    """Inputs moved to where the victim's outputs depend most on its weights (sensitive samples [1]).

    From an input x0 of the data Adam maximises

        S(x) = || d f(W, x) / d W ||², added up over all outputs f and over the weights W of a layer

    in the ball of RMS radius `radius` around x0 and in the box of the domain. f are the probabilities. Of two leading
    classes that share all probability, a gap m of logits apart, S = || d m / d W ||² / (8 cosh(m / 2)^4): it grows as
    the gap depends more on W and as the gap closes, and both make a label change. The released code has a proxy, the
    gradient of the sum of all log-probabilities (of its first 40 classes). At the last layer that is (1 - C p_c) h for
    features h: largest where the victim is surest, so it leads away from the boundary. On a small network no label of
    its points changed when all weights moved by 0.3% of their spread; of those made here more than a third did. It is
    `of="log-probabilities"`.

    S is estimated at each step by one sum of the outputs with random signs, whose expectation it is. Steps fall to
    nothing along half a cosine. Every point on the way is looked at as it will be delivered (8-bit), and of each climb
    the one with the smallest gap is kept that is at least `margin`; nearer to the boundary an honest copy may answer
    otherwise, because another machine rounds otherwise. There m / || d m / d W || tells, to the first order, how small
    a change of the layer flips the label. Of the 2 n points where that is smallest n are asked, chosen one after the
    other as each switches on most neurons of the last hidden layer that none before did (the paper's Maximum
    Active-Neuron Cover); of those that add alike, the nearest to a flip.

    Other than the release we do not stop at a threshold on S, which must be tuned to each model, and have no total
    variation, whose weight there is 0.

    Args:
        of: f: "probabilities", "logits", or "log-probabilities", the released proxy.
        layer: whose weights: "" for the last layer that has some, as released, a layer by name, or "all". With all of
            them a step took four times as long on a small network, and no more labels changed.
        radius: of the ball, as a share of `reach`: the root of the mean squared change. Rounding to the grid may lead
            out of it by half a quantum.
        lr: Adam's first step, as a share of `reach`.
        steps: how many; the released code takes 1000.
        candidates: inputs that are climbed from; 2 n at least.
        margin: least gap between the two largest logits, as a share of the spread of all logits. On a small network
            float32 moved it by 2e-7 from one batch size or layout to another; TensorFloat-32, in which GPUs compute
            convolutions, by up to 3e-4 (emulated), half precision by 4e-4, bfloat16 by 6e-3. With a margin of 1e-5 a
            copy rounded to half precision is told apart too.

    The queries carry `gaps` (n,) float64, that share, and `flips` (n,) float64, m / || d m / d W ||.

    [1] He, Zhang, Lee. Sensitive-Sample Fingerprinting of Deep Neural Networks. CVPR 2019; numbers after the authors'
    released code. The paper's text was not at hand: that S is its form is recalled.
    """

    victim_access: ClassVar[Access] = Access.MODULE
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    of: str = OF[0]
    layer: str = ""
    radius: float = 10 / 255
    lr: float = 2 / 255
    steps: int = 150
    candidates: int = 100
    margin: float = 3e-4

    def __post_init__(self) -> None:
        """Check the name and the ranges."""
        if self.of not in OF:
            raise unknown("output", self.of, OF)
        check_number("radius", self.radius, above=0)
        check_number("lr", self.lr, above=0)
        check_number("steps", self.steps, low=1)
        check_number("candidates", self.candidates, low=1)
        check_number("margin", self.margin, low=0, below=1)

    def draw(
        self, victim: ModuleView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: for each candidate `steps` gradients of a gradient, which are not counted.

        Raises:
            ParameterError: the inputs cannot be moved, the victim has one class, no such layer, or no gradient by its
                weights, or too few climbs come near a boundary and keep their margin.
        """
        movable(data, "sensitive samples")
        if (victim.classes or 0) < 2:
            raise ParameterError(f"a label can change where there are two classes; {victim.source} has one")
        wanted, least = (default, 1) if n is None else (n, n)
        rows = generator(seed, "sensitive/seeds").permutation(len(data))[: max(self.candidates, POOL * wanted)]
        seeds = data.domain.deliver(data.inputs[rows])
        with probe(victim, self.layer) as slopes:
            _, points = self.climb(slopes, seeds, data, source=generator(seed, "sensitive/signs"))
            # Asked as a suspect will be: what was computed input by input may differ in its last bits.
            logits = victim.logits(points)
            gaps, leads = gap_shares(logits), slopes.gap_slopes(points, logits)
        near = np.ptp(logits.astype(np.float64), axis=1) * gaps
        flips = np.divide(near, leads, out=np.full(len(points), np.inf), where=leads > 0)
        steady = np.flatnonzero((gaps > 0) & (gaps >= self.margin) & np.isfinite(flips))
        if len(steady) < least:
            raise ParameterError(
                f"{least} sensitive samples are needed; {len(steady)} of {len(rows)} inputs of {data.name} led to one: "
                f"give more data, ask fewer --queries, or set a smaller margin ({self.margin:g})"
            )
        nearest = steady[np.argsort(flips[steady], kind="stable")][: POOL * wanted]
        chosen = nearest[cover(_switched_on(victim, points[nearest]), wanted)]
        return Queries(inputs=points[chosen], extras={"gaps": gaps[chosen], "flips": flips[chosen]})

    def climb(
        self, slopes: Probe, seeds: np.ndarray, data: Data, *, source: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Climb S from all seeds together.

        Args:
            slopes: of the victim.
            seeds: (n, *shape), as delivered.
            data: whose `reach` is the unit, and whose domain the box.
            source: draws the signs.

        Returns:
            (n, *shape) where each climb ended, and (n, *shape) the point on the way with the smallest gap of at least
            `margin`, or the seed where there was none; as delivered.
        """
        domain, scale = data.domain, reach(data)
        d, kept, least = np.zeros(seeds.shape, np.float32), seeds.copy(), np.full(len(seeds), np.inf)
        adam, points = Adam(d), seeds
        for step in range(self.steps + 1):
            points = domain.deliver((seeds + scale * d).astype(seeds.dtype))
            ways = source.integers(0, 2, (len(seeds), slopes.classes)) * 2 - 1
            logits, slope = slopes.look(points, np.ones_like(ways) if self.of == PROXY else ways, self.of)
            gaps = gap_shares(logits)
            better = (gaps >= self.margin) & (gaps < least)
            kept[better], least[better] = points[better], gaps[better]
            d -= self.lr * (1 + np.cos(np.pi * step / self.steps)) / 2 * adam.step(-scale * slope)
            length = np.sqrt((d.reshape(len(d), -1) ** 2).mean(axis=1)).reshape(-1, *[1] * (d.ndim - 1))
            d *= np.minimum(1, self.radius / np.maximum(length, self.radius))
            if domain.bounds is not None:
                d = np.clip(d, (domain.bounds[0] - seeds) / scale, (domain.bounds[1] - seeds) / scale)
        return points, kept


class Probe:
    """How much a module's outputs depend on the weights of a layer. Made by `probe`.

    Args:
        module: un-normalised inputs in, (n, classes) logits out, in evaluation mode.
        layer: the layer's weights, by the module's names.
        classes: how many.
        source: the model, for messages.
    """

    __slots__ = ("_layer", "_module", "_rest", "_source", "classes")

    def __init__(self, module: torch.nn.Module, layer: dict[str, torch.Tensor], *, classes: int, source: str) -> None:
        self._module, self._layer, self.classes, self._source = module, layer, classes, source
        self._rest = {name: one.detach() for name, one in module.named_parameters() if name not in layer}

    def look(self, x: np.ndarray, ways: np.ndarray, of: str) -> tuple[np.ndarray, np.ndarray]:
        """The logits, and the gradient of log || d (way · f) / d W ||² by the input.

        Of the logarithm, because where the victim is sure S is next to nothing and its gradient as well.

        Args:
            x: (n, *shape) inputs.
            ways: (n, classes) what each output counts for.
            of: the outputs f, one of `OF`.

        Returns:
            (n, classes) and (n, *shape) float32; the gradient is 0 where f does not depend on W.
        """
        import torch

        logits, slopes = [], []
        for rows in self._groups(len(x)):
            at = self._tensor(x[rows]).requires_grad_()
            answers, squares = self._squares(at, self._tensor(ways[rows]), of)
            total = squares.clamp_min(torch.finfo(squares.dtype).tiny).log().sum()
            slopes.append(torch.autograd.grad(total, at)[0].cpu().numpy())
            logits.append(answers.detach().cpu().numpy())
        return np.concatenate(logits), np.concatenate(slopes)

    def squares(self, x: np.ndarray, ways: np.ndarray, of: str) -> np.ndarray:
        """|| d (way · f) / d W ||² at each input, (n,) float64; for the arguments see `look`."""
        import torch

        with torch.no_grad():
            found = [self._squares(self._tensor(x[rows]), self._tensor(ways[rows]), of)[1] for rows in
                     self._groups(len(x))]  # fmt: skip
        return torch.cat(found).double().cpu().numpy()

    def sensitivity(self, x: np.ndarray, of: str) -> np.ndarray:
        """S at each input, (n,) float64. Cost: n * classes gradients by the weights."""
        ways = np.ones((1, self.classes)) if of == PROXY else np.eye(self.classes)
        return np.sum([self.squares(x, np.tile(way, (len(x), 1)), of) for way in ways], axis=0)

    def gap_slopes(self, x: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """|| d m / d W ||, (n,) float64, m being the gap between the two largest of those logits."""
        ways = np.zeros(logits.shape)
        np.put_along_axis(ways, np.argsort(-logits, axis=1, kind="stable")[:, :2], np.array([[1.0, -1.0]]), axis=1)
        return np.sqrt(self.squares(x, ways, "logits"))

    def _squares(self, x: torch.Tensor, ways: torch.Tensor, of: str) -> tuple[torch.Tensor, torch.Tensor]:
        import torch
        from torch.func import functional_call, grad, vmap

        def weighed(
            layer: dict[str, torch.Tensor], one: torch.Tensor, way: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            # A copy, because a module may work in place.
            logits = functional_call(self._module, {**self._rest, **layer}, (one.clone()[None],))[0]
            outputs = logits if of == "logits" else logits.softmax(dim=0)
            return ((outputs + GUARD).log() if of == PROXY else outputs) @ way, logits

        try:
            slopes, logits = vmap(grad(weighed, has_aux=True), in_dims=(None, 0, 0))(self._layer, x, ways)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ParameterError(
                f"{self._source} gives no gradient by its weights for each input of a batch: {reason}"
            ) from error
        return logits, torch.stack([slope.flatten(1).square().sum(dim=1) for slope in slopes.values()]).sum(dim=0)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        import torch

        return torch.tensor(array, dtype=torch.float32, device=next(iter(self._layer.values())).device)

    def _groups(self, n: int) -> Iterator[slice]:
        size = max(1, HELD // (4 * sum(one.numel() for one in self._layer.values())))
        yield from (slice(start, start + size) for start in range(0, n, size))


@contextmanager
def probe(victim: ModuleView, layer: str) -> Iterator[Probe]:
    """A probe of the victim's module, which is in evaluation mode inside; what it asks is not counted.

    Args:
        victim: whom to ask.
        layer: see `Sensitive`.

    Raises:
        ParameterError: there is no such layer, or none with weights.
    """
    from locard.models._torch import Normalised
    from locard.models.torch_module import evaluating

    module = victim.module()
    front = "module." if isinstance(module, Normalised) else ""
    weights = {name.removeprefix(front): one.detach() for name, one in module.named_parameters()
               if one.is_floating_point()}  # fmt: skip
    owners = {name.rpartition(".")[0] for name in weights}
    # In the order in which they run, which need not be that in which they were made; "" is a module that has no parts.
    chosen = layer or next((name for name in reversed(victim.layers()) if name in owners), "")
    if layer and layer not in (*owners, ALL):
        raise unknown(f"layer of {victim.source} with weights:", layer, owners)
    if chosen not in (*owners, ALL) or not weights:
        raise ParameterError(f"{victim.source} has no layer with weights that gradients can be taken by")
    kept = {front + name: one for name, one in weights.items() if chosen in (ALL, name.rpartition(".")[0])}
    with evaluating(module):
        yield Probe(module, kept, classes=victim.classes or 1, source=victim.source)


def gap_shares(logits: np.ndarray) -> np.ndarray:
    """The gap between the two largest logits as a share of the spread of all, (n,) float64 in [0, 1]; 0 without any."""
    top = np.partition(logits.astype(np.float64), -2, axis=1)[:, -2:]
    spread = top[:, 1] - logits.min(axis=1)
    return np.divide(top[:, 1] - top[:, 0], spread, out=np.zeros(len(logits)), where=spread > 0)


def cover(active: np.ndarray, n: int) -> np.ndarray:
    """Greedy cover: rows one after the other, each of those that add most columns to what is covered the first.

    Args:
        active: (m, columns) bool.
        n: how many.

    Returns:
        (min(n, m),) row numbers, in the order chosen; with fewer n it is a beginning of that with more.
    """
    covered, left = np.zeros(active.shape[1], bool), np.arange(len(active))
    chosen = []
    for _ in range(min(n, len(active))):
        best = int(np.argmax((active[left] & ~covered).sum(axis=1)))
        covered |= active[left[best]]
        chosen.append(left[best])
        left = np.delete(left, best)
    return np.array(chosen, np.int64)


def _switched_on(victim: ModuleView, points: np.ndarray) -> np.ndarray:
    """Which entries of the last hidden layer are positive, (n, entries) bool; no entries in a model of one layer."""
    layers = victim.layers()
    if len(layers) < 2:
        return np.zeros((len(points), 0), bool)
    name = hidden(layers, "", victim.source)
    return victim.activations(points, [name])[name].reshape(len(points), -1) > 0
