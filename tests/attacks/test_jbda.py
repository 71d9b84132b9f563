"""JBDA grows its inputs along the substitute's gradients: their number, their bounds, their direction."""

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks._answers import Bought
from locard.attacks.jbda import JBDA, log_odds
from locard.errors import ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.models.torch_module import TorchModel
from locard.records import Access, Data, Domain

QUICK = {"answers": "labels", "epochs": 2, "width": 4}
SQUARE = Domain(kind="image", shape=(1, 4, 4), bounds=(0.0, 1.0))


def linear(weights):
    """A network whose logits are `weights` times the input."""
    layer = torch.nn.Linear(16, len(weights), bias=False)
    layer.weight.data.copy_(torch.from_numpy(weights))
    return torch.nn.Sequential(torch.nn.Flatten(), layer).eval()


def line(classes=2, seed=0):
    """The weights of a linear victim, forty inputs in the middle of the square, and what a thief has bought of it."""
    source = np.random.default_rng(seed)
    weights = source.normal(size=(classes, 16)).astype(np.float32)
    # No class is ahead in the middle.
    weights -= weights.mean(axis=1, keepdims=True)
    inputs = source.uniform(0.35, 0.65, (40, 1, 4, 4)).astype(np.float32)
    data = Data(inputs=inputs, labels=None, domain=SQUARE, name="middle")
    bought = Bought(restrict(TorchModel(linear(weights), domain=SQUARE), Access.LABELS), Access.LABELS, most=1000)
    bought.ask(inputs)
    return weights, data, bought


def by_input(bought, moved):
    """The step of each new input, in the order of the inputs that they came from, whatever order they were drawn in."""
    gaps = np.abs(moved[:, None] - bought.inputs[None]).reshape(len(moved), len(bought), -1).max(axis=2)
    nearest = gaps.argmin(axis=1)
    assert sorted(nearest) == list(range(len(bought)))
    return (moved - bought.inputs[nearest])[np.argsort(nearest)].reshape(len(moved), -1)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_with_a_linear_victim_the_steps_are_the_sign_of_its_weights(scale):
    weights, data, bought = line()
    moved = JBDA()._augment(linear(scale * weights), bought, data, 0, 0)
    towards = np.where(bought.labels == 1, 1, -1)[:, None] * np.sign(weights[1] - weights[0])
    assert np.allclose(by_input(bought, moved), 0.1 * towards, atol=1e-6)
    assert set(bought.labels) == {0, 1}


def test_the_direction_is_turned_round_every_period():
    weights, data, bought = line()
    attack, away = JBDA(period=2), -np.sign(weights[1] - weights[0])
    for number, turn in enumerate([1, 1, -1, -1, 1]):
        steps = by_input(bought, attack._augment(linear(weights), bought, data, number, 0))
        assert np.allclose(steps, 0.1 * turn * np.where(bought.labels == 0, 1, -1)[:, None] * away, atol=1e-6)


def test_the_direction_is_that_of_the_probabilitys_own_gradient(victim, parts):
    # A second time, one input after another, by the softmax itself in float64.
    bought = Bought(restrict(victim, Access.LABELS), Access.LABELS, most=60)
    bought.ask(parts["thief"].inputs[:30])
    substitute = JBDA(**QUICK).student(restrict(victim, Access.LABELS), seed=1)
    moved = JBDA(**QUICK)._augment(substitute, bought, parts["thief"], 0, 0)
    plain = []
    for one, label in zip(bought.inputs, bought.labels, strict=True):
        x = torch.tensor(one[None], dtype=torch.float64, requires_grad=True)
        torch.softmax(substitute.double()(x), dim=1)[0, label].backward()
        plain.append(np.clip(one + 0.1 * np.sign(x.grad[0].numpy()), 0, 1))
    plain = np.round(np.stack(plain) * 16) / 16
    assert {one.tobytes() for one in moved} == {one.astype(np.float32).tobytes() for one in plain}


def test_a_random_step_leads_towards_another_class():
    weights, data, bought = line(classes=4)
    steps = by_input(bought, JBDA(step="random")._augment(linear(weights), bought, data, 0, 0))
    logits = bought.inputs.reshape(40, 16).astype(np.float64) @ weights.T
    towards = []
    for step, label, own in zip(steps, bought.labels, logits, strict=True):
        fits = []
        for other in set(range(4)) - {label}:
            share = np.where(np.arange(4) == other, 0, np.exp(own))
            gradient = weights[other] - share / share.sum() @ weights
            fits += [other] if np.allclose(step, 0.1 * np.sign(gradient), atol=1e-6) else []
        assert len(fits) == 1
        towards += fits
    assert set(towards) == {0, 1, 2, 3}


def test_a_step_in_parts_follows_the_gradient(victim, parts):
    bought = Bought(restrict(victim, Access.LABELS), Access.LABELS, most=100)
    bought.ask(parts["thief"].inputs[:50])
    free = Data(inputs=parts["thief"].inputs, labels=None, name="free",
                domain=Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0)))  # fmt: skip
    one, many = (JBDA(step="random", size=0.3, parts=k) for k in (1, 5))
    near, far = (attack._augment(victim.module(), bought, free, 0, 0) for attack in (one, many))
    assert not np.array_equal(near, far)
    for moved in (near, far):
        gap = np.abs(moved[:, None] - bought.inputs[None]).reshape(len(moved), len(bought), -1).max(axis=2).min(axis=1)
        assert (gap <= 0.3 + 1e-6).all()
        assert moved.min() >= 0
        assert moved.max() <= 1
    # Five gradients bring more inputs to another class than one.
    ask = restrict(victim, Access.LABELS)
    rows = [np.abs(moved[:, None] - bought.inputs[None]).sum(axis=(2, 3, 4)).argmin(axis=1) for moved in (near, far)]
    changed = [np.mean(ask.labels(moved) != bought.labels[row]) for moved, row in zip((near, far), rows, strict=True)]
    assert changed[1] > changed[0]


def test_the_log_odds_are_those_of_the_softmax():
    logits = torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(50) % 5
    share = torch.softmax(logits, dim=1)[torch.arange(50), classes]
    assert torch.allclose(log_odds(logits, classes), torch.log(share / (1 - share)))
    # Where the softmax is 1 to the last bit, the gradient is there still.
    sure = torch.tensor([[200.0, 0.0]], requires_grad=True)
    log_odds(sure, torch.tensor([0])).sum().backward()
    assert sure.grad.tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_without_caps_each_round_doubles_what_is_asked(rounds, victim, parts):
    attack = build("jbda", {**QUICK, "seeds": 25, "rounds": rounds})
    stolen = attack.derive(restrict(victim, Access.LABELS), parts["thief"])
    assert stolen.effort.queries == 25 * 2**rounds
    assert stolen.effort.epochs == 2 * (rounds + 1)


@pytest.mark.parametrize(("caps", "queries"), [({"most": 10}, 25 + 3 * 10), ({"queries": 90}, 90), ({"most": 30}, 110)])
def test_caps_hold(caps, queries, victim, parts):
    attack = build("jbda", {**QUICK, "seeds": 25, "rounds": 3, **caps})
    assert attack.derive(restrict(victim, Access.LABELS), parts["thief"]).effort.queries == queries


def test_what_a_cap_lets_through_is_drawn_from_all(victim, parts):
    # Whose steps are taken: the nearest of those before.
    asked = []

    def answer(x):
        asked.extend(x)
        return restrict(victim, Access.LABELS).labels(x)

    model = CallableModel(answer, domain=victim.domain, outputs="labels", classes=10, name="seen", identity="seen")
    attack = build("jbda", {**QUICK, "seeds": 100, "rounds": 1, "most": 40})
    attack.derive(restrict(model, Access.LABELS), parts["thief"])
    flat = np.stack(asked).reshape(140, -1)
    parents = np.abs(flat[100:, None] - flat[None, :100]).max(axis=2).argmin(axis=1)
    assert len(set(parents)) == 40
    assert 30 < parents.mean() < 70


def test_fidelity_grows_with_the_rounds(victim, parts):
    held_out, found = parts["held out"].inputs, []
    ours = restrict(victim, Access.LABELS).labels(held_out)
    for rounds in (0, 1, 2, 3, 4):
        attack = build("jbda", {"answers": "labels", "width": 8, "seeds": 30, "rounds": rounds, "lr": 1e-2,
                                "batch": 32})  # fmt: skip
        copies = [attack.derive(restrict(victim, Access.LABELS), parts["thief"], seed=seed) for seed in range(4)]
        theirs = [restrict(TorchModel(one.module, domain=victim.domain), Access.LABELS).labels(held_out)
                  for one in copies]  # fmt: skip
        found.append(np.mean([their == ours for their in theirs]))
    assert (np.diff(found) >= 0).all()
    assert found[-1] > found[0] + 0.1


def test_columns_move_by_their_own_deviation():
    source = np.random.default_rng(0)
    inputs = (source.normal(size=(60, 16)) * np.geomspace(0.01, 100, 16)).astype(np.float32)
    domain = Domain(kind="tabular", shape=(16,))
    weights = source.normal(size=(2, 16)).astype(np.float32)
    data = Data(inputs=inputs, labels=None, domain=domain, name="a table")
    bought = Bought(restrict(TorchModel(linear(weights), domain=domain), Access.LABELS), Access.LABELS, most=120)
    bought.ask(inputs)
    moved = JBDA()._augment(linear(weights), bought, data, 0, 0)
    # A tenth of a deviation, whichever input it was of.
    gaps = np.abs(np.abs(moved[:, None] - inputs[None]) / (0.1 * inputs.std(axis=0)) - 1).max(axis=2)
    assert (gaps.min(axis=1) < 1e-2).all()


@pytest.mark.parametrize(("wrong", "message"), [
    ({"step": "away"}, "step must be 'own' or 'random'; got 'away'"),
    ({"seeds": 0}, "seeds must lie in"),
    ({"rounds": -1}, "rounds must lie in"),
    ({"size": 0.0}, "size must lie in"),
    ({"size": 1.5}, "size must lie in"),
    ({"parts": 0}, "parts must lie in"),
    ({"period": -1}, "period must lie in"),
    ({"most": -1}, "most must lie in"),
    ({"queries": 0}, "queries must lie in"),
])  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("jbda", wrong)
