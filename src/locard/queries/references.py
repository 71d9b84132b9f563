"""Reference inputs that every model is followed to from one place, at random or ranked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import AccessError, ParameterError, check_number
from locard.queries._fields import between, fields
from locard.queries.base import Population, Queries, movable, pool, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import GradientView, View

# Inputs that are ranked for each one kept, and the nodes and steps of the fields they are ranked by.
TRIED, NODES, KEPT = 4, 10, 5


@samplers.register("references")
@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Random inputs, and the mean of the data as the place where the ways to them begin.

    Args:
        each: queries that a representation asks for each input; n must be a multiple of it.

    The queries carry `baseline`, (*shape), the mean of the data by channel or column: 0 in the space of a model that
    normalises by it, which is where the released code of ModelGiF begins.
    """

    victim_access: ClassVar[Access] = Access(0)
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    each: int = 51

    def __post_init__(self) -> None:
        """Check the range."""
        check_number("each", self.each, low=1)

    def draw(
        self, victim: View, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: no query to the victim."""
        inputs = data.domain.deliver(data.inputs[_rows(data, n, default, seed, each=self.each, tried=1)])
        return Queries(inputs=inputs, extras={"baseline": _mean(data)})


@samplers.register("ranked-references")
@dataclass(frozen=True, slots=True, kw_only=True)
class RankedReferences:
    """`References` of which a quarter are kept, those where independent models' gradient fields lie farthest away.

    The models of the population choose queries and must be judged nowhere. The released code of ModelGiF ranks by the
    very models that its results are then measured on.

    Args:
        each: queries that a representation asks for each input; n must be a multiple of it.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = True

    each: int = 51

    def __post_init__(self) -> None:
        """Check the range."""
        check_number("each", self.each, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: 40 gradients of the victim and of each independent model for each input kept."""
        others = pool(population, derived=0, independent=1, what="ranked references", like=victim, classes=False)
        inputs = data.domain.deliver(data.inputs[_rows(data, n, default, seed, each=self.each, tried=TRIED)])
        baseline = _mean(data)
        ours = fields(victim, inputs, baseline, nodes=NODES, kept=KEPT)
        far = [between(ours, fields(_asked(model), inputs, baseline, nodes=NODES, kept=KEPT))
               for model in others.independent]  # fmt: skip
        wanted = max(1, (default if n is None else n) // self.each)
        kept = np.argsort(-np.mean(far, axis=0), kind="stable")[:wanted]
        return Queries(inputs=inputs[kept], extras={"baseline": baseline})


def _rows(data: Data, n: int | None, default: int, seed: int, *, each: int, tried: int) -> np.ndarray:
    movable(data, "gradient fields")
    if n is not None and n % each:
        raise ParameterError(
            f"each input is asked {each} times, so --queries must be a multiple of {each}; got {n}: ask another "
            "number, or set another number of nodes (--param nodes=...)"
        )
    order = generator(seed, "references/inputs").permutation(len(data))
    wanted = take(order, n=None if n is None else n // each, default=max(1, default // each), least=1, what="inputs",
                  way_out="give more data or ask fewer --queries")  # fmt: skip
    return order[: tried * len(wanted)]


def _mean(data: Data) -> np.ndarray:
    axes = (0, 2, 3) if data.domain.kind == "image" else (0,)
    mean = data.inputs.mean(axis=axes, dtype=np.float64, keepdims=True)[0]
    return np.broadcast_to(mean, data.domain.shape).astype(np.float32)


def _asked(model: Any) -> GradientView:
    if not hasattr(model, "input_gradient"):
        raise AccessError(f"ranked references need GRADIENTS of a population's models; {model.source} gives less")
    return model
