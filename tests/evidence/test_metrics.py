"""AUROC, TPR at an FPR and ARUC against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard.errors import ParameterError
from locard.evidence import aruc, auroc, tpr_at_fpr

scores = st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=20)


@given(scores, scores)
def test_it_counts_pairs(derived, independent):
    pairs = [(a > b) + (a == b) / 2 for a in derived for b in independent]
    assert auroc(derived, independent) == pytest.approx(np.mean(pairs))
    assert auroc(independent, derived) == pytest.approx(1 - np.mean(pairs))


def test_scores_are_needed_of_both_kinds():
    with pytest.raises(ParameterError, match="got 1 and 0"):
        auroc([0.5], [])
    with pytest.raises(ParameterError, match="AUROC needs scores"):
        auroc([float("nan")], [0.5])


@given(scores, scores, st.sampled_from([0.01, 0.05, 0.25, 0.29, 0.5]))
def test_the_best_threshold_that_accuses_no_more(derived, independent, fpr):
    """Of all thresholds that accuse at most that share, the one that finds most."""
    a, b = np.array(derived), np.array(independent)
    fitting = [t for t in [-2, *independent] if np.mean(b > t) <= fpr]
    assert tpr_at_fpr(derived, independent, fpr) == max(np.mean(a > t) for t in fitting)


def test_tpr_at_fpr_by_hand():
    innocents = np.arange(100) / 100
    assert tpr_at_fpr([0.93, 0.94, 0.95, 0.97], innocents, 0.05) == 0.5  # 0.95 to 0.99 may be accused, 0.94 may not
    assert tpr_at_fpr([0.5, 0.5], np.full(20, 0.5), 0.05) == 0  # ties accuse nobody
    assert tpr_at_fpr([0.695, 0.705], innocents, 0.29) == 0.5  # 0.29 of 100 is 29 in whole numbers only


@given(st.lists(st.floats(0, 1, width=16), min_size=1, max_size=9), st.lists(st.floats(0, 1, width=16), min_size=1))
def test_aruc_is_the_area(derived, independent):
    """Against a sum over a fine grid; a step of either curve costs at most one cell."""
    grid = (np.arange(20_000) + 0.5) / 20_000
    robust = (np.array(derived)[:, None] >= grid).mean(axis=0)
    unique = (np.array(independent)[:, None] < grid).mean(axis=0)
    steps = len(derived) + len(independent)
    assert aruc(derived, independent) == pytest.approx(np.minimum(robust, unique).mean(), abs=steps / 20_000)


def test_aruc_is_the_gap_where_there_is_one():
    assert aruc([0.9, 0.9], [0.25]) == pytest.approx(0.65)
    assert aruc([0.25], [0.9, 0.8]) == 0
    assert aruc([1.0], [0.0]) == 1


def test_scores_are_needed_on_the_scale():
    with pytest.raises(ParameterError, match=r"reads scores as shares, in \[0, 1\]"):
        aruc([0.5], [-0.1])
    with pytest.raises(ParameterError, match="ARUC needs scores"):
        aruc([], [0.5])
    with pytest.raises(ParameterError, match=r"TPR at an FPR needs scores .* got 1 and 0"):
        tpr_at_fpr([0.5], [], 0.05)
    with pytest.raises(ParameterError, match="fpr must lie in"):
        tpr_at_fpr([0.5], [0.5], 0)
