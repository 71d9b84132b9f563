"""What a ReLU network could do without: dead, constant, always-on and doubled units; directions that data never use.

The symmetries of `symmetries` hold for all weights. A thief may also add: a unit that is never on, one that nothing
reads, one split into two. Such copies are of another width; taken apart here, they become the original again up to
order and scale, for almost all weights [1]. A unit that is always on is linear: where the first layers hold several,
they are told as one affine map beside the units.

[1] Phuong, Lampert. Functional vs. parametric equivalence of ReLU networks. ICLR 2020.
[2] Ashkboos, Croci, Gennari do Nascimento, Hoefler, Hensman. SliceGPT. ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from locard.errors import ParameterError, check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A layer, weight @ x + bias.

    Args:
        weight: (out, in) float64.
        bias: (out,) float64.
    """

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """A ReLU network without its redundant units.

    Args:
        layers: with ReLU between them.
        dead: units of each hidden layer that were never on, or that nothing read.
        constant: units without inputs, whose value went into the next bias.
        merged: units that were a positive multiple of another.
        always_on: units left that are on everywhere in the box, by interval bounds; numbers in the reduced layer.
        opposed: pairs left that are a negative multiple of each other, whose sum holds a linear part.
    """

    layers: tuple[Dense, ...]
    dead: tuple[int, ...]
    constant: tuple[int, ...]
    merged: tuple[int, ...]
    always_on: tuple[tuple[int, ...], ...]
    opposed: tuple[int, ...]


def reduce(
    layers: Sequence[Dense], *, low: np.ndarray | float = -np.inf, high: np.ndarray | float = np.inf,
    tolerance: float = 1e-9,
) -> Reduced:  # fmt: skip
    """The same function on a box, with no more units than it takes.

    Args:
        layers: at least two, each as wide as the next one's inputs; ReLU stands between them.
        low: of the inputs, in each or all coordinates; without bounds only units with constant inputs are dead.
        high: of the inputs.
        tolerance: relative; rows of which the cosine with another is above 1 - tolerance are multiples.

    Raises:
        ParameterError: the layers do not fit each other, or the box is empty.
    """
    current = _checked(layers)
    check_number("tolerance", tolerance, above=0, high=0.1)
    width = current[0].weight.shape[1]
    lower, upper = (np.broadcast_to(np.asarray(one, np.float64), (width,)) for one in (low, high))
    if (lower > upper).any():
        raise ParameterError("low must not lie above high; the box of inputs is empty")
    dead, constant, merged, on, opposed = [], [], [], [], []
    for number in range(len(current) - 1):
        layer, after = current[number], current[number + 1]
        below, above = _bounds(layer, lower, upper)
        scale = max(float(np.abs(layer.weight).max(initial=0)), 1e-300)
        still = np.linalg.norm(layer.weight, axis=1) <= tolerance * scale
        unread = np.linalg.norm(after.weight, axis=0) <= tolerance * max(float(np.abs(after.weight).max()), 1e-300)
        off = unread | (above <= 0) | (still & (layer.bias <= 0))
        steady = still & ~off
        after = Dense(weight=after.weight, bias=after.bias + after.weight[:, steady] @ layer.bias[steady])
        keep = ~(off | steady)
        dead.append(int(off.sum()))
        constant.append(int(steady.sum()))
        layer = Dense(weight=layer.weight[keep], bias=layer.bias[keep])
        layer, after, count = _merge(layer, Dense(weight=after.weight[:, keep], bias=after.bias), tolerance)
        # What was merged may have cancelled.
        left = np.linalg.norm(after.weight, axis=0) > tolerance * max(
            float(np.abs(after.weight).max(initial=0)), 1e-300
        )
        dead[-1] += int((~left).sum())
        merged.append(count)
        layer = Dense(weight=layer.weight[left], bias=layer.bias[left])
        after = Dense(weight=after.weight[:, left], bias=after.bias)
        current[number], current[number + 1] = layer, after
        below, above = _bounds(layer, lower, upper)
        on.append(tuple(int(k) for k in np.flatnonzero(below >= 0)))
        rows = _directions(layer)
        opposed.append(int((rows @ rows.T < tolerance - 1).sum()) // 2)
        lower, upper = np.maximum(below, 0), np.maximum(above, 0)
    return Reduced(layers=tuple(current), dead=tuple(dead), constant=tuple(constant), merged=tuple(merged),
                   always_on=tuple(on), opposed=tuple(opposed))  # fmt: skip


def fold_always_on(first: Dense, second: Dense, units: Sequence[int]) -> tuple[Dense, Dense, Dense]:
    """Units that are always on as one affine map around the others.

    Args:
        first: a hidden layer.
        second: the layer behind it.
        units: numbers of its units that are on for every input.

    Returns:
        The layers without these units, and the affine map from the first layer's inputs to the second's outputs that
        is added to them. It is one and the same whatever units made it up.
    """
    left = np.setdiff1d(np.arange(len(first.bias)), units)
    chosen = np.asarray(units, np.int64)
    inner, outer = Dense(weight=first.weight[left], bias=first.bias[left]), second.weight[:, chosen]
    skip = Dense(weight=outer @ first.weight[chosen], bias=outer @ first.bias[chosen])
    return inner, Dense(weight=second.weight[:, left], bias=second.bias), skip


def used_directions(activations: np.ndarray, *, energy: float = 1 - 1e-6) -> np.ndarray:
    """An orthonormal basis of what data use of a layer's inputs.

    Readers multiplied by `basis @ basis.T` answer alike on these data: outside, weights are free, to a thief as to
    chance. Compare readers after the multiplication [2].

    Args:
        activations: (samples, width), what comes into the layer; not centred, because a reader sees the mean too.
        energy: share of the squared length to be kept, in (0, 1].

    Returns:
        (width, rank), the most used first.

    Raises:
        ParameterError: no sample, or no finite ones.
    """
    check_number("energy", energy, above=0, high=1)
    if activations.ndim != 2 or not len(activations) or not np.isfinite(activations).all():
        raise ParameterError(f"activations must be finite, (samples, width); got shape {activations.shape}")
    _, lengths, axes = np.linalg.svd(activations.astype(np.float64), full_matrices=False)
    shares = np.cumsum(lengths**2) / max(float((lengths**2).sum()), 1e-300)
    sure = int((lengths > 1e-12 * lengths[0]).sum())
    return axes[: min(sure, int(np.searchsorted(shares, energy)) + 1)].T


def activity(activations: np.ndarray) -> np.ndarray:
    """Share of the samples on which each unit is on, (width,); a unit with 0 is dead on these data.

    Args:
        activations: (samples, width), behind the ReLU or before it.
    """
    return (activations > 0).mean(axis=0)


def _checked(layers: Sequence[Dense]) -> list[Dense]:
    if len(layers) < 2:
        raise ParameterError(f"a network with hidden units has at least two layers; got {len(layers)}")
    for number, layer in enumerate(layers):
        if layer.weight.ndim != 2 or layer.bias.shape != layer.weight.shape[:1]:
            raise ParameterError(f"layer {number} must be a matrix and a bias of its height; got shapes "
                                 f"{layer.weight.shape} and {layer.bias.shape}")  # fmt: skip
        if number and layer.weight.shape[1] != len(layers[number - 1].bias):
            raise ParameterError(f"layer {number} reads {layer.weight.shape[1]} units; the layer before it has "
                                 f"{len(layers[number - 1].bias)}")  # fmt: skip
    return [Dense(weight=one.weight.astype(np.float64), bias=one.bias.astype(np.float64)) for one in layers]


def _bounds(layer: Dense, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    up, down = np.maximum(layer.weight, 0), np.minimum(layer.weight, 0)

    def times(weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
        # No weight, no part, whatever the bound.
        return np.where(weights == 0, 0.0, weights * np.where(np.isinf(ends), np.sign(ends) * 1e300, ends)).sum(axis=1)

    with np.errstate(over="ignore"):
        return (times(up, lower) + times(down, upper) + layer.bias, times(up, upper) + times(down, lower) + layer.bias)


def _directions(layer: Dense) -> np.ndarray:
    rows = np.concatenate([layer.weight, layer.bias[:, None]], axis=1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)


def _merge(layer: Dense, after: Dense, tolerance: float) -> tuple[Dense, Dense, int]:
    rows = _directions(layer)
    # The distance of unit vectors keeps the digits that their cosine loses near 1.
    near = np.sqrt(2 * tolerance)
    weight, keep = after.weight.copy(), np.ones(len(rows), np.bool_)
    lengths = np.sqrt((layer.weight**2).sum(axis=1) + layer.bias**2)
    for i in range(len(rows)):
        if not keep[i]:
            continue
        later = np.arange(i + 1, len(rows))
        for j in later[keep[i + 1 :] & (np.linalg.norm(rows[i + 1 :] - rows[i], axis=1) < near)]:
            weight[:, i] += lengths[j] / lengths[i] * weight[:, j]
            keep[j] = False
    return (Dense(weight=layer.weight[keep], bias=layer.bias[keep]), Dense(weight=weight[:, keep], bias=after.bias),
            int((~keep).sum()))  # fmt: skip
