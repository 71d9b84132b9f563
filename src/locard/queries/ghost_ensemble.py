"""Adversarial marks that a victim's own variations agree on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number, unknown
from locard.queries.base import Population, Queries, movable, pool, reach, samplers
from locard.records import Access, Data, Domain
from locard.seeds import derive, generator

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView

# Inputs with all their ghosts are moved in groups of so many.
GROUP = 64
# Ghosts that a finished mark is shown to, and the share of independent models that may give its target.
FRESH, RARE = 50, 0.1
_TARGETS = ("random", "least-likely")


@samplers.register("ghost-ensemble")
@dataclass(frozen=True, slots=True, kw_only=True)
class GhostEnsemble:
    """Targeted adversarial examples of an ensemble of ghosts of the victim (AFA's marks [1]).

    A ghost is the victim with a dropout mask of its own before its last linear layer. At each of `steps` steps new
    ghosts are drawn, their logits averaged, and the point takes a step down the sign of the gradient of the
    cross-entropy to its target, within `radius` of its input. Kept are the points that at least `stable` of 50 fresh
    ghosts and the victim itself give the target, as delivered; and, where a population is given, that at most 10% of
    its independent models do.

    The paper's text was not at hand: that marks are made with ghost networks by dropout near the logits is its
    abstract's and common knowledge of it; the rest is reconstructed, all numbers included.

    Args:
        ghosts: drawn at each step.
        dropout: share of the last layer's inputs that a ghost is without.
        radius: largest change of an entry, as a share of `reach`; a step is a tenth of it.
        steps: how many.
        stable: share of the fresh ghosts that must agree.
        target: how the target is chosen: "random" among the other classes, or "least-likely".

    The queries carry `targets`, (n,) int64.

    [1] Zhao, Hu, Liu, Ma, Chen, Hassan. AFA: Adversarial fingerprinting authentication for deep neural networks.
    Computer Communications 150, 2020.
    """

    victim_access: ClassVar[Access] = Access.MODULE
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    ghosts: int = 10
    dropout: float = 0.2
    radius: float = 0.1
    steps: int = 50
    stable: float = 0.9
    target: str = "random"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("ghosts", self.ghosts, low=1)
        check_number("dropout", self.dropout, low=0, below=1)
        check_number("radius", self.radius, above=0, high=1)
        check_number("steps", self.steps, low=1)
        check_number("stable", self.stable, low=0, high=1)
        if self.target not in _TARGETS:
            raise unknown("target", self.target, _TARGETS)

    def draw(
        self, victim: ModuleView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: `steps` gradients of the victim and one answer for each input that is tried.

        Before the last layer all ghosts are one, so that they cost little more than the victim alone.
        """
        movable(data, "adversarial marks")
        if victim.classes is None or victim.classes < 2:
            raise ParameterError(f"a mark needs a class to aim at, and {victim.source} does not have two")
        if population is not None:
            pool(population, derived=0, independent=0, what="adversarial marks", like=victim)
        wanted = default if n is None else n
        order, start = generator(seed, "ghost-ensemble/seeds").permutation(len(data)), 0
        draws = generator(seed, "ghost-ensemble/targets").random(len(data))
        random = _torch_generator(seed)
        marks, aims = [data.inputs[:0]], [np.empty(0, np.int64)]
        while sum(map(len, marks)) < wanted and start < len(data):
            rows = order[start : start + GROUP]
            x, targets = self._aims(victim, data, rows, draws[start : start + len(rows)])
            start += len(rows)
            if len(x) == 0:
                continue
            points = self._moved(victim.module(), x, targets, reach(data), data.domain, random)
            kept = np.flatnonzero(self._stable(victim, points, targets, random))
            if len(kept):
                kept = kept[_rare(population, points[kept], targets[kept])]
            marks.append(points[kept])
            aims.append(targets[kept])
        found = sum(map(len, marks))
        least = min(wanted, 10) if n is None else wanted
        if found < least:
            raise ParameterError(
                f"{least} stable marks are needed; {found} of {start} inputs of {data.name} gave one: give more data, "
                f"ask fewer --queries, or set a larger radius ({self.radius:g}) or a smaller stable ({self.stable:g})"
            )
        return Queries(inputs=np.concatenate(marks)[:wanted], extras={"targets": np.concatenate(aims)[:wanted]})

    def _aims(
        self, victim: ModuleView, data: Data, rows: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rightly classified inputs among the rows, and their targets."""
        x = data.domain.deliver(data.inputs[rows])
        logits = victim.logits(x)
        own = logits.argmax(axis=1)
        if self.target == "least-likely":
            other = logits.argmin(axis=1)
        else:
            other = (draws * (logits.shape[1] - 1)).astype(np.int64)
            other += other >= own
        usable = own != other
        if data.labels is not None:
            usable &= own == data.labels[rows]
        return x[usable], other[usable]

    def _moved(
        self, module: torch.nn.Module, x: np.ndarray, targets: np.ndarray, span: float | np.ndarray, domain: Domain,
        random: torch.Generator,
    ) -> np.ndarray:  # fmt: skip
        """The points after all steps, as delivered."""
        import torch

        radius, step = self.radius * span, self.radius * span / 10
        low, high = x - radius, x + radius
        if domain.bounds is not None:
            low, high = np.clip(low, *domain.bounds), np.clip(high, *domain.bounds)
        points, low, high = x, low.astype(x.dtype), high.astype(x.dtype)
        where = last_linear(module).weight.device
        aims = torch.from_numpy(targets).to(where)
        for _ in range(self.steps):
            inputs = torch.from_numpy(points).to(where).requires_grad_()
            logits = ghost_logits(module, inputs, count=self.ghosts, dropout=self.dropout, random=random).mean(dim=0)
            losses = torch.nn.functional.cross_entropy(logits, aims, reduction="sum")
            (gradient,) = torch.autograd.grad(losses, inputs)
            points = np.clip(points - step * np.sign(gradient.cpu().numpy()), low, high).astype(x.dtype)
        return domain.deliver(points)

    def _stable(
        self, victim: ModuleView, points: np.ndarray, targets: np.ndarray, random: torch.Generator
    ) -> np.ndarray:
        """Whether the victim and enough fresh ghosts give the target, (n,) bool."""
        import torch

        with torch.no_grad():
            module = victim.module()
            inputs = torch.from_numpy(points).to(last_linear(module).weight.device)
            logits = ghost_logits(module, inputs, count=FRESH, dropout=self.dropout, random=random)
        agree = (logits.argmax(dim=2).cpu().numpy() == targets).mean(axis=0)
        return (agree >= self.stable) & (victim.labels(points) == targets)


def ghost_logits(
    module: torch.nn.Module, x: torch.Tensor, *, count: int, dropout: float, random: torch.Generator
) -> torch.Tensor:
    """Logits of ghosts: the module with inverted dropout before its last linear layer, a mask for each ghost.

    Everything before that layer is computed once.

    Args:
        module: in any mode; run in evaluation mode.
        x: (n, *shape).
        count: ghosts.
        dropout: share of the layer's inputs set to 0; the others are divided by what is left.
        random: draws the masks.

    Returns:
        (count, n, classes); (1, n, classes) without dropout, where all ghosts are the module.

    Raises:
        ParameterError: the module has no linear layer that gives its answers.
    """
    import torch

    from locard.models.torch_module import evaluating

    layer = last_linear(module)
    seen: list[torch.Tensor] = []
    with evaluating(module), _watching(layer, seen):
        answers = module(x)
    if len(seen) != 1 or seen[0].ndim != 2 or not torch.equal(layer(seen[0]), answers):
        raise ParameterError("ghosts need a module whose answers are those of its last linear layer, as they are")
    features = seen[0]
    if dropout == 0:
        return answers[None]
    kept = (torch.rand((count, *features.shape), generator=random) >= dropout).to(features.device)
    return layer(features * kept / (1 - dropout))


def last_linear(module: torch.nn.Module) -> torch.nn.Linear:
    """The last linear layer in the order of the module's parts.

    Raises:
        ParameterError: there is none.
    """
    import torch

    layers = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    if not layers:
        raise ParameterError(
            f"ghosts need a linear layer before the logits, and {type(module).__name__} has none: use ipguard"
        )
    return layers[-1]


@contextmanager
def _watching(layer: torch.nn.Module, seen: list[Any]) -> Iterator[None]:
    hook = layer.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    try:
        yield
    finally:
        hook.remove()


def _rare(population: Population | None, points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whether few of the independent models give the target, (n,) bool; all where there are none."""
    models: tuple[Any, ...] = () if population is None else population.independent
    if not models:
        return np.ones(len(points), bool)
    return np.mean([model.labels(points) == targets for model in models], axis=0) <= RARE


def _torch_generator(seed: int) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(derive(seed, "ghost-ensemble/masks"))
