"""Rows of a bench that nobody ran: schemes with the strengths that schemes have, on victims, thefts and innocents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from locard.bench.records import COLUMNS, Records, dtype_of

ABOUT = {"Data set": "fashion-mnist, 70,000 grey images of 10 classes", "Date": "2026-11-24", "Machine": "2 cores"}
STRATA = {"disjoint": 0.0, "same-data": 0.35, "same-architecture": 0.7, "foreign-theft": 0.2}
# By theft: its family, and how far below the victim itself a copy of it scores.
KINDS = {
    "finetune-all": ("weights", 0.6), "finetune-last": ("weights", 0.3), "prune-0.3": ("weights", 0.4),
    "prune-recover": ("weights", 0.8), "quantise-int8": ("weights", 0.2), "noise": ("weights", 0.7),
    "extract-probabilities": ("extraction", 1.6), "extract-labels": ("extraction", 2.4),
    "extract-other": ("extraction", 2.6), "round-2": ("answers", 0.3), "smooth": ("answers", 1.2),
    "transfer-half": ("transfer", 2.2),
}  # fmt: skip


# For the page: shown names of a table's or a grid's lines, in order.
SHOWN = """[...document.querySelectorAll('{} [data-line]')].filter(e => !e.hidden)
    .map(e => e.querySelector('.name').innerText)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A scheme: its `strength` in standard deviations of innocent scores; a `bias` breaks the promise."""

    name: str
    access: str
    strength: float
    against: dict[str, float]
    bias: float = 0.0
    claim: str = "derived"


def _entries() -> list[Entry]:
    names = (
        "adv-tra", "afa", "akh", "anafp +", "conferrable +", "deepfool", "frontier", "ipguard", "irisfp +",
        "multipoint", "deepjudge", "metav +", "uap +", "zest", "sac", "sac variant=w +", "tafa", "modeldiff",
        "modelgif", "modelgif references=ranked +", "akh discount=true", "zest align=true",
        "akh+labels+hamming", "overlap", "gram",
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
            bias=4.0 if name == "uap +" else 0.0,
        )
        for name, rung in zip(names, access, strict=True)
    ]


ENTRIES = _entries()


def records(
    *,
    entries: int = 25,
    victims: int = 6,
    thefts: int = 4,
    innocents: int = 60,
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
                        "victim": victim, "architecture": architecture, "suspect": name,
                        "model": hashlib.sha256(name.encode()).hexdigest(),
                        "parent": victim if truth == "derived" else "",
                        "shares": truth == "derived" or kind in ("same-data", "same-architecture"),
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


def written(folder: Path, text: str) -> Path:
    """The page's file."""
    path = folder / "bench.html"
    path.write_text(text, encoding="utf-8")
    return path
