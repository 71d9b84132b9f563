"""Boundary points; the oracles of IPGuard's card are in tests/oracles."""

from dataclasses import replace

import numpy as np
import pytest

from locard import engine
from locard.errors import AccessError, ParameterError
from locard.models import Session, restrict, view
from locard.models.callable import CallableModel
from locard.queries.boundary import Boundary, cross
from locard.records import Access, Data, Domain
from locard.testing import toy_data, toy_model

UNLABELLED = replace(toy_data(), labels=None)


@pytest.fixture(scope="module")
def victim():
    return toy_model(0, gradients=True)


def draw(model, data=UNLABELLED, *, n=None, default=20, seed=0, **params):
    asked = view(Session(model, Access.GRADIENTS), Access.GRADIENTS)
    return Boundary(**params).draw(asked, data, n=n, default=default, seed=seed, population=None)


def table_model(seed=0, columns=5, classes=3):
    import torch

    from locard.models.torch_module import TorchModel

    source = np.random.default_rng(seed)
    # A column counts by how many of its standard deviations it lies from 0.
    layer = torch.nn.Linear(columns, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(source.normal(size=(classes, columns)) / SPREAD[:columns]))
        layer.bias.zero_()
    return TorchModel(layer, domain=Domain(kind="tabular", shape=(columns,)))


SPREAD = np.array([1e-3, 1.0, 1e3, 10.0, 1.0])


def table(n=80):
    x = np.random.default_rng(1).normal(size=(n, 5)) * SPREAD
    x[:, 4] = 7.0
    return Data(inputs=x.astype(np.float32), labels=None, domain=Domain(kind="tabular", shape=(5,)), name="a table")


def test_points_lie_in_the_domain_and_on_its_grid(victim):
    points = draw(victim).inputs
    assert points.dtype == np.float32
    assert points.min() >= 0
    assert points.max() <= 1
    assert np.array_equal(points, UNLABELLED.domain.deliver(points))


@pytest.mark.parametrize("target", ["random", "least-likely"])
def test_the_target_is_never_the_class_a_point_comes_from(victim, target):
    faces = draw(victim, default=100, target=target).extras["faces"]
    assert (faces[:, 0] != faces[:, 1]).all()
    assert faces.min() >= 0
    assert faces.max() < 5


def test_random_targets_reach_every_other_class(victim):
    own, other = draw(victim, default=200).extras["faces"].T
    for common in np.argsort(-np.bincount(own, minlength=5))[:2]:
        assert set(other[own == common]) == set(range(5)) - {common}


def test_the_least_likely_class_is_the_seeds_lowest_logit(victim):
    drawn = draw(victim, default=100, target="least-likely")
    logits = restrict(victim, Access.LOGITS).logits(UNLABELLED.inputs)
    pairs = set(zip(logits.argmax(axis=1).tolist(), logits.argmin(axis=1).tolist(), strict=True))
    assert set(map(tuple, drawn.extras["faces"].tolist())) <= pairs


def test_seeds_the_victim_gets_wrong_are_left_out(victim):
    labels = restrict(victim, Access.LABELS).labels(UNLABELLED.inputs)
    truth = np.where(labels == 3, labels, (labels + 1) % 5)
    drawn = draw(victim, replace(UNLABELLED, labels=truth))
    assert set(drawn.extras["faces"][:, 0]) == {3}


def test_deeper_points_need_a_larger_margin(victim):
    shallow, deep = (draw(victim, margin=margin) for margin in (0.1, 0.4))
    assert deep.extras["depth"][0] == pytest.approx(4 * shallow.extras["depth"][0])


def test_the_first_seeds_that_succeed_are_kept_however_many_are_wanted(victim):
    few, many = draw(victim, n=10).inputs, draw(victim, n=60).inputs
    assert np.array_equal(few, many[:10])


def test_columns_without_bounds_move_in_units_of_their_own_spread():
    data, model = table(), table_model()
    drawn = draw(model, data, default=30)
    assert len(drawn.inputs) == 30
    order = np.array([np.abs((data.inputs - point) / SPREAD).max(axis=1).argmin() for point in drawn.inputs])
    moved = np.abs(drawn.inputs - data.inputs[order])
    assert (moved[:, 4] == 0).all()
    assert ((moved[:, :3] / SPREAD[:3]).max(axis=0) > 0.05).all()


def test_a_point_that_has_arrived_is_asked_no_more(victim):
    session = Session(victim, Access.GRADIENTS)
    asked = view(session, Access.GRADIENTS)
    seeds = UNLABELLED.inputs[:30]
    own = asked.labels(seeds)
    faces = np.stack([own, (own + 1) % 5], axis=1)
    before = session.asked
    _, done = cross(asked, seeds, faces, depth=0.5, step=0.01, steps=300, domain=UNLABELLED.domain)
    assert done.all()
    assert session.asked - before < 30 * 100
    before = session.asked
    cross(asked, seeds, faces, depth=0.5, step=0.01, steps=1, domain=UNLABELLED.domain)
    assert session.asked - before == 30


def test_too_few_survivors_are_refused_with_the_way_out(victim):
    with pytest.raises(
        ParameterError, match=r"10 boundary points are needed; 0 of 400 inputs of toy data crossed .*more"
    ):
        draw(victim, steps=1)
    with pytest.raises(ParameterError, match=r"500 boundary points are needed; .* fewer --queries"):
        draw(victim, n=500)


def test_a_model_without_an_opinion_has_no_boundary():
    import torch

    from locard.models.torch_module import TorchModel

    layer = torch.nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    model = TorchModel(layer, domain=Domain(kind="tabular", shape=(5,)), source="a blank model")
    with pytest.raises(ParameterError, match="a blank model gives half of the data no one class"):
        draw(model, table())


def test_one_class_has_no_boundary():
    with pytest.raises(ParameterError, match=r"a boundary needs two classes; .* has one"):
        draw(table_model(classes=1), table())


def test_words_cannot_be_moved(victim):
    texts = Data(inputs=np.array(["a"], dtype=object), labels=None, name="texts",
                 domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="inputs that can be moved by a gradient; texts holds text str"):
        draw(victim, texts)


def test_a_model_without_gradients_is_refused():
    model = CallableModel(lambda x: x.reshape(len(x), -1)[:, :5], domain=UNLABELLED.domain, outputs="logits",
                          classes=5, name="answers only")  # fmt: skip
    with pytest.raises(AccessError, match="ipguard needs GRADIENTS of the victim; answers only gives LOGITS"):
        engine.extract(model, scheme="ipguard", data=UNLABELLED)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"margin": 0}, r"margin must lie in \(0, inf\)"),
        ({"lr": -1}, r"lr must lie in \(0, inf\)"),
        ({"steps": 0}, r"steps must lie in \[1, inf\)"),
        ({"target": "least likely"}, "unknown target 'least likely'; did you mean 'least-likely'"),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ParameterError, match=message):
        Boundary(**params)
