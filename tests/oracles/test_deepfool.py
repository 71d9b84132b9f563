"""The DeepFool fingerprint against linear models, where the nearest boundary is known, and its score in plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from locard import engine
from locard.errors import ParameterError
from locard.models import restrict
from locard.models.torch_module import TorchModel
from locard.queries._adversarial import deepfool
from locard.queries.deepfool import DeepFool, in_turn
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.testing import toy_data, toy_model

SCHEME = build("deepfool")
DOMAIN = Domain(kind="tabular", shape=(6,))


def linear(weight, bias=None, scale=1.0, shift=0.0):
    layer = torch.nn.Linear(6, len(weight))
    with torch.no_grad():
        layer.weight.copy_(scale * torch.from_numpy(np.asarray(weight, np.float32)))
        bias = np.zeros(len(weight)) if bias is None else bias
        layer.bias.copy_(scale * torch.from_numpy(np.asarray(bias, np.float32)) + shift)
    return TorchModel(layer, domain=DOMAIN)


@pytest.fixture(scope="module")
def world():
    source = np.random.default_rng(0)
    return source.normal(size=(4, 6)), source.normal(size=4), source.normal(size=(50, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def fp():
    data = replace(toy_data(), labels=None)
    return engine.extract(toy_model(0, gradients=True), scheme="deepfool", data=data, queries=60)


def distances(weight, bias, x):
    z = x.astype(np.float64) @ weight.T + bias
    own = z.argmax(axis=1)
    rows = np.arange(len(x))
    gaps = z[rows, own, None] - z
    with np.errstate(invalid="ignore"):
        far = gaps / np.linalg.norm(weight[own][:, None] - weight, axis=2)
    far[rows, own] = np.inf
    return own, far.argmin(axis=1), far.min(axis=1)


def test_a_linear_victim_takes_one_shortest_step(world):
    weight, bias, x = world
    own, other, far = distances(weight, bias, x)
    found = deepfool(restrict(linear(weight, bias), Access.GRADIENTS), x, steps=1, domain=DOMAIN)
    assert found.crossed.all()
    assert np.array_equal(found.own, own)
    assert np.array_equal(found.other, other)
    assert np.linalg.norm(found.step, axis=1) == pytest.approx(far, rel=1e-3, abs=1e-5)
    z = (x + found.step).astype(np.float64) @ weight.T + bias
    rows = np.arange(len(x))
    assert z[rows, own] == pytest.approx(z[rows, other], abs=1e-4)
    beyond = (x + 1.1 * found.step).astype(np.float64) @ weight.T + bias
    before = x.astype(np.float64) @ weight.T + bias
    assert beyond[rows, own] - beyond[rows, other] == pytest.approx(-0.1 * (before[rows, own] - before[rows, other]),
                                                                    abs=1e-3)  # fmt: skip


@given(factor=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_the_distance_knows_neither_the_scale_nor_the_shift_of_the_logits(world, factor, shift):
    weight, bias, x = world
    plain = deepfool(restrict(linear(weight, bias), Access.GRADIENTS), x, steps=1, domain=DOMAIN)
    other = deepfool(restrict(linear(weight, bias, factor, shift), Access.GRADIENTS), x, steps=1, domain=DOMAIN)
    near = np.linalg.norm(plain.step, axis=1)
    # The gap of 1e-6 logits that is always added is a longer way where logits are small.
    assert np.linalg.norm(other.step, axis=1) == pytest.approx(near, rel=1e-2, abs=1e-2)


def test_pairs_stand_on_the_two_sides_at_the_distance_they_name(world):
    weight, bias, x = world
    data = Data(inputs=x, labels=None, domain=DOMAIN, name="noise")
    asked = restrict(linear(weight, bias), Access.GRADIENTS)
    drawn = DeepFool(overshoot=0.1).draw(asked, data, n=20, default=20, seed=0, population=None)
    inside, outside = drawn.inputs[drawn.extras["pairs"]].swapaxes(0, 1)
    labels = asked.labels(drawn.inputs)[drawn.extras["pairs"]]
    assert (labels[:, 0] != labels[:, 1]).all()
    assert drawn.extras["width"] == pytest.approx(0.1)
    assert np.linalg.norm(outside - inside, axis=1) == pytest.approx(0.2 * drawn.extras["distance"], rel=1e-3)
    assert drawn.extras["units"].tolist() == [*range(10), *range(10)]


def test_a_rounded_pair_still_has_a_label_of_each_side(fp):
    labels = fp.record["labels"][fp.queries["pairs"]]
    assert (labels[:, 0] != labels[:, 1]).all()
    assert (fp.queries["width"] >= 0.02).all()
    stored = np.rint(fp.queries["inputs"] * 255)
    assert fp.queries["inputs"] * 255 == pytest.approx(stored, abs=1e-4)


def test_faces_take_turns_and_each_begins_with_its_nearest():
    faces = np.array([[0, 1], [0, 1], [0, 1], [2, 1], [2, 1]])
    assert in_turn(faces, np.array([3.0, 1.0, 2.0, 9.0, 8.0])).tolist() == [1, 4, 2, 3, 0]


def test_the_score_is_the_share_of_pairs_with_both_labels_right(fp):
    record = engine.respond(fp, toy_model(0, noise=0.05))
    both = [all(fp.record["labels"][row] == record.record["labels"][row] for row in pair)
            for pair in fp.queries["pairs"]]  # fmt: skip
    assert SCHEME.similarity(fp, record) == np.mean(both)
    assert SCHEME.similarity(fp, engine.respond(fp, toy_model(0))) == 1


def test_a_slightly_changed_copy_matches_more_than_any_stranger(fp):
    copies = [SCHEME.similarity(fp, engine.respond(fp, toy_model(0, noise=noise))) for noise in (0.001, 0.003)]
    strangers = [SCHEME.similarity(fp, engine.respond(fp, toy_model(seed))) for seed in range(1, 30)]
    assert min(copies) > max(strangers)


def test_what_has_no_boundary_is_refused():
    victim, data = toy_model(0, gradients=True), replace(toy_data(20), labels=None)
    with pytest.raises(ParameterError, match="so --queries must be even; got 21"):
        engine.extract(victim, scheme="deepfool", data=data, queries=21)
    with pytest.raises(ParameterError, match=r"50 boundary pairs are needed; \d+ of 20 inputs of toy data gave one"):
        engine.extract(victim, scheme="deepfool", data=data, queries=100)
    with pytest.raises(ParameterError, match="a boundary needs two classes"):
        engine.extract(linear(np.ones((1, 6))), scheme="deepfool", data=Data(
            inputs=np.zeros((9, 6), np.float32), labels=None, domain=DOMAIN, name="zeros"))  # fmt: skip
