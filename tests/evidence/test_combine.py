"""Combination: exact under any dependence between schemes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from locard.errors import CalibrationError
from locard.evidence import bonferroni, combine, conformal_rank, p_value
from locard.records import Reference


def references(scores, stratum="same-data"):
    return [
        Reference(name=str(i), digest=f"{stratum}{i}", stratum=stratum, score=float(s)) for i, s in enumerate(scores)
    ]


@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_valid_whatever_the_dependence(n, schemes, seed, tied):
    """Each model takes its turn as suspect: the share with p <= a is at most a."""
    table = np.random.default_rng(seed).normal(size=(n, schemes))
    table[:, -1] = table[:, 0]  # two schemes that say the same thing
    if tied:
        table = table.round()
    ps = np.array([conformal_rank(np.delete(table, i, axis=0), table[i]) for i in range(n)])
    for a in np.unique(ps):
        assert (ps <= a).mean() <= a + 1e-12


@given(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=20), st.floats(-1, 1, width=16))
def test_one_scheme_is_its_own_p(null, score):
    assert conformal_rank(np.array(null)[:, None], np.array([score])) == p_value(null, score)


def test_by_hand():
    null = np.array([[1.0, 4.0], [2.0, 3.0], [3.0, 2.0]])
    # Ranks with the suspect (2.5, 5): (1, 3), (2, 2), (4, 1), suspect (3, 4): sums 4, 4, 5, 7.
    assert conformal_rank(null, np.array([2.5, 5.0])) == 1 / 4
    ranks = rankdata(np.vstack([null, [2.5, 5.0]]), axis=0).sum(axis=1)
    assert ranks.tolist() == [4, 4, 5, 7]


def test_same_references_are_ranked_together_and_others_are_not():
    a, b = references([0.1, 0.2, 0.3]), references([0.5, 0.1, 0.2])
    found = combine([a, b], [0.9, 0.9], [1 / 4, 1 / 4])
    assert (found.method, found.p_value, found.floor) == ("conformal rank", 1 / 4, 1 / 4)
    other = references([0.5, 0.1, 0.2], "disjoint")
    found = combine([a, other], [0.9, 0.9], [1 / 4, 1 / 4])
    assert (found.method, found.p_value, found.floor) == ("bonferroni", 1 / 2, 1 / 2)


def test_the_floor_of_bonferroni_is_that_of_the_smallest_stratum():
    a = references([0.1, 0.2, 0.3]) + references([0.1, 0.2], "disjoint")
    b = references([0.1, 0.2, 0.3], "foreign-theft") + references([0.1, 0.2, 0.4], "unstated")
    found = combine([a, b], [0.9, 0.9], [1 / 3, 1 / 4])
    assert (found.method, found.p_value, found.floor) == ("bonferroni", 1 / 2, 1 / 2)


def test_the_order_of_references_does_not_matter():
    a, b = references([0.1, 0.2, 0.3]), references([0.5, 0.1, 0.2])
    assert combine([a, b], [0.25, 0.3], [0.5, 0.5]) == combine([a, b[::-1]], [0.25, 0.3], [0.5, 0.5])


def test_bonferroni():
    assert bonferroni([0.01, 0.5, 0.2]) == pytest.approx(0.03)
    assert bonferroni([0.9, 0.8]) == 1
    with pytest.raises(CalibrationError, match="nothing to combine"):
        bonferroni([])
    with pytest.raises(CalibrationError, match="nothing to combine"):
        combine([[]], [0.5], [])
    with pytest.raises(CalibrationError, match="expected scores"):
        conformal_rank(np.ones((3, 2)), np.ones(3))
