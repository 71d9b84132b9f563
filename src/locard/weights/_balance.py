"""The shortest weights of an orbit: scales and matrices chosen so that the sum of squares is least.

For scales, and for all invertible matrices, the least point of an orbit is unique up to signs and rotations (Kempf and
Ness 1979), so it is a normal form that needs no order of the layers: a unit's incoming and outgoing weights become
equally long, an attention head's pair of factors equally long along common axes. It is found group by group, each step
in closed form; the sum falls with every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from locard.errors import ParameterError
from locard.weights._layout import Act, Layout, layouts, rows
from locard.weights.symmetries import Group, apply

State = dict[str, np.ndarray]

_SWEEPS, _ROUNDS = 20_000, 2_000
# Logarithms of scales move by less than this at the end, and singular values below it count as none.
_STILL, _RANK = 1e-13, 1e-11


def balanced(state: Mapping[str, np.ndarray], groups: Sequence[Group], *, exact: bool) -> tuple[State, list[str]]:
    """Scale and turn each group until the sum of all squares is least.

    Args:
        state: tensors by name, float64.
        groups: of the network.
        exact: scale by powers of two alone, and turn nothing.

    Returns:
        The state, and what is left undecided: equal singular values, whose axes may be turned into each other.

    Raises:
        ParameterError: weights are not finite, or it does not settle.
    """
    if not all(np.isfinite(one).all() for one in state.values() if one.dtype.kind == "f"):
        raise ParameterError("a canonical form needs finite weights; this state holds NaN or infinity")
    found, after = layouts(state, groups), dict(state)
    linear = [k for k, group in enumerate(groups) if group.linear and not exact]
    undecided: list[str] = []
    for _ in range(_ROUNDS):
        after = _scaled(after, groups, found, linear, exact=exact)
        if not linear:
            return after, undecided
        moved, undecided = 0.0, []
        for number in linear:
            after, change, equal = _turned(after, groups, found, number)
            moved = max(moved, change)
            undecided += equal
        if moved < _STILL * 100:
            return after, undecided
    raise ParameterError(f"the scales of this network do not settle within {_ROUNDS} rounds; some weights are near 0")


def _scaled(
    state: State, groups: Sequence[Group], found: Mapping[str, Layout], linear: Sequence[int], *, exact: bool
) -> State:
    squares = {name: state[name].astype(np.float64).reshape(layout.shape) ** 2 for name, layout in found.items()}
    for group in groups:
        for place in group.places:
            if place.offset:
                squares[place.tensor] = (np.sqrt(squares[place.tensor]) + place.offset) ** 2
    chosen = [(g, k) for g, group in enumerate(groups) for k, one in enumerate(group.scalings)
              if one.kind == "magnitude" and g not in linear]  # fmt: skip
    if exact:
        chosen = [(g, k) for g, k in chosen
                  if not any(p and place.offset for p, place in zip(groups[g].scalings[k].powers, groups[g].places,
                                                                    strict=True))]  # fmt: skip
    total = {one: np.zeros((groups[one[0]].copies, groups[one[0]].size)) for one in chosen}
    for _ in range(_SWEEPS):
        moved = 0.0
        for g, k in chosen:
            step = _step(groups[g], g, k, squares, found)
            total[g, k] += step
            moved = max(moved, float(np.abs(step).max()))
            for layout, act, name, power in _acts(groups[g], g, k, found):
                squares[name] *= layout.spread(act, np.exp(2 * power * step))
        if moved < _STILL * (1e3 if exact else 1):
            break
    else:
        raise ParameterError(f"the scales of this network do not settle in {_SWEEPS} sweeps; some weights are near 0")
    for (g, k), logs in total.items():
        scales = np.exp2(np.rint(logs / np.log(2))) if exact else np.exp(logs)
        state = apply(state, groups[g], scales=[scales if j == k else None for j in range(k + 1)])
    return state


def _acts(
    group: Group, number: int, scaling: int, found: Mapping[str, Layout]
) -> Iterator[tuple[Layout, Act, str, int]]:
    for k, place in enumerate(group.places):
        power = group.scalings[scaling].powers[k]
        if power:
            layout = found[place.tensor]
            yield layout, next(a for a in layout.acts if (a.group, a.place) == (number, k)), place.tensor, power


def _step(
    group: Group, number: int, scaling: int, squares: Mapping[str, np.ndarray], found: Mapping[str, Layout]
) -> np.ndarray:
    """The logarithm of the best scale of each unit, (copies, size), the others held."""
    sums: dict[int, np.ndarray] = {}
    anchor: np.ndarray | None = None
    for layout, act, name, power in _acts(group, number, scaling, found):
        part = layout.gather(act, squares[name])
        sums[power] = sums.get(power, 0.0) + part
        if group.places[act.place].offset:
            # A variance and its epsilon become one.
            anchor = -np.log(part) / (2 * power)
    if anchor is not None:
        return anchor
    up = sum((n for p, n in sums.items() if p > 0), np.zeros((group.copies, group.size)))
    down = sum((n for p, n in sums.items() if p < 0), np.zeros((group.copies, group.size)))
    with np.errstate(divide="ignore"):
        both = 0.25 * (np.log(down) - np.log(up))
        # Where nothing answers a unit, or nothing feeds it, what there is gets length 1.
        one_sided = np.where(up > 0, -0.5 * np.log(up), 0.5 * np.log(down))
    alone = (up == 0) | (down == 0)
    step = np.where((up == 0) & (down == 0), 0.0, np.where(alone, one_sided, both))
    if set(sums) <= {-1, 1}:
        return step
    if not (min(sums) < 0 < max(sums)):
        return np.where(alone & ((up > 0) | (down > 0)), one_sided / max(map(abs, sums)), 0.0)
    step = np.where(alone, step, 0.0)
    for _ in range(200):
        slope = sum(2 * p * n * np.exp(2 * p * step) for p, n in sums.items())
        bend = sum(4 * p * p * n * np.exp(2 * p * step) for p, n in sums.items())
        change = np.where(alone, 0.0, np.clip(-slope / np.maximum(bend, 1e-300), -1, 1))
        step = step + change
        if np.abs(change).max() < 1e-15:
            break
    return step


def _turned(
    state: State, groups: Sequence[Group], found: Mapping[str, Layout], number: int
) -> tuple[State, float, list[str]]:
    """One linear group in the axes of its product: both sides as long, orthogonal, the longest first.

    The function knows only the product of what writes and what reads, so its thin singular value decomposition replaces
    both: also where the product has less than full rank, and no invertible matrix would lead there.
    """
    group = groups[number]
    powers = next(one.powers for one in group.scalings if one.kind == "magnitude")
    sides: dict[int, list[np.ndarray]] = {1: [], -1: []}
    acts = []
    for k, place in enumerate(group.places):
        layout = found[place.tensor]
        act = next(a for a in layout.acts if (a.group, a.place) == (number, k))
        part = rows(state[place.tensor], layout, act)
        sides[powers[k]].append(part)
        acts.append((place.tensor, layout, act, powers[k], part.shape[2]))
    ours, theirs = (np.concatenate(one, axis=2) for one in (sides[1], sides[-1]))
    scale = np.linalg.norm(ours, axis=(1, 2)) * np.linalg.norm(theirs, axis=(1, 2))
    new = {1: np.zeros_like(ours), -1: np.zeros_like(theirs)}
    moved, equal = 0.0, []
    for copy in range(group.copies):
        a, b = ours[copy], theirs[copy]
        (qa, ra), (qb, rb) = np.linalg.qr(a.T), np.linalg.qr(b.T)
        left, values, right = np.linalg.svd(ra @ rb.T, full_matrices=False)
        rank = int((values > _RANK * max(values[0], 1e-300)).sum()) if scale[copy] else 0
        root = np.sqrt(values[:rank])[:, None]
        new[1][copy, :rank] = root * (qa @ left[:, :rank]).T
        new[-1][copy, :rank] = root * (qb @ right[:rank].T).T
        gaps = (values[: rank - 1] - values[1:rank]) / values[0] if rank > 1 else np.ones(1)
        if (gaps < 1e-7).any():
            equal.append(f"{group.name}, copy {copy}: equal singular values, whose axes may be turned into each other")
        spread = max(float(np.abs(a @ a.T).max()), float(np.abs(b @ b.T).max()), 1e-300)
        moved = max(moved, float(np.abs(a @ a.T - b @ b.T).max()) / spread)
    after, start = dict(state), {1: 0, -1: 0}
    for name, layout, act, side, width in acts:
        part = new[side][:, :, start[side] : start[side] + width]
        start[side] += width
        lead = [layout.shape[axis] for axis in act.axes]
        rest = [size for axis, size in enumerate(layout.shape) if axis not in act.axes]
        tensor = np.moveaxis(part.reshape(*lead, *rest), range(len(lead)), act.axes)
        after[name] = np.ascontiguousarray(tensor.reshape(state[name].shape))
    return after, moved, equal
