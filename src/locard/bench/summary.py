"""From records to figures with their error.

Scores of different victims are never compared: every figure is made within one fingerprint, averaged over the seeds of
extraction, then over victims, each of which counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from locard.bench.calibration import calibrate, judge
from locard.bench.figures import Calibration, Family, Interval, Missing, Roc, Standing, Summary
from locard.bench.metrics import check, ordered, origins, trials
from locard.bench.records import Records
from locard.bench.resample import Weights
from locard.bench.standing import standing
from locard.errors import ParameterError, check_number
from locard.records import Access

__all__ = ["Calibration", "Family", "Interval", "Missing", "Roc", "Standing", "Summary", "needs", "summarise"]


def summarise(
    records: Records,
    *,
    alphas: Sequence[float] = (0.05, 0.01),
    fprs: Sequence[float] = (0.05, 0.01),
    access: Access | str | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Summary:
    """What records say, with its error.

    Args:
        records: rows; their order says nothing.
        alphas: levels of the calibrated test, the headline's first.
        fprs: shares of innocents at which a threshold is set by the innocents to be judged themselves.
        access: only entries that need no more than this of the suspect; all where None. Their figures are the same:
            whether promises were kept is judged among all entries of the records.
        seed: of the resampling.
        resamples: how many.

    Raises:
        ParameterError: a level outside (0, 1), none at all, fewer than 100 resamples, an infinite score, or a suspect
            that stands twice before one fingerprint.
    """
    for name, levels in (("alpha", alphas), ("fpr", fprs)):
        if not levels:
            raise ParameterError(f"{name}s must name at least one level; got none")
        for level in levels:
            check_number(name, level, above=0, below=1)
    check_number("resamples", resamples, low=100)
    check(records)
    weights = Weights(records.names("victim"), sorted(set(origins(records).tolist())), resamples=resamples, seed=seed)
    entries, budgets = records["entry"], records["budget"]
    groups = [
        records.where((entries == entry) & (budgets == budget))
        for entry in sorted(records.names("entry"))
        for budget in sorted(set(budgets[entries == entry].tolist()))
    ]
    tried = [trials(group) for group in groups]
    calibrations = judge([calibrate(found, alphas) for found in tried])
    granted = None if access is None else Access.parse(access).implied
    standings = [
        standing(group, found, weights, calibration, alphas, fprs)
        for group, found, calibration in zip(groups, tried, calibrations, strict=True)
        if granted is None or needs(str(group["access"][0])) in granted
    ]
    standings.sort(key=lambda one: _place(one, alphas[0]))
    return _summary(records, tuple(standings), tuple(alphas), tuple(fprs))


def needs(access: str) -> Access:
    """The grants that `Access.text` names."""
    grants = Access(0)
    for name in access.split(" + "):
        if name != "nothing":
            grants |= Access.parse(name)
    return grants


def _place(one: Standing, alpha: float) -> tuple[bool, int, float, float, str, int]:
    """Claims apart, and what breaks its promise last of all: it finds thefts by accusing everybody."""
    claims = ("derived", "trained-on", "identical")
    found, area = one.tpr[alpha].value or 0.0, one.auroc.value or 0.0
    return one.reliable is False, claims.index(one.claim), -found, -area, one.entry, one.budget


def _summary(
    records: Records, standings: tuple[Standing, ...], alphas: tuple[float, ...], fprs: tuple[float, ...]
) -> Summary:
    derived = (records["truth"] == "derived") & (records["role"] == "evaluation")
    independent = records["truth"] == "independent"
    thefts = derived & records["accepted"]
    kinds = dict(zip(records["kind"][derived].tolist(), records["family"][derived].tolist(), strict=True))
    innocents = _different(records, independent & (records["role"] == "evaluation"), "kind")
    references = _different(records, independent & (records["role"] == "calibration"), "kind")
    return Summary(
        standings=standings,
        victims=tuple(sorted(records.names("victim"))),
        families=_different(records, thefts, "family"),
        kinds=dict(sorted(kinds.items())),
        n_thefts=len(set(records["model"][thefts].tolist())),
        failed=_different(records, derived & ~records["accepted"], "kind"),
        innocents={one: innocents[one] for one in ordered(innocents)},
        references={one: references[one] for one in ordered(references)},
        alphas=alphas,
        fprs=fprs,
        refused=_refused(standings),
    )


def _different(records: Records, rows: np.ndarray, column: str) -> dict[str, int]:
    """How many different models each value of a column has."""
    pairs = set(zip(records[column][rows].tolist(), records["model"][rows].tolist(), strict=True))
    return dict(sorted(Counter(name for name, _ in pairs).items()))


def _refused(standings: Sequence[Standing]) -> tuple[str, ...]:
    told: dict[str, dict[str, None]] = {}
    for one in standings:
        figures = {f"TPR at calibrated alpha {alpha:g}": row for alpha, row in one.tpr.items()}
        figures |= {"AUROC": one.auroc, "ARUC": one.aruc}
        figures |= {f"TPR at FPR {fpr:g}": row for fpr, row in one.tpr_at_fpr.items()}
        told_of = list(figures.items())
        for row in one.calibration:
            accused = f"false accusations at alpha {row.alpha:g}"
            told_of += [(f"{accused} over splits", row.rate), (f"{accused} with the roles as recorded", row.holdout),
                        (f"{accused} without the stratum's references", row.transfer)]  # fmt: skip
        for name, figure in told_of:
            if figure.value is None:
                told.setdefault(f"{name}: {figure.why}", {})[one.entry] = None
    everyone = {one.entry for one in standings}
    return tuple(
        f"{text} ({'every entry' if names.keys() == everyone else ', '.join(names)})" for text, names in told.items()
    )
