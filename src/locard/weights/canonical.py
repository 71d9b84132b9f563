"""One representative of all weights that a network's symmetries lead to, so that symmetric copies become one file.

In this order: batch norms are folded into the weights in front of them [1]; scales and invertible matrices are chosen
so that the sum of squares is least, which leaves rotations that the singular values settle, the largest first; units,
channels and heads are put in the order of a key that knows no order, scale or sign; signs make a fixed sum of each
unit's entries positive. What the groups do not hold (see `symmetries`: rotary pairs, the rotation of a stream behind
RMSNorm, shifts of logits) `attention` and `folds` put in normal form tensor by tensor.

Sorting is discontinuous: two units with almost equal keys may change places by rounding, and then the file is another
one, if as good. Such units are told apart by their entries towards neighbours that are in order; what is left is said
in `undecided`. To compare two models that are merely alike, use `align`, which has no such seam.

[1] Ainsworth, Hayase, Srinivasa. Git Re-Basin: Merging Models modulo Permutation Symmetries. ICLR 2023.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from locard.errors import ParameterError
from locard.weights._balance import balanced
from locard.weights._order import ordered, signed
from locard.weights.folds import fold_batch_norm
from locard.weights.symmetries import Group, Scaling

# Relative; about the square root of what float error makes of a sum of a layer's products.
_TOLERANCES = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canonical:
    """A representative of an orbit.

    Args:
        state: tensors by name, of the shapes and dtypes of those that came.
        undecided: groups in which units, axes or signs were too much alike to be settled; () where the form is unique.
    """

    state: dict[str, np.ndarray]
    undecided: tuple[str, ...]


def canonical(state: Mapping[str, np.ndarray], groups: Sequence[Group], *, exact: bool = False) -> Canonical:
    """The same function in normal form; of all copies along the groups' symmetries the same, but for float error.

    Args:
        state: tensors by name; left as it is.
        groups: of the network, from `find`.
        exact: scale by powers of two alone, fold and turn nothing: the same bits for copies that were permuted and
            scaled by powers of two.

    Raises:
        ParameterError: a tensor is missing or not finite.

    Cost: about a hundred passes over the weights, in float64.
    """
    missing = [name for group in groups for name in group.tensors if name not in state]
    if missing:
        raise ParameterError(f"the state has no tensor {missing[0]!r}, on which the network's symmetries act")
    moved = {name for group in groups for name in group.tensors}
    after = {name: one.astype(np.float64) if name in moved else one for name, one in state.items()}
    tolerance = max((_TOLERANCES.get(state[name].dtype, 1e-3) for name in moved), default=1e-9)
    if not exact:
        after, groups = _folded(after, groups)
    groups, twice = _once(groups)
    after, equal = balanced(after, groups, exact=exact)
    after, alike = ordered(after, groups, tolerance=tolerance)
    after, unsettled = signed(after, groups, tolerance=tolerance)
    return Canonical(
        state={name: one.astype(state[name].dtype, copy=False) for name, one in after.items()},
        undecided=tuple(twice + equal + alike + unsettled),
    )


def _once(groups: Sequence[Group]) -> tuple[list[Group], list[str]]:
    """Without linear groups that act on one tensor twice: no product of two factors tells their axes."""
    once = [one for one in groups if not one.linear or len(one.tensors) == len(one.places)]
    return once, [f"{one.name}: a matrix acts on one tensor twice" for one in groups if one not in once]


def _folded(state: dict[str, np.ndarray], groups: Sequence[Group]) -> tuple[dict[str, np.ndarray], list[Group]]:
    """Fold every batch norm that has weights of its own in front of it; the groups of what is left."""
    found = list(groups)
    for number, group in enumerate(groups):
        for scaling in group.scalings:
            acts = {place.tensor: power for place, power in zip(group.places, scaling.powers, strict=True) if power}
            variances = [place for place in group.places if place.offset and acts.get(place.tensor)]
            if scaling.kind == "sign" or len(variances) != 1:
                continue
            front = variances[0].tensor.removesuffix("running_var")
            gain, shift, mean = (front + part for part in ("weight", "bias", "running_mean"))
            places = Counter(place.tensor for place in group.places)
            weights = [name for name in acts if name not in (mean, variances[0].tensor)]
            # A mean needs a shift to go to, and weights on both sides of the norm would be folded twice.
            if not {gain, shift} <= state.keys() or max(places[name] for name in weights) > 1:
                continue
            writers = [(place.tensor, place.axis) for place in group.places if place.tensor in weights]
            state = fold_batch_norm(state, writers, front, epsilon=variances[0].offset)
            found[number] = _behind(found[number], gain, {*weights, mean}, variances[0].tensor)
    return state, found


def _behind(group: Group, gain: str, inputs: set[str], variance: str) -> Group:
    """The scalings of a folded norm: what its gain took is taken by the weights in front of it."""
    scalings: list[Scaling] = []
    for one in group.scalings:
        powers = [(place.tensor, power) for place, power in zip(group.places, one.powers, strict=True)]
        by_name = dict(powers)
        if one.kind == "magnitude" and by_name[variance]:
            continue
        taken = by_name[gain]
        new = tuple(0 if tensor in (gain, variance) else power + taken * (tensor in inputs) for tensor, power in powers)
        new = tuple(power % 2 for power in new) if one.kind == "sign" else new
        if any(new):
            scalings.append(replace(one, powers=new))
    return replace(group, scalings=tuple(scalings))
