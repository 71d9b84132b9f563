"""Training against closed forms, and that nothing outside of it moves."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from locard.errors import ParameterError
from locard.models.fitting import Recipe, build, fit, one_cycle, reproducible

ARGUMENTS = {"shape": [1, 8, 8], "classes": 3, "hidden": [8]}


def separable(n=120, seed=0):
    """Three classes, each with its own bright band."""
    source = np.random.default_rng(seed)
    y = source.integers(0, 3, n)
    x = source.random((n, 1, 8, 8), dtype=np.float32) * 0.4
    for row, label in enumerate(y):
        x[row, 0, 2 * label : 2 * label + 2] += 0.6
    return x, y


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trained(seed=0, epochs=5, **options):
    x, y = separable()
    return fit(build("mlp", ARGUMENTS, seed=seed), x, y, recipe=Recipe(epochs=epochs, batch=32), seed=seed, **options)


def test_it_learns_what_can_be_learnt():
    x, y = separable(300, seed=1)
    with torch.no_grad():
        assert (trained(epochs=20)(torch.from_numpy(x)).argmax(1).numpy() == y).mean() > 0.95


def test_the_same_seed_gives_the_same_bytes_whatever_the_callers_settings():
    first, threads = state(trained()), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.rand(7)
        try:
            torch.set_num_threads(2 if threads == 1 else 1)
            assert same(state(trained()), first)
        finally:
            torch.set_num_threads(threads)
    assert not same(state(trained(seed=1)), first)


def test_torchs_own_random_state_and_threads_stay_as_they_were():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    trained()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_random_state_and_threads_come_back_after_an_error():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="size"), reproducible(3):
        torch.add(torch.rand(5), torch.rand(6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_dropout_is_as_reproducible_as_the_rest():
    def run(noise):
        torch.rand(noise)
        layer = torch.nn.Linear(64, 3)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), layer)
        return state(fit(module, *separable(), recipe=Recipe(epochs=2), seed=0))

    assert same(run(1), run(9))


def test_the_first_step_is_adamws():
    # After one step Adam's moments cancel: w - rate * decay * w - rate * g / (|g| + eps).
    x, y = separable(40)
    layer = torch.nn.Linear(64, 3)
    module = torch.nn.Sequential(torch.nn.Flatten(), layer)
    before = layer.weight.detach().double().clone()
    logits = torch.from_numpy(x).flatten(1).double() @ before.T + layer.bias.detach().double()
    error = torch.softmax(logits, dim=1) - torch.nn.functional.one_hot(torch.from_numpy(y), 3)
    gradient = error.T @ torch.from_numpy(x).flatten(1).double() / len(x)
    fit(module, x, y, recipe=Recipe(epochs=1, lr=0.1, batch=40, weight_decay=0.2), seed=0)
    rate = 0.1 * one_cycle(0.5)
    expected = before - rate * 0.2 * before - rate * gradient / (gradient.abs() + 1e-8)
    assert torch.allclose(layer.weight.detach().double(), expected, atol=1e-5)


def test_certain_probabilities_teach_what_labels_teach():
    x, y = separable()
    by_labels, by_probabilities = (build("mlp", ARGUMENTS, seed=0) for _ in range(2))
    fit(by_labels, x, y, recipe=Recipe(epochs=2), seed=0)
    fit(by_probabilities, x, np.eye(3, dtype=np.float32)[y], recipe=Recipe(epochs=2), seed=0)
    for a, b in zip(by_labels.parameters(), by_probabilities.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_only_the_chosen_parameters_are_trained():
    module = build("resnet", {"shape": [1, 8, 8], "classes": 3, "width": 4}, seed=0)
    before = state(module)
    module.get_parameter("stem.weight").requires_grad_(False)
    last = module.get_submodule("dense")
    fit(module, *separable(), recipe=Recipe(epochs=1), seed=0, parameters=last.parameters())
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"dense.weight", "dense.bias"}, "batch-norm statistics count as changed too"
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == ["stem.weight"]


def test_a_constraint_is_put_back_after_each_step():
    module, calls = build("mlp", ARGUMENTS, seed=0), []
    weight = module.get_parameter("layers.0.weight")
    x, y = separable(100)

    def clamp():
        calls.append(1)
        weight.data.clamp_(-0.01, 0.01)

    fit(module, x, y, recipe=Recipe(epochs=3, batch=40), seed=0, after_step=clamp)
    assert len(calls) == 3 * 3
    assert weight.abs().max() <= 0.01


def test_inputs_are_left_as_they_are_and_epochs_are_reported():
    x, y = separable()
    kept, seen = (x.copy(), y.copy()), []
    x.flags.writeable = y.flags.writeable = False
    fit(build("mlp", ARGUMENTS, seed=0), x, y, recipe=Recipe(epochs=3), seed=0, progress=lambda *row: seen.append(row))
    assert np.array_equal(x, kept[0])
    assert np.array_equal(y, kept[1])
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_module_comes_back_in_evaluation_mode_without_gradients():
    module = trained()
    assert not any(part.training for part in module.modules())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_rate_rises_once_and_falls_once(a, b):
    low, high = sorted((a, b))
    assert 0 <= one_cycle(a) <= 1
    if high <= 0.3:
        assert one_cycle(low) <= one_cycle(high) + 1e-12
    if low >= 0.3:
        assert one_cycle(low) >= one_cycle(high) - 1e-12


def test_the_rate_at_its_three_corners():
    assert one_cycle(0) == pytest.approx(0.04)
    assert one_cycle(0.3) == pytest.approx(1)
    assert one_cycle(0.3 - 1e-9) == pytest.approx(1)
    assert one_cycle(1) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"batch": 0}, {"weight_decay": -1.0}])
def test_a_recipe_out_of_range_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ParameterError, match=f"{name} must lie in"):
        Recipe(**wrong)


def test_targets_that_do_not_fit_are_refused():
    x, y = separable(10)
    module = build("mlp", ARGUMENTS, seed=0)
    for targets in (y[:9], np.zeros((10, 3, 1), np.float32)):
        with pytest.raises(ParameterError, match="one target an input; got 10 inputs"):
            fit(module, x, targets, recipe=Recipe(), seed=0)
    with pytest.raises(ParameterError, match="got 0 inputs"):
        fit(module, x[:0], y[:0], recipe=Recipe(), seed=0)


def test_a_diverging_run_says_so():
    x, y = separable()
    with pytest.raises(ParameterError, match=r"diverged in epoch \d+: the loss is not finite; lower lr"):
        fit(build("mlp", ARGUMENTS, seed=0), x, y, recipe=Recipe(epochs=3, lr=1e30), seed=0)
    # One step alone: the loss before it is that of the fresh weights.
    with pytest.raises(ParameterError, match="diverged in epoch 1: a weight is not finite; lower lr"):
        fit(build("mlp", ARGUMENTS, seed=0), x, y, recipe=Recipe(epochs=1, lr=1e40, batch=200), seed=0)
