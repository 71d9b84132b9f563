"""Which changes of its weights leave a network's answers as they are, as data.

A group is one index space of a network: the units of a layer, the channels of a residual stream, the heads of an
attention, the coordinates inside its heads. Its entries may be permuted in all tensors at once; often they may be
scaled, or turned by a matrix, where what one tensor multiplies another divides. Groups are read off the network's
graph, so no architecture is known by name: a residual stream, a flattened image or a head is what its operations make
of it. What stands in the way of a symmetry (an unknown operation, a fixed table, a concatenation, a projection fused
with others) makes groups smaller or leaves them out; it never makes a wrong one.

The symmetries are those that hold for all weights [1, 2], act unit by unit, and hold in training too, so that a batch
norm's statistics move with its inputs. Not here: those of dead or doubled units; shifts (between two biases that are
added up, of a batch norm's mean against its bias, of all logits); one scale or rotation of a whole stream behind a norm
without gains.

[1] Ainsworth, Hayase, Srinivasa. Git Re-Basin: Merging Models modulo Permutation Symmetries. ICLR 2023.
[2] Phuong, Lampert. Functional vs. parametric equivalence of ReLU networks. ICLR 2020.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from locard.errors import ParameterError, need
from locard.records import Domain
from locard.weights._powers import solutions
from locard.weights._trace import Kind, Leaf, Link, Trace, Value, walk

if TYPE_CHECKING:
    import torch

# Three, because no axis of a network is likely to be cut by it.
_ROWS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a group acts on one tensor: axis `axis` holds outer * size * inner entries, the group's in the middle.

    Args:
        tensor: its name in the network's state.
        axis: of the tensor.
        outer: blocks of the axis, each with every unit: heads, where the units are coordinates inside heads.
        inner: entries that one unit holds: the pixels of a channel that was flattened, the coordinates of a head.
        role: "writes" where the tensor makes the units, "reads" where it adds over them.
        offset: entries count from -offset on: the epsilon that batch norm adds to a variance.
    """

    tensor: str
    axis: int
    outer: int = 1
    inner: int = 1
    role: Literal["writes", "reads"] = "writes"
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """One way to scale a group's units: at place i, unit j is multiplied by s_j ** powers[i].

    Args:
        powers: one whole number for each place of the group.
        kind: "magnitude" for any s_j > 0, "sign" for s_j in {-1, 1}.
    """

    powers: tuple[int, ...]
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One index space.

    Args:
        size: number of its units.
        copies: independent copies of the group, one for each outer block (each head); 1 where all blocks move alike.
        places: where it acts; never empty.
        scalings: independent ways to scale it; empty where it may only be permuted.
        linear: whether any invertible matrix may act on it, not permutations and scales alone: at places where the one
            magnitude scaling has power 1 as it is, where -1 as its inverse transposed.
    """

    size: int
    copies: int
    places: tuple[Place, ...]
    scalings: tuple[Scaling, ...] = ()
    linear: bool = False

    @property
    def name(self) -> str:
        """Its first tensor, the axis there and the number of units."""
        return f"{self.places[0].tensor}[{self.places[0].axis}] of {self.size} units"

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors it acts on, each once."""
        return tuple(dict.fromkeys(place.tensor for place in self.places))


def find(module: torch.nn.Module, domain: Domain) -> tuple[Group, ...]:
    """The symmetry groups of a network in evaluation mode, in the order of its tensors.

    Args:
        module: inputs as the domain says; left as it is.
        domain: of its inputs.

    Returns:
        Groups of at least two units; elements of several are applied one after the other, in any order.

    Raises:
        ParameterError: the inputs are texts, torch cannot export the module, or its shapes depend on its inputs.

    Cost: one export of the graph; no query. Memory for the graph, not for weights.
    """
    torch = need("torch", extra="torch", why="finding symmetries")
    if domain.kind == "text":
        raise ParameterError(f"symmetries are read off a network that takes numbers; this one takes {domain.text}")
    from locard.models.torch_module import device_of, evaluating
    from locard.weights._rules import RULES

    example = torch.zeros((_ROWS, *domain.shape), dtype=getattr(torch, domain.dtype), device=device_of(module))
    try:
        with evaluating(module), torch.no_grad():
            # Decomposed by an empty table, a program keeps its layers and loses its operations in place.
            program = torch.export.export(module, (example,)).run_decompositions({})
    # The module is its maker's code, and torch says what it cannot export in errors of many kinds.
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ParameterError(f"symmetries are read off a graph, and torch cannot export this module: {line}") from error
    return _groups(walk(program, RULES))


def apply(
    state: Mapping[str, np.ndarray],
    group: Group,
    *,
    permutation: np.ndarray | None = None,
    scales: Sequence[np.ndarray | None] = (),
    matrix: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Another point of the orbit: first the matrix acts, then the permutation, then the scales.

    Args:
        state: the network's tensors by name; left as it is.
        group: one of its groups.
        permutation: (copies, size) or (size,): unit i becomes what unit permutation[i] was. None for none.
        scales: for each scaling of the group (copies, size) or (size,) numbers, or None for ones.
        matrix: (copies, size, size) or (size, size), invertible, for a linear group only.

    Returns:
        A state of which the changed tensors are new and the others are shared.

    Raises:
        ParameterError: a tensor is missing, or an element is none of the group's.
    """
    order = None if permutation is None else _shaped("permutation", permutation, group, (group.size,))
    if order is not None and not (np.sort(order, axis=1) == np.arange(group.size)).all():
        raise ParameterError(f"permutation must hold each of 0 to {group.size - 1} once for {group.name}")
    if matrix is not None and not group.linear:
        raise ParameterError(f"{group.name} may be permuted and scaled; no other matrix acts on it")
    square = (group.size, group.size)
    matrices = None if matrix is None else _shaped("matrix", matrix, group, square).astype(np.float64)
    factors, roles = factors_of(group, scales), _roles(group)
    changed = dict(state)
    for number, place in enumerate(group.places):
        if place.tensor not in changed:
            raise ParameterError(f"the state has no tensor {place.tensor!r}, on which {group.name} acts")
        before = changed[place.tensor]
        outside, inside = prod(before.shape[: place.axis]), prod(before.shape[place.axis + 1 :])
        if before.ndim <= place.axis or before.size != outside * inside * place.outer * group.size * place.inner:
            raise ParameterError(
                f"{group.name} acts on axis {place.axis} of {place.tensor!r}, of "
                f"{place.outer * group.size * place.inner} entries; the tensor has shape {before.shape}"
            )
        after = before.reshape(outside, place.outer, group.size, place.inner * inside)
        if matrices is not None:
            chosen = matrices if roles[number] > 0 else np.linalg.inv(matrices).transpose(0, 2, 1)
            after = chosen @ after.astype(np.float64)
        if order is not None:
            after = np.take_along_axis(after, order[None, :, :, None], axis=2)
        if (factors[number] != 1).any():
            shifted = after.astype(np.float64) + place.offset
            after = shifted * factors[number][None, :, :, None] - place.offset
        changed[place.tensor] = np.ascontiguousarray(after.reshape(before.shape).astype(before.dtype, copy=False))
    return changed


def factors_of(group: Group, scales: Sequence[np.ndarray | None]) -> np.ndarray:
    """What each place's units are multiplied by: (places, copies, size).

    Args:
        group: the group.
        scales: see `apply`.

    Raises:
        ParameterError: more scales than scalings, another shape, or numbers that are none of the kind.
    """
    if len(scales) > len(group.scalings):
        raise ParameterError(f"{group.name} has {len(group.scalings)} scalings; got scales for {len(scales)}")
    factors = np.ones((len(group.places), group.copies, group.size))
    for scaling, given in zip(group.scalings, scales, strict=False):
        if given is None:
            continue
        one = _shaped("scales", given, group, (group.size,)).astype(np.float64)
        if scaling.kind == "sign" and not (np.abs(one) == 1).all():
            raise ParameterError(f"scales of the kind sign must be -1 or 1 for {group.name}")
        if scaling.kind == "magnitude" and not ((one > 0) & np.isfinite(one)).all():
            raise ParameterError(f"scales of the kind magnitude must be positive and finite for {group.name}")
        for place, power in enumerate(scaling.powers):
            if power:
                factors[place] *= one ** float(power)
    return factors


def _shaped(what: str, given: np.ndarray, group: Group, shape: tuple[int, ...]) -> np.ndarray:
    given = np.asarray(given)
    if given.shape not in (shape, (group.copies, *shape)):
        raise ParameterError(f"{what} must have shape {(group.copies, *shape)} for {group.name}; got {given.shape}")
    return np.broadcast_to(given, (group.copies, *shape))


def _roles(group: Group) -> tuple[int, ...]:
    """Powers of the one magnitude scaling; of use to linear groups."""
    return next((one.powers for one in group.scalings if one.kind == "magnitude"), (1,) * len(group.places))


def _groups(trace: Trace) -> tuple[Group, ...]:
    found: dict[int, list[tuple[str, Leaf]]] = {}
    for name, value in trace.tensors.items():
        for place, leaf in trace.leaves((value, None)):
            if not trace.factors.is_fixed(leaf):
                found.setdefault(leaf, []).append((name, place))
    links = [(link, [trace.leaves(spot) for spot in link.spots]) for link in trace.links]
    touching: dict[int, list[int]] = {leaf: [] for leaf in found}
    for number, (_, spots) in enumerate(links):
        for leaf in {leaf for spot in spots for _, leaf in spot} & found.keys():
            touching[leaf].append(number)
    equations = _equations(trace, found)
    read = _read(trace)
    return tuple(
        _group(trace, leaf, places, [links[k] for k in touching[leaf]], links, equations[leaf], read)
        for leaf, places in found.items()
    )


Spots = list[list[tuple[Leaf, int]]]
Equations = dict[Kind, list[dict[Leaf, int]]]


def _group(
    trace: Trace, leaf: int, named: list[tuple[str, Leaf]], touching: list[tuple[Link, Spots]],
    links: list[tuple[Link, Spots]], equations: Equations, read: set[Leaf],
) -> Group:  # fmt: skip
    places = [place for _, place in named]
    scalings: list[Scaling] = []
    kinds: tuple[Kind, ...] = ("magnitude", "sign")
    for kind in kinds:
        for powers in solutions(equations[kind], places, signs=kind == "sign"):
            # The first tensor that can be scaled is multiplied, not divided.
            flip = -1 if next(p for p in powers if p) < 0 else 1
            scalings.append(Scaling(powers=tuple(flip * p for p in powers), kind=kind))
    magnitudes = [one.powers for one in scalings if one.kind == "magnitude"]
    linear = (
        all(link.straight for link, _ in touching) and len(magnitudes) == 1 and all(abs(p) == 1 for p in magnitudes[0])
    )
    size = trace.factors.size[leaf]
    return Group(
        size=size,
        copies=_copies(trace, leaf, places, touching, links),
        places=tuple(_place(trace, name, place, read) for name, place in named),
        scalings=tuple(scalings),
        linear=linear,
    )


def _place(trace: Trace, name: str, place: Leaf, read: set[Leaf]) -> Place:
    value, axis, j = place
    sizes = [trace.factors.size[leaf] for leaf in trace.factors.leaves(value.axes[axis])]
    return Place(tensor=name, axis=axis, outer=prod(sizes[:j]), inner=prod(sizes[j + 1 :]),
                 role="reads" if place in read else "writes", offset=value.offset)  # fmt: skip


def _copies(
    trace: Trace, leaf: int, places: list[Leaf], touching: list[tuple[Link, Spots]], links: list[tuple[Link, Spots]]
) -> int:
    """How many blocks may each be permuted in their own way: those of a factor that goes with this one everywhere."""
    outer = {tuple(trace.factors.leaves(value.axes[axis])[:j]) for value, axis, j in places}
    if len(outer) != 1 or len(head := next(iter(outer))) != 1:
        return 1
    for link, spots in touching:
        ours = [spot for spot in spots if any(one == leaf for _, one in spot)]
        if any(_count(trace, spot[0][0][0], leaf) != 1 or _count(trace, spot[0][0][0], head[0]) != 1 for spot in ours):
            return 1
        if all(any(one == head[0] for _, one in spot) for spot in ours):
            continue
        # Otherwise the same operation must tie the heads of the same tensors by another axis.
        wanted = Counter(id(spot[0][0][0]) for spot in ours)
        others = (s for other, s in links if other.step == link.step)
        held = [Counter(id(spot[0][0][0]) for spot in s if any(one == head[0] for _, one in spot)) for s in others]
        if not any(wanted <= one for one in held):
            return 1
    return trace.factors.size[head[0]]


def _count(trace: Trace, value: Value, leaf: int) -> int:
    return sum(one == leaf for _, one in trace.leaves((value, None)))


def _equations(trace: Trace, found: Mapping[int, object]) -> dict[int, Equations]:
    """The equations of each factor, one for every place where an operation ties axes that hold it."""
    split: dict[int, Equations] = {leaf: {"magnitude": [], "sign": []} for leaf in found}
    for terms, kinds in trace.equations:
        spots = [(trace.leaves(spot), power) for spot, power in terms]
        for j, (_, leaf) in enumerate(spots[0][0]):
            # Where products have no common factors, what follows is fixed.
            if any(len(spot) <= j or spot[j][1] != leaf for spot, _ in spots):
                break
            if leaf in split:
                row = Counter[Leaf]()
                for spot, power in spots:
                    row[spot[j][0]] += power
                for kind in kinds:
                    split[leaf][kind].append(dict(row))
    return split


def _read(trace: Trace) -> set[Leaf]:
    """The places whose entries some operation adds over, handed back to the tensors in the state."""
    found = {place for spot in trace.read for place, _ in trace.leaves(spot)}
    for link in reversed(trace.links):
        if link.moves:
            source, target = (trace.leaves(spot) for spot in link.spots)
            found |= {here for (here, _), (there, _) in zip(source, target, strict=False) if there in found}
    return found
