"""A population as a TOML file: data and their parts, networks, victims, thefts and strangers, each with its role.

    about = "what it is, in a sentence"
    seed = 0
    queries = "queries"                 # the part that queries are drawn from, seen by no model
    held_out = "check"                  # the part that accuracy is measured on

    [[data]]
    source = "fashion-mnist:train"      # what `locard.data.read` reads
    parts = { victim = 15_000, other = 15_000, thief = 10_000 }

    [networks.cnn]
    architecture = "cnn"                # the network's own name by default
    arguments = { width = 16 }
    training = { epochs = 3, lr = 5e-3, batch = 128 }
    mean = [0.286]
    std = [0.353]

    [victims]
    data = "victim"
    networks = { cnn = 5 }

    [thefts.finetune]
    attack = "finetune"                 # the theft's own name by default
    family = "fine-tuning"              # the attack's name by default
    how = "fine-tuned, all layers"      # for people
    params = { epochs = 3 }
    data = "thief"                      # where the attack needs data
    owner = "owner"                     # what the owner uses who makes the same copy; `data` by default
    budget = 20_000
    of = ["cnn"]                        # the networks stolen so; all by default
    victims = { evaluation = 1, calibration = 2, selection = 1 }    # copies of each victim by role

    [[strangers]]
    role = "calibration"
    data = "other"
    networks = { cnn = 40, resnet = 20 }
    thefts = { prune = 10 }             # of these strangers, in turn

Roles are disjoint. A model of the role "selection" helps schemes to choose their queries; one of "calibration" says
what strangers score (or, if it is a copy of the victim, what copies score); one of "evaluation" is judged. A theft of a
stranger has the role of the stranger. Names and seeds of models follow from what they are and a number, so a recipe
that asks for more of them keeps those that are there.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from locard.errors import ArtefactError, ParameterError, check_number, unknown
from locard.models.fitting import Recipe as Training
from locard.seeds import derive
from locard.zoo import _typed
from locard.zoo.members import Member, Part, Role
from locard.zoo.population import Job, Original, Theft
from locard.zoo.setting import Setting, check_name

T = TypeVar("T", bound=Setting)
SHIPPED = Path(__file__).with_name("recipes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is trained, and how; "" is the network's own name."""

    architecture: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """The models that are stolen: of each network so many, all trained on one part."""

    data: str
    networks: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stealing:
    """One way to steal, and how many copies of each victim there are by role; "" is the theft's or attack's name.

    `of` names the networks that are stolen so; () for all.
    """

    attack: str = ""
    family: str = ""
    how: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    data: str | None = None
    owner: str | None = None
    budget: int | None = None
    of: tuple[str, ...] = ()
    victims: dict[Part, int] = field(default_factory=lambda: {"evaluation": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Strangers:
    """Models made without the victims, of each network so many, and thefts of them, of each kind so many."""

    role: Part
    data: str
    networks: dict[str, int]
    thefts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Setting):
    """A population; see the module.

    Args:
        name: see `Setting`, as for all up to the data.
        text: see `Setting`.
        about: see `Setting`.
        seed: see `Setting`.
        queries: see `Setting`.
        held_out: see `Setting`.
        data: see `Setting`.
        networks: by name.
        victims: what is stolen.
        thefts: by name.
        strangers: in their order.
    """

    networks: dict[str, Network]
    victims: Victims
    thefts: dict[str, Stealing] = field(default_factory=dict)
    strangers: tuple[Strangers, ...] = ()

    def __post_init__(self) -> None:
        """Check that all names lead somewhere, all numbers are possible, and nothing is seen that must not be."""
        # By name, because a class with slots is made anew, and `super` would look in the old one.
        Setting.__post_init__(self)
        for name in (*self.networks, *self.thefts):
            check_name(name)
        groups = [self.victims, *self.strangers]
        stolen = [data for one in self.thefts.values() for data in (one.data, one.owner) if data is not None]
        seen = {*(one.data for one in groups), *stolen}
        for name in sorted(seen):
            if name not in self.part_names:
                raise unknown("part of the data", name, self.part_names)
        for name in (self.queries, self.held_out):
            if name in seen:
                raise ParameterError(f"the part {name!r} is for judging, and models are trained on it; name another")
        for group in groups:
            for name, count in group.networks.items():
                if name not in self.networks:
                    raise unknown("network", name, self.networks)
                check_number(f"the number of {name}", count, low=0)
        for name, theft in self.thefts.items():
            for network in theft.of:
                if network not in self.networks:
                    raise unknown("network", network, self.networks)
            for role, count in theft.victims.items():
                check_number(f"the number of copies by {name} for {role}", count, low=0)
        for group in self.strangers:
            for name, count in group.thefts.items():
                if name not in self.thefts:
                    raise unknown("theft", name, self.thefts)
                check_number(f"the number of {name}", count, low=0)
                possible = self.thefts[name].of or tuple(group.networks)
                if count and not sum(group.networks.get(network, 0) for network in possible):
                    raise ParameterError(f"{name} steals {', '.join(possible) or 'nobody'}, and no such stranger is "
                                         f"trained on {group.data!r} for {group.role}")  # fmt: skip
        if not sum(self.victims.networks.values()):
            raise ParameterError("a population needs a victim")

    def jobs(self) -> list[tuple[Job, Member]]:
        """Every model with what it is there for: victims, their copies, then strangers and their copies."""
        victims = [
            self._original(f"victims/{network}-{number}", network, self.victims.data, "victim")
            for network, count in self.victims.networks.items()
            for number in range(count)
        ]
        copies = [
            self._copy(f"copies/{role}/{victim.name.removeprefix('victims/')}/{kind}-{number}", victim, kind, role)
            for _, victim in victims
            for kind, theft in self.thefts.items()
            if not theft.of or victim.network in theft.of
            for role, count in theft.victims.items()
            for number in range(count)
        ]
        numbers: dict[str, int] = {}
        return victims + copies + [row for group in self.strangers for row in self._strangers(group, numbers)]

    def _strangers(self, group: Strangers, numbers: dict[str, int]) -> list[tuple[Job, Member]]:
        def name(what: str) -> str:
            stem = f"strangers/{group.role}/{group.data}-{what}"
            numbers[stem] = numbers.get(stem, -1) + 1
            return f"{stem}-{numbers[stem]:03}"

        originals = [
            self._original(name(network), network, group.data, group.role)
            for network, count in group.networks.items()
            for _ in range(count)
        ]
        kinds = [kind for kind, count in group.thefts.items() for _ in range(count)]
        copies: list[tuple[Job, Member]] = []
        for number, kind in enumerate(kinds):
            possible = self.thefts[kind].of or tuple(group.networks)
            parents = [member for _, member in originals if member.network in possible]
            parent = parents[number % len(parents)]
            copies.append(self._copy(name(f"{parent.network}-{kind}"), parent, kind, group.role))
        return originals + copies

    def _original(self, name: str, network: str, data: str, role: Role) -> tuple[Job, Member]:
        one = self.networks[network]
        job = Original(name=name, data=data, architecture=one.architecture or network, arguments=one.arguments,
                       recipe=one.training, mean=one.mean, std=one.std,
                       seed=derive(self.seed, f"zoo/{name}"))  # fmt: skip
        return job, Member(
            name=name, role=role, network=network, data=data, learnt=(data,), how=f"{network} trained on {data}"
        )

    def _copy(self, name: str, victim: Member, kind: str, role: Role) -> tuple[Job, Member]:
        one = self.thefts[kind]
        # Who makes copies of his own model to learn from them does not have the thief's data.
        data = one.owner or one.data if victim.role == "victim" and role != "evaluation" else one.data
        job = Theft(name=name, victim=victim.name, attack=one.attack or kind, params=one.params, data=data,
                    budget=one.budget, seed=derive(self.seed, f"zoo/{name}"))  # fmt: skip
        how = (one.how or kind) + (", from somebody else's model" if victim.role != "victim" else "")
        return job, Member(name=name, role=role, network=victim.network, data=victim.data,
                           learnt=tuple(dict.fromkeys([*victim.learnt, *([data] if data else [])])),
                           victim=victim.name,
                           kind=kind, family=one.family or one.attack or kind, how=how)  # fmt: skip


def shipped() -> list[str]:
    """Names of the recipes that come with Locard."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def read_recipe(name: str) -> Recipe:
    """A recipe: the name of one that is shipped, or a TOML file.

    Raises:
        ParameterError: a field is missing, unknown, of the wrong type, or names what is not there.
        ArtefactError: no such file, or no TOML.
    """
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    if not name.endswith(".toml") and name not in shipped():
        raise unknown("recipe", name, shipped())
    try:
        return parse(path.read_text("utf-8"), path.stem)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"cannot read the recipe {name!r}: {error}") from error


def parse(text: str, name: str) -> Recipe:
    """A recipe from its text.

    Raises:
        ParameterError: see `read_recipe`.
        ArtefactError: no TOML.
    """
    return _parse(Recipe, text, name)


def parse_setting(text: str, name: str) -> Setting:
    """The data alone, where nothing was built; see `parse`."""
    return _parse(Setting, text, name)


def _parse(kind: type[T], text: str, name: str) -> T:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ArtefactError(f"the recipe {name!r} is no TOML: {error}") from error
    where = f"recipe {name!r}"
    for key in ("name", "text"):
        if key in raw:
            raise ParameterError(f"{where}: {key!r} is not for the file to say")
    return replace(_typed.read(kind, raw, where), name=name, text=text)
