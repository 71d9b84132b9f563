"""A block of one model beside the block of another: which parts can be compared, and the cosines of their units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from locard.seeds import generator
from locard.weights.files import Tensors
from locard.weights.layouts import Block, HeadPart, Layout, Part
from locard.weights.lineage.vectors import (
    HEAD_SIDE,
    Alignment,
    across_size,
    gram,
    head_units,
    prepare,
    read_heads,
    read_part,
)

Side = Literal["ins", "outs"]
# For each part: its number, (units, k) prepared vectors, whether their signs are free.
Vectors = list[tuple[int, np.ndarray, bool]]
# Places of one space that lie side by side are read at the price of one.
_RUN = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How much of a model is looked at.

    Args:
        units: the most of the victim's units in a block; all of the suspect's are looked at.
        entries: about how many entries of a unit's vector.
        rounds: random orders.
        decoys: the most pairs of blocks that do not correspond.
    """

    units: int = 256
    entries: int = 256
    rounds: int = 9999
    decoys: int = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """Tensors with their layout."""

    tensors: Tensors
    layout: Layout

    @property
    def spaces(self) -> dict[str, int]:
        """Units of each block, by its name."""
        return {block.name: block.units for block in self.layout.blocks}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What is read of a block, the same in both models.

    Args:
        ours: the victim's block.
        units: its units.
        chosen: (m,) those that are looked at, ascending; None for all.
        places: (k,) places of the other space, for each part; for heads two sides in each.
    """

    ours: Block
    units: int
    chosen: np.ndarray | None
    places: dict[tuple[Side, int], np.ndarray]

    @property
    def asked(self) -> int:
        """How many units are looked at."""
        return self.units if self.chosen is None else len(self.chosen)

    @property
    def rows(self) -> np.ndarray:
        """(m,) their places."""
        return np.arange(self.units) if self.chosen is None else self.chosen


def plan(model: Model, block: Block, sampling: Sampling, *, seed: int, whole: bool = False) -> Plan:
    """What to read of a block.

    Args:
        model: the victim.
        block: of its layout.
        sampling: how much.
        seed: of what is chosen.
        whole: whether all units are looked at.
    """
    units = head_units(block) if block.kind == "heads" else block.units
    # Blocks of one kind and size are read at the same places: what their entries have in common shows in decoys.
    source = generator(seed, f"matched-unit/plan/{block.kind}/{units}")
    chosen = None
    if units > sampling.units and not whole:
        chosen = np.sort(source.permutation(units)[: sampling.units])
    places: dict[tuple[Side, int], np.ndarray] = {}
    for side, number, part in _parts(block):
        if isinstance(part, HeadPart):
            places[side, number] = _runs(source, model.tensors.shapes[part.tensor][1 - part.axis], HEAD_SIDE)
        else:
            size = across_size(model.tensors, part, units, model.spaces)
            inner = max(1, math.prod(model.tensors.shapes[part.tensor]) // max(1, units * size))
            places[side, number] = _runs(source, size, max(8, sampling.entries // inner))
    return Plan(ours=block, units=units, chosen=chosen, places=places)


def read_side(
    model: Model,
    block: Block,
    planned: Plan,
    side: Side,
    *,
    chosen: np.ndarray | None,
    alignment: Callable[[Part], Alignment | None],
    sizes: dict[int, int] | None = None,
) -> Vectors:
    """Prepared vectors of the parts on one side of a block.

    Args:
        model: whose tensors are read.
        block: its block.
        planned: what is read.
        side: "ins" or "outs".
        chosen: which units; None for all.
        alignment: of the space that a part of the victim's block lies across; None leaves the part out.
        sizes: for each part the places of the victim's other space, which this model must have too; None for the
            victim itself.

    Returns:
        For each part that can be read: its number, (units, k) float32, whether its units' signs are free.
    """
    ours, own = getattr(planned.ours, side), getattr(block, side)
    if len(ours) != len(own):
        return []
    if block.kind == "heads":
        return _read_heads(model, own, planned, side, alignment=alignment)
    found: Vectors = []
    for number, (mine, part) in enumerate(zip(ours, own, strict=True)):
        aligned = alignment(mine)
        if aligned is None or not isinstance(part, Part):
            continue
        size = across_size(model.tensors, part, block.units, model.spaces)
        places = planned.places[side, number]
        # Words are the same in the order of the table as far as both go; other spaces are not comparable.
        longer = part.across == "tokens" and places.max(initial=0) < size
        if sizes is not None and size != sizes[number] and not longer:
            continue
        vectors = read_part(model.tensors, part, units=block.units, size=size, chosen=chosen, places=places,
                            alignment=aligned)  # fmt: skip
        found.append((number, prepare(vectors, signed=part.signed), part.signed))
    return found


def _read_heads(
    model: Model,
    parts: tuple[HeadPart, HeadPart],
    planned: Plan,
    side: Side,
    *,
    alignment: Callable[[Part], Alignment | None],
) -> Vectors:
    from locard.weights.layouts.base import STREAM

    aligned = alignment(Part(tensor=parts[0].tensor, axis=0, across=STREAM))
    sides = (planned.places[side, 0], planned.places[side, 1])
    wide = min(model.tensors.shapes[part.tensor][1 - part.axis] for part in parts)
    if aligned is None or max(one.max(initial=0) for one in sides) >= wide:
        return []
    return [(0, prepare(read_heads(model.tensors, parts, sides=sides, alignment=aligned), signed=False), False)]


def cosines(ours: list[tuple[int, np.ndarray, bool]], theirs: list[tuple[int, np.ndarray, bool]]) -> np.ndarray | None:
    """(m, n) sum over parts of the cosines of the victim's units and the suspect's; None without a part in common."""
    other = {number: vectors for number, vectors, _ in theirs}
    total: np.ndarray | None = None
    for number, vectors, signed in ours:
        if number not in other or vectors.shape[1] != other[number].shape[1]:
            continue
        table = gram(vectors, other[number], signed=signed)
        total = table if total is None else total + table
    return total


def part_sizes(model: Model, block: Block, side: Side) -> dict[int, int]:
    """Places of the other space for each part of one side."""
    return {
        number: across_size(model.tensors, part, block.units, model.spaces)
        for number, part in enumerate(getattr(block, side))
        if isinstance(part, Part)
    }


def partners(a: Layout, b: Layout) -> list[tuple[Block, Block | None]]:
    """Each block of the victim with the suspect's that stands for it, or None.

    By name; where formats name their layers otherwise, by order among as many blocks of the same kind.
    """
    named = {(block.name, block.kind): block for block in b.blocks}
    if any((block.name, block.kind) in named for block in a.blocks) or len(a.blocks) != len(b.blocks):
        return [(block, named.get((block.name, block.kind))) for block in a.blocks]
    return [(one, other if one.kind == other.kind else None) for one, other in zip(a.blocks, b.blocks, strict=True)]


def _parts(block: Block) -> list[tuple[Side, int, Part | HeadPart]]:
    sides: tuple[Side, Side] = ("ins", "outs")
    return [(side, number, part) for side in sides for number, part in enumerate(getattr(block, side))]


def _runs(source: np.random.Generator, size: int, wanted: int) -> np.ndarray:
    """About so many places of a space, ascending, in runs of neighbours."""
    if size <= wanted:
        return np.arange(size)
    run = min(_RUN, max(1, wanted // 4))
    starts = np.sort(source.permutation(size // run)[: max(1, wanted // run)]) * run
    return (starts[:, None] + np.arange(run)).ravel()
