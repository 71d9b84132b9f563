"""Adversarial training: what the copy is shown, what it costs, and that it is harder to fool afterwards."""

import math

import numpy as np
import pytest

from locard.attacks import accept, adversarial_training, build
from locard.errors import ParameterError
from locard.models import fitting, restrict
from locard.models.torch_module import TorchModel
from locard.queries._adversarial import pgd
from locard.records import Access, Data, Domain


def derive(victim, data, seed=0, progress=None, **params):
    attack = build("adversarial-training", params)
    return attack.derive(restrict(victim, Access.MODULE), data, seed=seed, progress=progress)


@pytest.fixture
def shown(monkeypatch):
    """What the copy was shown: inputs, labels and adversarial examples of each step."""
    steps = []

    def watch(view, x, labels, **settings):
        moved = pgd(view, x, labels, **settings)
        steps.append((x.copy(), labels, moved, settings))
        return moved

    monkeypatch.setattr(adversarial_training, "pgd", watch)
    return steps


# The digits' quantum is 1/16: 8/255 is lifted to it, 0.1 is no multiple of it.
@pytest.mark.parametrize(("eps", "radius", "slack"), [(8 / 255, 1 / 16, 0), (0.1, 0.1, 1 / 32), (0.25, 0.25, 0)])
def test_examples_stay_in_the_ball_the_bounds_and_on_the_grid(victim, parts, shown, eps, radius, slack):
    derive(victim, parts["thief"], eps=eps, alpha=eps / 4, epochs=1)
    x, moved = (np.concatenate([step[part] for step in shown]) for part in (0, 2))
    assert np.abs(moved - x).max() <= radius + slack + 1e-6
    assert np.abs(moved - x).max() >= radius - 1 / 16
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert np.array_equal(moved, parts["thief"].domain.deliver(moved))


def test_the_ball_of_images_of_eight_bits_is_the_one_that_was_asked(victim, parts, shown):
    thief = parts["thief"]
    fine = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0), quantum=1 / 255)
    model = TorchModel(victim.module(), domain=fine)
    derive(model, Data(inputs=fine.deliver(thief.inputs), labels=thief.labels, domain=fine, name="fine"), epochs=1)
    for x, _, moved, settings in shown:
        assert np.abs(moved - x).max() == pytest.approx(8 / 255, abs=1e-6)
        assert (settings["radius"], settings["step"], settings["steps"]) == (8 / 255, 2 / 255, 7)


def test_each_input_is_shown_once_an_epoch_with_its_own_label(victim, parts, shown):
    thief = parts["thief"]
    derive(victim, thief, epochs=2, steps=1)
    own = {row.tobytes(): y for row, y in zip(thief.inputs, thief.labels, strict=True)}
    x, labels = (np.concatenate([step[part] for step in shown]) for part in (0, 1))
    assert np.array_equal(labels, [own[row.tobytes()] for row in x])
    first, second = (sorted(row.tobytes() for row in half) for half in np.split(x, 2))
    assert first == second == sorted(row.tobytes() for row in thief.inputs)


def test_the_examples_are_made_against_the_copy_as_it_is(victim, parts, shown):
    derive(victim, parts["thief"], epochs=1, lr=1e-2)
    view = restrict(victim, Access.GRADIENTS)
    # At first the copy is the victim, which the first examples fool more than their inputs do.
    x, labels, moved, _ = shown[0]
    right = [(view.labels(points) == labels).mean() for points in (x, moved)]
    assert right[1] < right[0] - 0.03


def fooled(model, data, eps):
    view = restrict(model, Access.GRADIENTS)
    moved = pgd(view, data.inputs, data.labels, radius=eps, step=eps / 4, steps=20, domain=data.domain)
    return float((view.labels(moved) != data.labels).mean())


def test_the_copy_is_harder_to_fool_than_the_victim(victim, parts):
    stolen = derive(victim, parts["thief"], eps=1 / 8, alpha=1 / 32, epochs=10, lr=5e-3)
    copy = TorchModel(stolen.module, domain=victim.domain)
    before, after = (fooled(model, parts["held out"], 1 / 8) for model in (victim, copy))
    assert after < before - 0.15
    assert accept(build("adversarial-training"), copy, victim, parts["held out"]).accepted


def test_eps_and_cost_are_said(victim, parts):
    stolen = derive(victim, parts["thief"], epochs=2, steps=3)
    # 500 inputs, three steps, two epochs; the digits' quantum is above 8/255.
    assert stolen.notes == ("trained against PGD of eps 0.0625 in 3 steps; it took 3,000 gradients by inputs",)
    assert stolen.effort.epochs == 2
    assert stolen.effort.queries == 0


def test_its_own_attack_leaves_the_statistics_of_normalisation_alone(parts):
    module = fitting.build("resnet", {"shape": [1, 8, 8], "classes": 10, "width": 4}, seed=0)
    model = TorchModel(module, domain=parts["thief"].domain)
    stolen = derive(model, parts["thief"], epochs=2, batch=100)
    assert stolen.module.get_buffer("norm.num_batches_tracked").item() == 2 * math.ceil(500 / 100)


def test_a_table_without_bounds_moves_by_its_columns_deviations(shown):
    source = np.random.default_rng(0)
    inputs = (source.normal(size=(60, 3)) * [1, 10, 0]).astype(np.float32)
    domain = Domain(kind="tabular", shape=(3,))
    table = Data(inputs=inputs, labels=(inputs[:, 0] > 0).astype(np.int64), domain=domain, name="a table")
    module = fitting.build("mlp", {"shape": [3], "classes": 2, "hidden": [4]}, seed=0)
    stolen = derive(TorchModel(module, domain=domain), table, eps=0.2, alpha=0.1, epochs=1)
    gone = np.abs(np.concatenate([moved - x for x, _, moved, _ in shown])).max(axis=0)
    assert np.allclose(gone, 0.2 * inputs.std(axis=0), rtol=1e-3)
    assert "eps 0.2 of each column's deviation" in stolen.notes[0]


def test_whole_numbers_are_not_moved():
    domain = Domain(kind="tabular", shape=(3,), dtype="int64")
    table = Data(inputs=np.zeros((4, 3), np.int64), labels=np.zeros(4, np.int64), domain=domain, name="counts")

    class Floats(type(fitting.build("mlp", {"shape": [3], "classes": 2}, seed=0))):
        def forward(self, x):
            return super().forward(x.float())

    model = TorchModel(Floats(shape=[3], classes=2), domain=domain)
    with pytest.raises(ParameterError, match="moves images or tables of real numbers; counts holds tabular"):
        derive(model, table)


def test_epochs_are_told(victim, parts):
    told = []
    derive(victim, parts["thief"], epochs=2, steps=1, progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": 0.0}, "eps must lie in"),
        ({"alpha": 2.0}, "alpha must lie in"),
        ({"steps": 0}, "steps must lie in"),
        ({"epochs": 0}, "epochs must lie in"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("adversarial-training", wrong)
