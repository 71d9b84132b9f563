"""Distillation against its formula, written a second time in NumPy, and what it takes and gives."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from locard.attacks import accept, build, distil
from locard.attacks._head import before_head
from locard.attacks.distil import divergence, penultimate, softened
from locard.errors import AccessError, ParameterError
from locard.models import architectures, restrict
from locard.models.callable import CallableModel
from locard.models.torch_module import TorchModel
from locard.records import Access, Data

QUICK = {"epochs": 1, "width": 4}


def derive(victim, data, seed=0, access=None, budget=None, progress=None, **params):
    attack = build("distil", params)
    seen = restrict(victim, attack.needs if access is None else access, budget=budget)
    return attack.derive(seen, data, seed=seed, progress=progress)


def unlabelled(data):
    return Data(inputs=data.inputs, labels=None, domain=data.domain, name="bare")


def softmax(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_probabilities_are_softened_as_the_logits_would_be(victim, parts, temperature):
    view = restrict(victim, Access.LOGITS)
    x = parts["held out"].inputs
    wanted = softmax(view.logits(x).astype(np.float64) / temperature)
    assert np.abs(softened(view.probabilities(x), temperature) - wanted).max() < 1e-6


def test_what_was_cut_stays_cut():
    cut = np.array([[0.25, 0.75, 0], [0, 0, 0]], np.float32)
    root = np.sqrt(0.25) + np.sqrt(0.75)
    assert np.allclose(softened(cut, 2.0), [[np.sqrt(0.25) / root, np.sqrt(0.75) / root, 0], [0, 0, 0]])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_linear_student_has_the_closed_gradient(temperature):
    source = np.random.default_rng(0)
    x, w, taught = source.normal(size=(7, 5)), source.normal(size=(3, 5)), softmax(source.normal(size=(7, 3)))
    weight = torch.from_numpy(w).requires_grad_()
    loss = divergence(torch.from_numpy(x) @ weight.T, torch.from_numpy(taught), temperature)
    loss.backward()
    own = softmax(x @ w.T / temperature)
    assert loss.item() == pytest.approx(temperature**2 * np.mean((taught * np.log(taught / own)).sum(axis=1)))
    assert np.abs(weight.grad.numpy() - temperature * (own - taught).T @ x / 7).max() < 1e-12


def test_a_student_that_agrees_has_nothing_to_learn():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert divergence(logits, torch.softmax(logits / 4, dim=1), 4.0).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("alpha", "features"), [(0.9, 0.0), (0.3, 2.0), (1.0, 0.0)])
def test_the_loss_is_the_formula(victim, parts, monkeypatch, alpha, features):
    found = {}

    def watch(trained, inputs, _targets, *, objective, **_rest):
        found.update(trained=trained, inputs=inputs, rows=(rows := torch.arange(20, 60)))
        found["loss"] = objective(torch.from_numpy(inputs[rows.numpy()]), rows).item()

    monkeypatch.setattr(distil, "fit", watch)
    stolen = derive(victim, parts["thief"], alpha=alpha, features=features, width=4)
    x = found["inputs"][20:60]
    labels = {row.tobytes(): y for row, y in zip(parts["thief"].inputs, parts["thief"].labels, strict=True)}
    y = np.array([labels[row.tobytes()] for row in x])
    with torch.no_grad(), before_head(stolen.module, 10) as seen:
        own = stolen.module(torch.from_numpy(x)).numpy().astype(np.float64)
    taught = softmax(restrict(victim, Access.LOGITS).logits(x).astype(np.float64) / 4)
    wanted = alpha * 16 * np.mean((taught * np.log(taught / softmax(own / 4))).sum(axis=1))
    wanted -= (1 - alpha) * np.mean(np.log(softmax(own)[np.arange(40), y]))
    if features:
        _, bridge = found["trained"]
        hints = penultimate(victim.module(), found["inputs"], 10).numpy()
        led = seen[0].numpy() @ bridge.weight.detach().numpy().T + bridge.bias.detach().numpy()
        wanted += features * np.mean((led - hints[20:60]) ** 2)
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)


def test_a_student_of_the_same_architecture_is_a_theft(victim, parts):
    stolen = derive(victim, parts["thief"], width=8, epochs=40, lr=1e-2)
    student = TorchModel(stolen.module, domain=victim.domain)
    found = accept(build("distil"), student, victim, parts["held out"])
    assert found.accepted
    assert (found.agreement or 0) > 0.9
    assert stolen.effort.queries == 500
    assert stolen.arguments == {"shape": [1, 8, 8], "classes": 10, "width": 8}


def test_a_student_of_another_architecture_needs_no_labels_where_the_answers_are_all(victim, parts):
    stolen = derive(victim, unlabelled(parts["thief"]), architecture="mlp", alpha=1.0, epochs=20)
    assert stolen.lineage.architecture == stolen.architecture == "mlp"
    student = TorchModel(stolen.module, domain=victim.domain)
    x = parts["held out"].inputs
    ours, theirs = (restrict(model, Access.LABELS).labels(x) for model in (victim, student))
    assert (ours == theirs).mean() > 0.85


def test_the_temperature_and_the_labels_matter(victim, parts):
    changes: list[dict[str, Any]] = [{}, {"temperature": 1.0}, {"alpha": 0.5}, {"features": 1.0}]
    copies = {
        TorchModel(derive(victim, parts["thief"], **QUICK, **one).module, domain=victim.domain).digest
        for one in changes
    }
    assert len(copies) == 4


def explained(student, victim, x):
    """Share of the victim's features that a linear map of the student's explains."""
    own, theirs = (penultimate(module, x, 10).numpy() for module in (student, victim.module()))
    own = np.column_stack([own, np.ones(len(own))])
    left = theirs - own @ np.linalg.lstsq(own, theirs, rcond=None)[0]
    return 1 - left.var() / theirs.var()


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_features_are_learnt_even_where_the_answers_tell_nothing(victim, parts, architecture):
    silent = TorchModel(copy.deepcopy(victim.module()), domain=victim.domain)
    with torch.no_grad():
        silent.module().get_parameter("module.dense2.weight").zero_()
    settings = {"architecture": architecture, "width": 4, "alpha": 1.0, "epochs": 40, "lr": 1e-2}
    with_them, without = (
        explained(derive(silent, parts["thief"], features=weight, **settings).module, silent, parts["held out"].inputs)
        for weight in (1.0, 0.0)
    )
    assert with_them > 0.8 > without + 0.1


def test_the_victims_features_are_what_its_last_layer_is_given(victim, parts):
    x = parts["thief"].inputs[:100]
    module = victim.module()
    hints = penultimate(module, x, 10)
    assert hints.square().mean().item() == pytest.approx(1, abs=1e-5)
    head = module.module.dense2
    # Scaled by one number: the logits without their bias are the logits of the hints, times that number.
    with torch.no_grad():
        given, scaled = module(torch.from_numpy(x)) - head.bias, hints @ head.weight.T
    ratio = (given * scaled).sum() / scaled.square().sum()
    assert torch.allclose(given, ratio * scaled, atol=1e-4)
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_features_take_the_module(victim, parts):
    with pytest.raises(AccessError, match=r"distil needs MODULE of the victim; LogitView.* has no module\(\)"):
        derive(victim, parts["thief"], access=Access.LOGITS, features=1.0)
    with pytest.raises(AccessError, match=r"distil needs PROBABILITIES of the victim; LabelView"):
        derive(victim, parts["thief"], access=Access.LABELS)


def test_a_victim_without_a_dense_head_has_no_features_to_match(parts):
    module = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    model = TorchModel(module, domain=parts["thief"].domain)
    with pytest.raises(ParameterError, match=r"must be dense with 10 outputs.*; Sequential ends in Conv2d"):
        derive(model, parts["thief"], features=1.0, architecture="cnn")


def test_a_dense_layer_of_another_width_is_no_head(parts):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Unflatten(1, (12, 1)), nn.Flatten(), nn.AvgPool1d(2))
    model = TorchModel(module, domain=parts["thief"].domain)
    with pytest.raises(ParameterError, match=r"dense with 6 outputs.*; Sequential ends in Linear with 12"):
        derive(model, parts["thief"].take(np.flatnonzero(parts["thief"].labels < 6)), features=1.0, architecture="cnn")


def test_a_spent_budget_ends_the_questions_and_not_the_attack(victim, parts):
    thief = parts["thief"]
    thief = thief.take(np.argsort(thief.labels, kind="stable"))
    stolen = derive(victim, thief, budget=200, epochs=40, lr=1e-2, width=8)
    assert stolen.effort.queries == 200
    assert stolen.notes[0].startswith("200 of 500 queries were answered: the budget of 200 queries")
    # The first 200 inputs are of four classes; asked in random order they are of all ten.
    with torch.no_grad():
        given = stolen.module(torch.from_numpy(parts["held out"].inputs)).argmax(dim=1)
    assert len(given.unique()) == 10


def test_probabilities_that_an_api_cut_are_learnt_from(victim, parts):
    attack = build("distil", {"epochs": 40, "width": 8, "lr": 1e-2})
    stolen = attack.derive(restrict(victim, Access.PROBABILITIES, top_k=2, decimals=0), parts["thief"])
    with torch.no_grad():
        given = stolen.module(torch.from_numpy(parts["held out"].inputs)).argmax(dim=1).numpy()
    assert (given == parts["held out"].labels).mean() > 0.8


def test_epochs_are_told(victim, parts):
    told = []
    derive(victim, parts["thief"], epochs=2, width=4, progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]


def test_labels_are_needed_where_they_have_a_share(victim, parts):
    with pytest.raises(ParameterError, match="distil needs data with true labels; bare has none"):
        derive(victim, unlabelled(parts["thief"]))


def test_an_architecture_that_nobody_says_is_asked_for(victim, parts):
    model = TorchModel(victim.module(), domain=victim.domain)
    with pytest.raises(
        ParameterError, match=r"does not say its architecture.*: name one, such as --param architecture=cnn"
    ):
        derive(model, parts["thief"])
    assert derive(model, parts["thief"], **QUICK, architecture="cnn").architecture == "cnn"


def test_a_victim_of_unknown_classes_is_refused(parts):
    def answer(x):
        return np.full((len(x), 10), 0.1, np.float32)

    model = CallableModel(answer, domain=parts["thief"].domain, outputs="probabilities", name="mute", identity="mute")
    with pytest.raises(
        ParameterError, match="distil needs a victim of two classes or more; mute does not say how many it has"
    ):
        derive(model, parts["thief"], architecture="cnn")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature must lie in"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\]"),
        ({"features": -1.0}, "features must lie in"),
        ({"width": -1}, "width must lie in"),
        ({"epochs": 0}, "epochs must lie in"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("distil", wrong)


def test_every_architecture_can_be_a_student_with_features(victim, parts):
    few = replace(parts["thief"], inputs=parts["thief"].inputs[:20], labels=parts["thief"].labels[:20])
    for name in set(architectures.architectures.names()) - {"bag"}:  # which takes texts
        assert derive(victim, few, architecture=name, features=1.0, epochs=1).architecture == name
