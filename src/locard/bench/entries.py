"""What takes part: schemes with their parameters and numbers of queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from locard.errors import ParameterError
from locard.records import Access
from locard.schemes import Scheme, build, parameters, schemes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A scheme as it takes part.

    Args:
        scheme: a registered name, or "sampler+representation+distance".
        params: its parameters.
        queries: where no budget is named; None for the scheme's own number.
    """

    scheme: str
    params: dict[str, Any] = field(default_factory=dict)
    queries: int | None = None

    @property
    def name(self) -> str:
        """As tables call it: "sac" or "sac(answers=labels)"."""
        listed = ", ".join(f"{key}={value}" for key, value in sorted(self.params.items()))
        return f"{self.scheme}({listed})" if listed else self.scheme

    def build(self) -> Scheme:
        """The scheme."""
        return build(self.scheme, self.params)


# Where the scheme's own number of queries is far from a hundred, or it can do with less access than it uses by default.
STANDARD: dict[str, tuple[Entry, ...]] = {
    "adv-tra": (Entry(scheme="adv-tra", queries=370),),
    "dataset-inference": (
        Entry(scheme="dataset-inference", params={"directions": 5, "steps": 20, "scale": 3.0}, queries=12_040),
    ),
    "deepfool": (Entry(scheme="deepfool", queries=100),),
    "deepjudge": (Entry(scheme="deepjudge"), Entry(scheme="deepjudge", params={"access": "labels"})),
    "modeldiff": (
        Entry(scheme="modeldiff", queries=100),
        Entry(scheme="modeldiff", params={"answers": "probabilities"}, queries=100),
    ),
    "modelgif": (Entry(scheme="modelgif", queries=1_275),),
    "multipoint": (Entry(scheme="multipoint", queries=102),),
    "sac": (
        Entry(scheme="sac"),
        Entry(scheme="sac", params={"answers": "probabilities"}),
        Entry(scheme="sac", params={"answers": "labels"}),
        # Rows of a table and texts cannot be cut and mixed.
        Entry(scheme="sac", params={"answers": "labels", "variant": "normal"}),
    ),
    "tafa": (Entry(scheme="tafa", queries=99),),
    "zest": (Entry(scheme="zest", params={"masks": 250}, queries=4_000),),
}


def standard(access: Access | str | None = None) -> list[Entry]:
    """Every registered scheme as it takes part by default.

    Args:
        access: the most that may be seen of a suspect; None for all.
    """
    listed = [entry for name in schemes.names() for entry in STANDARD.get(name, (Entry(scheme=name),))]
    return within(listed, access)


def within(entries: Sequence[Entry], access: Access | str | None) -> list[Entry]:
    """The entries that need no more of a suspect.

    Raises:
        ParameterError: none is left.
    """
    if access is None:
        return list(entries)
    granted = Access.parse(access).implied
    kept = [entry for entry in entries if entry.build().suspect_access in granted]
    if not kept:
        raise ParameterError(
            f"none of {', '.join(one.name for one in entries)} can do with {Access.parse(access).text}"
        )
    return kept


def parse(word: str) -> list[Entry]:
    """Entries from "akh", which stands for what takes part by default, or "sac:answers=labels,variant=w".

    Raises:
        ParameterError: unknown scheme or parameter, or a value of the wrong type.
    """
    name, mark, rest = word.partition(":")
    if not mark:
        build(name)
        return list(STANDARD.get(name, (Entry(scheme=name),)))
    pairs = [part.partition("=") for part in rest.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise ParameterError(f"a scheme's parameters are written NAME:KEY=VALUE,KEY=VALUE; got {word!r}")
    given = {key: value for key, _, value in pairs}
    built = parameters(build(name, given))
    queries = STANDARD[name][0].queries if name in STANDARD else None
    return [Entry(scheme=name, params={key: built[key] for key in given}, queries=queries)]
