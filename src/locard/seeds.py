"""Named random streams: one seed in, independent sub-streams by name, no global state."""

from __future__ import annotations

import hashlib

import numpy as np

from locard.errors import ParameterError


def derive(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name`, a hash of both, so that the order of calls does not matter.

    Args:
        seed: the caller's seed, any integer >= 0.
        name: path of the stream, such as "ipguard/targets".

    Returns:
        An integer in [0, 2**63).

    Raises:
        ParameterError: the seed is not an integer >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ParameterError(f"seed must be an integer >= 0; got {seed!r}")
    digest = hashlib.blake2b(f"{int(seed)}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, name: str) -> np.random.Generator:
    """A NumPy generator for the stream `name`."""
    return np.random.Generator(np.random.PCG64(derive(seed, name)))
