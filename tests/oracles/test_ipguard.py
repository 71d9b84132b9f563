"""IPGuard against the oracles of its card, and against its loss in plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from locard import engine
from locard.fingerprint import Fingerprint
from locard.models import Session, restrict, view
from locard.models.torch_module import TorchModel
from locard.queries.boundary import across, cross, face_loss
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.testing import toy_data, toy_model

SCHEME = build("ipguard")


@pytest.fixture(scope="module")
def victim():
    return toy_model(0, gradients=True)


@pytest.fixture(scope="module")
def fp(victim):
    # Without labels: the toy labels are another network's, so the victim rarely has them right.
    return engine.extract(victim, scheme="ipguard", data=replace(toy_data(), labels=None))


def matching_rate(fp, model):
    return SCHEME.similarity(fp, engine.respond(fp, model))


def linear(weight, bias, domain):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return TorchModel(layer, domain=domain)


def plain_loss(z, i, j, k):
    others = [z[t] for t in range(len(z)) if t not in (i, j)]
    return max(z[i] - z[j] + k, 0) + (max(max(others) - z[i], 0) if others else 0)


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 7), depth=st.floats(0.1, 3))
def test_the_loss_is_the_papers(seed, classes, depth):
    source = np.random.default_rng(seed)
    # All logits negative in half of the cases: a third class masked by 0 instead of minus infinity would show.
    logits = source.normal(-5 * (seed % 2), 2, (9, classes)).astype(np.float32)
    faces = np.stack([source.permutation(classes)[:2] for _ in range(9)])
    expected = np.array([plain_loss(z, i, j, depth) for z, (i, j) in zip(logits.tolist(), faces.tolist(), strict=True)])
    assert face_loss(faces, depth)(torch.from_numpy(logits)).numpy() == pytest.approx(expected, abs=1e-5)
    clear = (expected == 0) | (expected > 1e-5)
    assert np.array_equal(across(logits, faces, depth)[clear], expected[clear] == 0)


def test_the_loss_deals_its_faces_out_batch_by_batch():
    source = np.random.default_rng(0)
    logits = torch.from_numpy(source.normal(size=(10, 4)))
    faces = np.stack([source.permutation(4)[:2] for _ in range(10)])
    whole, loss = face_loss(faces, 1.0)(logits), face_loss(faces, 1.0)
    assert torch.equal(torch.cat([loss(logits[:3]), loss(logits[3:9]), loss(logits[9:])]), whole)


def test_the_victim_answers_its_own_points_after_reloading_and_8_bit_storage(fp, victim, tmp_path):
    again = Fingerprint.load(fp.save(tmp_path / "fp.locard"))
    stored = np.rint(again.queries["inputs"] * 255).astype(np.uint8)
    rounded = (stored / np.float32(255)).astype(np.float32)
    assert rounded == pytest.approx(again.queries["inputs"], abs=1e-7)
    assert np.array_equal(restrict(victim, Access.LABELS).labels(rounded), again.record["labels"])
    assert matching_rate(again, victim) == 1


def test_every_stored_point_lies_k_deep_in_its_target_with_its_origin_as_runner_up(fp, victim):
    logits = restrict(victim, Access.LOGITS).logits(fp.queries["inputs"])
    (depth,) = fp.queries["depth"]
    own, other = fp.queries["faces"].T
    ranked = np.argsort(-logits, axis=1)
    assert np.array_equal(ranked[:, 0], other)
    assert np.array_equal(ranked[:, 1], own)
    rows = np.arange(len(logits))
    assert (logits[rows, other] - logits[rows, own] >= depth - 1e-6).all()
    assert np.array_equal(fp.record["labels"], other)
    assert len(fp.queries["inputs"]) == 100


def test_the_depth_is_the_margin_times_the_median_gap(fp, victim):
    logits = np.sort(restrict(victim, Access.LOGITS).logits(toy_data().inputs).astype(np.float64), axis=1)
    assert fp.queries["depth"][0] == pytest.approx(0.5 * np.median(logits[:, -1] - logits[:, -2]))


def test_no_linear_point_is_nearer_than_the_boundary_is():
    source = np.random.default_rng(5)
    weight, bias = source.normal(size=(4, 6)).astype(np.float32), source.normal(size=4).astype(np.float32)
    domain = Domain(kind="tabular", shape=(6,))
    model = linear(weight, bias, domain)
    seeds = source.normal(size=(40, 6)).astype(np.float32)
    z = seeds.astype(np.float64) @ weight.T.astype(np.float64) + bias
    faces = np.stack([z.argmax(axis=1), (z.argmax(axis=1) + 1) % 4], axis=1)
    own, other = faces.T
    rows = np.arange(40)
    asked = view(Session(model, Access.GRADIENTS), Access.GRADIENTS)
    points, done = cross(asked, seeds, faces, depth=0.5, step=0.02, steps=800, domain=domain)
    assert done.sum() >= 30
    normal = (weight[other] - weight[own]).astype(np.float64)
    length = np.linalg.norm(normal, axis=1)
    least = (z[rows, own] - z[rows, other] + 0.5) / length
    moved = np.linalg.norm(points.astype(np.float64) - seeds, axis=1)
    assert (moved[done] >= least[done] - 1e-5).all()
    # The foot of the perpendicular is such a point, where no third class comes between, and there nothing moves.
    feet = (seeds + normal * ((least + 1e-4) / length)[:, None]).astype(np.float32)
    there = across(feet.astype(np.float64) @ weight.T + bias, faces, 0.5)
    assert there.sum() >= 3
    still, done = cross(asked, feet[there], faces[there], depth=0.5, step=0.02, steps=5, domain=domain)
    assert done.all()
    assert np.array_equal(still, feet[there])
    assert np.linalg.norm(still - seeds[there], axis=1) == pytest.approx(least[there], rel=1e-3)


def test_a_symmetric_copy_answers_every_point_alike(fp, victim):
    weights = {name: torch.from_numpy(array.copy()) for name, array in victim.weights().items()}
    source = np.random.default_rng(6)
    order = torch.from_numpy(source.permutation(24))
    scale = torch.from_numpy(2.0 ** source.integers(-3, 4, 24)).float()
    copy = toy_model(0, gradients=True)
    copy.module().load_state_dict(
        {
            "1.weight": (weights["1.weight"] * scale[:, None])[order],
            "1.bias": (weights["1.bias"] * scale)[order],
            "3.weight": (weights["3.weight"] / scale)[:, order],
        }
    )
    assert copy.digest != victim.digest
    assert matching_rate(fp, copy) == 1


def test_random_networks_match_about_one_point_in_so_many_classes(fp):
    rates = [matching_rate(fp, toy_model(seed)) for seed in range(1, 61)]
    assert np.mean(rates) == pytest.approx(1 / 5, abs=4 * np.std(rates) / np.sqrt(60))


def test_derived_models_match_more_than_any_random_one(fp):
    derived = [matching_rate(fp, toy_model(0, noise=noise)) for noise in (0.02, 0.05)]
    assert min(derived) > max(matching_rate(fp, toy_model(seed)) for seed in range(1, 61))


def test_the_batch_size_of_the_victim_does_not_mix_the_faces_up():
    fp = engine.extract(toy_model(0, gradients=True, batch_size=7), scheme="ipguard", data=toy_data(), queries=20)
    whole = engine.extract(toy_model(0, gradients=True), scheme="ipguard", data=toy_data(), queries=20)
    assert np.array_equal(fp.queries["faces"], whole.queries["faces"])
    assert np.abs(fp.queries["inputs"] - whole.queries["inputs"]).max() <= 2 / 255


def test_two_classes_do_without_the_second_term():
    source = np.random.default_rng(7)
    model = linear(
        source.normal(size=(2, 64)).astype(np.float32),
        np.zeros(2, np.float32),
        Domain(kind="tabular", shape=(64,), bounds=(0.0, 1.0)),
    )
    data = Data(inputs=source.random((60, 64)).astype(np.float32), labels=None, domain=model.domain, name="noise")
    fp = engine.extract(model, scheme="ipguard", data=data, queries=20)
    assert np.array_equal(fp.queries["faces"].sum(axis=1), np.ones(20))
    assert matching_rate(fp, model) == 1
