"""What a population is judged on: its data and their parts. All that one says that was not built here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from locard.data import read, split
from locard.errors import ParameterError, unknown
from locard.records import Data


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set and the sizes of its disjoint parts."""

    source: str
    parts: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The data of a population.

    Args:
        name: of the file, without its ending; "" before it has one.
        text: of the file, as it was read.
        about: what it is.
        seed: of everything.
        queries: name of the part for queries.
        held_out: name of the part for accuracy.
        data: in their order.
    """

    name: str = ""
    text: str = ""
    about: str = ""
    seed: int = 0
    queries: str
    held_out: str
    data: tuple[Source, ...]

    def __post_init__(self) -> None:
        """Check that all names lead somewhere."""
        parts = self.part_names
        for name in parts:
            check_name(name)
        twice = next((name for name in parts if parts.count(name) > 1), None)
        if twice is not None:
            raise ParameterError(f"two parts of the data are called {twice!r}")
        sources = [one.source for one in self.data]
        again = next((source for source in sources if sources.count(source) > 1), None)
        if again is not None:
            raise ParameterError(
                f"{again!r} is named twice, and its parts would overlap: name all of them in one table"
            )
        for name in (self.queries, self.held_out):
            if name not in parts:
                raise unknown("part of the data", name, parts)

    @property
    def part_names(self) -> list[str]:
        """Names of the parts, in their order."""
        return [name for one in self.data for name in one.parts]

    def parts(self) -> dict[str, Data]:
        """The parts of the data by name, disjoint.

        Raises:
            LocardError: what `read` and `split` refuse.
        """
        found: dict[str, Data] = {}
        for one in self.data:
            found |= split(read(one.source), one.parts, seed=self.seed)
        return found


def check_name(name: str) -> None:
    """Refuse what cannot stand in a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ParameterError(f"names are made of letters, digits, '.', '_' and '-'; got {name!r}")
