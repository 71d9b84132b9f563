"""A population in a folder: built from a recipe, opened again, each model with its role and its place in the family."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import locard
from locard.errors import ArtefactError, ParameterError
from locard.records import Data
from locard.zoo._lock import held
from locard.zoo.members import Member, Stratum
from locard.zoo.population import Built, train_many
from locard.zoo.recipe import Recipe, parse, parse_setting
from locard.zoo.setting import Setting

if TYPE_CHECKING:
    from locard.models.session import Progress

MANIFEST, RECIPE, BEGUN = "manifest.json", "recipe.toml", "begun.json"
_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A victim, a suspect, and the truth about the two.

    Args:
        victim: whose fingerprint is taken.
        suspect: who is asked.
        derived: whether the suspect was made from the victim.
        kind: of a derived one, the theft; of an independent one, its stratum.
        family: of a derived one, the family of the theft; of an independent one, its stratum again.
    """

    victim: Member
    suspect: Member
    derived: bool
    kind: str
    family: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Zoo:
    """A population.

    Args:
        path: its folder.
        recipe: what it was built from, a `Recipe`; of a population that was imported, the `Setting` alone.
        members: all models, in the order of the recipe, by name.
        built: what became of each, by name.
        parts: number of inputs and digest of each part of the data, by name.
    """

    path: Path
    recipe: Setting
    members: dict[str, Member]
    built: dict[str, Built]
    parts: dict[str, dict[str, Any]]

    @property
    def victims(self) -> list[Member]:
        """The models that were stolen."""
        return [one for one in self.members.values() if one.role == "victim"]

    def pairs(self) -> Iterator[Pair]:
        """Every victim with every model of the roles "calibration" and "evaluation" that is its copy or a stranger's.

        Copies of another victim are left out: many of one model would pass for many innocents.
        """
        for victim in self.victims:
            for one in self.members.values():
                if one.role not in ("calibration", "evaluation"):
                    continue
                if one.victim == victim.name:
                    yield Pair(victim=victim, suspect=one, derived=True, kind=one.kind, family=one.family)
                elif one.victim is None or self.members[one.victim].role != "victim":
                    stratum: Stratum = one.stratum(victim)
                    yield Pair(victim=victim, suspect=one, derived=False, kind=stratum, family=stratum)

    def choosers(self, victim: Member) -> tuple[list[Built], list[Built]]:
        """The models that help to choose the queries of a victim: copies of it, and strangers; judged nowhere."""
        chosen = [one for one in self.members.values() if one.role == "selection"]
        derived = [self.built[one.name] for one in chosen if one.victim == victim.name]
        strangers = [self.built[one.name] for one in chosen
                     if one.victim is None or self.members[one.victim].role != "victim"]  # fmt: skip
        # A copy that lost the task teaches nothing about copies.
        return [one for one in derived if one.acceptance is None or one.acceptance.accepted], strangers

    def data(self, part: str) -> Data:
        """One part of the data, read again.

        Raises:
            ArtefactError: the data set is no longer what the models were trained on.
        """
        found = self.recipe.parts()[part]
        if found.digest != self.parts[part]["digest"]:
            raise ArtefactError(
                f"{found.name} is not what {str(self.path)!r} was built with: the data set has changed, or its order; "
                "build the population anew"
            )
        return found


def build_zoo(
    recipe: Recipe,
    out: Path,
    *,
    processes: int = 2,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Zoo | None:
    """Train, steal and record all that is not there yet.

    Args:
        recipe: what to make.
        out: folder; models that an earlier call made are kept, and those that the recipe no longer names stay, unused.
        processes: models at a time.
        seconds: after so many no model is begun; None for no limit.
        progress: called with (done, wanted) models.

    Returns:
        The population; None where time was over before all was made.

    Raises:
        LocardError: the folder holds another population, or what the recipe asks for cannot be done.
    """
    listed, data = recipe.jobs(), recipe.parts()
    _take_folder(recipe, out)

    def told(done: int, wanted: int) -> None:
        if done < wanted:
            # What it says of the models is no longer so, and a build may end before all are there again.
            (out / MANIFEST).unlink(missing_ok=True)
        if progress is not None:
            progress(done, wanted)

    built = train_many([job for job, _ in listed], data, out, held_out=recipe.held_out, processes=processes,
                       seconds=seconds, progress=told)  # fmt: skip
    if len(built) < len(listed):
        return None
    members = {member.name: member for _, member in listed}
    parts = {name: {"n": len(part), "digest": part.digest} for name, part in data.items()}
    return keep(recipe, out, members, built, parts)


def open_zoo(path: Path) -> Zoo:
    """A population that was built.

    Raises:
        ArtefactError: no folder of a finished population.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        if manifest["locard_population"] != _VERSION:
            raise ArtefactError(f"{str(path)!r} holds a population of another version; build it anew")
        made = parse_setting if manifest.get("imported") else parse
        recipe = made((path / RECIPE).read_text("utf-8"), manifest["recipe"])
        rows = manifest["models"]
        members = {row["member"]["name"]: Member(**row["member"] | {"learnt": tuple(row["member"]["learnt"])})
                   for row in rows}  # fmt: skip
        built = {row["member"]["name"]: Built.from_json(path, row["built"]) for row in rows}
        if any(one.victim is not None and one.victim not in members for one in members.values()):
            raise ValueError("a copy of nobody")
        if recipe.queries not in manifest["parts"] or len(members) < len(rows):
            raise ValueError("no queries, or a model listed twice")
        found = Zoo(path=path, recipe=recipe, members=members, built=built, parts=manifest["parts"])
    except FileNotFoundError as error:
        raise ArtefactError(
            f"{str(path)!r} holds no finished population: build one with `locard zoo build RECIPE -o {path}`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"the manifest of {str(path)!r} is damaged: build the population again") from error
    _check_roles(members, built)
    return found


def _take_folder(recipe: Recipe, out: Path) -> None:
    """Refuse a folder in which another population stands or was begun, and say whose this one is."""
    for name in (MANIFEST, BEGUN):
        try:
            other = json.loads((out / name).read_text("utf-8"))["recipe"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if other != recipe.name:
            raise ParameterError(
                f"{str(out)!r} holds the population {other!r}; give {recipe.name!r} a folder of its own"
            )
    try:
        with held(out):
            (out / BEGUN).write_text(json.dumps({"recipe": recipe.name}) + "\n", "utf-8")
    except OSError as error:
        raise ArtefactError(f"cannot write models to {str(out)!r}: {error.strerror or error}") from error


def _check_roles(members: dict[str, Member], built: dict[str, Built]) -> None:
    first: dict[str, str] = {}
    for name, member in members.items():
        other = first.setdefault(built[name].model, name)
        if members[other].role != member.role:
            raise ParameterError(
                f"{other} and {name} are the same model, and have the roles {members[other].role!r} and "
                f"{member.role!r}, which must be disjoint: give one of them other parameters, or leave it out"
            )


def keep(recipe: Setting, out: Path, members: dict[str, Member], built: dict[str, Built], parts: dict[str, Any]) -> Zoo:
    """Write a population down: the manifest, and the recipe or, of one that was imported, the setting.

    Args:
        recipe: with its text.
        out: folder that holds the models.
        members: by name.
        built: by name.
        parts: number of inputs and digest of each part of the data, by name.

    Raises:
        ParameterError: one model has two roles.
    """
    _check_roles(members, built)
    manifest = {
        "locard_population": _VERSION,
        "locard": locard.__version__,
        "recipe": recipe.name,
        "imported": not isinstance(recipe, Recipe),
        "parts": parts,
        "models": [{"member": asdict(member), "built": built[name].to_json(out)} for name, member in members.items()],
    }
    with held(out):
        for name, text in ((RECIPE, recipe.text), (MANIFEST, json.dumps(manifest, indent=1) + "\n")):
            part = out / f".{name}"
            part.write_text(text, "utf-8")
            part.replace(out / name)
    return Zoo(path=out, recipe=recipe, members=members, built=built, parts=parts)
