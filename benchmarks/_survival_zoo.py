"""The models of `survival.py`: five victims on Fashion-MNIST with copies, strangers, and a population to choose by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locard.data import read, split
from locard.models.fitting import Recipe
from locard.records import Data
from locard.seeds import derive
from locard.zoo.population import Built, Job, Original, Theft, train_many

RECIPE = Recipe(epochs=3, lr=5e-3, batch=128)
EXTRACT = {"queries": 20_000, "epochs": 5, "batch": 128}
# kind: attack, parameters, whether the thief's data are used
COPIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "finetune-all": ("finetune", {"layers": "all", "epochs": 3}, True),
    "finetune-last": ("finetune", {"layers": "last", "epochs": 3}, True),
    "prune": ("prune", {"fraction": 0.5}, False),
    "prune-recover": ("prune", {"fraction": 0.8, "recovery": 2}, True),
    "quantise-int8": ("quantise", {"format": "int8"}, False),
    "noise": ("noise", {"share": 0.1}, False),
    "extract-probabilities": ("extraction", {"answers": "probabilities", "architecture": "cnn", **EXTRACT}, True),
    "extract-labels": ("extraction", {"answers": "labels", "architecture": "cnn", **EXTRACT}, True),
    "extract-other": ("extraction", {"answers": "probabilities", "architecture": "resnet", **EXTRACT}, True),
}
# The owner's own copies, made with other seeds and numbers, by which schemes choose their queries.
CHOOSERS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "own-finetune": ("finetune", {"layers": "all", "epochs": 2}, True),
    "own-prune": ("prune", {"fraction": 0.7, "recovery": 1}, True),
    "own-noise": ("noise", {"share": 0.15}, False),
    "own-extract": ("extraction", {"answers": "probabilities", "queries": 10_000, "epochs": 4, "batch": 128}, True),
    "own-extract-labels": ("extraction", {"answers": "labels", "queries": 10_000, "epochs": 4, "batch": 128}, True),
}
VICTIMS, SAME, DISJOINT, CHOSEN = 5, 6, 10, 4


def parts() -> dict[str, Data]:
    """The parts of Fashion-MNIST, disjoint; the owner's copies are made of other data than the thieves'."""
    names = {"victim": 25_000, "other": 25_000, "attacker": 6_000, "owner": 4_000}
    train = split(read("fashion-mnist:train"), names, seed=0)
    return train | split(read("fashion-mnist:test"), {"queries": 8_000, "check": 2_000}, seed=0)


def build(out: Path, *, seed: int, processes: int, progress: Any) -> dict[str, Built]:
    """Train what is missing; about 15 minutes of one core."""
    return train_many(jobs(seed), parts(), out, held_out="check", processes=processes, progress=progress)


def jobs(seed: int) -> list[Job]:
    """Every model."""
    listed: list[Job] = [
        Original(name=f"{data}-{i:02}", data=data, architecture="cnn", recipe=RECIPE, mean=(0.286,), std=(0.353,),
                 seed=derive(seed, f"survival/{data}/{i}"))
        for data, number in (("victim", VICTIMS + SAME + CHOSEN), ("other", DISJOINT + CHOSEN))
        for i in range(number)
    ]  # fmt: skip
    for victim in range(VICTIMS):
        for table, data in ((COPIES, "attacker"), (CHOOSERS, "owner")):
            listed += [
                Theft(name=f"{kind}-{victim:02}", victim=f"victim-{victim:02}", attack=attack, params=params,
                      data=data if needs_data else None, seed=derive(seed, f"survival/{kind}/{victim}"))
                for kind, (attack, params, needs_data) in table.items()
            ]  # fmt: skip
    return listed


def independent(victim: int) -> list[str]:
    """The twenty models that a victim's fingerprints are judged by: half on its data, half on others."""
    same = [f"victim-{i:02}" for i in range(VICTIMS + SAME) if i != victim]
    return same + [f"other-{i:02}" for i in range(DISJOINT)]


def choosers(victim: int) -> tuple[list[str], list[str]]:
    """Derived and independent models by which schemes choose their queries; judged nowhere."""
    others = [f"victim-{i:02}" for i in range(VICTIMS + SAME, VICTIMS + SAME + CHOSEN)]
    others += [f"other-{i:02}" for i in range(DISJOINT, DISJOINT + CHOSEN)]
    return [f"{kind}-{victim:02}" for kind in CHOOSERS], others
