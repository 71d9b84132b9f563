"""Inputs of the thief's own to ask: the data, then mixtures of them, so that few inputs make a large query set."""

from __future__ import annotations

import numpy as np

from locard.errors import ParameterError
from locard.records import Data
from locard.seeds import generator


def query_set(data: Data, n: int, *, seed: int) -> np.ndarray:
    """Up to `n` distinct inputs: the thief's own in random order, then mixtures u * a + (1 - u) * b of random pairs.

    Args:
        data: the thief's inputs.
        n: how many to ask; the thief's own come first.
        seed: of order, pairs and shares.

    Returns:
        (m, *shape) as the victim's domain takes them, m <= n: delivered mixtures that coincide are asked once.

    Raises:
        ParameterError: the inputs are no real numbers, so there are no mixtures of them.
    """
    mixable(data)
    source = generator(seed, "extraction/queries")
    own = data.inputs[source.permutation(len(data))[:n]]
    if n > len(own):
        own = np.concatenate([own, mixtures(own, n - len(own), source)])
    asked = data.domain.deliver(own)
    _, first = np.unique(asked.reshape(len(asked), -1), axis=0, return_index=True)
    return asked[np.sort(first)]


def own_texts(data: Data, n: int, *, seed: int) -> np.ndarray:
    """Up to `n` of the thief's own texts in random order, each once; nothing lies between two texts.

    Args:
        data: the thief's texts.
        n: how many to ask.
        seed: of the order.

    Returns:
        (m,) strings, m <= n.

    Raises:
        ParameterError: there are fewer than `n`.
    """
    if n > len(data):
        raise ParameterError(
            f"{data.name} holds {len(data)} texts, and there are no mixtures of them to ask besides; ask for no more "
            f"than these: queries={len(data)}, or 0 for all"
        )
    order = generator(seed, "extraction/queries").permutation(len(data))[:n]
    return np.array(list(dict.fromkeys(data.inputs[order])), object)


def mixtures(inputs: np.ndarray, n: int, source: np.random.Generator) -> np.ndarray:
    """(n, *shape) convex mixtures of random pairs of inputs, not yet delivered."""
    pairs = source.integers(0, len(inputs), (2, n))
    shares = source.random((n, *[1] * (inputs.ndim - 1)))
    return (shares * inputs[pairs[0]] + (1 - shares) * inputs[pairs[1]]).astype(inputs.dtype)


def mixable(data: Data) -> None:
    """Refuse inputs that cannot be mixed.

    Raises:
        ParameterError: they are no real numbers.
    """
    if data.domain.kind not in ("image", "tabular") or data.inputs.dtype.kind != "f":
        raise ParameterError(
            f"extraction asks images or tables of real numbers; {data.name} holds {data.domain.text}, of which it can "
            "make no mixtures (the attack extraction asks texts as they are, no more than there are)"
        )
