"""Inputs that the victim was trained on, and inputs that no model was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.data import read
from locard.errors import ParameterError, check_number
from locard.models.journal import keys_of
from locard.queries.base import Population, Queries, movable, reach, samplers, take
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
    quantum of the inputs, 0 where there are none, so that every model is walked alike whatever it says of its own.
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
                "needed, with their labels: extract with --param private=..."
            )
        movable(data, "random walks")
        pair = 2 * self.each
        check_pairs(n, self.each)
        inputs, classes = [], []
        private = read(self.private)
        _check_private(private, data, victim)
        for name, source in (("private", private), ("public", data)):
            if source.labels is None:
                raise ParameterError(f"margins are measured from the true class, and {source.name} has no labels")
            rows = take(generator(seed, f"members/{name}").permutation(len(source)), n=None if n is None else n // pair,
                        default=max(1, default // pair), least=4, what=f"{name} inputs",
                        way_out="give more data or ask fewer --queries")  # fmt: skip
            inputs.append(data.domain.deliver(data.domain.check(source.inputs[rows])))
            classes.append(source.labels[rows])
        size = min(map(len, inputs))
        shared = set(keys_of(inputs[0])) & set(keys_of(inputs[1]))
        if shared:
            raise ParameterError(
                f"{len(shared)} inputs of {private.name} are in {data.name} too; data that the victim was trained on "
                "cannot be data that no model has seen"
            )
        return Queries(
            inputs=np.concatenate([part[:size] for part in inputs]),
            extras={
                "classes": np.concatenate([part[:size] for part in classes]).astype(np.int64),
                "member": np.repeat(np.array([1, 0], np.uint8), size),
                "walk": np.array([derive(seed, "members/walk")], np.int64),
                "span": np.broadcast_to(reach(data), data.domain.shape).astype(np.float32),
                "grid": np.array([*(data.domain.bounds or (0.0, 0.0)), data.domain.quantum or 0.0]),
            },
        )


def check_pairs(n: int | None, each: int) -> None:
    """Refuse a number of queries that is no whole number of pairs of a private and a public input."""
    if n is not None and n % (2 * each):
        raise ParameterError(
            f"each of a private and a public input is asked up to {each} times, so --queries must be a multiple of "
            f"{2 * each}; got {n}: ask another number, or set other steps (--param steps=...)"
        )


def _check_private(private: Data, public: Data, victim: View) -> None:
    """Refuse private data that are unlike the public ones or not the victim's."""
    if private.domain.apart(public.domain) == "form":
        raise ParameterError(
            f"private and public data must be of one kind; {public.name} holds {public.domain.text}, {private.name} "
            f"holds {private.domain.text}"
        )
    if private.classes and public.classes and private.classes != public.classes:
        raise ParameterError(
            f"{private.name} and {public.name} name other classes, or in another order: {list(private.classes)} and "
            f"{list(public.classes)}"
        )
    labels = private.labels
    if labels is not None and victim.classes is not None and len(labels) and int(labels.max()) >= victim.classes:
        raise ParameterError(
            f"{private.name} has label {int(labels.max())}; {victim.source} has {victim.classes} classes"
        )
