"""Who is who in a population, written down beside its models; never read off a name, never decided afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["victim", "selection", "calibration", "evaluation"]
# Of those who are no victims.
Part = Literal["selection", "calibration", "evaluation"]
Stratum = Literal["same-architecture", "same-data", "disjoint", "foreign-theft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model and what it is there for. Roles are disjoint.

    Args:
        name: of its job and folder.
        role: "victim"; "selection", which helps to choose queries; "calibration", which says what innocents or copies
            score; "evaluation", which is judged.
        network: of an original, what it is; of a copy, what its victim was.
        data: of an original, the part it was trained on; of a copy, its victim's.
        learnt: names of all parts that it, or a model it was made from, learnt from.
        victim: of a copy, the name of the model it was stolen from; None for an original.
        kind: of a copy, the theft.
        family: of a copy, the family of the theft.
        how: for people, how it was made.
    """

    name: str
    role: Role
    network: str
    data: str
    learnt: tuple[str, ...]
    victim: str | None = None
    kind: str = ""
    family: str = ""
    how: str = ""

    def stratum(self, victim: Member) -> Stratum:
        """Where it stands to a victim that it was made without."""
        if self.victim is not None:
            return "foreign-theft"
        if self.data != victim.data:
            return "disjoint"
        return "same-architecture" if self.network == victim.network else "same-data"
