"""Knockoff nets with the adaptive policy: a gradient bandit learns which classes of the pool are worth asking [1].

The pool's classes are the labels of the thief's data, or clusters of its inputs, in two levels: classes whose mean
inputs are alike make a group (average linkage, at most sqrt(K) groups of K classes, rounded up). A group is drawn, then
a class in it, each by the softmax of its preference H; an input of the class is asked, the thief's own first, then
mixtures of two of that class. For each answer y, the student's p and its reward r, for what was drawn at each level and
what lay beside it,

    H_drawn += (1 - pi_drawn) * r / N_drawn,    H_beside -= pi_beside * r / N_drawn,

with N the times it was drawn. r is the mean of three rewards, each less its mean so far and over its deviation so far:
certainty, y's largest less its second largest; diversity, sum_k max(0, y_k - mean y_k); loss, -sum_k y_k log p_k.

The paper's text was not at hand: rewards, update and hierarchy are as recalled; how the rewards are brought to one
scale, how classes are grouped, and that the student is trained and policy and means are taken anew every `stride`
queries and not at each, are ours. So is that the first `stride` draws count in N and teach the policy nothing: an
untrained student's loss is noise, and a class that falls at its first draws is hardly drawn again. With labels alone
certainty is always 1 and tells nothing. The copy is trained from scratch on all answers.

[1] Orekondy, Schiele, Fritz. Knockoff Nets: Stealing Functionality of Black-Box Models. CVPR 2019, section 4.1.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.attacks._answers import Bought
from locard.attacks._pool import mixable, mixtures
from locard.attacks._student import MOST, Extractor, eyes
from locard.attacks.base import Copy, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import fit, reproducible
from locard.records import Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    from locard.models import LabelView
    from locard.models.session import Progress

REWARDS = ("certainty", "diversity", "loss")
# Of k-means: it has as good as settled by then.
PASSES = 20


@attacks.register("knockoff")
@dataclass(frozen=True, slots=True, kw_only=True)
class Knockoff(Extractor):
    """Learn which of its classes the thief should ask about, and train a copy on the victim's answers.

    Args:
        queries: the most inputs to ask.
        clusters: of the thief's inputs, by k-means, that are the pool's classes; 0 for its labels.
        reward: "certainty", "diversity", "loss", or "all" three.
        stride: queries between two updates of the policy and of the student that it goes by.

    The rest as in `Extractor`. Cost: `queries` queries, epochs + 1 passes over the answers.
    """

    name: ClassVar[str] = "knockoff"
    # The pool's classes need not be the victim's.
    new_task: ClassVar[bool] = True

    queries: int = 10_000
    clusters: int = 0
    reward: str = "all"
    stride: int = 200

    def __post_init__(self) -> None:
        """Check the ranges."""
        Extractor.__post_init__(self)
        if self.reward not in (*REWARDS, "all"):
            known = ", ".join(map(repr, (*REWARDS, "all")))
            raise ParameterError(f"reward must be one of {known}; got {self.reward!r}")
        check_number("queries", self.queries, low=1, high=MOST, whole=True)
        check_number("clusters", self.clusters, low=0, whole=True)
        check_number("stride", self.stride, low=1, whole=True)

    @property
    def needs_labels(self) -> bool:
        """They are the pool's classes, unless clusters are."""
        return self.clusters == 0

    def _steal(self, victim: LabelView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        mixable(data)
        module, student = self.student(victim, seed=seed), self.student(victim, seed=derive(seed, "knockoff/policy"))
        source = generator(seed, "knockoff/draws")
        pool, bought = Pool(data, self._classes(data, source), source), Bought(victim, self.needs, most=self.queries)
        bandit, rewards = Bandit(groups(pool.means)), np.empty((0, len(REWARDS)))
        one_pass = replace(self.recipe, epochs=1)
        while bought.left and bandit.open.any():
            asked, drawn = pool.draw(bandit.draw(min(self.stride, bought.left), source))
            new, start = bought.new(asked), len(bought)
            bandit.close(np.setdiff1d(drawn[pool.spent(drawn)], drawn[new]))
            got = bought.ask(asked[new])
            if got == 0:
                continue
            inputs, drawn, targets = asked[new[:got]], drawn[new[:got]], bought.targets
            answers = targets if targets.ndim == 2 else np.eye(victim.classes or 0)[targets]
            # One thread: with more, the sums of the student's logits and so the draws would depend on how many.
            with reproducible(derive(seed, "knockoff/rewards")):
                rewards = np.concatenate([rewards, rewarded(answers, eyes(student, data.domain).logits(inputs))])
            bandit.learn(drawn, self._one_scale(rewards)[start:] * (start > 0))
            fit(student, inputs, targets[start:], recipe=one_pass, seed=derive(seed, f"knockoff/{start}"))
        fit(module, bought.inputs, bought.targets, recipe=self.recipe, seed=seed, progress=progress)
        return self.hand_over(module, victim, bought, self.epochs + 1)

    def _classes(self, data: Data, source: np.random.Generator) -> np.ndarray:
        """(n,) the class of each of the thief's inputs, from 0, none empty."""
        if self.clusters == 0:
            return np.unique(np.asarray(data.labels), return_inverse=True)[1]
        return k_means(data.inputs.reshape(len(data), -1).astype(np.float64), self.clusters, source)

    def _one_scale(self, rewards: np.ndarray) -> np.ndarray:
        """(n,) the mean of the chosen rewards, each standardised over all answers so far."""
        chosen = rewards if self.reward == "all" else rewards[:, [REWARDS.index(self.reward)]]
        spread = chosen.std(axis=0)
        return np.divide(chosen - chosen.mean(axis=0), spread, out=np.zeros_like(chosen), where=spread > 0).mean(axis=1)


def rewarded(answers: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Certainty, diversity and loss of the last m of n answers.

    Args:
        answers: (n, classes) probabilities, all so far.
        logits: (m, classes) the student's, of the last m.

    Returns:
        (m, 3) float64.
    """
    last = answers[len(answers) - len(logits) :].astype(np.float64)
    ranked = np.sort(last, axis=1)
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    surprise = np.log(np.exp(logits).sum(axis=1, keepdims=True)) - logits
    return np.stack([
        ranked[:, -1] - ranked[:, -2],
        np.maximum(last - answers.mean(axis=0, dtype=np.float64), 0).sum(axis=1),
        (last * surprise).sum(axis=1),
    ], axis=1)  # fmt: skip


def k_means(points: np.ndarray, k: int, source: np.random.Generator) -> np.ndarray:
    """(n,) the cluster of each of (n, d) points, from 0; at most k clusters, none of them empty."""
    centres = points[source.permutation(len(points))[:k]]
    for _ in range(PASSES):
        nearest = (np.square(centres).sum(axis=1) - 2 * points @ centres.T).argmin(axis=1)
        kept, cluster = np.unique(nearest, return_inverse=True)
        centres = np.stack([points[cluster == one].mean(axis=0) for one in range(len(kept))])
    return cluster  # pyright: ignore[reportPossiblyUnboundVariable]


def groups(means: np.ndarray) -> np.ndarray:
    """(K,) the group of each class, from 0, by average linkage of (K, d) means into at most ceil(sqrt(K)) groups."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(means) < 2:
        return np.zeros(len(means), np.int64)
    joined = linkage(means.astype(np.float64), method="average")
    return np.unique(fcluster(joined, math.ceil(math.sqrt(len(means))), criterion="maxclust"), return_inverse=True)[1]


class Bandit:
    """The policy: a preference for each group, and for each class in its group.

    Args:
        group: (K,) the group of each class, from 0.

    Attributes:
        open: (K,) bool, the classes that still have inputs.
    """

    def __init__(self, group: np.ndarray) -> None:
        self._group, self.open = group, np.ones(len(group), bool)
        self._member = np.arange(group.max() + 1)[:, None] == group
        self._groups, self._classes = np.zeros(len(self._member)), np.zeros(len(group))
        self._times = np.zeros(len(self._member)), np.zeros(len(group))

    @property
    def policy(self) -> np.ndarray:
        """(K,) how likely each class is drawn."""
        return self._of_groups()[self._group] * self._of_classes()

    def draw(self, n: int, source: np.random.Generator) -> np.ndarray:
        """(n,) classes."""
        return source.choice(len(self.open), n, p=self.policy)

    def close(self, classes: np.ndarray) -> None:
        """Draw these classes no more."""
        self.open[classes] = False

    def learn(self, drawn: np.ndarray, rewards: np.ndarray) -> None:
        """Follow the gradient of the expected reward, one draw after another."""
        for one, reward in zip(drawn, rewards, strict=True):
            group = self._group[one]
            beside = self._member[group]
            for preference, policy, times, taken, level in (
                (self._groups, self._of_groups(), self._times[0], group, slice(None)),
                (self._classes, self._of_classes(), self._times[1], one, beside),
            ):
                times[taken] += 1
                preference[level] -= reward / times[taken] * policy[level]
                preference[taken] += reward / times[taken]

    def _of_groups(self) -> np.ndarray:
        weight = np.exp(self._groups - self._groups.max()) * (self._member & self.open).any(axis=1)
        return weight / weight.sum()

    def _of_classes(self) -> np.ndarray:
        highest = np.where(self._member, self._classes, -np.inf).max(axis=1)
        weight = np.exp(self._classes - highest[self._group]) * self.open
        # A group whose classes are all closed has no weight, and is not drawn.
        return weight / np.maximum(self._member @ weight, np.finfo(np.float64).tiny)[self._group]


class Pool:
    """The thief's inputs by class: its own in random order, then mixtures of two of one class.

    Args:
        data: the inputs.
        label: (n,) the class of each, from 0.
        source: of order and mixtures.
    """

    def __init__(self, data: Data, label: np.ndarray, source: np.random.Generator) -> None:
        self._data, self._source = data, source
        self._rows = [source.permutation(np.flatnonzero(label == one)) for one in range(label.max() + 1)]
        self._given = np.zeros(len(self._rows), np.int64)

    @property
    def means(self) -> np.ndarray:
        """(K, d) the mean input of each class."""
        return np.stack([self._data.inputs[rows].reshape(len(rows), -1).mean(axis=0) for rows in self._rows])

    def spent(self, classes: np.ndarray) -> np.ndarray:
        """Whether all of the thief's own inputs of these classes were given, so that only mixtures are left."""
        return self._given[classes] == np.array([len(rows) for rows in self._rows])[classes]

    def draw(self, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One input for each class given, delivered, and the classes, both in a random order."""
        inputs, order = [], self._source.permutation(len(classes))
        for one, n in zip(*np.unique(classes, return_counts=True), strict=True):
            rows, start = self._rows[one], self._given[one]
            own = self._data.inputs[rows[start : start + n]]
            inputs += [own, mixtures(self._data.inputs[rows], n - len(own), self._source)]
            self._given[one] += len(own)
        return self._data.domain.deliver(np.concatenate(inputs))[order], np.sort(classes)[order]
