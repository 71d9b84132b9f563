"""The demo's population: a small convolutional network trained on scikit-learn's digits, its copies, and strangers.

The 1,797 images are cut into four disjoint parts. The victim gets no more than 300, so that it makes some fifty
mistakes on the 700 that are kept for queries, for a copy is told by the mistakes that it repeats. Strangers train on
the victim's 300 (the same public data) or on another 300. The thief has the remaining 497, which nobody else has seen,
and mixes them into the query sets of its extractions. The 700 are seen by no model in training; they also measure
accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from locard.data import read, split
from locard.models.fitting import Recipe
from locard.records import Data
from locard.seeds import derive
from locard.zoo.population import Job, Original, Theft, train_many
from locard.zoo.roles import Member, Population, Role, populate

if TYPE_CHECKING:
    from locard.models.session import Progress

SIZES = {"victim": 300, "other": 300, "attacker": 497, "queries": 700}
# With 39 references in each stratum, a suspect may be outdone by one of them and still be told at alpha 0.05.
REFERENCES, INNOCENTS, COPIES = 39, 3, 3

_ARCHITECTURES: dict[str, tuple[dict[str, Any], Recipe]] = {
    "cnn": ({"width": 8}, Recipe(epochs=30, lr=1.5e-2, batch=50)),
    "mlp": ({"hidden": [64, 32]}, Recipe(epochs=25, lr=1e-2, batch=50)),
    "resnet": ({"width": 8}, Recipe(epochs=12, lr=2e-2, batch=50)),
}
_EXTRACT = {"queries": 2000, "epochs": 20, "batch": 100, "lr": 1e-2}
# kind: attack, its parameters, and how it is told to people
_THEFTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "finetune-all": ("finetune", {"epochs": 5, "lr": 2e-3}, "fine-tuned, all layers"),
    "finetune-last": ("finetune", {"epochs": 5, "lr": 2e-3, "layers": "last"}, "fine-tuned, last layer"),
    "prune": ("prune", {"fraction": 0.5}, "half of the weights pruned"),
    "quantise-int8": ("quantise", {"format": "int8"}, "weights quantised to int8"),
    "quantise-fp16": ("quantise", {"format": "fp16"}, "weights quantised to fp16"),
    "noise": ("noise", {"share": 0.1}, "noise on the weights"),
    "extract-probabilities": (
        "extraction",
        {"architecture": "cnn", "width": 8, **_EXTRACT},
        "extracted by its probabilities",
    ),
    "extract-labels": (
        "extraction",
        {"answers": "labels", "architecture": "cnn", "width": 8, **_EXTRACT},
        "extracted by its labels",
    ),
    "extract-other": ("extraction", {"architecture": "mlp", **_EXTRACT}, "extracted into another architecture"),
}
_FOREIGN = ("finetune-all", "prune", "quantise-int8", "noise", "finetune-last", "extract-probabilities")
# A rounded copy is one and the same whatever the seed, so there are no more of it to measure power with.
_VARIED = tuple(kind for kind in _THEFTS if not kind.startswith("quantise"))
_FRACTIONS = (0.3, 0.4, 0.6)


def parts() -> dict[str, Data]:
    """The four parts of the digits, disjoint."""
    return split(read("digits"), SIZES, seed=0)


def jobs(seed: int = 0) -> list[tuple[Job, Member]]:
    """Every model, with what it is there for.

    Args:
        seed: of all models.
    """
    victim = Member(name="victim", role="victim", truth="victim", kind="victim", how="the victim")
    rows: list[tuple[Job, Member]] = [(_original("victim", "victim", "cnn", seed), victim)]
    for kind, (_, _, how) in _THEFTS.items():
        name = f"suspects/{kind}"
        rows.append((_theft(name, "victim", kind, seed),
                     Member(name=name, role="suspect", truth="derived", kind=kind, how=how)))  # fmt: skip
    rows += _independents("suspect", "suspects/{stratum}-{number:02}", INNOCENTS, seed)
    rows += _independents("reference", "references/{stratum}/{stratum}-{number:02}", REFERENCES, seed)
    for kind in _VARIED:
        for number in range(COPIES):
            name = f"derived/{kind}/{kind}-{number:02}"
            job = _theft(name, "victim", kind, seed, {"fraction": _FRACTIONS[number]} if kind == "prune" else {})
            rows.append((job, Member(name=name, role="derived", truth="derived", kind=kind, how=_THEFTS[kind][2])))
    return rows


def build(out: Path, *, seed: int = 0, processes: int = 2, progress: Progress | None = None) -> Population:
    """Train, steal and record the demo's models.

    Args:
        out: folder of the model folders; models that an earlier call made are kept.
        seed: of all models.
        processes: models at a time.
        progress: called with (done, wanted) models.

    Raises:
        MissingExtraError: torch or scikit-learn is not installed.
        ArtefactError: the folder may not be written.
    """
    data, listed = parts(), jobs(seed)
    built = train_many([job for job, _ in listed], data, out, held_out="queries", processes=processes,
                       progress=progress)  # fmt: skip
    return populate(out, [member for _, member in listed], built, data, seed=seed)


def _independents(role: Role, names: str, count: int, seed: int) -> list[tuple[Job, Member]]:
    rows: list[tuple[Job, Member]] = []
    for number in range(count):
        name = {stratum: names.format(stratum=stratum, number=number) for stratum in _STRATA}
        other = ("mlp", "resnet")[number % 2]
        theft = _FOREIGN[number % len(_FOREIGN)]
        made: dict[str, tuple[Job, str]] = {
            "same-architecture": (_original(name["same-architecture"], "victim", "cnn", seed),
                                  "the victim's data and architecture"),
            "same-data": (_original(name["same-data"], "victim", other, seed), f"the victim's data, {other}"),
            "disjoint": (_original(name["disjoint"], "other", "cnn", seed), "other data"),
            "foreign-theft": (_theft(name["foreign-theft"], name["disjoint"], theft, seed),
                              f"{_THEFTS[theft][2]}, from somebody else's model"),
        }  # fmt: skip
        for stratum, (job, how) in made.items():
            rows.append((job, Member(name=job.name, role=role, truth="independent", kind=stratum, how=how)))
    return rows


_STRATA = ("same-architecture", "same-data", "disjoint", "foreign-theft")


def _original(name: str, data: str, architecture: str, seed: int) -> Original:
    arguments, recipe = _ARCHITECTURES[architecture]
    return Original(name=name, data=data, architecture=architecture, arguments=arguments, recipe=recipe,
                    seed=derive(seed, f"digits/{name}"))  # fmt: skip


def _theft(name: str, victim: str, kind: str, seed: int, changed: dict[str, Any] | None = None) -> Theft:
    attack, params, _ = _THEFTS[kind]
    needs_data = attack in ("finetune", "extraction")
    budget = params["queries"] if attack == "extraction" else None
    return Theft(name=name, victim=victim, attack=attack, params={**params, **(changed or {})}, budget=budget,
                 data="attacker" if needs_data else None, seed=derive(seed, f"digits/{name}"))  # fmt: skip
