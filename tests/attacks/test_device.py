"""Inputs go where the module lies: the device without memory stands for one that need not be at hand."""

import numpy as np
import pytest
import torch

from locard.attacks._wrappers import ask
from locard.attacks.distil import penultimate
from locard.models.fitting import Recipe, fit

X = np.zeros((5, 3), np.float32)


class Elsewhere(torch.nn.Module):
    """Lies on the device "meta" and takes inputs from there alone; its answers are on the processor."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, x):
        assert x.device.type == "meta"
        return torch.ones(len(x), 4)


@pytest.fixture
def module():
    return torch.nn.Sequential(Elsewhere(), torch.nn.Linear(4, 2))


def test_a_module_is_asked_where_it_lies(module):
    assert ask(module, X).shape == (5, 2)


def test_activations_are_taken_where_the_module_lies(module):
    hints = penultimate(module, X, 2)
    assert (hints.device.type, hints.shape) == ("cpu", (5, 4))


def test_a_module_is_trained_where_it_lies(module):
    before, labels = module[1].weight.clone(), torch.zeros(5, dtype=torch.int64)
    fit(module, X, np.zeros(5, np.int64), recipe=Recipe(epochs=1), seed=0, parameters=module[1].parameters(),
        objective=lambda x, rows: torch.nn.functional.cross_entropy(module(x), labels[rows]))  # fmt: skip
    assert not torch.equal(module[1].weight, before)
