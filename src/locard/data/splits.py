"""Disjoint random splits: models for selection, calibration and evaluation must not share what they saw."""

from __future__ import annotations

from locard.errors import ParameterError, check_number
from locard.records import Data
from locard.seeds import generator


def split(data: Data, parts: dict[str, int], *, seed: int) -> dict[str, Data]:
    """Disjoint random parts of the given sizes.

    Args:
        data: what to split.
        parts: number of inputs of each part, by name.
        seed: of the order.

    Returns:
        The parts, by name; inputs left over are in none.

    Raises:
        ParameterError: the parts are larger than the data.
    """
    for name, size in parts.items():
        check_number(f"part {name!r}", size, low=1)
    if sum(parts.values()) > len(data):
        raise ParameterError(f"the parts need {sum(parts.values())} inputs; {data.name} has {len(data)}")
    order = generator(seed, "split").permutation(len(data))
    taken, start = {}, 0
    for name, size in parts.items():
        taken[name] = data.take(order[start : start + size], f"{data.name}:{name}")
        start += size
    return taken
