"""Canonical forms: symmetric copies become one state, and the answers stay."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.weights.test_symmetries import NETS, Net, answers, domain, element, network, off, state  # noqa: E402
from torch import nn  # noqa: E402

from locard.errors import ParameterError  # noqa: E402
from locard.models.fitting import build, reproducible  # noqa: E402
from locard.records import Domain  # noqa: E402
from locard.weights import apply, canonical, find  # noqa: E402

UNDECIDED = {"pairs of heads"}


def moved(tensors, groups, source):
    for group in groups:
        tensors = apply(tensors, group, **element(group, source))
    return tensors


def apart(one, other):
    return max((float(np.abs(one[name] - other[name]).max()) for name in one), default=0.0)


@pytest.mark.parametrize("name", [name for name in NETS if name not in UNDECIDED])
def test_symmetric_copies_become_one(name):
    module, inputs = network(name)
    groups, source = find(module, inputs), np.random.default_rng(5)
    first = canonical(state(module), groups)
    assert first.undecided == ()
    assert off(module, first.state, inputs.shape) < 1e-10
    for _ in range(3):
        copy = canonical(moved(state(module), groups, source), groups)
        assert copy.undecided == ()
        assert apart(first.state, copy.state) < 1e-9
    # What is in normal form stays as it is.
    assert apart(first.state, canonical(first.state, groups).state) < 1e-9


@pytest.mark.parametrize("architecture", ["mlp", "cnn", "vgg", "resnet", "transformer"])
def test_networks_of_usual_width_in_both_precisions(architecture):
    for dtype, limit in (("float64", 1e-9), ("float32", 2e-5)):
        module = build(architecture, {"shape": [1, 28, 28], "classes": 10}, seed=3).to(getattr(torch, dtype)).eval()
        groups = find(module, Domain(kind="image", shape=(1, 28, 28), dtype=dtype))
        first = canonical(state(module), groups)
        copy = canonical(moved(state(module), groups, np.random.default_rng(6)), groups)
        assert first.undecided == copy.undecided == ()
        assert apart(first.state, copy.state) < limit
        assert first.state["dense.weight" if "dense.weight" in first.state else next(iter(first.state))].dtype == dtype


def test_other_weights_give_another_form():
    module, inputs = network("mlp")
    groups, other = find(module, inputs), state(module)
    other["layers.0.weight"][0, 0] += 0.01
    assert apart(canonical(state(module), groups).state, canonical(other, groups).state) > 1e-3


def test_powers_of_two_are_taken_back_to_the_bit():
    module, inputs = network("cnn")
    groups, source, before = find(module, inputs), np.random.default_rng(7), state(module)
    copy = before
    for group in groups:
        shape = (group.copies, group.size)
        copy = apply(
            copy, group, permutation=source.permutation(group.size), scales=[2.0 ** source.integers(-9, 9, shape)]
        )
    one, other = canonical(before, groups, exact=True).state, canonical(copy, groups, exact=True).state
    assert all(np.array_equal(one[name], other[name]) for name in one)
    scaled = before
    for group in groups:
        scaled = apply(scaled, group, scales=[2.0 ** source.integers(-9, 9, (group.copies, group.size))])
    assert np.array_equal(answers(module, before, inputs.shape), answers(module, scaled, inputs.shape))


def test_a_batch_norm_is_folded_wherever_its_scale_was_hidden():
    """In evaluation mode more may move than in training: a gain into the weights, a mean into the shift."""
    module, inputs = network("resnet")
    groups, hidden = find(module, inputs), state(module)
    source = np.random.default_rng(8)
    for norm, conv in (("norm", "stem"), ("block1.norm1", "block1.conv1"), ("block2.shortcut.1", "block2.shortcut.0")):
        factor = source.choice([-1, 1], hidden[f"{norm}.weight"].shape) * np.exp(
            source.normal(size=hidden[f"{norm}.weight"].shape)
        )
        hidden[f"{conv}.weight"] *= factor[:, None, None, None]
        hidden[f"{norm}.running_mean"] *= factor
        hidden[f"{norm}.weight"] /= factor
        hidden[f"{norm}.running_mean"] += 0.5
        hidden[f"{norm}.bias"] += 0.5 * hidden[f"{norm}.weight"] / np.sqrt(hidden[f"{norm}.running_var"] + 1e-5)
    assert off(module, hidden, inputs.shape) < 1e-10
    first, copy = canonical(state(module), groups), canonical(moved(hidden, groups, source), groups)
    assert apart(first.state, copy.state) < 1e-9
    assert (first.state["norm.weight"] == 1).all()
    assert (first.state["norm.running_mean"] == 0).all()


def test_equal_units_may_change_places_and_it_is_said_where_unequal_ones_might():
    with reproducible(1):
        net = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).double()
    groups, twins = find(net, domain((4,))), state(net)
    for name, axis in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
        rows = np.moveaxis(twins[name], axis, 0)
        rows[1] = rows[0]
    form = canonical(twins, groups)
    assert form.undecided == ()
    assert apart(form.state, canonical(moved(twins, groups, np.random.default_rng(0)), groups).state) < 1e-12
    # Where signs are free, units that differ by signs alone have one key.
    with reproducible(1):
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    groups, twins = find(net, domain((4,))), state(net)
    twins["0.weight"][1] = twins["0.weight"][0] * [1, -1, 1, 1]
    twins["0.bias"][1], twins["2.weight"][:, 1] = twins["0.bias"][0], twins["2.weight"][:, 0]
    assert canonical(twins, groups).undecided == (
        "0.weight[0] of 6 units: 2 units are too much alike to be put in order",
    )


def test_what_cannot_be_settled_is_said():
    module, inputs = network("pairs of heads")
    form = canonical(state(module), find(module, inputs))
    assert any("a matrix acts on one tensor twice" in one for one in form.undecided)
    assert off(module, form.state, inputs.shape) < 1e-10
    # Two heads' axes with equal singular values.
    net = Net(
        lambda net, x: net.out(net.inp(x)), inp=nn.Linear(4, 3, bias=False), out=nn.Linear(3, 4, bias=False)
    ).double()
    tensors = {"inp.weight": np.eye(3, 4), "out.weight": np.eye(4, 3)}
    assert any("equal singular values" in one for one in canonical(tensors, find(net, domain((4,)))).undecided)


def test_units_without_a_way_in_or_out_get_one_length():
    module, inputs = network("mlp")
    groups, dead = find(module, inputs), state(module)
    dead["layers.1.weight"][:, 3] = 0
    dead["layers.0.weight"][5] = 0
    dead["layers.0.bias"][5] = 0
    form = canonical(dead, groups)
    assert apart(form.state, canonical(moved(dead, groups, np.random.default_rng(2)), groups).state) < 1e-9


def test_states_that_are_none():
    module, inputs = network("mlp")
    groups, broken = find(module, inputs), state(module)
    broken["layers.0.bias"][0] = np.nan
    with pytest.raises(ParameterError, match="needs finite weights"):
        canonical(broken, groups)
    del broken["layers.0.bias"]
    with pytest.raises(ParameterError, match=r"has no tensor 'layers\.0\.bias'"):
        canonical(broken, groups)
