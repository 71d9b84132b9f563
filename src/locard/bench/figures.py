"""What records say, as figures with their error. Nothing here is computed; `summarise` does that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with its 95% interval, or the reason why there is none.

    Args:
        value: the figure, or None where it is refused.
        low: lower end, or None.
        high: upper end, or None.
        n: different models that it counts: thefts, or innocents where it is a rate of false accusations.
        against: different innocent models (or references) of the victim that has fewest, which n are held against.
        error: standard error, or None.
        why: why it is refused, or "".
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    against: int = 0
    error: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Thefts of one family or kind.

    Args:
        tpr: by alpha, the share found at calibrated p <= alpha.
        auroc: against all innocents to be judged.
        n_thefts: different thefts, failed ones left out.
        victims: how many victims have such a theft.
    """

    tpr: Mapping[float, Interval]
    auroc: Interval
    n_thefts: int
    victims: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Actual false accusations of innocents of one stratum at one alpha.

    Args:
        stratum: of the accused.
        alpha: the level promised.
        rate: averaged over all splits of the innocents, of both roles, into references and judged.
        holdout: with the roles as recorded. This figure can break the promise; the splits cannot.
        transfer: with this stratum left out of the references: what a wrong stratum costs. It breaks no promise.
        p: of the test that `holdout` exceeds alpha, after Holm; None where there was no test.
        holds: False where the promise is broken; None where there was no test.
    """

    stratum: str
    alpha: float
    rate: Interval
    holdout: Interval
    transfer: Interval
    p: float | None
    holds: bool | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roc:
    """Share of thefts found, averaged over victims, for each share of innocents accused.

    Args:
        fpr: (k,) rising from 0 to 1.
        tpr: (k,) the share found where at most that share of innocents is accused; a step between the points.
    """

    fpr: np.ndarray
    tpr: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Pairs without a score, by what they were, and how often each reason was given."""

    thefts: int
    innocents: int
    references: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One entry at one budget.

    Args:
        entry: the scheme with its parameters.
        scheme: its registered name.
        claim: "derived", "identical" or "trained-on".
        access: what it needs of the suspect, as `Access.text` says it.
        budget: the number of queries asked for, or 0 for the scheme's own.
        queries: asked of a suspect, median.
        seconds: asking a suspect took, median.
        extraction: processor seconds that a fingerprint took, median.
        victims: how many.
        seeds: how many.
        auroc: of thefts against innocents to be judged.
        tpr: by alpha, the share of thefts found at calibrated p <= alpha: the headline.
        tpr_at_fpr: by FPR, the share found at a threshold that the judged innocents set themselves.
        aruc: area under the lower of robustness and uniqueness over the threshold.
        families: by family of theft.
        kinds: by kind of theft.
        calibration: by stratum and alpha.
        references: by stratum, how many with a score the victim with fewest has.
        roc: averaged over victims, or None where there is nothing to draw.
        missing: pairs without a score.
        reliable: False where the promise on false accusations is broken, None where no test could be made.
        reason: why it is not to be relied on, or why that is not known; or "".
    """

    entry: str
    scheme: str
    claim: str
    access: str
    budget: int
    queries: float
    seconds: float
    extraction: float
    victims: int
    seeds: int
    auroc: Interval
    tpr: Mapping[float, Interval]
    tpr_at_fpr: Mapping[float, Interval]
    aruc: Interval
    families: Mapping[str, Family]
    kinds: Mapping[str, Family]
    calibration: tuple[Calibration, ...]
    references: Mapping[str, int]
    roc: Roc | None
    missing: Missing
    reliable: bool | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What records say.

    Args:
        standings: by entry and budget; claims apart, the best at the first alpha first, broken promises last.
        victims: their names.
        families: by family, how many thefts.
        kinds: by kind, its family.
        n_thefts: different thefts that count.
        failed: by kind, thefts that failed and are left out.
        innocents: by stratum, different innocent models to be judged.
        references: by stratum, different reference models.
        alphas: the levels.
        fprs: the shares of innocents.
        refused: what was refused, each once, with the entries it was refused to.
    """

    standings: tuple[Standing, ...]
    victims: tuple[str, ...]
    families: Mapping[str, int]
    kinds: Mapping[str, str]
    n_thefts: int
    failed: Mapping[str, int]
    innocents: Mapping[str, int]
    references: Mapping[str, int]
    alphas: tuple[float, ...]
    fprs: tuple[float, ...]
    refused: tuple[str, ...]
