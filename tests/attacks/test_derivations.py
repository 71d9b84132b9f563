"""Pruning and noise against their definitions."""

import numpy as np
import pytest
import torch
from tests.attacks.derived import WEIGHTS, answers, arrays, changed, derive

from locard.attacks.prune import masks
from locard.errors import ParameterError


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


@pytest.mark.parametrize("fraction", [0.25, 0.9])
def test_each_layer_may_lose_its_own_share(victim, fraction):
    before = arrays(victim.module())
    after = arrays(derive("prune", victim, fraction=fraction, per_layer=True).module)
    for name in WEIGHTS:
        sizes, kept = np.abs(before[name].ravel()), after[name].ravel()
        k = round(fraction * len(sizes))
        assert set(np.flatnonzero(kept == 0)) == set(np.argsort(sizes, kind="stable")[:k])
        assert np.array_equal(kept[kept != 0], before[name].ravel()[kept != 0])


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
