"""Rows of a bench that nobody ran: schemes with the strengths that schemes have, on victims, thefts and innocents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from locard.bench.figures import Calibration, Family, Interval, Missing, Roc, Standing, Summary
from locard.bench.metrics import p_values
from locard.bench.records import COLUMNS, Records, dtype_of

STRATA = {"disjoint": 0.0, "same-data": 0.35, "same-architecture": 0.7, "foreign-theft": 0.2}
# By theft: its family, and how far below the victim itself a copy of it scores where the scheme is weak against its family.
KINDS = {
    "finetune-all": ("weights", 0.6), "finetune-last": ("weights", 0.3), "prune-0.3": ("weights", 0.4),
    "prune-recover": ("weights", 0.8), "quantise-int8": ("weights", 0.2), "noise": ("weights", 0.7),
    "extract-probabilities": ("extraction", 1.6), "extract-labels": ("extraction", 2.4),
    "extract-other": ("extraction", 2.6), "round-2": ("answers", 0.3), "smooth": ("answers", 1.2),
    "transfer-half": ("transfer", 2.2),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A scheme as the generator knows it; `strength` in standard deviations of innocent scores, `bias` breaks the promise."""

    name: str
    access: str
    strength: float
    against: dict[str, float]
    bias: float = 0.0
    claim: str = "derived"


def _entries() -> list[Entry]:
    names = (
        "adv-tra", "afa", "akh", "anafp +", "conferrable +", "deepfool", "frontier", "ipguard", "irisfp +", "multipoint",
        "deepjudge", "metav +", "uap +", "zest", "sac", "sac variant=w +", "tafa", "modeldiff", "modelgif",
        "modelgif references=ranked +", "akh discount=true", "zest align=true", "akh+labels+hamming", "overlap", "gram",
    )  # fmt: skip
    access = ["LABELS"] * 10 + ["PROBABILITIES"] * 4 + ["LOGITS"] * 4 + ["GRADIENTS"] * 2
    access += ["LABELS", "PROBABILITIES", "LABELS", "WEIGHTS", "MODULE"]
    draw = np.random.default_rng(7)
    return [
        Entry(
            name=name,
            access=rung,
            strength=float(draw.uniform(1.5, 6.0)),
            against={"extraction": float(draw.uniform(0.2, 1.0)), "transfer": float(draw.uniform(0.2, 1.0))},
            bias=2.5 if name == "uap +" else 0.0,
        )
        for name, rung in zip(names, access, strict=True)
    ]


ENTRIES = _entries()


def records(
    *,
    entries: int = 25,
    victims: int = 6,
    thefts: int = 4,
    innocents: int = 40,
    budgets: tuple[int, ...] = (0,),
    seed: int = 0,
    rename: dict[str, str] | None = None,
) -> Records:
    """Rows as a run would leave them.

    Args:
        entries: how many of `ENTRIES`.
        victims: each is robbed and judged by every entry.
        thefts: of each kind and victim; one in 25 fails, one in 40 has no score.
        innocents: of each stratum, two thirds of them references.
        budgets: queries asked for; every entry has rows at each.
        seed: of all that is drawn.
        rename: names to put in place of others, in every column.

    Returns:
        entries x budgets x victims x (12 thefts + 4 innocents) rows.
    """
    draw = np.random.default_rng(seed)
    held: dict[str, list[object]] = {name: [] for name in COLUMNS}
    for v in range(victims):
        victim, architecture = f"fashion/cnn-{v}", ("cnn", "mlp")[v % 2]
        suspects = [
            (f"{victim}/{kind}/{i}", "evaluation", "derived", kind, family, draw.random() > 0.04, depth)
            for kind, (family, depth) in KINDS.items()
            for i in range(thefts)
        ] + [
            (f"{stratum}/{i:03}", "calibration" if i % 3 else "evaluation", "independent", stratum, stratum, True, near)
            for stratum, near in STRATA.items()
            for i in range(innocents)
        ]
        for entry in ENTRIES[:entries]:
            for budget in budgets:
                queries = budget or 100
                sharp = np.sqrt(queries / 100)
                for name, role, truth, kind, family, accepted, place in suspects:
                    z = draw.normal()
                    if truth == "derived":
                        z += entry.strength * entry.against.get(family, 1.0) * sharp - place
                    else:
                        z += place + (entry.bias if role == "evaluation" else 0.0)
                    missing = draw.random() < 0.025
                    row = {
                        "victim": victim, "architecture": architecture, "suspect": name, "model": name.encode().hex()[-16:],
                        "role": role, "truth": truth, "kind": kind, "family": family, "accepted": accepted,
                        "entry": entry.name, "scheme": entry.name.split()[0], "claim": entry.claim,
                        "access": entry.access, "budget": budget, "queries": queries, "seed": 0,
                        "score": np.nan if missing else 1 / (1 + np.exp(-(z - 3) / 2)), "own": 1.0,
                        "extraction": entry.strength, "seconds": 1e-4 * queries,
                        "reason": "the suspect has other classes" if missing else "",
                    }  # fmt: skip
                    for column, value in row.items():
                        held[column].append((rename or {}).get(value, value) if isinstance(value, str) else value)
    return Records({name: np.array(values, dtype_of(name)) for name, values in held.items()})


def summary(
    rows: Records, *, alphas: tuple[float, ...] = (0.05, 0.01), fprs: tuple[float, ...] = (0.05, 0.01)
) -> Summary:
    """What rows say, by the plainest means: it shapes a page, it is no reference for the figures."""
    p, theft = p_values(rows), (rows["truth"] == "derived") & rows["accepted"]
    innocent = (rows["truth"] == "independent") & (rows["role"] == "evaluation")
    strata, kinds = [s for s in STRATA if s in set(rows["kind"])], [k for k in KINDS if k in set(rows["kind"][theft])]

    def models(mask: np.ndarray) -> int:
        return len(set(rows["suspect"][mask].tolist()))

    def rate(mask: np.ndarray, alpha: float, low: float = 0.0) -> Interval:
        if low > alpha:
            return Interval(value=None, n=models(mask), why=f"no p is below {low:.3f}, so none is at most {alpha}")
        if not mask.any():
            return Interval(value=None, why="there is no such model")
        value, n = float(np.mean(np.nan_to_num(p[mask], nan=1.0) <= alpha)), models(mask)
        spread = 2 * np.sqrt(max(value * (1 - value), 0.02) / n)
        return Interval(value=value, low=max(0.0, value - spread), high=min(1.0, value + spread), n=n, error=spread / 2)

    standings = []
    for entry, budget in dict.fromkeys(zip(rows["entry"].tolist(), rows["budget"].tolist(), strict=True)):
        mine = (rows["entry"] == entry) & (rows["budget"] == budget)
        references = {s: models(mine & (rows["role"] == "calibration") & (rows["kind"] == s)) for s in strata}
        low = 1 / (1 + min(references.values(), default=0))
        scores = np.nan_to_num(rows["score"], nan=0.0)
        found, accused = scores[mine & theft], scores[mine & innocent]
        fpr = np.linspace(0, 1, 101)
        tpr = np.array([np.mean(found >= np.quantile(accused, 1 - x)) for x in fpr]) if len(accused) else fpr
        area = float(np.trapezoid(tpr, fpr))
        auroc = Interval(value=area, low=max(0, area - 0.03), high=min(1, area + 0.03), n=models(mine & theft))

        def family(
            column: str, name: str, mine: np.ndarray = mine, low: float = low, auroc: Interval = auroc
        ) -> Family:
            members = mine & theft & (rows[column] == name)
            tpr = {alpha: rate(members, alpha, low) for alpha in alphas}
            return Family(tpr=tpr, auroc=auroc, n_thefts=models(members), victims=len(rows.names("victim")))

        calibration = []
        for stratum in strata:
            judged = mine & innocent & (rows["kind"] == stratum)
            for alpha in alphas:
                holdout = rate(judged, alpha, low)
                broken = holdout.value is not None and holdout.value > alpha + 3 * (holdout.error or 0)
                moved = (
                    None
                    if holdout.value is None
                    else min(1.0, holdout.value + (0.12 if stratum == "same-architecture" else 0))
                )
                calibration.append(
                    Calibration(
                        stratum=stratum,
                        alpha=alpha,
                        rate=Interval(value=0.8 * alpha),
                        holdout=holdout,
                        transfer=Interval(value=moved),
                        p=0.01,
                        holds=None if holdout.value is None else not broken,
                    )  # fmt: skip
                )
        broken = [c for c in calibration if c.holds is False]
        reason = "; ".join(f"it accuses {c.holdout.value:.0%} of {c.stratum} at alpha {c.alpha}" for c in broken)
        lacks = mine & np.isnan(rows["score"])
        first = rows.where(np.flatnonzero(mine)[:1]).rows()[0]
        standings.append(
            Standing(
                entry=entry,
                scheme=first.scheme,
                claim=first.claim,
                access=first.access,
                budget=budget,
                queries=float(np.median(rows["queries"][mine])),
                seconds=float(np.median(rows["seconds"][mine])),
                extraction=float(np.median(rows["extraction"][mine])),
                victims=len(rows.names("victim")),
                seeds=1,
                auroc=auroc,
                tpr={alpha: rate(mine & theft, alpha, low) for alpha in alphas},
                tpr_at_fpr={f: Interval(value=float(tpr[round(100 * f)])) for f in fprs},
                aruc=Interval(value=area / 1.2),
                families={
                    name: family("family", name) for name in dict.fromkeys(rows["family"][mine & theft].tolist())
                },
                kinds={kind: family("kind", kind) for kind in kinds},
                calibration=tuple(calibration),
                references=references,
                roc=Roc(fpr=fpr, tpr=tpr),
                reliable=not broken,
                reason=reason,
                missing=Missing(
                    thefts=int((lacks & theft).sum()),
                    innocents=int((lacks & innocent).sum()),
                    references=int((lacks & (rows["role"] == "calibration")).sum()),
                    reasons={"the suspect has other classes": int(lacks.sum())} if lacks.any() else {},
                ),
            )  # fmt: skip
        )
    standings.sort(key=lambda s: -(s.tpr[alphas[0]].value or 0))
    failed = (rows["truth"] == "derived") & ~rows["accepted"]
    evaluated = {s: models(innocent & (rows["kind"] == s)) for s in strata}
    return Summary(
        standings=tuple(standings), victims=tuple(rows.names("victim")),
        families={f: models(theft & (rows["family"] == f)) for f in dict.fromkeys(rows["family"][theft].tolist())},
        kinds={k: KINDS[k][0] for k in kinds}, n_thefts=models(theft),
        failed={k: n for k in kinds if (n := models(failed & (rows["kind"] == k)))}, innocents=evaluated,
        references={s: models((rows["role"] == "calibration") & (rows["kind"] == s)) for s in strata}, alphas=alphas,
        fprs=fprs, refused=("the share found at alpha 0.01: 99 references of each stratum are needed",),
    )  # fmt: skip
