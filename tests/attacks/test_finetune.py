"""Fine-tuning against its definition."""

import copy

import numpy as np
import pytest
import torch
from tests.attacks.derived import answers, arrays, changed, derive

from locard.attacks import build
from locard.attacks.finetune import last_layer, redraw
from locard.errors import ParameterError
from locard.models.fitting import Recipe, fit, reproducible
from locard.models.torch_module import TorchModel
from locard.seeds import derive as sub_seed

LAST = {"dense2.weight", "dense2.bias"}


def test_fine_tuning_the_last_layer_changes_nothing_else(victim, parts):
    stolen = derive("finetune", victim, parts["thief"], layers="last", epochs=1)
    assert changed(stolen, victim) == LAST


def test_fine_tuning_changes_all_layers_but_not_the_normalisation(victim, parts):
    stolen = derive("finetune", victim, parts["thief"], epochs=1)
    assert changed(stolen, victim) == set(arrays(victim.module())) - {"shift", "scale"}
    assert stolen.effort.epochs == 1


def test_fine_tuning_learns_the_thiefs_data(victim, parts):
    thief = parts["thief"]
    before = (answers(victim.module(), thief.inputs).argmax(1) == thief.labels).mean()
    stolen = derive("finetune", victim, thief, epochs=10, lr=3e-3)
    assert (answers(stolen.module, thief.inputs).argmax(1) == thief.labels).mean() > before


def test_a_fresh_head_is_drawn_as_the_layer_draws_itself(victim):
    layer = copy.deepcopy(last_layer(victim.module()))
    redraw(layer, seed=3)
    with reproducible(3):
        again = torch.nn.Linear(32, 10)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(layer.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("layers", ["all", "last"])
def test_a_fresh_head_is_trained_from_its_own_draw(victim, parts, layers):
    thief = parts["thief"]
    stolen = derive("finetune", victim, thief, seed=5, head="fresh", layers=layers, epochs=2)
    module = copy.deepcopy(victim.module())
    redraw(module.module.dense2, seed=sub_seed(5, "finetune/head"))
    chosen = None if layers == "all" else module.module.dense2.parameters()
    fit(module, thief.inputs, thief.labels, recipe=Recipe(epochs=2, lr=1e-3, batch=64), seed=5, parameters=chosen)
    expected = arrays(module)
    assert all(np.array_equal(expected[name], got) for name, got in arrays(stolen.module).items())
    assert changed(stolen, victim) == (LAST if layers == "last" else set(expected) - {"shift", "scale"})


def test_a_fresh_head_forgets_and_learns_again(victim, parts):
    thief, held_out = parts["thief"], parts["held out"]
    blank = copy.deepcopy(victim.module())
    redraw(last_layer(blank), seed=0)
    assert (answers(blank, held_out.inputs).argmax(1) == held_out.labels).mean() < 0.5
    stolen = derive("finetune", victim, thief, head="fresh", epochs=10, lr=5e-3)
    assert (answers(stolen.module, held_out.inputs).argmax(1) == held_out.labels).mean() > 0.75


def test_a_fresh_head_may_lose_more():
    assert build("finetune").margin == build("finetune", {"layers": "last"}).margin == 0.03
    assert build("finetune", {"head": "fresh"}).margin == 0.05


def test_a_module_without_parameters_has_no_last_layer():
    with pytest.raises(ParameterError, match="Flatten has no parameters to train"):
        last_layer(torch.nn.Flatten())


class Bare(torch.nn.Module):
    """A layer that cannot draw its own weights."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(10, 64))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


def test_a_layer_that_cannot_draw_itself_keeps_its_weights(parts):
    model = TorchModel(Bare(), domain=parts["thief"].domain)
    message = "needs a last layer that can draw its own weights; Bare has no reset_parameters. Take --param head=kept"
    with pytest.raises(ParameterError, match=message):
        derive("finetune", model, parts["thief"], head="fresh")
