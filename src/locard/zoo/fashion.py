"""Fashion-MNIST: one small convolutional victim, its copies, and eighty models made without it.

25,000 training images are the victim's, another 25,000 those of strangers, 10,000 the thief's; of the test images 8,000
are there to be asked and 2,000 to measure accuracy. Independents come in the four strata, twenty each, so that any one
of them can give the 19 references that alpha 0.05 takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from locard.data import read, split
from locard.models.fitting import Recipe
from locard.records import Data
from locard.seeds import derive
from locard.zoo.population import Job, Original, Theft, train_many
from locard.zoo.roles import Member, Population, populate

if TYPE_CHECKING:
    from locard.models.session import Progress

EACH = 20
RECIPE = Recipe(epochs=3, lr=5e-3, batch=128)
MEAN, STD = (0.286,), (0.353,)
EXTRACT = {"queries": 20_000, "epochs": 5, "batch": 128}
# kind: attack, parameters, whether the thief's data are used
THEFTS = {
    "finetune-all": ("finetune", {"layers": "all", "epochs": 3}, True),
    "finetune-last": ("finetune", {"layers": "last", "epochs": 3}, True),
    "prune": ("prune", {"fraction": 0.5}, False),
    "prune-recover": ("prune", {"fraction": 0.8, "recovery": 2}, True),
    "quantise-int8": ("quantise", {"format": "int8"}, False),
    "quantise-fp16": ("quantise", {"format": "fp16"}, False),
    "noise": ("noise", {"share": 0.1}, False),
    "extract-probabilities": ("extraction", {"answers": "probabilities", "architecture": "cnn", **EXTRACT}, True),
    "extract-labels": ("extraction", {"answers": "labels", "architecture": "cnn", **EXTRACT}, True),
    "extract-other": ("extraction", {"answers": "probabilities", "architecture": "resnet", **EXTRACT}, True),
}
# What strangers do to each other's models, cheapest first.
FOREIGN = ("prune", "quantise-int8", "noise", "finetune-last", "finetune-all")


def parts() -> dict[str, Data]:
    """The parts of Fashion-MNIST, disjoint.

    Raises:
        ArtefactError: Fashion-MNIST is not installed.
    """
    train = split(read("fashion-mnist:train"), {"victim": 25_000, "other": 25_000, "attacker": 10_000}, seed=0)
    return train | split(read("fashion-mnist:test"), {"queries": 8_000, "check": 2_000}, seed=0)


def jobs(seed: int = 0) -> list[tuple[Job, Member]]:
    """Every model, with what it is there for.

    Args:
        seed: of all models.
    """
    victim = Member(name="victim", role="victim", truth="victim", kind="victim")
    listed: list[tuple[Job, Member]] = [(_original("victim", "victim", "cnn", seed), victim)]
    for kind, (attack, params, needs_data) in THEFTS.items():
        job = _theft(kind, "victim", attack, params, needs_data, seed)
        listed.append((job, Member(name=kind, role="suspect", truth="derived", kind=kind)))
    for number in range(EACH):
        attack, params, needs_data = THEFTS[FOREIGN[number % len(FOREIGN)]]
        strangers: list[tuple[str, Job]] = [
            ("same-architecture", _original(f"same-architecture-{number:02}", "victim", "cnn", seed)),
            ("disjoint", _original(f"disjoint-{number:02}", "other", "cnn", seed)),
            ("same-data", _original(f"same-data-{number:02}", "victim", ("resnet", "mlp")[number % 2], seed)),
            ("foreign-theft", _theft(f"foreign-theft-{number:02}", f"disjoint-{number:02}", attack, params, needs_data,
                                     seed)),
        ]  # fmt: skip
        for stratum, job in strangers:
            listed.append((job, Member(name=job.name, role="reference", truth="independent", kind=stratum)))
    return listed


def build(out: Path, *, seed: int = 0, processes: int = 2, progress: Progress | None = None) -> Population:
    """Train, steal and record; about 20 minutes of one core, less what an earlier call has made.

    Args:
        out: folder of the model folders.
        seed: of all models.
        processes: models at a time.
        progress: called with (done, wanted) models.

    Raises:
        ArtefactError: Fashion-MNIST is not installed, or the folder may not be written.
    """
    data, listed = parts(), jobs(seed)
    built = train_many([job for job, _ in listed], data, out, held_out="check", processes=processes,
                       progress=progress)  # fmt: skip
    return populate(out, [member for _, member in listed], built, data, seed=seed)


def _original(name: str, data: str, architecture: str, seed: int) -> Original:
    return Original(name=name, data=data, architecture=architecture, recipe=RECIPE, mean=MEAN, std=STD,
                    seed=derive(seed, f"fashion/{name}"))  # fmt: skip


def _theft(name: str, victim: str, attack: str, params: dict[str, object], needs_data: bool, seed: int) -> Theft:
    return Theft(name=name, victim=victim, attack=attack, params=params, data="attacker" if needs_data else None,
                 seed=derive(seed, f"fashion/{name}"))  # fmt: skip
