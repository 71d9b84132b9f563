"""Adversarial examples that copies of the victim share and other models do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._adam import Adam
from locard.queries._ensemble import Ensemble, ensemble
from locard.queries.base import Population, Queries, movable, pool, reach, samplers
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView

WHAT = "conferrable examples"
# Of one model a mean over models says nothing.
FEWEST = 2
# Inputs moved together: the activations of every model for them are in memory at once.
TOGETHER = 64
# Seeds that are tried for each query before giving up: where few succeed, all of the data would take hours.
TRIES = 10
# Probabilities of the victim are clamped here where it is to leave its own answer: that loss has no lower bound.
CLAMP = 1e-7


@samplers.register("conferrable")
@dataclass(frozen=True, slots=True, kw_only=True)
class Conferrable:
    """Inputs moved until the victim errs, its surrogates err alike, and reference models do not [1].

    With S and R the mean probabilities of surrogates (`derived` of the population) and of references (`independent`),
    the conferrability of class c at x is

        E(x)_c = S_c(x) (1 - R_c(x))    in [0, 1]

    From an input x0 that the victim f classifies rightly, Adam minimises

        L(x) = alpha H(1, E(x)_y) - beta H(f(x0), f(x)) + gamma H(f(x), S(x))

    H being the cross-entropy, so that the first term is -log E(x)_y; y is the class that f finds likeliest but for its
    answer to x0. x stays in the domain and within `radius` of x0 in every entry. In each step every model takes part
    with probability 1 - `dropout`; of each kind at least one does. A point is judged as it will be delivered (8-bit),
    by all models: it is kept once f answers y there and E(x)_y >= `score`.

    The paper's text was not at hand: the loss and `score`, `alpha`, `gamma` and `dropout` are those of unofficial
    ports, one of which takes means of logits and cuts the gradient of the first term, which is not done here. In the
    ports y is f's answer at x, so that L first rewards references that leave the right class, and holds f there; beta
    is 1, which drives references across together with f; the radius is 0.025, lr 5e-4. Of 56 inputs of Fashion-MNIST,
    with six surrogates and eight references, these settings gave no query, nor did beta = 1 or that radius and lr with
    all else as here; the defaults gave 30. Besides, logarithms are taken of sums of exponentials, so that the first
    term has a gradient even where the references are sure of y; L is taken at the delivered point; a point that may be
    kept is moved no further, so that the radius is only a limit; and the score is that of the label that is stored, not
    of any class.

    Surrogates should have learnt from the victim's labels, as thieves do; the models of the population choose queries
    and must be judged nowhere. Ports take 16 of each kind; with fewer, E says less of models outside the population.

    Args:
        radius: largest change of an entry, as a share of `reach`.
        score: least E(x)_y of a point that is kept.
        alpha: weight of conferrability.
        beta: weight of leaving the victim's own answer.
        gamma: weight of the surrogates' agreement with the victim.
        dropout: probability that a model is left out of a step.
        lr: Adam's step, as a share of `reach`.
        steps: the most steps; a seed that may not be kept by then is dropped.

    The queries carry `score` (n,) float64, E(x)_y at each.

    [1] Lukas, Zhang, Kerschbaum. Deep Neural Network Fingerprinting by Conferrable Adversarial Examples. ICLR 2021.
    """

    victim_access: ClassVar[Access] = Access.MODULE
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = True

    radius: float = 0.2
    score: float = 0.85
    alpha: float = 1.0
    beta: float = 0.1
    gamma: float = 1.0
    dropout: float = 0.3
    lr: float = 0.004
    steps: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("radius", self.radius, above=0)
        check_number("score", self.score, above=0, below=1)
        for name in ("alpha", "beta", "gamma"):
            check_number(name, getattr(self, name), low=0)
        check_number("dropout", self.dropout, low=0, below=1)
        check_number("lr", self.lr, above=0)
        check_number("steps", self.steps, low=1)

    def draw(
        self, victim: ModuleView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: up to ten seeds a query; for each one answer of the victim, and up to `steps` gradients of the victim and
        of every model of the population.
        """
        movable(data, WHAT)
        others = pool(population, derived=FEWEST, independent=FEWEST, what=WHAT)
        if victim.classes is None or victim.classes < 2:
            raise ParameterError(f"{WHAT} cross into another class, and {victim.source} does not have two")
        wanted = default if n is None else n
        order = generator(seed, "conferrable/seeds").permutation(len(data))[: TRIES * wanted]
        source = generator(seed, "conferrable/dropout")
        points, scores, start, tried, found = [data.inputs[:0]], [np.empty(0)], 0, 0, 0
        with ensemble((victim, *others.derived, *others.independent), like=victim, what=WHAT) as models:
            while found < wanted and start < len(order):
                rows = order[start : start + min(TOGETHER, (wanted - found) * 5 // 4 + 8)]
                start += len(rows)
                seeds = data.domain.deliver(data.inputs[rows])
                own = victim.labels(seeds)
                if data.labels is not None:
                    right = own == data.labels[rows]
                    seeds, own = seeds[right], own[right]
                if len(seeds) == 0:
                    continue
                moved, score = self._move(models, len(others.derived), seeds, own, data, source)
                points.append(moved)
                scores.append(score)
                tried, found = tried + len(seeds), found + len(moved)
        least = min(default, 10) if n is None else n
        if found < least:
            raise ParameterError(
                f"{least} {WHAT} are needed; {found} of {tried} inputs of {data.name} that {victim.source} classifies "
                f"rightly gave one: set a lower score ({self.score:g}), a larger radius ({self.radius:g}) or more "
                f"steps ({self.steps}), give more data or derived models nearer to the victim, or ask fewer --queries"
            )
        return Queries(inputs=np.concatenate(points)[:wanted], extras={"score": np.concatenate(scores)[:wanted]})

    def _move(
        self,
        models: Ensemble,
        surrogates: int,
        seeds: np.ndarray,
        own: np.ndarray,
        data: Data,
        source: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(k, *shape) points that may be kept, in the order of their seeds, and their (k,) scores."""
        import torch

        span, domain = reach(data), data.domain
        low, high = seeds - self.radius * span, seeds + self.radius * span
        if domain.bounds is not None:
            low, high = np.clip(low, *domain.bounds), np.clip(high, *domain.bounds)
        x, adam, active = seeds.astype(np.float32), Adam(seeds), np.arange(len(seeds))
        points, scores = seeds.copy(), np.full(len(seeds), np.nan)
        kinds = np.repeat([0, 1, 2], [1, surrogates, len(models) - 1 - surrogates])
        first: torch.Tensor | None = None
        for step in range(self.steps + 1):
            at = torch.from_numpy(domain.deliver(x)).requires_grad_()
            kept = _kept(kinds, source, self.dropout)
            with torch.enable_grad():
                logits = models.logits(at, kept)
                first = logits[0].detach().log_softmax(dim=1) if first is None else first
                here = first[torch.from_numpy(active)]
                loss = self.loss(logits[0], logits[kept & (kinds == 1)], logits[kept & (kinds == 2)], here)
            with torch.no_grad():
                confers = conferrability(logits[kinds == 1], logits[kinds == 2]).exp()
                label = logits[0].argmax(dim=1, keepdim=True)
                score = confers.gather(1, label)[:, 0].numpy().astype(np.float64)
            done = (label[:, 0].numpy() != own[active]) & (score >= self.score)
            points[active[done]], scores[active[done]] = at.detach().numpy()[done], score[done]
            if step == self.steps or done.all():
                break
            (gradient,) = torch.autograd.grad(loss.sum(), at)
            going = ~done
            active, x = active[going], x[going]
            adam.keep(going)
            x = np.clip(x - self.lr * span * adam.step(gradient.numpy()[going]), low[active], high[active])
            x = x.astype(np.float32)
        found = ~np.isnan(scores)
        return points[found], scores[found]

    def loss(
        self, victim: torch.Tensor, surrogates: torch.Tensor, references: torch.Tensor, first: torch.Tensor
    ) -> torch.Tensor:
        """L, in torch.

        Args:
            victim: (n, classes) logits.
            surrogates: (s, n, classes) logits.
            references: (r, n, classes) logits.
            first: (n, classes) log-probabilities of the victim at x0.

        Returns:
            (n,).
        """
        said = victim.log_softmax(dim=1)
        own = first.argmax(dim=1, keepdim=True)
        other = victim.detach().scatter(1, own, -np.inf).argmax(dim=1, keepdim=True)
        confers = conferrability(surrogates, references).gather(1, other)[:, 0]
        away = -(first.exp() * said.clamp(min=float(np.log(CLAMP)))).sum(dim=1)
        alike = -(said.exp() * _log_mean(surrogates.log_softmax(dim=2))).sum(dim=1)
        return -self.alpha * confers - self.beta * away + self.gamma * alike


def conferrability(surrogates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """The logarithm of E of `Conferrable` for every class, in torch.

    Args:
        surrogates: (s, n, classes) logits.
        references: (r, n, classes) logits.

    Returns:
        (n, classes), at most 0.
    """
    return _log_mean(surrogates.log_softmax(dim=2)) + _log_mean(_log_not(references))


def _log_not(logits: torch.Tensor) -> torch.Tensor:
    """The logarithm of 1 - p for each class, exact even where p rounds to 1."""
    import torch

    said = logits.log_softmax(dim=2)
    top = logits.argmax(dim=2, keepdim=True)
    # Only the likeliest class can be near 1; of it the others are added up. No other exceeds one half.
    rest = said.scatter(2, top, -torch.inf).logsumexp(dim=2, keepdim=True)
    small = torch.log1p(-said.exp().scatter(2, top, 0.0))
    return small.scatter(2, top, rest)


def _log_mean(logs: torch.Tensor) -> torch.Tensor:
    return logs.logsumexp(dim=0) - float(np.log(len(logs)))


def _kept(kinds: np.ndarray, source: np.random.Generator, dropout: float) -> np.ndarray:
    """Which models take part in a step: the victim always, and of each kind one at least."""
    draws = source.random(len(kinds))
    kept = draws >= dropout
    for kind in np.unique(kinds):
        best = np.where(kinds == kind, draws, -1).argmax()
        kept[best] = True
    return kept
