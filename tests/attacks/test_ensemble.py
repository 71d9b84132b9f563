"""An ensemble of the stolen network and the thief's own."""

from typing import Any

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks._wrappers import Crowd
from locard.errors import ParameterError
from locard.models import exported, fitting, load, onnx, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access
from locard.seeds import derive as stream

QUICK = {"epochs": 10, "width": 4, "lr": 2e-2}


def derive(victim, data, seed=0, progress=None, **params) -> Any:
    attack = build("ensemble", {**QUICK, **params})
    return attack.derive(restrict(victim, attack.needs), data, seed=seed, progress=progress)


def softmax(module, x):
    with torch.inference_mode():
        return module(torch.from_numpy(x)).double().softmax(1).numpy()


@pytest.fixture(scope="module")
def crowd(victim, parts):
    calls = []
    stolen = derive(victim, parts["thief"], seed=3, members=2, progress=lambda *step: calls.append(step))
    return stolen, calls


def test_the_mean_probability_is_answered(crowd, victim, parts):
    stolen, _ = crowd
    x = parts["held out"].inputs
    alone = [softmax(member, x) for member in stolen.module.members]
    assert np.array_equal(alone[0], softmax(victim.module(), x))
    assert np.abs(softmax(stolen.module, x) - np.mean(alone, axis=0)).max() < 1e-6
    assert np.abs(alone[1] - alone[2]).max() > 0.1


def test_the_members_are_trained_on_the_thiefs_data_alone(crowd, victim, parts):
    stolen, calls = crowd
    thief = parts["thief"]
    for i, member in enumerate(stolen.module.members[1:]):
        own = stream(3, f"ensemble/{i}")
        again = fitting.build("cnn", {"shape": [1, 8, 8], "classes": 10, "width": 4}, seed=own)
        recipe = fitting.Recipe(epochs=10, lr=2e-2, batch=64)
        fitting.fit(again, thief.inputs, thief.labels, recipe=recipe, seed=own)
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), member.parameters(), strict=True))
    assert calls == [(i, 20) for i in range(1, 21)]
    assert stolen.effort.epochs == 20
    assert stolen.unnamed


def test_a_crowd_of_the_victim_alone_is_the_victim(victim, parts):
    x = parts["held out"].inputs
    assert np.abs(softmax(Crowd([victim.module()], None), x) - softmax(victim.module(), x)).max() < 1e-6


def test_one_member_answers_each_input_as_the_field_says(victim, parts):
    x = parts["held out"].inputs
    module = derive(victim, parts["thief"], members=2, combine="one").module
    alone = np.stack([softmax(member, x) for member in module.members])
    with torch.inference_mode():
        who = module.field(torch.from_numpy(x)).argmax(1).numpy()
    assert np.abs(softmax(module, x) - alone[who, np.arange(len(x))]).max() < 1e-6
    assert (np.bincount(who, minlength=3) > 20).all()
    assert np.array_equal(softmax(module, x), softmax(module, x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"members": 0}, "members must lie in"),
        ({"combine": "vote"}, "combine must be 'mean' or 'one'; got 'vote'"),
        ({"length": 0.0}, "length must lie in"),
        ({"width": -1}, "width must lie in"),
        ({"epochs": 0}, "epochs must lie in"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("ensemble", wrong)


def test_an_unknown_architecture_is_refused(victim, parts):
    with pytest.raises(ParameterError, match="unknown architecture 'cnm'; did you mean 'cnn'"):
        derive(victim, parts["thief"], architecture="cnm")


def test_it_can_be_written_and_read(victim, parts, tmp_path):
    stolen, x = derive(victim, parts["thief"], combine="one"), parts["held out"].inputs[:130]
    copy = TorchModel(stolen.module, domain=victim.domain)
    exported.save(copy, tmp_path / "copy.pt2")
    onnx.export(copy, tmp_path / "copy.onnx")
    wanted = restrict(copy, Access.PROBABILITIES).probabilities(x)
    for name in ("copy.pt2", "copy.onnx"):
        again = restrict(load(tmp_path / name, trust=True), Access.PROBABILITIES).probabilities(x)
        assert np.abs(again - wanted).max() < 1e-4
