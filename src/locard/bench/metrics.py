"""Who is judged by whom, and at which p. Scores compare only within one fingerprint: a (victim, entry, budget, seed).

What the claim of a scheme makes of a model:

- `derived`: thefts are what should be found, independent models of every stratum are innocents.
- `trained-on`: models that share the victim's data, or were stolen from one that does, are no innocents, and no
  thefts either. They are neither references nor judged.
- `identical`: the null is that nothing was changed, it is exact, and what is flagged is a score below the
  fingerprint's own. Every other model differs from the victim, so among independent models there is no innocent, and
  every figure that needs innocents is refused. A theft that moves no answer of the victim is rightly not flagged.

A theft that failed (`accepted` is False) is left out. A theft without a score counts as missed, an innocent without one
as not accused; a reference without one is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from locard.bench.records import Records
from locard.errors import ParameterError
from locard.evidence.conformal import STRATA
from locard.evidence.conformal import p_values as ranks
from locard.evidence.identity import unchanged
from locard.evidence.metrics import SLACK
from locard.records import Claim

_FINGERPRINT = ("victim", "entry", "budget", "seed")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """Models of one kind before one fingerprint.

    Args:
        score: (n,) float64; -inf where there is none, which is below every other and flags nothing.
        model: (n,) digests.
        origin: (n,) of a theft of a foreign model, whose it is, of any other model its digest: what came about apart.
        kind: (n,) kinds of theft, or strata.
        family: (n,) families of theft, or strata.
        p: (n,) calibrated p; NaN without a score or without references.
    """

    score: np.ndarray
    model: np.ndarray
    origin: np.ndarray
    kind: np.ndarray
    family: np.ndarray
    p: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def of(self, kind: str) -> np.ndarray:
        """The scores of one kind."""
        return self.score[self.kind == kind]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One fingerprint and all who were asked it.

    Args:
        victim: its name.
        seed: of the extraction.
        thefts: to be found.
        innocents: to be judged.
        references: that give the null, all with a score.
    """

    victim: str
    seed: int
    thefts: Side
    innocents: Side
    references: Side


def p_values(records: Records) -> np.ndarray:
    """The calibrated p of each row that is to be judged: the largest over the strata of its fingerprint's references.

    Args:
        records: rows of any entries.

    Returns:
        (n,) float64; NaN for references, and where there is no score or no reference. Of the claim "identical" it is
        0 or 1.
    """
    found = np.full(len(records), np.nan)
    judged = (records["role"] == "evaluation") & np.isfinite(records["score"])
    references = (records["role"] == "calibration") & np.isfinite(records["score"]) & innocent(records)
    for rows in _fingerprints(records):
        chosen = rows[judged[rows]]
        score = records["score"][chosen]
        if len(rows) and records["claim"][rows[0]] == "identical":
            own = records["own"][chosen]
            found[chosen] = [unchanged(s, o, "").p_value for s, o in zip(score.tolist(), own.tolist(), strict=True)]
            continue
        null = rows[references[rows]]
        found[chosen] = largest(records["score"][null], records["kind"][null], score)
    return found


def largest(references: np.ndarray, strata: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The largest p over strata, (n,).

    Args:
        references: (R,) scores.
        strata: (R,) their strata.
        scores: (n,) finite scores of suspects.

    Returns:
        (n,), NaN where there are no references.
    """
    if not len(references):
        return np.full(len(scores), np.nan)
    return np.max([ranks(references[strata == one], scores) for one in set(strata.tolist())], axis=0)


def innocent(records: Records) -> np.ndarray:
    """Which rows are innocents under the claim of their scheme, (n,) bool."""
    independent = records["truth"] == "independent"
    theirs = (records["claim"] == "trained-on") & records["shares"]
    return independent & ~theirs & (records["claim"] != "identical")


def origins(records: Records) -> np.ndarray:
    """What came about apart, (n,): several thefts of one foreign model are one innocent, other models one each."""
    foreign = (records["truth"] == "independent") & (records["parent"] != "")
    return np.where(foreign, records["parent"], records["model"])


def trials(records: Records) -> list[Trial]:
    """One for each fingerprint, by victim and seed.

    Args:
        records: rows of one entry at one budget.
    """
    p, of_null, score = p_values(records), innocent(records), records["score"]
    evaluation, scored = records["role"] == "evaluation", np.isfinite(score)
    sides = {
        "thefts": (records["truth"] == "derived") & evaluation & records["accepted"],
        "innocents": of_null & evaluation,
        "references": of_null & (records["role"] == "calibration") & scored,
    }
    shown, origin = np.where(scored, score, -np.inf), origins(records)

    def side(rows: np.ndarray) -> Side:
        # The order of rows may say nothing, not even through rounding.
        rows = rows[np.lexsort([records["suspect"][rows].astype(str), records["model"][rows].astype(str)])]
        return Side(score=shown[rows], model=records["model"][rows], origin=origin[rows], kind=records["kind"][rows],
                    family=records["family"][rows], p=p[rows])  # fmt: skip

    found = [
        Trial(
            victim=str(records["victim"][rows[0]]),
            seed=int(records["seed"][rows[0]]),
            **{name: side(rows[mask[rows]]) for name, mask in sides.items()},
        )
        for rows in _fingerprints(records)
    ]
    return sorted(found, key=lambda trial: (trial.victim, trial.seed))


def check(records: Records) -> None:
    """Refuse records that cannot be judged.

    Raises:
        ParameterError: an infinite score, or a suspect that stands twice before one fingerprint.
    """
    if np.isinf(records["score"]).any():
        row = int(np.flatnonzero(np.isinf(records["score"]))[0])
        raise ParameterError(
            f"{records['entry'][row]} gives {records['suspect'][row]!r} the score {records['score'][row]}; a score is "
            "a finite number, or NaN where there is none"
        )
    seen = np.unique(_codes(records, (*_FINGERPRINT, "suspect")), return_index=True, return_counts=True)
    if (seen[2] > 1).any():
        row, times = int(seen[1][np.argmax(seen[2])]), int(seen[2].max())
        raise ParameterError(
            f"{records['suspect'][row]!r} stands {times} times before {records['entry'][row]}'s fingerprint of "
            f"{records['victim'][row]!r}; join only records of different pairs"
        )


def attainable(references: Sequence[int] | np.ndarray, alpha: float) -> bool:
    """Whether p can be at most alpha: 1/(R + 1) <= alpha in each stratum of R references, and there is one."""
    return len(references) > 0 and all(allowed(int(n), alpha) >= 1 for n in references)


def allowed(references: int, alpha: float) -> int:
    """How many of R + 1 models may lie at p <= alpha: the largest whole number up to alpha (R + 1)."""
    return int(alpha * (references + 1) + SLACK)


def unattainable(found: Iterable[Trial], alpha: float) -> str:
    """Why no p can reach alpha before some fingerprint, or ""."""
    for trial in found:
        sizes = counts(trial.references.kind)
        if not sizes:
            return f"victim {trial.victim!r} has no reference with a score"
        stratum = min(sizes, key=lambda one: sizes[one])
        if not attainable(list(sizes.values()), alpha):
            return (
                f"{sizes[stratum]} references of stratum {stratum} of victim {trial.victim!r} cannot give p below "
                f"{1 / (sizes[stratum] + 1):.3g}; alpha {alpha:g} needs {needed(alpha)}"
            )
    return ""


def needed(alpha: float) -> int:
    """The fewest references of a stratum with which p can be at most alpha."""
    return int(np.ceil(1 / alpha - 1 - SLACK))


def counts(strata: np.ndarray) -> Mapping[str, int]:
    """How many of each stratum, in the order of `STRATA`, others after them by name."""
    found = {str(name): int(n) for name, n in zip(*np.unique(strata.astype(str), return_counts=True), strict=True)}
    return {name: found[name] for name in ordered(found)}


def ordered(strata: Iterable[str]) -> list[str]:
    """Strata in the order of `STRATA`, others after them by name."""
    return sorted(strata, key=lambda name: (STRATA.index(name) if name in STRATA else len(STRATA), name))


def claim(records: Records) -> Claim:
    """The claim of one entry's records."""
    return cast(Claim, records["claim"][0])


def _fingerprints(records: Records) -> list[np.ndarray]:
    """The row numbers of each fingerprint."""
    codes = _codes(records, _FINGERPRINT)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []


def _codes(records: Records, columns: Sequence[str]) -> np.ndarray:
    """One number a row, equal where the columns are: (n,) int64."""
    found = np.zeros(len(records), np.int64)
    for column in columns:
        values = records[column]
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values.tolist()))}
        found = found * len(numbers) + np.fromiter((numbers[value] for value in values.tolist()), np.int64, len(found))
        # Kept small, so that many columns cannot overflow.
        found = np.unique(found, return_inverse=True)[1]
    return found
