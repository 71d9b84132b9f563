"""Disjoint random splits: models for selection, calibration and evaluation must not share what they saw."""

from __future__ import annotations

import hashlib

import numpy as np

from locard.errors import ParameterError, check_number
from locard.records import Data
from locard.seeds import generator


def split(data: Data, parts: dict[str, int], *, seed: int) -> dict[str, Data]:
    """Disjoint random parts of the given sizes.

    Args:
        data: what to split; equal inputs, and inputs of one of its `groups`, come into one part.
        parts: number of inputs of each part, by name.
        seed: of the order.

    Returns:
        The parts, by name; inputs left over are in none.

    Raises:
        ParameterError: the parts are larger than the data, or cannot be made of whole groups.
    """
    for name, size in parts.items():
        check_number(f"part {name!r}", size, low=1)
    if sum(parts.values()) > len(data):
        raise ParameterError(f"the parts need {sum(parts.values())} inputs; {data.name} has {len(data)}")
    source = generator(seed, "split")
    if (groups := _together(data)) is not None:
        rows = _whole_groups(data, groups, parts, source)
        return {name: data.take(rows[name], f"{data.name}:{name}") for name in parts}
    order = source.permutation(len(data))
    taken, start = {}, 0
    for name, size in parts.items():
        taken[name] = data.take(order[start : start + size], f"{data.name}:{name}")
        start += size
    return taken


def _together(data: Data) -> np.ndarray | None:
    """A number for each input, (n,), the same for those that must not be parted; None where all may be."""
    same = {}
    equal = np.array([same.setdefault(_digest(row), len(same)) for row in data.inputs], np.int64)
    if len(same) == len(data):
        return data.groups
    if data.groups is None:
        return equal
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, group = np.unique(data.groups, return_inverse=True)
    size = len(same) + int(group.max()) + 1
    links = coo_array((np.ones(len(data), np.int8), (equal, len(same) + group)), shape=(size, size))
    return connected_components(links, directed=False)[1][equal]


def _digest(row: np.ndarray | str) -> bytes:
    raw = row.encode() if isinstance(row, str) else np.ascontiguousarray(row).tobytes()
    return hashlib.blake2b(raw, digest_size=16).digest()


def _whole_groups(
    data: Data, groups: np.ndarray, parts: dict[str, int], source: np.random.Generator
) -> dict[str, np.ndarray]:
    """Rows of each part: groups in random order, each into the first part that has room for all of it."""
    _, group = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    room, rows = dict(parts), {name: [np.empty(0, np.int64)] for name in parts}
    for number in source.permutation(len(members)):
        name = next((name for name, left in room.items() if left >= len(members[number])), None)
        if name is not None:
            rows[name].append(members[number])
            room[name] -= len(members[number])
    for name, left in room.items():
        if left:
            raise ParameterError(
                f"part {name!r} of {parts[name]} inputs cannot be made of whole groups of {data.name}: {left} are "
                f"missing, and groups have {min(map(len, members))} to {max(map(len, members))} inputs"
            )
    return {name: source.permutation(np.concatenate(one)) for name, one in rows.items()}
