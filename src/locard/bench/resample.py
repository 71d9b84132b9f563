"""Figures of resampled populations: victims and models, never queries.

Each victim and each model gets a weight, drawn from an exponential law: the Bayesian bootstrap [1]. Unlike counts of
draws with replacement, such weights leave nobody out, so a family of two thefts still has its figure in every resample.
An innocent has one weight wherever it stands, before all victims and all seeds of extraction,
and thefts of one foreign model have theirs in common. A theft belongs to one
victim and goes with it: weighted again within, its luck would count twice, and the error come out half too large. So
thefts are weighted only where a figure rests on one victim. References keep weight one: the figure is of the test that
they make. Between victims their luck shows; with one victim it does not, and 39 other references may move a share found
by more than the interval says. The first column has weight one throughout and gives the figure.

The interval is Student's, of as many units as there are victims (of models, where there is one victim), on the scale of
log odds, which keeps it within 0 and 1 and lopsided near them. Where thefts are counted it is at least the exact
interval of so many independent thefts, as resampling says nothing about what was found always or never; of an AUROC of
0 or 1 it is the exact interval of as many disjoint pairs as can be made.

[1] Rubin. The Bayesian bootstrap. Annals of Statistics 9(1), 1981.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np

from locard.bench.figures import Interval
from locard.bench.metrics import Side, Trial
from locard.evidence.metrics import SLACK
from locard.evidence.power import clopper_pearson
from locard.seeds import generator


class Weights:
    """Weights of victims and models.

    Args:
        victims: names.
        models: digests, or what `metrics.origins` says.
        resamples: how many.
        seed: of the draw.
    """

    def __init__(self, victims: Sequence[str], models: Sequence[str], *, resamples: int, seed: int) -> None:
        self._victims = _rows(victims, resamples, seed, "bench/victims")
        self._models = _rows(models, resamples, seed, "bench/models")
        self._numbers = {name: number for number, name in enumerate(sorted(set(models)))}
        self._victim_numbers = {name: number for number, name in enumerate(sorted(set(victims)))}

    def of(self, side: Side) -> np.ndarray:
        """(n, 1 + resamples), a row a model."""
        return self._models[[self._numbers[model] for model in side.origin.tolist()]]

    def of_victims(self, victims: Sequence[str]) -> np.ndarray:
        """(V, 1 + resamples)."""
        if len(victims) == 1:
            return np.ones((1, self._victims.shape[1]))
        return self._victims[[self._victim_numbers[victim] for victim in victims]]


def shares(values: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The weighted mean of each group.

    Args:
        values: (n,) or (n, B), such as whether a theft was found.
        weights: (n, B).
        groups: (S, n) which of the n belong to each.

    Returns:
        (S, B), NaN where a group is empty.
    """
    member = groups.astype(np.float64)
    total = member @ weights
    with np.errstate(invalid="ignore"):
        return (member @ (weights * (values[:, None] if values.ndim == 1 else values))) / total


def above(trial: Trial, mass: np.ndarray, fprs: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """How each theft stands to the innocents.

    Args:
        trial: with thefts and innocents.
        mass: (m, B) weights of the innocents.
        fprs: F shares of innocents.

    Returns:
        (n, B) share of innocents below each theft, ties one half, and (F, n, B) whether it lies above the threshold
        that at most a share `fprs` of them exceeds.
    """
    order = np.argsort(trial.innocents.score, kind="stable")
    known = trial.innocents.score[order]
    below = np.concatenate([np.zeros((1, mass.shape[1])), np.cumsum(mass[order], axis=0)])
    # Sums of the same weights in another order differ in their last digits.
    below /= below[-1]
    left, right = (below[np.searchsorted(known, trial.thefts.score, side)] for side in ("left", "right"))
    scored = np.isfinite(trial.thefts.score)[:, None]
    return (left + right) / 2, np.stack([(1 - left <= fpr + SLACK) & scored for fpr in fprs])


def areas(trial: Trial, thefts: np.ndarray, innocents: np.ndarray) -> np.ndarray:
    """ARUC of one trial, (B,). Models without a score lie below every threshold.

    Args:
        trial: scores in [0, 1].
        thefts: (n, B) weights.
        innocents: (m, B) weights.
    """
    sides = [(trial.thefts.score, thefts), (trial.innocents.score, innocents)]
    ends = np.unique(np.concatenate([np.maximum(score, 0.0) for score, _ in sides] + [[0.0, 1.0]]))
    below: list[np.ndarray] = []
    for (score, mass), side, at in zip(sides, ("left", "right"), (ends[1:], ends[:-1]), strict=True):
        order = np.argsort(score, kind="stable")
        sums = np.concatenate([np.zeros((1, mass.shape[1])), np.cumsum(mass[order], axis=0)])
        below.append(sums[np.searchsorted(score[order], at, side)] / sums[-1])
    return np.diff(ends) @ np.minimum(1 - below[0], below[1])


def over_victims(found: Sequence[np.ndarray], victims: Sequence[str], weights: Weights) -> tuple[np.ndarray, int]:
    """The mean over victims of what their trials say.

    Args:
        found: for each trial (B,), NaN where it says nothing.
        victims: for each trial, whose it is.
        weights: of the victims.

    Returns:
        (B,) and how many victims say something; seeds of one victim are averaged first.
    """
    means: dict[str, list[np.ndarray]] = {}
    for row, victim in zip(found, victims, strict=True):
        if not np.isnan(row[0]):
            means.setdefault(victim, []).append(row)
    if not means:
        return np.array([np.nan]), 0
    names = sorted(means)
    mass = weights.of_victims(names)
    rows = np.array([np.mean(means[name], axis=0) for name in names])
    return (mass * rows).sum(axis=0) / mass.sum(axis=0), len(names)


def interval(
    sample: np.ndarray, *, victims: int, n: int, against: int = 0, exact: int = 0, always: bool = False
) -> Interval:
    """A figure and its 95% interval.

    Args:
        sample: (B,) the figure, then its resamples.
        victims: how many it is a mean over.
        n: different thefts it counts.
        against: innocents they are held against.
        exact: trials of the exact interval, if there is one.
        always: whether the exact interval counts always, or only for a figure of 0 or 1.
    """
    from scipy.special import expit, logit, stdtrit

    value = _tidy(float(sample[0]))
    units = victims if victims > 1 else min(n, against) if against else n
    low, high, error = (0.0, 1.0, None) if units < 2 else (value, value, _error(sample[1:], units))
    if error is not None and 0 < value < 1:
        reach = stdtrit(units - 1, 0.975) * error / (value * (1 - value))
        low, high = float(expit(logit(value) - reach)), float(expit(logit(value) + reach))
    if exact and (always or value in (0.0, 1.0)):
        least = clopper_pearson(floor(value * exact + SLACK), exact)[0]
        most = clopper_pearson(min(exact, ceil(value * exact - SLACK)), exact)[1]
        low, high = (least, most) if units < 2 else (min(low, least), max(high, most))
    return Interval(value=value, low=low, high=high, n=n, against=against, error=error)


def _error(resamples: np.ndarray, units: int) -> float:
    """The standard error.

    Exponential weights give a mean of n values the variance s^2 (n - 1) / (n (n + 1)), of s^2 / n.
    """
    return float(np.std(resamples) * np.sqrt((units + 1) / (units - 1)))


def _tidy(value: float) -> float:
    """Without the dust of weighted sums: 1 is 1."""
    return float(min(1.0, max(0.0, round(value, 12))))


def _rows(names: Sequence[str], resamples: int, seed: int, stream: str) -> np.ndarray:
    drawn = generator(seed, stream).standard_exponential((len(set(names)), resamples))
    return np.concatenate([np.ones((len(drawn), 1)), drawn], axis=1)
