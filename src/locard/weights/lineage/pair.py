"""Two models' weights, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from locard.records import BlockFinding, Findings
from locard.weights.files import Tensors
from locard.weights.layouts import Block, Layout, Part, layout_of
from locard.weights.layouts.base import ANCHORS, STREAM
from locard.weights.lineage.agreement import agreed, chance, log10_at_least, margin, nearest
from locard.weights.lineage.blocks import (
    Model,
    Plan,
    Sampling,
    Side,
    Vectors,
    cosines,
    part_sizes,
    partners,
    plan,
    read_side,
)
from locard.weights.lineage.order import FEWEST, OrderTest, log10_tail
from locard.weights.lineage.stream import align
from locard.weights.lineage.vectors import SAME, Alignment

Progress = Callable[[int, int], None]
# Wider layers of a chain are matched by their neighbours alone, as an assignment would take minutes.
_ASSIGNED = 2048


@dataclass(slots=True)
class _Gathered:
    """What one block has shown so far."""

    planned: Plan
    theirs: Block
    z: float | None = None
    cosine: float | None = None
    margin: float = 0.0
    into: np.ndarray | None = None
    out: np.ndarray | None = None


def pair(
    a: Tensors,
    b: Tensors,
    *,
    layouts: tuple[Layout, Layout] | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """Compare two models' weights.

    Args:
        a: the victim's tensors.
        b: the suspect's.
        layouts: of both; None to tell them by names and shapes.
        sampling: how much is looked at.
        seed: of what is looked at and of the random orders.
        progress: called with (blocks done, blocks).

    Returns:
        What they have in common; nothing where the suspect has no block of the victim's shape.

    Raises:
        ParameterError: a model has no layout.
        ArtefactError: a number is not finite.

    Cost: one pass over a sample of each block, tensor by tensor.
    """
    sampling = sampling or Sampling()
    ours, theirs = layouts or (layout_of(a), layout_of(b))
    comparison = _Comparison(Model(tensors=a, layout=ours), Model(tensors=b, layout=theirs), sampling, seed)
    return comparison.run(progress)


class _Comparison:
    def __init__(self, a: Model, b: Model, sampling: Sampling, seed: int) -> None:
        self.a, self.b, self.sampling, self.seed = a, b, sampling, seed
        self.order = OrderTest(rounds=sampling.rounds, seed=seed)
        self.notes: list[str] = [*a.layout.notes, *(note for note in b.layout.notes if note not in a.layout.notes)]
        self.decoys: dict[str, list[int]] = {}
        self.stream: Alignment = SAME
        if a.layout.anchor is not None and b.layout.anchor is not None:
            self.stream, note = align(a.tensors, b.tensors, a.layout.anchor, b.layout.anchor, seed=seed)
            self.notes += [note] if note else []

    def run(self, progress: Progress | None) -> Findings:
        pairs = partners(self.a.layout, self.b.layout)
        linked = {part.across for block in self.a.layout.blocks for part in (*block.ins, *block.outs)
                  if isinstance(part, Part)} - {*ANCHORS, STREAM}  # fmt: skip
        gathered: list[_Gathered] = []
        missing: list[str] = []
        last: dict[tuple[str, int], tuple[Vectors, Vectors]] = {}
        every = max(1, sum(block.kind == "units" for block, _ in pairs) // max(1, self.sampling.decoys))
        for number, (ours, theirs) in enumerate(pairs):
            whole = bool(linked)
            one = None if theirs is None else self._in_place(ours, theirs, last, number % every == 0, whole=whole)
            if one is None:
                missing.append(ours.name)
            else:
                gathered.append(one)
            if progress is not None:
                progress(number + 1, len(pairs))
        if linked:
            self._moved(gathered)
        findings = tuple(self._finding(one) for one in gathered)
        order = self.order.result()
        matched = [(one.matched, one.asked) for one in findings if one.matched is not None]
        return Findings(
            order_p=order.p_value,
            order_floor=order.floor,
            log10_order=order.log10_p,
            matched_fraction=sum(part * n for part, n in matched) / sum(n for _, n in matched) if matched else None,
            blocks=findings,
            missing=tuple(missing),
            alignment=self.stream.name,
            residual=self.stream.residual,
            constants={**self.b.layout.constants, **self.a.layout.constants},
            notes=tuple(self.notes),
        )

    def _in_place(
        self,
        ours: Block,
        theirs: Block,
        last: dict[tuple[str, int], tuple[Vectors, Vectors]],
        decoy: bool,
        *,
        whole: bool,
    ) -> _Gathered | None:
        """Look at a block with every space as it is, but the stream aligned; None where nothing can be compared."""
        planned = plan(self.a, ours, self.sampling, seed=self.seed, whole=whole)
        found = _Gathered(planned=planned, theirs=theirs)
        tables: list[np.ndarray | None] = []
        mine: list[Vectors] = []
        yours: list[Vectors] = []
        for side in ("ins", "outs"):
            mine.append(read_side(self.a, ours, planned, side, chosen=planned.chosen, alignment=lambda _: SAME))
            yours.append(
                read_side(self.b, theirs, planned, side, chosen=None, alignment=self._as_it_is,
                          sizes=part_sizes(self.a, ours, side))
            )  # fmt: skip
            tables.append(cosines(mine[-1], yours[-1]))
        known = [table for table in tables if table is not None]
        if not known:
            return None
        both = known[0] if len(known) == 1 else known[0] + known[1]
        found.margin = margin(both)
        if planned.units == both.shape[1]:
            square = both[:, planned.rows]
            found.z = self.order.add(ours.name, square)
            found.cosine = float(np.median(np.diagonal(square))) / sum(len(one) for one in mine)
        if not whole:
            found.into, found.out = (None if table is None else nearest(table) for table in tables)
            self._decoy(ours, mine, yours, last, decoy)
        return found

    def _decoy(
        self,
        ours: Block,
        mine: list[Vectors],
        yours: list[Vectors],
        last: dict[tuple[str, int], tuple[Vectors, Vectors]],
        wanted: bool,
    ) -> None:
        """Hold the suspect's block against the victim's block before it, with which it has nothing to do.

        Blocks of one kind and size are read at the same places, so what all blocks have in common there counts as
        chance.
        """
        key = (ours.kind, ours.units)
        if wanted and key in last and ours.name != STREAM:
            tables = [cosines(before, now) for before, now in zip(last[key], yours, strict=True)]
            if all(table is not None for table in tables):
                partners_of = [nearest(table) for table in tables if table is not None]
                self.decoys.setdefault(ours.kind, []).append(agreed(partners_of[0], partners_of[1]))
        last[key] = (mine[0], mine[1])

    def _moved(self, gathered: list[_Gathered]) -> None:
        """Match the units of a chain, forwards from what goes in and backwards from what comes out."""
        forward: dict[str, Alignment] = {}
        backward: dict[str, Alignment] = {}
        earlier: dict[str, int] = {one.planned.ours.name: i for i, one in enumerate(gathered)}
        for one in gathered:
            table = self._aligned(one, "ins", lambda part: self._known(part, forward))
            if table is not None:
                one.into = nearest(table)
                forward[one.planned.ours.name] = _matching(table)
        for place, one in reversed(list(enumerate(gathered))):

            def known(part: Part, place: int = place) -> Alignment | None:
                found = self._known(part, backward)
                # What comes before is reached from the front; the matrix at hand had no say in that.
                before = earlier.get(part.across, place) < place
                return forward.get(part.across) if found is None and before else found

            table = self._aligned(one, "outs", known)
            if table is not None:
                one.out = nearest(table)
                backward[one.planned.ours.name] = _matching(table)

    def _aligned(self, one: _Gathered, side: Side, known: Callable[[Part], Alignment | None]) -> np.ndarray | None:
        ours = one.planned.ours
        mine = read_side(self.a, ours, one.planned, side, chosen=None, alignment=lambda _: SAME)
        yours = read_side(self.b, one.theirs, one.planned, side, chosen=None, alignment=known,
                          sizes=part_sizes(self.a, ours, side))  # fmt: skip
        return cosines(mine, yours)

    def _as_it_is(self, part: Part) -> Alignment | None:
        return self.stream if part.across == STREAM else SAME

    def _known(self, part: Part, spaces: dict[str, Alignment]) -> Alignment | None:
        return self._as_it_is(part) if part.across in (*ANCHORS, STREAM) else spaces.get(part.across)

    def _finding(self, one: _Gathered) -> BlockFinding:
        planned = one.planned
        matched = mean = modelled = None
        if one.into is not None and one.out is not None:
            count = agreed(one.into, one.out)
            matched = count / planned.asked
            decoys = self.decoys.get(planned.ours.kind)
            if decoys:
                mean = chance(decoys)
                modelled = log10_at_least(count, mean)
        few = planned.asked < FEWEST
        return BlockFinding(
            name=planned.ours.name,
            kind=planned.ours.kind,
            units=planned.units,
            asked=planned.asked,
            z=one.z,
            log10_p=None if one.z is None or few else log10_tail(one.z),
            cosine=one.cosine,
            matched=matched,
            margin=one.margin,
            chance=mean,
            log10_modelled=modelled,
        )


def _matching(table: np.ndarray) -> Alignment:
    """Every unit's partner: the best assignment, or in wide layers the nearest."""
    from scipy.optimize import linear_sum_assignment

    if max(table.shape) > _ASSIGNED:
        return Alignment(order=table.argmax(axis=1))
    rows, columns = linear_sum_assignment(-table)
    order = table.argmax(axis=1)
    order[rows] = columns
    return Alignment(order=order)
