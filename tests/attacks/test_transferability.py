"""Adversarial examples of one model on another, both ways."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks.transferability import transferability
from locard.errors import AccessError, ParameterError
from locard.models import LabelView, Session, fitting, restrict
from locard.models.torch_module import TorchModel
from locard.queries._adversarial import pgd
from locard.records import Access, Data, Domain
from locard.seeds import generator

# Digits have 16 steps from white to black, so one of them is a change to be seen.
EPS = 2 / 16


def gradients(model):
    return restrict(model, Access.GRADIENTS)


def copy_by(attack, victim, data, **params):
    built = build(attack, params)
    stolen = built.derive(restrict(victim, built.needs), data if built.needs_data else None, seed=1)
    return TorchModel(stolen.module, domain=victim.domain)


def trained(data, seed):
    module = fitting.build("cnn", {"shape": [1, 8, 8], "classes": 10, "width": 8}, seed=seed)
    recipe = fitting.Recipe(epochs=20, lr=1e-2, batch=50)
    return TorchModel(fitting.fit(module, data.inputs, data.labels, recipe=recipe, seed=seed), domain=data.domain)


@pytest.fixture(scope="module")
def stranger(parts):
    """Of the victim's architecture, trained on other data."""
    return trained(parts["thief"], seed=7)


@pytest.fixture(scope="module")
def found(victim, stranger, parts):
    """What is found of an exact copy, a fine-tuned one and a stranger."""
    others = {
        "exact": copy_by("quantise", victim, None, format="fp16"),
        "fine-tuned": copy_by("finetune", victim, parts["thief"], epochs=3, lr=3e-3),
        "stranger": stranger,
    }
    return {name: transferability(gradients(victim), gradients(other), parts["held out"], n=300, eps=EPS)
            for name, other in others.items()}  # fmt: skip


class Spy(LabelView):
    """A view that keeps what it is asked."""

    def __init__(self, model):
        super().__init__(Session(model, Access.LABELS))
        self.seen = []

    def labels(self, x):
        self.seen.append(x.copy())
        return super().labels(x)


def test_everything_goes_over_to_the_model_itself(victim, parts):
    own = transferability(gradients(victim), gradients(victim), parts["held out"], n=200, eps=EPS)
    assert own.there == own.back
    assert own.there is not None
    assert own.there.fooled == own.there.transferred == own.there.same_wrong > 50
    assert own.there.aimed == own.there.matched > 20
    assert own.cosine == pytest.approx(1, abs=1e-6)
    assert own.n == 200


def test_a_copy_falls_more_often_than_a_derived_model_and_that_than_a_stranger(found):
    shares, aims, cosines = [], [], []
    for one in found.values():
        assert one.there is not None
        assert one.back is not None
        shares.append([way.transferred / way.fooled for way in (one.there, one.back)])
        aims.append(np.mean([way.matched / way.aimed for way in (one.there, one.back)]))
        cosines.append(one.cosine)
    assert all(a > b for way in zip(*shares, strict=True) for a, b in pairwise(way)), shares
    assert all(a > b for a, b in pairwise(aims)), aims
    assert all(a > b for a, b in pairwise(cosines)), cosines
    assert min(shares[0]) > 0.98


def test_random_signs_of_the_same_size_fool_nearly_nobody(found):
    for one in found.values():
        assert one.there is not None
        assert one.there.shaken < 0.05 * one.n < 0.2 * one.there.fooled


def test_examples_stay_in_the_ball_the_range_and_the_grid(victim, stranger, parts):
    spy, data = Spy(stranger), parts["held out"]
    one = transferability(gradients(victim), spy, data, n=60, eps=EPS, steps=4, aimed_steps=6)
    clean, tried = spy.seen[:-3], spy.seen[-3:]
    rows = {row.tobytes() for row in data.inputs}
    assert all(row.tobytes() in rows for part in clean for row in part)
    for x in tried:
        assert x.shape == (60, 1, 8, 8)
        far = np.abs(x[:, None] - data.inputs[None]).reshape(60, len(data), -1).max(axis=2)
        assert far.min(axis=1).max() <= EPS + 1e-7
        assert far.min(axis=1).max() == pytest.approx(EPS)
        assert x.min() >= 0
        assert x.max() <= 1
        assert np.array_equal(np.rint(16 * x) / 16, x)
    assert one.back is None
    assert one.cosine is None


def test_counts_are_those_of_a_plain_run(victim, stranger, parts):
    data, n = parts["held out"], 150
    spy = Spy(stranger)
    one = transferability(gradients(victim), spy, data, n=n, eps=EPS, steps=5, aimed_steps=0)
    away, shaken = spy.seen[-2:]
    labels = dict(zip((row.tobytes() for row in data.inputs), data.labels, strict=True))
    # The inputs, in their order: those of the pieces that both know.
    right = [row for part in spy.seen[:-2] for row in part]
    ours, theirs = (restrict(model, Access.LABELS) for model in (victim, stranger))
    x = np.array([row for row in right if theirs.labels(row[None])[0] == labels[row.tobytes()]][:n])
    y = np.array([labels[row.tobytes()] for row in x])
    assert np.array_equal(momentum(victim.module(), x, y, 5), away)
    fooled, carried = ours.labels(away), theirs.labels(away)
    assert one.there is not None
    assert one.there.fooled == (fooled != y).sum()
    assert one.there.transferred == ((fooled != y) & (carried != y)).sum()
    assert one.there.same_wrong == ((fooled != y) & (carried == fooled)).sum()
    assert one.there.aimed == one.there.matched == 0
    assert one.there.shaken == (theirs.labels(shaken) != y).sum()
    assert ((shaken == np.clip(x + EPS, 0, 1)) | (shaken == np.clip(x - EPS, 0, 1))).all()


def momentum(module, x, y, steps):
    """MI-FGSM, one input at a time."""
    rows = []
    for row, label in zip(x, y, strict=True):
        start = torch.from_numpy(row[None])
        point, course = start.clone(), torch.zeros_like(start)
        for _ in range(steps):
            point = point.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(module(point), torch.tensor([label]))
            (slope,) = torch.autograd.grad(loss, point)
            course = course + slope / slope.abs().sum()
            point = torch.clamp(point + EPS / 4 * course.sign(), start - EPS, start + EPS).clamp(0, 1)
        rows.append(np.rint(16 * point.detach().numpy()[0]) / 16)
    return np.array(rows, np.float32)


def test_momentum_keeps_the_sum_of_the_gradients(victim, parts):
    x, y = parts["held out"].inputs[:40], parts["held out"].labels[:40]
    sizes = {"radius": EPS, "step": EPS / 4, "steps": 5, "domain": victim.domain}
    found = pgd(gradients(victim), x, y, momentum=1.0, **sizes)
    assert np.array_equal(found, momentum(victim.module(), x, y, 5))
    plain = pgd(gradients(victim), x, y, **sizes)
    assert not np.array_equal(found, plain)
    assert np.array_equal(pgd(gradients(victim), x, y, momentum=1e-9, **sizes), plain)


def linear(weight, domain):
    layer = torch.nn.Linear(weight.shape[1], 2)
    layer.weight.data = torch.from_numpy(weight.astype(np.float32))
    torch.nn.init.zeros_(layer.bias)
    return TorchModel(layer, domain=domain)


def test_two_linear_models_go_by_the_closed_form():
    source, domain = generator(0, "test"), Domain(kind="tabular", shape=(9,))
    first, second = source.standard_normal((2, 2, 9))
    second = 0.7 * first + 0.5 * second
    x = source.standard_normal((400, 9)).astype(np.float32)
    slopes = [w[1] - w[0] for w in (first, second)]
    sides = [x @ slope > 0 for slope in slopes]
    data = Data(inputs=x, labels=sides[0].astype(int), domain=domain, name="a table")
    one = transferability(
        gradients(linear(first, domain)), gradients(linear(second, domain)), data, n=1000, eps=0.2, aimed_steps=20
    )
    known = sides[0] == sides[1]
    y, size = 2 * sides[0][known] - 1, 0.2 * x.std(axis=0)
    ahead = [y * (x[known] @ slope) for slope in slopes]
    # All steps go the same way: the margin falls by what the signs of the one model's slope are worth on the other.
    ways = []
    for ours, theirs in ((0, 1), (1, 0)):
        move = size * np.sign(slopes[ours])
        fooled = ahead[ours] < move @ slopes[ours]
        ways.append((fooled.sum(), (fooled & (ahead[theirs] < move @ slopes[theirs])).sum()))
    assert one.n == known.sum()
    for way, (fooled, carried) in zip((one.there, one.back), ways, strict=True):
        assert way is not None
        assert (way.fooled, way.transferred) == (fooled, carried)
        assert way.same_wrong == way.transferred
        # The other class is the only one to aim at.
        assert (way.aimed, way.matched) == (fooled, carried)
    cosine = slopes[0] @ slopes[1] / np.linalg.norm(slopes[0]) / np.linalg.norm(slopes[1])
    assert one.cosine == pytest.approx(cosine, abs=1e-5)


def test_it_is_the_same_from_the_other_side(victim, stranger, parts):
    one, other = (transferability(gradients(a), gradients(b), parts["held out"], n=100, eps=EPS, aimed_steps=5)
                  for a, b in ((victim, stranger), (stranger, victim)))  # fmt: skip
    assert (one.there, one.back) == (other.back, other.there)
    assert one.cosine == pytest.approx(other.cosine)


def test_a_model_of_labels_is_tried_and_no_more(victim, stranger, parts):
    labels = restrict(stranger, Access.LABELS)
    calls = []
    one = transferability(labels, gradients(victim), parts["held out"], n=50, eps=EPS, aimed_steps=3,
                          progress=lambda *step: calls.append(step))  # fmt: skip
    assert one.there is None
    assert one.back is not None
    assert calls == [(1, 2), (2, 2)]
    # 50 inputs known to both take a piece or two of 50, and three answers each.
    assert labels.asked <= 100 + 150


def test_eps_is_cut_down_to_the_grid(victim, parts):
    one, other = (transferability(gradients(victim), gradients(victim), parts["held out"], n=20, eps=eps, aimed_steps=0)
                  for eps in (2 / 16, 2.9 / 16))  # fmt: skip
    assert one == other
    assert one.eps == 2 / 16
    with pytest.raises(
        ParameterError, match=r"eps must be at least one step of the inputs' grid, 0.0625 of their range"
    ):
        transferability(gradients(victim), gradients(victim), parts["held out"], eps=8 / 255)


def test_the_seed_decides(victim, stranger, parts):
    runs = [transferability(gradients(victim), gradients(stranger), parts["held out"], n=80, eps=EPS, aimed_steps=4,
                            seed=seed) for seed in (0, 0, 1)]  # fmt: skip
    assert runs[0] == runs[1] != runs[2]


def test_what_cannot_be_done_is_said(victim, stranger, parts):
    data, model, labels = parts["held out"], gradients(victim), restrict(stranger, Access.LABELS)
    bare = Data(inputs=data.inputs, labels=None, domain=data.domain, name="bare")
    with pytest.raises(ParameterError, match="transferability needs true labels; bare has none"):
        transferability(model, model, bare)
    with pytest.raises(AccessError, match=r"adversarial examples need gradients; neither .* gives any"):
        transferability(labels, labels, data)
    with pytest.raises(AccessError, match=r"asks both models for labels; .* gives none"):
        transferability(model, restrict(stranger, Access.WEIGHTS), data)
    table = Data(inputs=np.zeros((4, 3), np.float32), labels=np.zeros(4, np.int64), name="a table",
                 domain=Domain(kind="tabular", shape=(3,)))  # fmt: skip
    with pytest.raises(ParameterError, match=r"takes image .* a table holds tabular"):
        transferability(model, model, table)
    wrong = Data(inputs=data.inputs, labels=(model.labels(data.inputs) + 1) % 10, domain=data.domain, name="wrong")
    with pytest.raises(ParameterError, match="no input of wrong is classified correctly by both"):
        transferability(model, model, wrong, eps=EPS)
    few = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), domain=data.domain)
    with pytest.raises(ParameterError, match="both models need the same classes; they have 10 and 3"):
        transferability(model, gradients(few), data)
    single = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1)), domain=data.domain)
    with pytest.raises(ParameterError, match="need models of two classes or more"):
        transferability(gradients(single), gradients(single), data)
    wrongs: dict[str, Any] = {"n": 0, "eps": 0.0, "steps": 0, "aimed_steps": -1}
    for name, value in wrongs.items():
        with pytest.raises(ParameterError, match=f"{name} must lie in"):
            transferability(model, model, data, **{name: value})
    wrongs = dict.fromkeys(("n", "steps", "aimed_steps"), 10.5)
    for name, value in wrongs.items():
        with pytest.raises(ParameterError, match=f"{name} must be a whole number; got 10.5"):
            transferability(model, model, data, **{name: value})
