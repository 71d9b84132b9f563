"""Active extraction: each round the student chooses, from a pool, the inputs whose answers would teach it most [1].

The pool is the thief's own inputs, and mixtures where they are few (the paper takes public data): mixtures of two
classes score highest, but teach less than inputs of the victim's task. A random part is asked first; then a student is
trained from scratch, scores the rest of the pool, and the best are asked, round after round. Scores:

- "entropy": of the student's answer, the highest.
- "k-centre": farthest first, in the space of the student's probabilities, from all it was trained on and from each
  other [2].
- "dfal": the shortest DeepFool step to another class [3], on a random part of the pool.
- "dfal+k-centre": farthest first among three times as many as are wanted, those nearest to the boundary. How many the
  paper lets through is not known to us; three is ours.

A share of the answers is kept, and picks the epoch of the last training that agrees with them most often. The papers'
texts were not at hand: shares and rounds are as recalled, the use of the kept answers is reconstructed.

[1] Pal, Gupta, Shukla, Kanade, Shevade, Ganapathy. ActiveThief: Model Extraction Using Active Learning and Unannotated
Public Data. AAAI 2020. [2] Sener, Savarese. Active Learning for Convolutional Neural Networks: A Core-Set Approach.
ICLR 2018, algorithm 1. [3] Ducoffe, Precioso. Adversarial Active Learning for Deep Networks: a Margin Based Approach.
2018.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.attacks._answers import Bought
from locard.attacks._pool import query_set
from locard.attacks._student import MOST, Extractor, ended, eyes, lesson
from locard.attacks.base import Copy, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import fit, reproducible
from locard.queries._adversarial import deepfool
from locard.records import Data, Domain
from locard.seeds import derive, generator

if TYPE_CHECKING:
    import torch

    from locard.models import GradientView, LabelView
    from locard.models.session import Progress

SCORES = ("entropy", "k-centre", "dfal", "dfal+k-centre")
# Inputs that pass on from "dfal" to "k-centre", for each that is wanted.
LET_THROUGH = 3
# The most steps of DeepFool: what needs more is far from the boundary.
STEPS = 20


@attacks.register("active")
@dataclass(frozen=True, slots=True, kw_only=True)
class Active(Extractor):
    """Ask what the student is least sure of, round by round, and train a copy on the victim's answers.

    Args:
        queries: the most inputs to ask.
        pool: inputs to choose from, the thief's own first; where there are no more than `queries`, all are asked. 0 for
            all of its own, or twice the queries where these are fewer.
        rounds: of choosing.
        first: share of the queries that is asked at random to begin with.
        validation: share of the queries that is asked at random and kept.
        score: "entropy", "k-centre", "dfal" or "dfal+k-centre".
        subsample: of the pool, what "dfal" looks at in each round.

    The rest as in `Extractor`. Cost: `queries` queries; rounds + 1 trainings of `epochs` passes over what is there by
    then; a forward pass over the pool each round, or some thirty gradients for each input of the subsample.
    """

    name: ClassVar[str] = "active"

    queries: int = 10_000
    pool: int = 0
    rounds: int = 10
    first: float = 0.1
    validation: float = 0.2
    score: str = "entropy"
    subsample: int = 10_000

    def __post_init__(self) -> None:
        """Check the ranges."""
        Extractor.__post_init__(self)
        if self.score not in SCORES:
            raise ParameterError(f"score must be one of {', '.join(map(repr, SCORES))}; got {self.score!r}")
        check_number("queries", self.queries, low=2, high=MOST, whole=True)
        check_number("pool", self.pool, low=0, whole=True)
        check_number("rounds", self.rounds, low=1, whole=True)
        check_number("first", self.first, above=0, high=0.5)
        check_number("validation", self.validation, low=0, high=0.5)
        check_number("subsample", self.subsample, low=1, whole=True)

    def _steal(self, victim: LabelView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        module = self.student(victim, seed=seed)
        pool = query_set(data, self.pool or max(len(data), 2 * self.queries), seed=seed)
        order = generator(seed, "active/first").permutation(len(pool))
        most = min(self.queries, len(pool))
        kept, start = round(self.validation * most), max(1, round(self.first * most))
        bought = Bought(victim, self.needs, most=most)
        bought.ask(pool[order[: kept + start]])
        # Where the victim's budget ends here, all it gave would be kept and nothing learnt.
        kept = kept if bought.left else round(self.validation * len(bought))
        rest, wanted, done = order[kept + start :], (self.rounds + 1) * self.epochs, 0
        for number in range(self.rounds):
            if not bought.left:
                break
            self._train(module, bought, kept, derive(seed, f"active/{number}"), lesson(progress, done, wanted))
            done += self.epochs
            n = -(-bought.left // (self.rounds - number))
            with reproducible(derive(seed, "active/scores")):
                chosen = self._choose(eyes(module, data.domain), pool, rest, n, bought.inputs[kept:], data.domain,
                                      generator(seed, f"active/{number}"))  # fmt: skip
            bought.ask(pool[rest[chosen]])
            rest = np.delete(rest, chosen)
            module = self.student(victim, seed=derive(seed, f"active/{number}"))
        best = Best(module, data.domain, bought.inputs[:kept], bought.labels[:kept], lesson(progress, done, wanted))
        self._train(module, bought, kept, seed, best)
        best.restore()
        done += self.epochs
        ended(progress, done, wanted)
        return self.hand_over(module, victim, bought, done)

    def _train(self, module: torch.nn.Module, bought: Bought, kept: int, seed: int, progress: Progress | None) -> None:
        fit(module, bought.inputs[kept:], bought.targets[kept:], recipe=self.recipe, seed=seed, progress=progress)

    def _choose(self, student: GradientView, pool: np.ndarray, rest: np.ndarray, n: int, learnt: np.ndarray,
                domain: Domain, source: np.random.Generator) -> np.ndarray:  # fmt: skip
        """Positions in `rest` of the `n` best to ask."""
        places = np.arange(len(rest))
        if self.score.startswith("dfal"):
            places = np.sort(source.permutation(places)[: max(self.subsample, n)])
            crossing = deepfool(student, pool[rest[places]], steps=STEPS, domain=domain)
            length = np.linalg.norm(crossing.step.reshape(len(places), -1).astype(np.float64), axis=1)
            nearest = np.argsort(np.where(crossing.crossed, length, np.inf), kind="stable")
            if self.score == "dfal":
                return places[nearest[:n]]
            places = places[nearest[: LET_THROUGH * n]]
        answers = student.probabilities(pool[rest[places]]).astype(np.float64)
        if self.score == "entropy":
            entropy = -(answers * np.log(np.maximum(answers, np.finfo(np.float64).tiny))).sum(axis=1)
            return places[np.argsort(-entropy, kind="stable")[:n]]
        return places[farthest_first(answers, student.probabilities(learnt).astype(np.float64), n)]


def farthest_first(points: np.ndarray, centres: np.ndarray, n: int) -> np.ndarray:
    """Greedy k-centre: again and again the point farthest from its nearest centre, which becomes a centre [2].

    Args:
        points: (m, d) float64.
        centres: (c, d) float64, those that are there already; at least one.
        n: how many points to pick, n <= m.

    Returns:
        (n,) row numbers in the order they were picked, each once; of equally far points the first.

    Cost: (c + n) * m distances.
    """
    from scipy.spatial import KDTree

    nearest, picked = np.square(KDTree(centres).query(points)[0]), np.empty(min(n, len(points)), np.int64)
    for number in range(len(picked)):
        row = picked[number] = int(nearest.argmax())
        gap = points - points[row]
        np.minimum(nearest, np.einsum("ij,ij->i", gap, gap), out=nearest)
        nearest[row] = -1
    return picked


class Best:
    """The weights after the epoch that agreed most often with the kept answers, the latest of equal ones.

    Called as `fit` reports its progress, and passes that on.

    Args:
        module: in training.
        domain: what its inputs are.
        inputs: (n, *shape) that were kept; none, and the last epoch stands.
        labels: (n,) the victim's.
        progress: whom to tell.
    """

    def __init__(self, module: torch.nn.Module, domain: Domain, inputs: np.ndarray, labels: np.ndarray,
                 progress: Progress | None) -> None:  # fmt: skip
        self._module, self._domain, self._inputs, self._labels = module, domain, inputs, labels
        self._progress, self._agreed, self._state = progress, -1, {}

    def __call__(self, done: int, wanted: int) -> None:
        """After one epoch."""
        if len(self._inputs):
            agreed = int((eyes(self._module, self._domain).labels(self._inputs) == self._labels).sum())
            if agreed >= self._agreed:
                self._agreed, self._state = agreed, copy.deepcopy(self._module.state_dict())
        if self._progress is not None:
            self._progress(done, wanted)

    def restore(self) -> None:
        """Put the best weights back."""
        if self._state:
            self._module.load_state_dict(self._state)
