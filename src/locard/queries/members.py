"""Inputs that the victim was trained on, and inputs that no model was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.data import read
from locard.errors import ParameterError, check_number
from locard.queries.base import Population, Queries, reach, samplers, take
from locard.records import Access, Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    from locard.models import View


@samplers.register("members")
@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """As many random inputs of the owner's training data as of data of the same kind that no model has seen.

    The data that are drawn from are those that no model has seen, as for every sampler.

    Args:
        private: the victim's training data, a name or path as for any other data; it must be labelled.
        each: queries that a representation asks for each input at the most; n must be a multiple of twice that.

    The queries carry `classes` (n,) int64, the
    true class of each input, `member` (n,) uint8, 1 for the private ones, which come first; and for the walks
    `walk` (1,) int64, a seed, `span`, the range of each entry, (*shape), and `grid` (3,) float64, the bounds and the
    quantum of the inputs, NaN where there is none, so that every model is walked alike whatever it says of its own.
    """

    victim_access: ClassVar[Access] = Access(0)
    needs_labels: ClassVar[bool] = True
    needs_population: ClassVar[bool] = False

    private: str = ""
    each: int = 1

    def __post_init__(self) -> None:
        """Check the range."""
        check_number("each", self.each, low=1)

    def draw(
        self, victim: View, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: no query to the victim."""
        if not self.private:
            raise ParameterError(
                f"{data.name} is taken for data that no model has seen; beside it the victim's training data are "
                "needed, with their labels: name them (--param private=...)"
            )
        pair = 2 * self.each
        if n is not None and n % pair:
            raise ParameterError(
                f"each of a private and a public input is asked up to {self.each} times, so --queries must be a "
                f"multiple of {pair}; got {n}: ask another number, or set other steps (--param steps=...)"
            )
        inputs, classes = [], []
        for name, source in (("private", read(self.private)), ("public", data)):
            if source.labels is None:
                raise ParameterError(f"margins are measured from the true class, and {source.name} has no labels")
            if (source.domain.kind, source.domain.shape) != (data.domain.kind, data.domain.shape):
                raise ParameterError(
                    f"private and public data must be of one kind; {data.name} holds {data.domain.text}, {source.name} "
                    f"holds {source.domain.text}"
                )
            rows = take(generator(seed, f"members/{name}").permutation(len(source)), n=None if n is None else n // pair,
                        default=max(1, default // pair), least=4, what=f"{name} inputs",
                        way_out="give more data or ask fewer --queries")  # fmt: skip
            inputs.append(data.domain.deliver(data.domain.check(source.inputs[rows])))
            classes.append(source.labels[rows])
        size = min(map(len, inputs))
        return Queries(
            inputs=np.concatenate([part[:size] for part in inputs]),
            extras={
                "classes": np.concatenate([part[:size] for part in classes]).astype(np.int64),
                "member": np.repeat(np.array([1, 0], np.uint8), size),
                "walk": np.array([derive(seed, "members/walk")], np.int64),
                "span": np.broadcast_to(reach(data), data.domain.shape).astype(np.float32),
                "grid": np.array([*(data.domain.bounds or (np.nan, np.nan)), data.domain.quantum or np.nan]),
            },
        )
