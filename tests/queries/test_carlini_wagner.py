"""Carlini and Wagner's attack against linear models, whose nearest boundary is known."""

import numpy as np
import pytest
import torch

from locard.models import Session, restrict, view
from locard.models.torch_module import TorchModel
from locard.queries._carlini_wagner import carlini_wagner
from locard.records import Access, Domain
from locard.testing import toy_data, toy_model

FREE = Domain(kind="tabular", shape=(30,))
BOX = Domain(kind="tabular", shape=(30,), bounds=(0.0, 1.0))
GRID = Domain(kind="tabular", shape=(30,), bounds=(0.0, 1.0), quantum=1 / 255)


def linear(classes=2, domain=FREE, seed=0, batch_size=256):
    source = np.random.default_rng(seed)
    layer = torch.nn.Linear(30, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(source.normal(size=(classes, 30))))
        layer.bias.copy_(torch.from_numpy(source.normal(size=classes)))
    weight, bias = (tensor.detach().numpy().astype(np.float64) for tensor in (layer.weight, layer.bias))
    x = source.uniform(0.3, 0.7, (40, 30)).astype(np.float32)
    return restrict(TorchModel(layer, domain=domain, batch_size=batch_size), Access.GRADIENTS), weight, bias, x


@pytest.mark.parametrize("confidence", [0.0, 0.5, 2.0])
def test_a_linear_boundary_is_reached_by_the_shortest_way(confidence):
    model, weight, bias, x = linear()
    own = model.labels(x)
    found = carlini_wagner(model, x, own, scale=1.0, domain=FREE, confidence=confidence, steps=200)
    w, b = weight[1] - weight[0], bias[1] - bias[0]
    least = (np.abs(x @ w + b) + confidence) / np.linalg.norm(w)
    assert (found.distance >= least * (1 - 1e-5)).all()
    assert found.distance == pytest.approx(least, rel=0.02)
    assert np.median(found.distance / least) < 1.005
    assert found.distance == pytest.approx(np.linalg.norm(found.points.astype(np.float64) - x, axis=1), rel=1e-5)
    gap = np.where(own == 0, 1, -1) * (found.points.astype(np.float64) @ w + b)
    assert (gap >= confidence - 1e-4).all()
    if confidence == 0:
        assert (model.labels(found.points) != own).all()


def test_targets_are_reached_by_the_shortest_way_where_no_third_class_lies_between():
    model, weight, bias, x = linear(classes=4)
    own = model.labels(x)
    target = (own + 1 + np.arange(40) % 3) % 4
    found = carlini_wagner(model, x, target, scale=1.0, domain=FREE, targeted=True, steps=200)
    assert np.array_equal(model.labels(found.points), target)
    w = weight[target] - weight[own]
    z = x @ weight.T + bias
    gap = z[np.arange(40), own] - z[np.arange(40), target]
    length = np.linalg.norm(w, axis=1)
    least = gap / length
    assert (found.distance >= least * (1 - 1e-5)).all()
    feet = x + (gap * (1 + 1e-6) / length**2)[:, None] * w
    free = (feet @ weight.T + bias).argmax(axis=1) == target
    assert free.sum() >= 10
    assert found.distance[free] == pytest.approx(least[free], rel=0.02)


def test_of_several_classes_any_is_taken_and_none_nearer_exists():
    model, weight, bias, x = linear(classes=4)
    own, rows = model.labels(x), np.arange(40)
    found = carlini_wagner(model, x, own, scale=1.0, domain=FREE)
    z = x @ weight.T + bias
    length = np.linalg.norm(weight[None] - weight[own][:, None], axis=2)
    length[rows, own] = 1
    far = (z[rows, own][:, None] - z) / length
    far[rows, own] = np.inf
    assert (model.labels(found.points) != own).all()
    assert (found.distance >= far.min(axis=1) * (1 - 1e-5)).all()
    assert np.median(found.distance / far.min(axis=1)) < 1.02


def test_each_input_has_its_own_confidence():
    model, weight, bias, x = linear()
    own = model.labels(x)
    confidence = np.linspace(0, 3, 40)
    found = carlini_wagner(model, x, own, scale=1.0, domain=FREE, confidence=confidence, steps=200)
    w = weight[1] - weight[0]
    least = (np.abs(x @ w + bias[1] - bias[0]) + confidence) / np.linalg.norm(w)
    assert found.distance == pytest.approx(least, rel=0.02)


def test_in_a_box_points_keep_the_bounds_and_saturated_entries_move():
    model, weight, bias, x = linear(domain=BOX)
    x = np.where(np.random.default_rng(1).random(x.shape) < 0.5, 0, x).astype(np.float32)
    own = model.labels(x)
    found = carlini_wagner(model, x, own, scale=1.0, domain=BOX, steps=200)
    w, b = weight[1] - weight[0], bias[1] - bias[0]
    assert found.points.min() >= 0
    assert found.points.max() <= 1
    # The nearest point of a half-space in a box: x - t * towards, clipped, with t by bisection.
    side = np.where(own == 0, 1.0, -1.0)
    least = np.empty(40)
    for row in range(40):
        low, high = 0.0, 100.0
        for _ in range(60):
            t = (low + high) / 2
            there = np.clip(x[row] + t * side[row] * w, 0, 1)
            low, high = (low, t) if side[row] * (there @ w + b) > 0 else (t, high)
        least[row] = np.linalg.norm(np.clip(x[row] + high * side[row] * w, 0, 1) - x[row])
    assert (found.distance >= least * (1 - 1e-4)).all()
    # Some lie nearer to the boundary than one of Adam's steps.
    assert found.distance == pytest.approx(least, rel=0.02, abs=5e-4)
    assert (found.points[x == 0] > 0).any()


def test_success_and_distance_are_those_of_the_point_as_delivered():
    model, _, _, x = linear(domain=GRID)
    x = GRID.deliver(x)
    own = model.labels(x)
    found = carlini_wagner(model, x, own, scale=1.0, domain=GRID)
    assert np.array_equal(found.points, GRID.deliver(found.points))
    assert (model.labels(found.points) != own).all()
    assert found.distance == pytest.approx(np.linalg.norm(found.points.astype(np.float64) - x, axis=1), rel=1e-4)


def test_distance_is_measured_in_units_of_the_scale_and_what_has_none_stands_still():
    model, weight, bias, x = linear()
    own = model.labels(x)
    scale = np.linspace(0.1, 3, 30).astype(np.float32)
    scale[7] = 0
    found = carlini_wagner(model, x, own, scale=scale, domain=FREE, steps=300)
    w = (weight[1] - weight[0]) * scale
    least = np.abs(x @ (weight[1] - weight[0]) + bias[1] - bias[0]) / np.linalg.norm(w)
    assert found.distance == pytest.approx(least, rel=0.02)
    assert np.array_equal(found.points[:, 7], x[:, 7])


def test_where_nothing_is_found_the_input_comes_back():
    layer = torch.nn.Linear(30, 3)
    with torch.no_grad():
        layer.weight.zero_()
    session = Session(TorchModel(layer, domain=FREE), Access.GRADIENTS)
    victim, x = view(session, Access.GRADIENTS), linear()[3]
    found = carlini_wagner(victim, x, victim.labels(x), scale=1.0, domain=FREE, steps=20, searches=3)
    assert np.isinf(found.distance).all()
    assert np.array_equal(found.points, x)
    # A loss that does not fall is noticed at the second look: 4 steps of 20.
    assert session.asked == 40 * (1 + 3 * 4)


def test_inputs_do_not_depend_on_their_neighbours_or_on_the_batch_size():
    whole = carlini_wagner(linear()[0], linear()[3], linear()[0].labels(linear()[3]), scale=1.0, domain=FREE)
    model, _, _, x = linear(batch_size=7)
    own = model.labels(x)
    assert carlini_wagner(model, x, own, scale=1.0, domain=FREE).distance == pytest.approx(whole.distance, rel=0.02)
    few = carlini_wagner(model, x[:5], own[:5], scale=1.0, domain=FREE)
    assert few.distance == pytest.approx(whole.distance[:5], rel=0.02)


def test_deeper_points_lie_farther_away_in_a_network():
    model = restrict(toy_model(0, gradients=True), Access.GRADIENTS)
    x = toy_data().inputs[:20]
    own = model.labels(x)
    near, deep = (
        carlini_wagner(model, x, own, scale=1.0, domain=toy_data().domain, confidence=k).distance for k in (0, 3)
    )
    # The loss is not convex, and a near point may be missed.
    assert (deep > near).mean() >= 0.9
