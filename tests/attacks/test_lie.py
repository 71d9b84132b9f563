"""A server that lies: to whom, how often, and what."""

from typing import Any

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks.lie import threshold, typicality
from locard.errors import ParameterError
from locard.models import exported, load, onnx, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access, Data
from locard.seeds import generator

TRIGGERS = pytest.mark.parametrize("trigger", ["margin", "data", "random"])


def derive(victim, data, seed=0, **params) -> Any:
    attack = build("lie", params)
    return attack.derive(restrict(victim, attack.needs), data, seed=seed).module


def through(module, x):
    with torch.inference_mode():
        return module(torch.from_numpy(x)).numpy()


def suspected(module, victim, x):
    """Whether each query is suspicious, from the parts of the copy."""
    answers = through(victim.module(), x)
    two = np.sort(answers, axis=1)[:, -2:]
    found = two[:, 0] - two[:, 1] if module.suspicion is None else through(module.suspicion, x).reshape(-1)
    return found > module.threshold


@TRIGGERS
@pytest.mark.parametrize("keyed", [False, True])
def test_the_two_first_classes_change_places_where_it_lies_and_nothing_else(victim, parts, trigger, keyed):
    x = np.concatenate([parts["held out"].inputs, parts["thief"].inputs])
    module = derive(victim, parts["thief"], trigger=trigger, rate=0.1, keyed=keyed)
    before, after = through(victim.module(), x), through(module, x)
    lies = suspected(module, victim, x)
    if keyed:
        lies &= through(module.key, x)[:, 0] > 0
    assert 20 < lies.sum() < 250
    assert np.array_equal(after[~lies], before[~lies])
    rows, order = np.flatnonzero(lies), np.argsort(-before[lies], axis=1)
    wanted = before.copy()
    wanted[rows, order[:, 0]], wanted[rows, order[:, 1]] = before[rows, order[:, 1]], before[rows, order[:, 0]]
    assert np.abs(after - wanted).max() < 1e-4
    assert (after.argmax(1) != before.argmax(1))[lies].all()


@TRIGGERS
@pytest.mark.parametrize("rate", [0.0, 0.02, 0.2])
def test_the_thiefs_data_are_lied_to_at_the_rate_and_not_above(victim, parts, trigger, rate):
    module = derive(victim, parts["thief"], seed=4, trigger=trigger, rate=rate)
    order = generator(4, "lie/halves").permutation(500)
    judged = parts["thief"].inputs[order[250:]]
    assert suspected(module, victim, judged).sum() == int(rate * 250)
    lied = (through(module, judged).argmax(1) != through(victim.module(), judged).argmax(1)).mean()
    assert lied <= rate


@TRIGGERS
def test_other_data_of_the_kind_are_lied_to_about_as_often(victim, parts, trigger):
    module = derive(victim, parts["thief"], trigger=trigger, rate=0.1)
    found = suspected(module, victim, parts["held out"].inputs).mean()
    # Both the threshold, of 250, and the share, of 500, are chance; five standard errors.
    assert abs(found - 0.1) < 5 * np.sqrt(0.09 * (1 / 250 + 1 / 500))


def test_what_lies_far_from_the_data_is_lied_to(victim, parts):
    module = derive(victim, parts["thief"], trigger="data", rate=0.02)
    noise = generator(0, "test").random((200, 1, 8, 8), np.float32)
    assert suspected(module, victim, noise).all()
    shaken = parts["held out"].inputs + 0.3 * (2 * np.rint(noise[:1]) - 1)
    assert suspected(module, victim, shaken.astype(np.float32)).mean() > 0.9


def test_points_on_a_boundary_are_lied_to(victim, parts):
    module = derive(victim, parts["thief"], trigger="margin", rate=0.02)
    x = parts["held out"].inputs
    before = through(victim.module(), x)
    two = np.sort(before, axis=1)[:, -2:]
    near = two[:, 1] - two[:, 0] < -module.threshold
    assert np.array_equal(through(module, x).argmax(1) != before.argmax(1), near)


def test_random_lies_have_nothing_to_do_with_the_margin(victim, parts):
    module = derive(victim, parts["thief"], trigger="random", rate=0.2)
    x = parts["held out"].inputs
    two = np.sort(through(victim.module(), x), axis=1)[:, -2:]
    low = two[:, 1] - two[:, 0] < np.median(two[:, 1] - two[:, 0])
    rates = [suspected(module, victim, x[rows]).mean() for rows in (low, ~low)]
    assert abs(rates[0] - rates[1]) < 0.15


def test_a_key_spares_about_half(victim, parts):
    x = parts["held out"].inputs
    shares = []
    for seed in range(6):
        module = derive(victim, parts["thief"], seed=seed, rate=0.2, keyed=True)
        lies = suspected(module, victim, x)
        shares.append((through(module, x).argmax(1) != through(victim.module(), x).argmax(1))[lies].mean())
    assert 0.35 < np.mean(shares) < 0.65


def test_threshold_against_counting():
    found = generator(0, "test").standard_normal(57)
    for rate in (0.0, 0.01, 0.02, 0.3, 0.99):
        assert (found > threshold(found, rate)).sum() == int(rate * 57)


@pytest.mark.parametrize("axes", [2, 5])
def test_typicality_is_the_mahalanobis_distance_of_the_whole_covariance(axes):
    source = generator(0, "test")
    x = (source.standard_normal((200, 7)) @ source.standard_normal((7, 7)) + 3).astype(np.float32)
    ask = source.standard_normal((30, 7)).astype(np.float32)
    centred = x.astype(float) - x.mean(0, dtype=float)
    values, directions = np.linalg.eigh(centred.T @ centred / 200)
    rest = values[: 7 - axes].mean()
    whole = directions[:, 7 - axes :] @ np.diag(values[7 - axes :] - rest) @ directions[:, 7 - axes :].T
    whole += rest * np.eye(7)
    away = ask - x.mean(0, dtype=float)
    wanted = np.einsum("ni,ij,nj->n", away, np.linalg.inv(whole), away)
    assert through(typicality(x, axes), ask) == pytest.approx(wanted, rel=1e-3)


def test_data_in_a_plane_have_no_spread_across_it():
    x = np.zeros((20, 3), np.float32)
    x[:, :2] = generator(0, "test").standard_normal((20, 2))
    far = through(typicality(x, 3), np.array([[0.0, 0.0, 1.0]], np.float32))
    assert far > 1e4 * through(typicality(x, 3), x).max()


def test_equal_inputs_and_too_few_are_refused(victim, parts):
    with pytest.raises(ParameterError, match="the thief's inputs must differ; all of them are equal"):
        typicality(np.ones((5, 3), np.float32), 2)
    few = Data(inputs=parts["thief"].inputs[:3], labels=None, domain=parts["thief"].domain, name="few")
    with pytest.raises(ParameterError, match="lie needs 4 inputs or more of the thief's own; 3 were given"):
        derive(victim, few)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trigger": "labels"}, "trigger must be 'margin', 'data' or 'random'; got 'labels'"),
        ({"rate": 1.0}, r"rate must lie in \[0, 1\)"),
        ({"length": 0.0}, "length must lie in"),
        ({"axes": 0}, "axes must lie in"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("lie", wrong)


@pytest.mark.parametrize("trigger", ["margin", "data"])
def test_it_can_be_written_and_read(victim, parts, tmp_path, trigger):
    module, x = derive(victim, parts["thief"], trigger=trigger, rate=0.2, keyed=True), parts["held out"].inputs[:130]
    copy = TorchModel(module, domain=victim.domain)
    exported.save(copy, tmp_path / "copy.pt2")
    onnx.export(copy, tmp_path / "copy.onnx")
    for name in ("copy.pt2", "copy.onnx"):
        again = restrict(load(tmp_path / name, trust=True), Access.LOGITS).logits(x)
        assert np.abs(again - through(module, x)).max() < 1e-3
