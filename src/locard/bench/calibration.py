"""Whether innocents are accused as seldom as promised.

Three figures of each stratum, each the mean over victims of the share of its innocents with p at most alpha, where p is
the largest over strata:

- `splits`: averaged over all ways to part the innocents of each stratum into references and judged, whatever their
  recorded roles. Within a stratum such splits make judged models and references exchangeable, so that this figure is at
  most alpha by construction, for any scores [1]: it says by how much the test stays below its promise, and it can be
  above alpha for no scheme.
- `holdout`: references and judged as recorded. Made apart, they need not be exchangeable, so this one tests the
  promise.
- `transfer`: recorded references of the other strata against all innocents of the one left out of them: what it costs
  to be judged by references of the wrong kind. Nothing is promised there.

**The error.** One model is judged by several victims, and one victim judges many models; neither makes its answers
independent. The standard error is the largest of three: over models, over victims, and two-way (models plus victims
less cells) [2], each with n/(n - 1). That is the jackknife of a mean. Of the holdout it is at least what the draw of
the references alone does: of n exchangeable suspects before R references the number with p <= alpha is beta-binomial
with a = floor(alpha (R + 1)) and b = R + 1 - a [3]; victims may share references, so their number divides nothing. Of
the splits it holds the models fixed that are references, so it overstates. Seeds of extraction are averaged first.
Several thefts of one foreign model are likely alike, so they count together as one.

**The test.** p is the larger of the normal tail at (rate - alpha)/error and the beta-binomial tail, so that neither
few models nor few victims make a verdict. An entry's strata and alphas share by Bonferroni, entries by Holm, at the
one-sided level of two standard errors, 2.3%.

[1] Vovk, Gammerman & Shafer. Algorithmic Learning in a Random World. Springer, 2005, chapter 2.
[2] Cameron, Gelbach & Miller. Robust inference with multiway clustering. JBES 29(2), 2011.
[3] Bates, Candès, Lei, Romano & Sesia. Testing for outliers with conformal p-values. Annals of Statistics 51(1), 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor

import numpy as np

from locard.bench.figures import Calibration, Interval
from locard.bench.metrics import Side, Trial, allowed, attainable, counts, largest, needed, ordered, unattainable
from locard.evidence.metrics import SLACK
from locard.evidence.power import clopper_pearson

LEVEL = 0.02275  # of the normal law beyond two standard errors
_WIDTH = 1.96


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """Accusations of one stratum's innocents.

    Args:
        victim: (n,) who accuses.
        origin: (n,) the accused, see `metrics.origins`.
        value: (n,) whether, or how probably, in [0, 1].
    """

    victim: np.ndarray
    origin: np.ndarray
    value: np.ndarray


def calibrate(found: Sequence[Trial], alphas: Sequence[float]) -> tuple[Calibration, ...]:
    """By stratum and alpha; p is that of the single test yet, see `judge`."""
    strata = ordered({str(one) for trial in found for side in (trial.innocents, trial.references)
                      for one in set(side.kind.tolist())})  # fmt: skip
    return tuple(_calibration(found, stratum, alpha) for alpha in alphas for stratum in strata)


def judge(rows: Sequence[tuple[Calibration, ...]]) -> list[tuple[Calibration, ...]]:
    """Say which entries break their promise, given those of all of them.

    Args:
        rows: for each entry at one budget, its calibrations with the p of single tests.

    Returns:
        The same with p after Bonferroni within an entry and Holm over entries.
    """
    tests = [[row.p for row in entry if row.p is not None] for entry in rows]
    smallest = [min(1.0, len(ps) * min(ps)) if ps else None for ps in tests]
    order = sorted((i for i, p in enumerate(smallest) if p is not None), key=lambda i: smallest[i] or 0.0)
    adjusted, last = [list(entry) for entry in rows], 0.0
    for rank, i in enumerate(order):
        left = len(order) - rank
        for j, row in enumerate(rows[i]):
            if row.p is not None:
                p = min(1.0, max(last, left * len(tests[i]) * row.p))
                adjusted[i][j] = replace(row, p=p, holds=p > LEVEL)
        last = min(1.0, max(last, left * (smallest[i] or 0.0)))
    return [tuple(entry) for entry in adjusted]


def rate(cells: Cells, *, against: int = 0, null: tuple[int, int] | None = None) -> Interval:
    """The mean over victims of the share accused.

    Args:
        cells: at least one.
        against: references of the victim with fewest.
        null: a and b of the beta-binomial that the draw of references makes, where the error is to cover it.
    """
    _, victim = np.unique(cells.victim.astype(str), return_inverse=True)
    _, model = np.unique(cells.origin.astype(str), return_inverse=True)
    size = np.bincount(victim)
    value = float(np.mean(np.bincount(victim, cells.value) / size))
    pull = (cells.value - value) / (len(size) * size[victim])
    models = int(model.max()) + 1
    over_victims = _variance(np.bincount(victim, pull))
    over_models = _variance(np.bincount(model, pull))
    # One cell for each pair: rows of other seeds have been averaged.
    variance = max(over_victims, over_models, over_victims + over_models - _variance(pull))
    if null is not None:
        a, b = null
        variance = max(variance, a * b * (a + b + models) / ((a + b) ** 2 * (a + b + 1) * models))
    error = float(np.sqrt(variance)) if len(pull) > 1 or null is not None else None
    spread = _WIDTH * (error or 0.0)
    low = min(max(0.0, value - spread), clopper_pearson(floor(value * models + SLACK), models)[0])
    high = max(min(1.0, value + spread), clopper_pearson(min(models, ceil(value * models - SLACK)), models)[1])
    return Interval(value=value, low=low, high=high, n=models, against=against, error=error)


def splits(trial: Trial, stratum: str, alpha: float) -> np.ndarray | None:
    """How probably each innocent of a stratum is accused, over all splits; None where a split cannot reach alpha.

    In each stratum half of the models, or as many as alpha needs, are references. Of G models that score at least what
    the suspect does, the number among R references drawn from N is hypergeometric, and strata are split independently;
    so the average over splits is a product, and nothing is drawn.

    Returns:
        (n,) for the stratum's innocents of both roles: first the judged ones, then the references.
    """
    pooled = _pooled(trial)
    judged = pooled.of(stratum)
    accused = np.isfinite(judged).astype(np.float64)
    for other, scores in ((other, pooled.of(other)) for other in counts(pooled.kind)):
        known = np.sort(scores[np.isfinite(scores)])
        references = max(ceil(len(known) / 2), needed(alpha))
        if references > len(known) - 1:
            return None
        # The suspect itself is among them where it is of that stratum.
        own = int(other == stratum)
        outdo = np.clip(len(known) - np.searchsorted(known, judged, "left") - own, 0, len(known) - own)
        accused *= _at_most(allowed(references, alpha) - 1, len(known) - own, references)[outdo]
    return accused


def _calibration(found: Sequence[Trial], stratum: str, alpha: float) -> Calibration:
    held = _holdout(found, stratum, alpha)
    p = None
    if held.value is not None and held.error is not None:
        p = _tail(held.value, held.error, held.n, held.against, alpha)
    return Calibration(
        stratum=stratum,
        alpha=alpha,
        rate=_splits(found, stratum, alpha),
        holdout=held,
        transfer=_transfer(found, stratum, alpha),
        p=p,
        holds=None if p is None else p > LEVEL,
    )


def _splits(found: Sequence[Trial], stratum: str, alpha: float) -> Interval:
    pairs = [(trial, splits(trial, stratum, alpha)) for trial in found]
    for trial, values in pairs:
        if values is None:
            pooled = _pooled(trial)
            sizes = {one: int(np.isfinite(pooled.of(one)).sum()) for one in counts(pooled.kind)}
            least = min(sizes, key=lambda one: sizes[one])
            why = (
                f"stratum {least} of victim {trial.victim!r} has {sizes[least]} innocents with a score; a split at "
                f"alpha {alpha:g} needs {needed(alpha)} references and one to judge"
            )
            return Interval(value=None, why=why)
    cells = _cells([(trial, _pooled(trial), values) for trial, values in pairs if values is not None], stratum)
    return rate(cells) if len(cells.value) else Interval(value=None, why=f"no innocent of stratum {stratum}")


def _holdout(found: Sequence[Trial], stratum: str, alpha: float) -> Interval:
    if why := unattainable(found, alpha):
        return Interval(value=None, why=why)
    sizes = [counts(trial.references.kind).get(stratum, 0) for trial in found]
    if min(sizes) == 0:
        return Interval(value=None, why=f"no references of stratum {stratum}, so nothing is promised to it")
    cells = _cells([(trial, trial.innocents, _accused(trial.innocents.p, alpha)[trial.innocents.kind == stratum])
                    for trial in found], stratum)  # fmt: skip
    if not len(cells.value):
        return Interval(value=None, why=f"no innocent of stratum {stratum} is to be judged")
    a = allowed(min(sizes), alpha)
    return rate(cells, against=min(sizes), null=(a, min(sizes) + 1 - a))


def _transfer(found: Sequence[Trial], stratum: str, alpha: float) -> Interval:
    parts: list[tuple[Trial, Side, np.ndarray]] = []
    against: list[int] = []
    for trial in found:
        left = trial.references.kind != stratum
        sizes = counts(trial.references.kind[left])
        if not attainable(list(sizes.values()), alpha):
            why = f"without {stratum}, victim {trial.victim!r} has no strata whose references can give p <= {alpha:g}"
            return Interval(value=None, why=why)
        pooled = _pooled(trial)
        judged = pooled.of(stratum)
        p, scored = np.full(len(judged), np.nan), np.isfinite(judged)
        p[scored] = largest(trial.references.score[left], trial.references.kind[left], judged[scored])
        parts.append((trial, pooled, _accused(p, alpha)))
        against.append(min(sizes.values()))
    cells = _cells(parts, stratum)
    if not len(cells.value):
        return Interval(value=None, why=f"no innocent of stratum {stratum}")
    return rate(cells, against=min(against))


def _cells(parts: Sequence[tuple[Trial, Side, np.ndarray]], stratum: str) -> Cells:
    """One cell for each victim and origin, seeds and thefts of one foreign model averaged."""
    sums: dict[tuple[str, str], list[float]] = {}
    for trial, side, values in parts:
        for origin, value in zip(side.origin[side.kind == stratum].tolist(), values.tolist(), strict=True):
            sums.setdefault((trial.victim, origin), []).append(value)
    keys = sorted(sums)
    return Cells(
        victim=np.array([victim for victim, _ in keys], object),
        origin=np.array([origin for _, origin in keys], object),
        value=np.array([sum(sums[key]) / len(sums[key]) for key in keys], np.float64),
    )


def _pooled(trial: Trial) -> Side:
    sides = (trial.innocents, trial.references)
    return Side(**{name: np.concatenate([getattr(side, name) for side in sides])
                   for name in ("score", "model", "origin", "kind", "family", "p")})  # fmt: skip


def _accused(p: np.ndarray, alpha: float) -> np.ndarray:
    return (p <= alpha).astype(np.float64)


def _variance(pull: np.ndarray) -> float:
    n = len(pull)
    return 0.0 if n < 2 else float(n / (n - 1) * np.square(pull).sum())


def _tail(value: float, error: float, n: int, references: int, alpha: float) -> float:
    """How improbable a share so high is if the promise holds."""
    from scipy.special import ndtr
    from scipy.stats import betabinom

    a = allowed(references, alpha)
    exact = float(betabinom.sf(floor(value * n + SLACK) - 1, n, a, references + 1 - a))
    return max(float(ndtr((alpha - value) / error)), exact) if error > 0 else exact


@lru_cache(maxsize=1024)
def _at_most(most: int, population: int, drawn: int) -> np.ndarray:
    """P(at most `most` of G marked ones are drawn) for G = 0 to `population`, (population + 1,)."""
    from scipy.special import gammaln

    marked, hit = np.arange(population + 1)[:, None], np.arange(min(most, drawn) + 1)[None, :]

    def log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            inside = (k >= 0) & (k <= n)
            n, k = np.where(inside, n, 0), np.where(inside, k, 0)
            return np.where(inside, gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), -np.inf)

    total = log_choose(np.array(population), np.array(drawn))
    found = np.exp(log_choose(marked, hit) + log_choose(population - marked, drawn - hit) - total).sum(axis=1)
    return np.minimum(found, 1.0)
