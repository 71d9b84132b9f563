"""Any sampler with any representation and any distance, by name: "negative+labels+hamming"."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from locard.distances import distance
from locard.errors import ParameterError
from locard.queries import Sampler, samplers
from locard.registry import construct
from locard.representations import Representation, representations
from locard.schemes.base import QURD, Citation
from locard.schemes.query import QueryScheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed(QueryScheme):
    """A scheme made of three named parts."""

    citation: ClassVar[Citation | None] = QURD

    sampler_part: Sampler
    representation_part: Representation
    distance_name: str

    @property
    def sampler(self) -> Sampler:
        """The named sampler."""
        return self.sampler_part

    @property
    def representation(self) -> Representation:
        """The named representation."""
        return self.representation_part

    @property
    def metric(self) -> str:
        """The named distance."""
        return self.distance_name

    def parameters(self) -> dict[str, Any]:
        """The parts' fields as "sampler.field" and "representation.field"."""
        parts = {"sampler": self.sampler_part, "representation": self.representation_part}
        return {
            f"{part}.{field.name}": getattr(value, field.name)
            for part, value in parts.items()
            for field in dataclasses.fields(value)
        }


def compose(name: str, params: dict[str, Any]) -> Composed:
    """Read "sampler+representation+distance" and the parts' parameters.

    Raises:
        ParameterError: not three parts, an unknown part, or an unknown parameter.
    """
    parts = name.split("+")
    if len(parts) != 3:
        raise ParameterError(f"a composed scheme is sampler+representation+distance; got {name!r}")
    distance(parts[2])
    split: dict[str, dict[str, Any]] = {"sampler": {}, "representation": {}}
    for key, value in params.items():
        part, _, field = key.partition(".")
        if part not in split or not field:
            raise ParameterError(f"a composed scheme's parameters are sampler.NAME or representation.NAME; got {key!r}")
        split[part][field] = value
    return Composed(
        sampler_part=construct(samplers.get(parts[0]), split["sampler"], f"sampler {parts[0]!r}"),
        representation_part=construct(
            representations.get(parts[1]), split["representation"], f"representation {parts[1]!r}"
        ),
        distance_name=parts[2],
    )
