"""What a model lets a caller see."""

from __future__ import annotations

import enum

from locard.errors import ParameterError


class Access(enum.Flag):
    """What a model lets a caller see. The first four are a ladder: each implies those before it.

    `VALUES` are answers that are no class scores (regression, embeddings). `WEIGHTS` (named tensors) and `MODULE`
    (runnable, with its activations) are separate grants.
    """

    LABELS = enum.auto()
    PROBABILITIES = enum.auto()
    LOGITS = enum.auto()
    GRADIENTS = enum.auto()
    VALUES = enum.auto()
    WEIGHTS = enum.auto()
    MODULE = enum.auto()

    @classmethod
    def parse(cls, name: str | Access) -> Access:
        """The rung of that name, in any case ("labels"); an unknown one is a `ParameterError`."""
        if isinstance(name, Access):
            return name
        try:
            return cls[name.upper()]
        except KeyError:
            known = ", ".join(member.name.lower() for member in cls if member.name)
            raise ParameterError(f"unknown access {name!r}; known: {known}") from None

    @property
    def implied(self) -> Access:
        """This grant with every rung below it; a module shows its weights and gradients too."""
        grants = self | Access.WEIGHTS | Access.GRADIENTS if Access.MODULE in self else self
        for rung in reversed(LADDER):
            if rung in grants:
                for lower in LADDER[: LADDER.index(rung)]:
                    grants |= lower
                break
        return grants

    @property
    def rungs(self) -> list[str]:
        """The names of the single grants in it, lowest first."""
        return [member.name for member in self if member.name is not None]

    @property
    def top(self) -> Access | None:
        """The highest rung of the ladder in it, or `VALUES`, or None."""
        for rung in (*reversed(LADDER), Access.VALUES):
            if rung in self:
                return rung
        return None

    @property
    def text(self) -> str:
        """The highest rung and the separate grants, as shown to people ("LOGITS + WEIGHTS")."""
        shown = [self.top] if self.top is not None else []
        shown += [grant for grant in (Access.WEIGHTS, Access.MODULE) if grant in self]
        return " + ".join(grant.name or "" for grant in shown) or "nothing"


LADDER = (Access.LABELS, Access.PROBABILITIES, Access.LOGITS, Access.GRADIENTS)
