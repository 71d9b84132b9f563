"""A network's tensors with an axis of its own for each group that acts on them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from locard.weights.symmetries import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One place of one group, as axes of the tensor's longer shape.

    Args:
        group: its number.
        place: its number in the group.
        axes: of the units; of the copies and the units where the group has copies.
    """

    group: int
    place: int
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A tensor's axes, cut into factors wherever a group asks for it.

    Args:
        shape: the longer shape; its product is the tensor's size.
        acts: what acts on it.
    """

    shape: tuple[int, ...]
    acts: tuple[Act, ...]

    def spread(self, act: Act, labels: np.ndarray) -> np.ndarray:
        """Numbers of a group's units, (copies, size), in a shape that multiplies the tensor."""
        shape = [1] * len(self.shape)
        for axis in act.axes:
            shape[axis] = self.shape[axis]
        return labels.reshape(shape)

    def gather(self, act: Act, array: np.ndarray) -> np.ndarray:
        """Sum over all axes but the act's, as (copies, size)."""
        other = tuple(axis for axis in range(len(self.shape)) if axis not in act.axes)
        return array.sum(axis=other).reshape(-1, self.shape[act.axes[-1]])


def layouts(state: Mapping[str, np.ndarray], groups: Sequence[Group]) -> dict[str, Layout]:
    """The layout of every tensor that some group acts on.

    Args:
        state: the network's tensors by name.
        groups: of the network.
    """
    cuts: dict[str, list[set[int]]] = {}
    for group in groups:
        for place in group.places:
            axes = cuts.setdefault(place.tensor, [{1, size} for size in state[place.tensor].shape])
            axes[place.axis] |= {place.outer, place.outer * group.size}
    chains = {name: [sorted(axis) for axis in axes] for name, axes in cuts.items()}
    acts: dict[str, list[Act]] = {name: [] for name in chains}
    for number, group in enumerate(groups):
        for k, place in enumerate(group.places):
            before = sum(len(chain) - 1 for chain in chains[place.tensor][: place.axis])
            at = before + chains[place.tensor][place.axis].index(place.outer)
            acts[place.tensor].append(Act(group=number, place=k, axes=(at - 1, at) if group.copies > 1 else (at,)))
    return {
        name: Layout(
            shape=tuple(high // low for chain in axes for low, high in itertools.pairwise(chain)),
            acts=tuple(acts[name]),
        )
        for name, axes in chains.items()
    }


def rows(array: np.ndarray, layout: Layout, act: Act) -> np.ndarray:
    """A tensor as (copies, size, entries of one unit) float64."""
    moved = np.moveaxis(array.astype(np.float64).reshape(layout.shape), act.axes, range(len(act.axes)))
    copies = prod(moved.shape[: len(act.axes) - 1])
    return moved.reshape(copies, layout.shape[act.axes[-1]], -1)
