"""Redundant units: a padded copy becomes the original; what data never use is free."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from locard.errors import ParameterError
from locard.weights import Group, Place, Scaling, canonical
from locard.weights.redundant import Dense, activity, fold_always_on, reduce, used_directions

RNG = np.random.default_rng(3)


def network(*widths):
    return [Dense(weight=RNG.normal(size=(b, a)), bias=RNG.normal(size=b)) for a, b in itertools.pairwise(widths)]


def answers(layers, x):
    for layer in layers[:-1]:
        x = np.maximum(x @ layer.weight.T + layer.bias, 0)
    return x @ layers[-1].weight.T + layers[-1].bias


def padded(layers):
    """Unit 0 split in two, a dead unit, an unread one, a constant one, a cancelling pair; shuffled and scaled."""
    first, second, *rest = layers
    w, b, out = first.weight, first.bias, second.weight
    d, extra = w.shape[1], RNG.normal(size=(2, w.shape[1]))
    w2 = np.concatenate([w, 3 * w[:1], np.full((1, d), -1.0), extra[:1], np.zeros((1, d)), extra[1:], 2 * extra[1:]])
    b2 = np.concatenate([b, 3 * b[:1], [-1.0, 0.5, 0.7, 0.2, 0.4]])
    new = RNG.normal(size=(len(out), 2))
    out2 = np.concatenate([out, out[:, :1] / 6, new[:, :1], 0 * new[:, :1], new[:, 1:], 2 * new[:, :1], -new[:, :1]], 1)
    out2[:, 0] = out[:, 0] / 2
    bias2 = second.bias - 0.7 * new[:, 1]
    order, s = RNG.permutation(len(b2)), np.exp(RNG.normal(size=len(b2)))
    hidden = Dense(weight=(w2 * s[:, None])[order], bias=(b2 * s)[order])
    return [hidden, Dense(weight=(out2 / s)[:, order], bias=bias2), *rest]


def form(layers):
    state, groups = {}, []
    for k, layer in enumerate(layers):
        state |= {f"{k}.weight": layer.weight, f"{k}.bias": layer.bias}
    for k in range(len(layers) - 1):
        places = (Place(tensor=f"{k}.weight", axis=0), Place(tensor=f"{k}.bias", axis=0),
                  Place(tensor=f"{k + 1}.weight", axis=1, role="reads"))  # fmt: skip
        scaling = Scaling(powers=(1, 1, -1), kind="magnitude")
        groups.append(Group(size=len(layers[k].bias), copies=1, places=places, scalings=(scaling,)))
    return canonical(state, groups).state


@pytest.mark.parametrize("widths", [(5, 7, 3), (5, 7, 6, 3)])
def test_a_padded_copy_reduces_to_the_original(widths):
    layers, x = network(*widths), RNG.random(size=(50, 5))
    copy = padded(layers)
    assert np.abs(answers(layers, x) - answers(copy, x)).max() < 1e-10
    one, other = reduce(layers, low=0), reduce(copy, low=0)
    assert np.abs(answers(layers, x) - answers(other.layers, x)).max() < 1e-10
    # The pair of opposite readers merges into one that nothing reads.
    assert (one.dead[0], other.dead[0], other.constant[0], other.merged[0]) == (0, 3, 1, 2)
    a, b = form(one.layers), form(other.layers)
    assert max(np.abs(a[name] - b[name]).max() for name in a) < 1e-9
    # Without the box nothing tells that the unit of weights -1 is never on.
    assert reduce(copy).dead[0] == 2


def test_units_that_are_always_on_are_one_map():
    layers, x = network(4, 6, 3), RNG.random(size=(40, 4))
    first = Dense(weight=layers[0].weight, bias=layers[0].bias + np.array([20.0, 20, 0, 0, 0, 0]))
    found = reduce([first, layers[1]], low=0, high=1)
    assert found.always_on[0] == (0, 1)
    one, two, skip = fold_always_on(found.layers[0], found.layers[1], found.always_on[0])
    assert np.abs(answers([one, two], x) + x @ skip.weight.T + skip.bias - answers([first, layers[1]], x)).max() < 1e-12
    # The same plane, made by two other units.
    mix = np.array([[2.0, 1], [1, 3]])
    w, b, out = first.weight.copy(), first.bias.copy(), layers[1].weight.copy()
    w[:2], b[:2], out[:, :2] = mix @ w[:2], mix @ b[:2], out[:, :2] @ np.linalg.inv(mix)
    same = reduce([Dense(weight=w, bias=b), Dense(weight=out, bias=layers[1].bias)], low=0, high=1)
    other = fold_always_on(same.layers[0], same.layers[1], same.always_on[0])[2]
    assert np.abs(other.weight - skip.weight).max() < 1e-12


def test_opposed_units_are_counted_and_kept():
    layers = network(4, 3, 2)
    weight, bias = (
        np.concatenate([layers[0].weight, -layers[0].weight[:1]]),
        np.append(layers[0].bias, -layers[0].bias[0]),
    )
    found = reduce([Dense(weight=weight, bias=bias), Dense(weight=RNG.normal(size=(2, 4)), bias=layers[1].bias)])
    assert (found.opposed, found.merged, len(found.layers[0].bias)) == ((1,), (0,), 4)


def test_directions_that_data_never_use_are_free():
    x = RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 8))
    basis, reader = used_directions(x), RNG.normal(size=(5, 8))
    assert basis.shape == (8, 3)
    assert np.abs(basis.T @ basis - np.eye(3)).max() < 1e-12
    other = reader + RNG.normal(size=(5, 8)) @ (np.eye(8) - basis @ basis.T)
    assert np.abs(x @ reader.T - x @ other.T).max() < 1e-10
    assert np.abs(reader - other).max() > 0.1
    assert np.abs((reader - other) @ basis @ basis.T).max() < 1e-10
    noisy = x + 1e-6 * RNG.normal(size=x.shape)
    assert used_directions(noisy).shape == (8, 3)
    assert used_directions(noisy, energy=1).shape == (8, 8)
    assert list(activity(np.array([[1.0, 0, -1], [2, 0, 3]]))) == [1, 0, 0.5]


def test_messages():
    layers = network(4, 3, 2)
    with pytest.raises(ParameterError, match="at least two layers; got 1"):
        reduce(layers[:1])
    with pytest.raises(ParameterError, match="layer 1 reads 3 units; the layer before it has 2"):
        reduce([Dense(weight=np.ones((2, 4)), bias=np.ones(2)), layers[1]])
    with pytest.raises(ParameterError, match="layer 0 must be a matrix and a bias"):
        reduce([Dense(weight=np.ones((2, 4)), bias=np.ones(3)), layers[1]])
    with pytest.raises(ParameterError, match="box of inputs is empty"):
        reduce(layers, low=1, high=0)
    with pytest.raises(ParameterError, match="must be finite"):
        used_directions(np.full((2, 2), np.nan))
