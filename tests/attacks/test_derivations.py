"""Fine-tuning, pruning, quantising and noise against their definitions."""

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks.finetune import last_layer
from locard.attacks.prune import masks
from locard.attacks.quantise import rounded
from locard.errors import ParameterError
from locard.models import restrict
from locard.records import Access

WEIGHTS = ("conv1.weight", "conv2.weight", "dense1.weight", "dense2.weight")


def derive(name, victim, data=None, seed=0, **params):
    return build(name, params).derive(restrict(victim, Access.MODULE), data, seed=seed)


def arrays(module):
    return {name.removeprefix("module."): t.detach().numpy() for name, t in module.state_dict().items()}


def changed(stolen, victim):
    before, after = arrays(victim.module()), arrays(stolen.module)
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


def answers(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def test_fine_tuning_the_last_layer_changes_nothing_else(victim, parts):
    stolen = derive("finetune", victim, parts["thief"], layers="last", epochs=1)
    assert changed(stolen, victim) == {"dense2.weight", "dense2.bias"}


def test_fine_tuning_changes_all_layers_but_not_the_normalisation(victim, parts):
    stolen = derive("finetune", victim, parts["thief"], epochs=1)
    assert changed(stolen, victim) == set(arrays(victim.module())) - {"shift", "scale"}
    assert stolen.effort.epochs == 1


def test_fine_tuning_learns_the_thiefs_data(victim, parts):
    thief = parts["thief"]
    before = (answers(victim.module(), thief.inputs).argmax(1) == thief.labels).mean()
    stolen = derive("finetune", victim, thief, epochs=10, lr=3e-3)
    assert (answers(stolen.module, thief.inputs).argmax(1) == thief.labels).mean() > before


def test_a_module_without_parameters_has_no_last_layer():
    with pytest.raises(ParameterError, match="Flatten has no parameters to train"):
        last_layer(torch.nn.Flatten())


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.9])
def test_exactly_the_smallest_weights_are_pruned(victim, fraction):
    before, after = arrays(victim.module()), arrays(derive("prune", victim, fraction=fraction).module)
    sizes = np.abs(np.concatenate([before[name].ravel() for name in WEIGHTS]))
    kept = np.concatenate([after[name].ravel() for name in WEIGHTS])
    k = round(fraction * len(sizes))
    assert np.count_nonzero(kept == 0) == k
    assert set(np.flatnonzero(kept == 0)) == set(np.argsort(sizes, kind="stable")[:k])
    assert np.array_equal(kept[kept != 0], np.concatenate([before[name].ravel() for name in WEIGHTS])[kept != 0])
    assert all(np.array_equal(before[name], after[name]) for name in before if name not in WEIGHTS)


def test_pruning_nothing_gives_the_victim(victim, parts):
    stolen = derive("prune", victim, fraction=0.0)
    assert np.array_equal(answers(stolen.module, parts["held out"].inputs),
                          answers(victim.module(), parts["held out"].inputs))  # fmt: skip


def test_pruned_weights_stay_at_zero_while_the_rest_recovers(victim, parts):
    raw = arrays(derive("prune", victim, fraction=0.7).module)
    stolen = derive("prune", victim, parts["thief"], fraction=0.7, recovery=2)
    healed = arrays(stolen.module)
    assert stolen.effort.epochs == 2
    for name in WEIGHTS:
        assert (healed[name][raw[name] == 0] == 0).all()
        assert (healed[name][raw[name] != 0] != raw[name][raw[name] != 0]).any()


def test_recovery_needs_the_thiefs_data(victim):
    with pytest.raises(ParameterError, match="prune needs data of the thief's own"):
        derive("prune", victim, recovery=1)


def test_equal_weights_are_pruned_in_order():
    module = torch.nn.Linear(4, 2, bias=False)
    module.weight.data.fill_(0.5)
    ((_, mask),) = masks(module, 0.5)
    assert mask.tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]


def test_a_module_without_matrices_is_not_pruned():
    with pytest.raises(ParameterError, match="ReLU has no weight matrix to prune"):
        masks(torch.nn.ReLU(), 0.5)


def test_int8_rounds_each_channel_to_its_own_grid(victim):
    before, after = arrays(victim.module()), arrays(derive("quantise", victim).module)
    for name in WEIGHTS:
        rows, got = (a[name].reshape(len(a[name]), -1).astype(np.float64) for a in (before, after))
        scale = np.abs(rows).max(axis=1, keepdims=True) / 127
        assert np.abs(got - np.rint(rows / scale) * scale).max() < 1e-6
        assert np.abs(got - rows).max() <= (scale / 2).max() + 1e-7
        assert all(len(np.unique(row)) <= 255 for row in got)
    assert changed(derive("quantise", victim), victim) <= set(WEIGHTS)


def test_int8_leaves_a_row_of_zeros_alone():
    assert torch.equal(rounded(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_int8_is_exact_on_its_own_grid():
    grid = torch.arange(-127, 128).float().reshape(1, -1) / 64
    assert torch.allclose(rounded(grid), grid, atol=1e-7)


def test_fp16_is_numpys_half_precision(victim):
    before, after = arrays(victim.module()), arrays(derive("quantise", victim, format="fp16").module)
    for name in before.keys() - {"shift", "scale"}:
        assert np.array_equal(after[name], before[name].astype(np.float16).astype(np.float32))
    # 0.3 is no half-precision number, and the normalisation is the adapter's.
    assert np.array_equal(after["shift"], before["shift"])


def test_no_noise_gives_the_victim(victim):
    assert changed(derive("noise", victim, share=0.0), victim) == set()


def test_noise_has_the_asked_share_of_each_rows_spread(victim):
    before = arrays(victim.module())
    added = {name: [] for name in WEIGHTS}
    for seed in range(40):
        after = arrays(derive("noise", victim, seed=seed, share=0.2).module)
        for name in WEIGHTS:
            added[name].append((after[name] - before[name]).reshape(len(before[name]), -1))
    for name in WEIGHTS:
        spread = before[name].reshape(len(before[name]), -1).std(axis=1)
        got = np.stack(added[name])
        ratio = got.transpose(1, 0, 2).reshape(len(spread), -1).std(axis=1) / spread
        # The relative error of a deviation from n draws is 1 / sqrt(2 n); five of them.
        assert np.abs(ratio / 0.2 - 1).max() < 5 / np.sqrt(2 * 40 * got.shape[2])
    assert changed(derive("noise", victim), victim) == set(WEIGHTS)
