"""An order of the units that no permutation of a network changes, and signs that no flip changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from locard.weights._layout import Act, Layout, layouts, rows
from locard.weights.symmetries import Group, apply

State = dict[str, np.ndarray]
Labels = list[np.ndarray]

_ROUNDS, _CHANNELS = 4, 3
# An irrational step, so that no two positions look alike.
_GOLDEN = 0.6180339887498949


def ordered(state: State, groups: Sequence[Group], *, tolerance: float) -> tuple[State, list[str]]:
    """Every group in the order of a key made of its units' entries.

    The key does not know the order, scale or sign of any unit: it is refined in rounds, each of which weighs a unit's
    entries by the keys of the units at their other ends. Units whose keys are nearer than the tolerance are told apart
    by their entries towards the groups that are in order by now.

    Args:
        state: tensors by name, scaled alike.
        groups: of the network.
        tolerance: relative; what float error may amount to.

    Returns:
        The state in order, and the names of groups with units that could not be told apart though they differ.
    """
    found = layouts(state, groups)
    keys = _refined(state, groups, found)
    state, keys = _sorted(state, groups, keys, found)
    # Within a run of equal keys the entries towards what is in order decide.
    second = [_mixed(one) for one in _messages(state, groups, found, _standing(groups, keys, tolerance))]
    ranks, alike = list[np.ndarray](), dict[int, list[tuple[int, slice]]]()
    for g, (group, key, finer) in enumerate(zip(groups, keys, second, strict=True)):
        rank = np.tile(np.arange(group.size, dtype=np.float64), (group.copies, 1))
        for copy in range(group.copies if not group.linear else 0):
            for run in _runs(key[copy], tolerance):
                order = np.argsort(finer[copy, run], kind="stable")
                rank[copy, run.start + order] = np.arange(run.start, run.stop)
                for part in _runs(finer[copy, run][order], tolerance):
                    alike.setdefault(g, []).append((copy, slice(run.start + part.start, run.start + part.stop)))
        ranks.append(rank)
    after, _ = _sorted(state, groups, ranks, found)
    counts = {g: _unlike(after, groups[g], g, runs, found, tolerance) for g, runs in alike.items()}
    return after, [f"{groups[g].name}: {n} units are too much alike to be put in order" for g, n in counts.items() if n]


def signed(state: State, groups: Sequence[Group], *, tolerance: float) -> tuple[State, list[str]]:
    """Every sign such that a fixed sum of a unit's entries, towards what is settled by then, is positive.

    Args:
        state: tensors by name, in order.
        groups: of the network.
        tolerance: relative; a sum below it settles nothing, and another one is tried.

    Returns:
        The state, and the names of groups whose signs could not be settled.
    """
    found = layouts(state, groups)
    after, chosen = _settled(state, groups, found, tolerance, first=1.0)
    if not chosen:
        return after, []
    # Where a head's sign is the sign of all that is inside it, one of them may be chosen and nothing depends on it.
    other, _ = _settled(state, groups, found, tolerance, first=-1.0)
    scale = {name: max(float(np.abs(after[name]).max()), 1e-300) for name in found}
    if all(np.abs(after[name] - other[name]).max() <= 100 * tolerance * scale[name] for name in found):
        return after, []
    return after, [f"{name}: no sign is settled by its neighbours" for name in chosen]


Sign = tuple[int, tuple[bool, ...]]


def _settled(
    state: State, groups: Sequence[Group], found: Mapping[str, Layout], tolerance: float, *, first: float
) -> tuple[State, list[str]]:
    """Signs unit by unit; where nothing more is settled, one unit's sign becomes `first` and is named."""
    unknown: list[Sign] = [(g, odd) for g, group in enumerate(groups) for odd in _odd(group)]
    sure = {one: np.zeros((groups[one[0]].copies, groups[one[0]].size), np.bool_) for one in unknown}
    # Units of which every entry is 0 are settled by nothing, and need not be.
    for g, odd in unknown:
        parts = [rows(state[name], found[name], act) for name, act in _places(g, odd, groups, found)]
        sure[g, odd] |= ~np.concatenate(parts, axis=2).any(axis=2)
    chosen: list[str] = []
    while unknown:
        before = sum(int(one.sum()) for one in sure.values())
        for one in list(unknown):
            state = _settle(state, groups, one, found, sure, tolerance)
            if sure[one].all():
                unknown.remove(one)
        if not unknown or sum(int(one.sum()) for one in sure.values()) > before:
            continue
        one = unknown[0]
        at = tuple(np.argwhere(~sure[one])[0])
        signs = np.ones(sure[one].shape)
        signs[at], sure[one][at] = first, True
        state = _flipped(state, groups, one, signs, found)
        chosen.append(groups[one[0]].name)
    return state, list(dict.fromkeys(chosen))


def _odd(group: Group) -> list[tuple[bool, ...]]:
    """For each independent sign of a unit, the places that it flips."""
    if group.linear:
        return [(True,) * len(group.places)]
    return [tuple(power % 2 == 1 for power in one.powers) for one in group.scalings if one.kind == "sign"]


def _places(
    g: int, odd: tuple[bool, ...], groups: Sequence[Group], found: Mapping[str, Layout]
) -> Iterator[tuple[str, Act]]:
    for k, place in enumerate(groups[g].places):
        if odd[k]:
            yield place.tensor, next(act for act in found[place.tensor].acts if (act.group, act.place) == (g, k))


def _settle(
    state: State, groups: Sequence[Group], one: Sign, found: Mapping[str, Layout], sure: Mapping[Sign, np.ndarray],
    tolerance: float,
) -> State:  # fmt: skip
    """Flip the units whose sign the entries towards settled units tell."""
    parts: list[np.ndarray] = []
    for name, act in _places(*one, groups, found):
        layout, tensor = found[name], state[name].reshape(found[name].shape)
        for other, mask in sure.items():
            for there in layout.acts:
                if there.group == other[0] and other[1][there.place] and not (other == one and there is act):
                    tensor = tensor * layout.spread(there, mask)
        part = rows(tensor.reshape(state[name].shape), layout, act)
        parts.append(part / max(float(np.sqrt((state[name] ** 2).mean())), 1e-300))
    entries = np.concatenate(parts, axis=2)
    length = np.linalg.norm(entries, axis=2)
    signs = np.ones(length.shape)
    for turn in range(1, 9):
        sums = entries @ np.cos(turn * (1 + np.arange(entries.shape[2])) * _GOLDEN * 2 * np.pi + turn)
        new = ~sure[one] & (np.abs(sums) > 10 * tolerance * length)
        signs[new] = np.where(sums[new] < 0, -1.0, 1.0)
        sure[one][new] = True
    return state if (signs == 1).all() else _flipped(state, groups, one, signs, found)


def _flipped(state: State, groups: Sequence[Group], one: Sign, signs: np.ndarray, found: Mapping[str, Layout]) -> State:
    (g, odd), after = one, dict(state)
    for k, place in enumerate(groups[g].places):
        if odd[k]:
            layout = found[place.tensor]
            act = next(act for act in layout.acts if (act.group, act.place) == (g, k))
            tensor = after[place.tensor].reshape(layout.shape) * layout.spread(act, signs)
            after[place.tensor] = tensor.reshape(state[place.tensor].shape)
    return after


def _refined(state: State, groups: Sequence[Group], found: Mapping[str, Layout]) -> Labels:
    keys = [np.tile(np.arange(group.size) * _GOLDEN % 1, (group.copies, 1)) if group.linear
            else np.zeros((group.copies, group.size)) for group in groups]  # fmt: skip
    for _ in range(_ROUNDS):
        messages = _messages(state, groups, found, keys)
        keys = [key if group.linear else _mixed(one) for group, key, one in zip(groups, keys, messages, strict=True)]
    return keys


def _messages(state: State, groups: Sequence[Group], found: Mapping[str, Layout], keys: Labels) -> Labels:
    """For each group (messages, copies, size): sums of its units' entries, weighed by the keys at their other ends."""
    heard: list[dict[tuple[int, int, int], np.ndarray]] = [{} for _ in groups]
    flipped = {place.tensor for group in groups for odd in _odd(group)
               for place, one in zip(group.places, odd, strict=True) if one}  # fmt: skip
    for name, layout in found.items():
        tensor = state[name].astype(np.float64).reshape(layout.shape)
        tensor = tensor / max(float(np.sqrt((tensor**2).mean())), 1e-300)
        taken = {axis for act in layout.acts for axis in act.axes}
        for kind, array in enumerate([tensor**2] if name in flipped else [tensor**2, tensor]):
            for channel in range(_CHANNELS):
                weighed = array
                for axis, size in enumerate(layout.shape):
                    if axis not in taken:
                        shape = [size if axis == k else 1 for k in range(len(layout.shape))]
                        weighed = weighed * _weight(np.arange(size) * _GOLDEN % 1, channel).reshape(shape)
                for act in layout.acts:
                    told = weighed
                    for other in layout.acts:
                        if other is not act:
                            told = told * layout.spread(other, _weight(keys[other.group], channel))
                    heard[act.group][act.place, kind, channel] = layout.gather(act, told)
    return [np.stack([one[key] for key in sorted(one)]) for one in heard]


def _weight(keys: np.ndarray, channel: int) -> np.ndarray:
    return 0.5 + np.cos((2 + channel) * keys + channel)


def _mixed(messages: np.ndarray) -> np.ndarray:
    """One key of all messages, (copies, size), of mean 0 and spread 1."""
    key = np.zeros(messages.shape[1:])
    for number, one in enumerate(messages):
        key += (0.5 + number * _GOLDEN % 1) * np.tanh(_standard(one))
    return _standard(key)


def _standard(one: np.ndarray) -> np.ndarray:
    middle, spread = one.mean(), one.std()
    # Equal but for float error says nothing, and must not be blown up.
    return (one - middle) / spread if spread > 1e-9 * max(float(np.abs(one).max()), 1e-300) else np.zeros_like(one)


def _sorted(state: State, groups: Sequence[Group], keys: Labels, found: Mapping[str, Layout]) -> tuple[State, Labels]:
    order = [np.argsort(key, axis=1, kind="stable") for key in keys]
    after = [np.take_along_axis(key, one, axis=1) for key, one in zip(keys, order, strict=True)]
    # What is inside a head goes with the head, so it is put in order first.
    for g in sorted(range(len(groups)), key=lambda g: -groups[g].copies):
        if groups[g].linear:
            continue
        state = apply(state, groups[g], permutation=order[g])
        for inside in {a.group for one in found.values() for a in one.acts for b in one.acts
                       if b.group == g and len(a.axes) > 1 and a.axes[0] == b.axes[-1]}:  # fmt: skip
            after[inside] = after[inside][order[g][0]]
    return state, after


def _standing(groups: Sequence[Group], keys: Labels, tolerance: float) -> Labels:
    """Positions where these are sure; units in a run share the first one's."""
    standing: Labels = []
    for group, key in zip(groups, keys, strict=True):
        place = np.tile(np.arange(group.size, dtype=np.float64), (group.copies, 1))
        if not group.linear:
            for copy in range(group.copies):
                for run in _runs(key[copy], tolerance):
                    place[copy, run] = run.start
        standing.append(place * _GOLDEN % 1)
    return standing


def _runs(key: np.ndarray, tolerance: float) -> list[slice]:
    """Slices of neighbours in order that are nearer than the tolerance."""
    near = np.diff(key) < tolerance
    runs, start = [], None
    for k, one in enumerate([*near, False]):
        if one and start is None:
            start = k
        elif not one and start is not None:
            runs.append(slice(start, k + 1))
            start = None
    return runs


def _unlike(
    state: State, group: Group, number: int, runs: Sequence[tuple[int, slice]], found: Mapping[str, Layout],
    tolerance: float,
) -> int:  # fmt: skip
    """Units in runs that differ from their neighbours in some tensor, so that another order is another file."""
    differ = set[tuple[int, int]]()
    for k, place in enumerate(group.places):
        layout = found[place.tensor]
        act = next(act for act in layout.acts if (act.group, act.place) == (number, k))
        part = rows(state[place.tensor], layout, act)
        part = part / max(float(np.sqrt((part**2).mean())), 1e-300)
        for copy, run in runs:
            if np.abs(np.diff(part[copy, run], axis=0)).max(initial=0) > 100 * tolerance:
                differ |= {(copy, unit) for unit in range(run.start, run.stop)}
    return len(differ)
