"""Low-rank adaptation against its definition."""

import numpy as np
import pytest
import torch
from tests.attacks.derived import WEIGHTS, answers, arrays, changed, derive

from locard.attacks.lora import factors
from locard.errors import ParameterError
from locard.models.fitting import build as network
from locard.models.fitting import one_cycle
from locard.models.torch_module import TorchModel
from locard.records import Data, Domain
from locard.seeds import derive as sub_seed


@pytest.mark.parametrize("rank", [1, 3])
def test_each_weight_changes_by_a_matrix_of_low_rank(victim, parts, rank):
    stolen = derive("lora", victim, parts["thief"], rank=rank, epochs=2)
    before, after = arrays(victim.module()), arrays(stolen.module)
    assert changed(stolen, victim) == set(WEIGHTS)
    for name in WEIGHTS:
        change = (after[name].astype(np.float64) - before[name]).reshape(len(before[name]), -1)
        sizes = np.linalg.svd(change, compute_uv=False)
        # What is left beyond the rank is the rounding of W + change to float32.
        assert sizes[rank - 1] > 1e-4
        assert sizes[rank:].max(initial=0) < 1e-6 * np.linalg.norm(before[name])


def test_batch_norm_stays(parts):
    module = network("resnet", {"shape": [1, 8, 8], "classes": 10, "width": 4}, seed=0).eval()
    model = TorchModel(module, domain=parts["thief"].domain)
    touched = changed(derive("lora", model, parts["thief"], rank=2, epochs=1), model)
    assert touched == {name for name, weight in module.named_parameters() if weight.ndim >= 2}


def test_it_learns_the_thiefs_data(victim, parts):
    thief = parts["thief"]
    before = (answers(victim.module(), thief.inputs).argmax(1) == thief.labels).mean()
    stolen = derive("lora", victim, thief, epochs=10, lr=5e-3)
    assert (answers(stolen.module, thief.inputs).argmax(1) == thief.labels).mean() > before
    assert stolen.effort.epochs == 10


def test_one_step_is_that_of_adamw_on_the_factors():
    # B begins at 0, so A has no gradient in the first step and only decays, while each entry of B moves by the rate
    # against the sign of its gradient, 2 dL/dW A^T.
    source = np.random.default_rng(0)
    inputs, labels = source.random((20, 4), np.float32), source.integers(0, 3, 20)
    layer = torch.nn.Linear(4, 3)
    model = TorchModel(layer, domain=Domain(kind="tabular", shape=(4,)))
    data = Data(inputs=inputs, labels=labels, domain=model.domain, name="table")
    stolen = derive("lora", model, data, seed=1, rank=2, epochs=1, lr=0.01, batch=20)

    _, a = factors(layer.weight, 2, torch.Generator().manual_seed(sub_seed(1, "lora")))
    a, weight = a.detach().double().numpy(), layer.weight.detach().double().numpy()
    logits = inputs @ weight.T + layer.bias.detach().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    by_weight = (shares - np.eye(3)[labels]).T @ inputs / 20
    by_b, rate = 2 * by_weight @ a.T, 0.01 * one_cycle(0.5)
    assert np.abs(by_b).min() > 1e-5, "an entry so small that AdamW's epsilon would show"
    b = -rate * np.sign(by_b)
    expected = weight + 2 * b @ (a * (1 - rate * 0.01))
    assert np.abs(arrays(stolen.module)["weight"] - expected).max() < 1e-5


def test_the_factors_begin_at_no_change_and_a_spread_of_one():
    b, a = factors(torch.zeros(6, 25, 4, 4), 40, torch.Generator().manual_seed(0))
    assert b.shape == (6, 40)
    assert not b.any()
    assert a.shape == (40, 400)
    # 16,000 draws: the relative error of their variance is 1.1 %.
    assert float(a.detach().var() * 400) == pytest.approx(1, abs=0.05)


def test_a_module_without_matrices_is_refused(parts):
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(64))

        def forward(self, x):
            return x.flatten(1) * self.scale

    model = TorchModel(Scaled(), domain=parts["thief"].domain)
    with pytest.raises(ParameterError, match="Scaled has no weight matrix to adapt"):
        derive("lora", model, parts["thief"])
