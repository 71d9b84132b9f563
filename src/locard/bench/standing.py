"""The figures of one entry at one budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from locard.bench.figures import Calibration, Family, Interval, Missing, Roc, Standing
from locard.bench.metrics import Trial, claim, counts, innocent, ordered, unattainable
from locard.bench.records import Records
from locard.bench.resample import Weights, above, areas, interval, over_victims, shares
from locard.evidence.metrics import SLACK
from locard.records import Claim

# Below so many expected false accusations a threshold at that FPR is luck.
ACCUSED = 5
_STEPS = 200
_EXACT = "claim 'identical' has no innocents among these models, as each of them differs from the victim"


def standing(
    rows: Records,
    found: list[Trial],
    weights: Weights,
    calibration: tuple[Calibration, ...],
    alphas: Sequence[float],
    fprs: Sequence[float],
) -> Standing:
    """What one entry's records say.

    Args:
        rows: of one entry at one budget, at least one.
        found: its trials.
        weights: of all victims and models of the bench, so that entries are resampled alike.
        calibration: judged among all entries.
        alphas: levels of the calibrated test.
        fprs: shares of innocents.
    """
    kinds: dict[str, str] = {}
    for trial in found:
        kinds |= dict(zip(trial.thefts.kind.tolist(), trial.thefts.family.tolist(), strict=True))
    families = sorted(set(kinds.values()))
    measured, tpr_at_fpr, aruc = _measured(found, weights, claim(rows), families, sorted(kinds), alphas, fprs)
    reliable, reason = _reliable(rows, calibration)
    return Standing(
        entry=str(rows["entry"][0]),
        scheme=str(rows["scheme"][0]),
        claim=claim(rows),
        access=str(rows["access"][0]),
        budget=int(rows["budget"][0]),
        queries=float(np.median(rows["queries"])),
        seconds=float(np.median(rows["seconds"])),
        extraction=float(np.median(rows["extraction"])),
        victims=len(rows.names("victim")),
        seeds=len(rows.names("seed")),
        auroc=measured[0].auroc,
        tpr=measured[0].tpr,
        tpr_at_fpr=tpr_at_fpr,
        aruc=aruc,
        families=dict(zip(families, measured[1 : 1 + len(families)], strict=True)),
        kinds=dict(zip(sorted(kinds), measured[1 + len(families) :], strict=True)),
        calibration=calibration,
        references=_fewest(found),
        roc=_roc(found),
        missing=_missing(rows),
        reliable=reliable,
        reason=reason,
    )


def _measured(
    found: list[Trial],
    weights: Weights,
    of: Claim,
    families: Sequence[str],
    kinds: Sequence[str],
    alphas: Sequence[float],
    fprs: Sequence[float],
) -> tuple[list[Family], Mapping[float, Interval], Interval]:
    """All thefts, those of each family and of each kind; then what is told of all thefts only."""
    found = [trial for trial in found if len(trial.thefts)]
    victims = [trial.victim for trial in found]
    members = [
        np.array([np.ones(len(trial.thefts), bool), *(trial.thefts.family == one for one in families),
                  *(trial.thefts.kind == one for one in kinds)])
        for trial in found
    ]  # fmt: skip
    thefts = [{model for trial, member in zip(found, members, strict=True) for model in trial.thefts.model[member[row]]}
              for row in range(1 + len(families) + len(kinds))]  # fmt: skip
    against = min((len(set(trial.innocents.model.tolist())) for trial in found), default=0)
    samples: dict[object, list[np.ndarray]] = {}
    whys = _whys(found, of, alphas, fprs, against)
    told_by = [
        {victim for victim, member in zip(victims, members, strict=True) if member[row].any()}
        for row in range(len(thefts))
    ]
    alone = np.array([len(names) < 2 for names in told_by])[:, None]
    for trial, member in zip(found, members, strict=True):
        mass = weights.of(trial.thefts)

        def share(values: np.ndarray, member: np.ndarray = member, mass: np.ndarray = mass) -> np.ndarray:
            if alone.all():
                return shares(values, mass, member)
            whole = shares(values, np.ones_like(mass), member)
            return np.where(alone, shares(values, mass, member), whole) if alone.any() else whole

        for alpha in alphas:
            samples.setdefault(("tpr", alpha), []).append(share(trial.thefts.p <= alpha))
        if whys["auroc"]:
            continue
        others = weights.of(trial.innocents)
        below, flagged = above(trial, others, fprs)
        samples.setdefault("auroc", []).append(share(below))
        for fpr, over in zip(fprs, flagged, strict=True):
            samples.setdefault(("fpr", fpr), []).append(share(over))
        if not whys["aruc"]:
            samples.setdefault("aruc", []).append(areas(trial, mass if alone[0] else np.ones_like(mass), others)[None])

    def figure(name: object, row: int) -> Interval:
        n, held = len(thefts[row]), against
        if whys[name]:
            return Interval(value=None, n=n, why=whys[name])
        sample, told = over_victims([one[row] for one in samples[name]], victims, weights)
        counted = isinstance(name, tuple)
        if isinstance(name, tuple) and name[0] == "tpr":
            held = 0
        exact = n if counted else min(n, held) if name == "auroc" else 0
        return interval(sample, victims=told, n=n, against=held, exact=exact, always=counted)

    told = [
        Family(
            tpr={alpha: figure(("tpr", alpha), row) for alpha in alphas},
            auroc=figure("auroc", row),
            n_thefts=len(thefts[row]),
            victims=len(told_by[row]),
        )
        for row in range(len(thefts))
    ]
    return told, {fpr: figure(("fpr", fpr), 0) for fpr in fprs}, figure("aruc", 0)


def _whys(
    found: list[Trial], of: Claim, alphas: Sequence[float], fprs: Sequence[float], against: int
) -> dict[object, str]:
    """Why each figure is refused, or ""."""
    scores = np.concatenate([np.zeros(0), *(side.score for trial in found for side in (trial.thefts, trial.innocents))])
    # Such an entry would pass for one that guesses.
    none = "no theft to be judged" if not found else "" if np.isfinite(scores).any() else "no suspect has a score"
    whys: dict[object, str] = {
        ("tpr", alpha): none or ("" if of == "identical" else unattainable(found, alpha)) for alpha in alphas
    }
    bare = next((trial.victim for trial in found if not len(trial.innocents)), None)
    without = none or (_EXACT if of == "identical" else f"victim {bare!r} has no innocent to be judged" if bare else "")
    whys["auroc"] = without
    outside = np.isfinite(scores) & ((scores < 0) | (scores > 1))
    whys["aruc"] = without or ("it reads scores as shares, and some lie outside [0, 1]" if outside.any() else "")
    for fpr in fprs:
        few = f"{against} innocents x {fpr:g} = {against * fpr:.3g} expected accusations; fewer than {ACCUSED} are luck"
        whys["fpr", fpr] = without or (few if against * fpr < ACCUSED - SLACK else "")
    return whys


def _roc(found: list[Trial]) -> Roc | None:
    fpr = np.linspace(0, 1, _STEPS + 1)
    curves: dict[str, list[np.ndarray]] = {}
    for trial in found:
        known = np.sort(trial.innocents.score)[::-1]
        if not len(trial.thefts) or not len(known):
            continue
        ends = known[(fpr[:-1] * len(known) + SLACK).astype(int)]
        thefts = np.sort(trial.thefts.score)
        missed = np.append(np.searchsorted(thefts, ends, "right"), 0)
        curves.setdefault(trial.victim, []).append(1 - missed / len(thefts))
    if not curves:
        return None
    return Roc(fpr=fpr, tpr=np.mean([np.mean(rows, axis=0) for _, rows in sorted(curves.items())], axis=0))


def _fewest(found: list[Trial]) -> Mapping[str, int]:
    sizes = [counts(trial.references.kind) for trial in found]
    return {one: min(size.get(one, 0) for size in sizes) for one in ordered({name for size in sizes for name in size})}


def _missing(rows: Records) -> Missing:
    none, judged = np.isnan(rows["score"]), rows["role"] == "evaluation"
    sides = [
        (rows["truth"] == "derived") & judged & rows["accepted"],
        innocent(rows) & judged,
        innocent(rows) & ~judged,
    ]
    told = [str(reason) or "no reason given" for side in sides for reason in rows["reason"][none & side].tolist()]
    thefts, innocents, references = (int((none & side).sum()) for side in sides)
    reasons = dict(sorted(Counter(told).items(), key=lambda item: (-item[1], item[0])))
    return Missing(thefts=thefts, innocents=innocents, references=references, reasons=reasons)


def _reliable(rows: Records, calibration: tuple[Calibration, ...]) -> tuple[bool | None, str]:
    if claim(rows) == "identical":
        return None, "its null is exact and needs no reference; no unchanged copy is among these models to be accused"
    tested = [row for row in calibration if row.p is not None and row.holdout.value is not None]
    broken = [row for row in tested if row.holds is False]
    if broken:
        worst = min(broken, key=lambda row: (row.p or 0.0, -(row.holdout.value or 0.0)))
        held = worst.holdout
        return False, (
            f"accuses {held.value:.0%} of the innocents of stratum {worst.stratum} at alpha {worst.alpha:g} "
            f"({held.n} models, standard error {held.error:.1%}; p {worst.p:.2g} after Holm)"
        )
    if not tested:
        why = calibration[0].holdout.why if calibration else "no innocent and no reference"
        return None, f"its false accusations could not be tested: {why}"
    return True, ""
