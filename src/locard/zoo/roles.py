"""Who is who in a population, written down beside its models; never read off a name, never decided afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from locard.records import Data
from locard.zoo.population import Built

MANIFEST = "manifest.json"

Role = Literal["victim", "suspect", "reference", "derived"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model and what it is there for. Roles are disjoint.

    Args:
        name: of its job and folder.
        role: "victim"; "suspect", to be judged; "reference", which gives the null; "derived", which gives the power.
        truth: "victim", "derived" from it, or "independent" of it.
        kind: the kind of theft of a derived model, the stratum of an independent one.
        how: for people, how it was made.
    """

    name: str
    role: Role
    truth: Literal["victim", "derived", "independent"]
    kind: str
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A model to be judged, and the truth about it.

    Args:
        path: its folder.
        truth: "derived" or "independent".
        kind: the kind of theft, or the stratum.
        how: for people, how it was made.
        accepted: False for a copy of the victim that lost the task; it is no theft, and no scheme is blamed for
            missing it.
    """

    path: Path
    truth: str
    kind: str
    how: str
    accepted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """A victim, whom to judge, and what to judge by.

    Args:
        victim: the victim's folder.
        suspects: whom to judge.
        references: folders of independent models by stratum.
        derived: folders of copies that are none of the suspects, by kind of theft; failed thefts are left out.
        queries: labelled inputs that no model has seen.
        built: all models by name.
    """

    victim: Path
    suspects: tuple[Suspect, ...]
    references: dict[str, list[Path]]
    derived: dict[str, list[Path]]
    queries: Data
    built: dict[str, Built]


def populate(
    out: Path, members: Sequence[Member], built: Mapping[str, Built], data: Mapping[str, Data], *, seed: int
) -> Population:
    """Sort the models by role, and write the roles down.

    Args:
        out: where `manifest.json` goes.
        members: all models.
        built: what became of them, by name.
        data: parts by name, "queries" among them.
        seed: of the population.
    """
    references: dict[str, list[Path]] = {}
    derived: dict[str, list[Path]] = {}
    suspects, victim = [], None
    for member in members:
        made = built[member.name]
        # A stranger's copy of a stranger's model is innocent whether that theft came off or not.
        accepted = member.truth != "derived" or made.acceptance is None or made.acceptance.accepted
        if member.role == "victim":
            victim = made.path
        elif member.role == "reference":
            references.setdefault(member.kind, []).append(made.path)
        elif member.role == "derived" and accepted:
            derived.setdefault(member.kind, []).append(made.path)
        elif member.role == "suspect":
            suspects.append(Suspect(path=made.path, truth=member.truth, kind=member.kind, how=member.how,
                                    accepted=accepted))  # fmt: skip
    if victim is None:
        raise ValueError("a population has a victim")
    _write(out / MANIFEST, members, built, data, seed)
    return Population(victim=victim, suspects=tuple(suspects), references=references, derived=derived,
                      queries=data["queries"], built=dict(built))  # fmt: skip


def _write(
    path: Path, members: Sequence[Member], built: Mapping[str, Built], data: Mapping[str, Data], seed: int
) -> None:
    rows: list[dict[str, Any]] = []
    for member in members:
        made = built[member.name]
        row = {"name": member.name, "role": member.role, "truth": member.truth, "kind": member.kind, "how": member.how,
               "model": made.model, "job": made.job, "accuracy": made.accuracy}  # fmt: skip
        if made.acceptance is not None:
            row |= {"accepted": made.acceptance.accepted, "agreement": made.acceptance.agreement}
        rows.append(row)
    parts = {name: {"n": len(part), "digest": part.digest} for name, part in data.items()}
    manifest = {"locard_population": 1, "seed": seed, "parts": parts, "models": rows}
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    part.replace(path)
