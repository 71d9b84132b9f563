"""p-values by rank: exact under an exact null, whatever the distribution, ties included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard.errors import CalibrationError
from locard.evidence import STRATA, p_value, p_values, stratified
from locard.records import Reference

scores = st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=40)


def reference(score, stratum="same-data", name="r"):
    return Reference(name=name, digest=name, stratum=stratum, score=float(score))


def test_by_hand():
    assert p_value([0.1, 0.2, 0.3], 0.25) == 2 / 4
    assert p_value([0.1, 0.2, 0.3], 0.3) == 2 / 4  # a tie counts against the accuser
    assert p_value([0.1, 0.2, 0.3], 0.31) == 1 / 4
    assert p_value([0.1, 0.2, 0.3], -1) == 1


@given(scores, st.floats(-1, 1, width=16))
def test_bounds_and_rank(null, score):
    p = p_value(null, score)
    assert 1 / (len(null) + 1) <= p <= 1
    assert p == p_value([3 * s + 7 for s in null], 3 * score + 7)  # only the order counts
    assert p_value(null, max(null) + 1) == 1 / (len(null) + 1)


@given(scores, scores)
def test_many_suspects_as_each(null, suspects):
    counted = [(1 + sum(r >= s for r in null)) / (len(null) + 1) for s in suspects]
    assert p_values(null, np.array(suspects)).tolist() == counted


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30))
def test_valid_under_exchangeability(values):
    """Each of the R + 1 models takes its turn as suspect: the share with p <= a is at most a, ties or not."""
    ps = np.array([p_value(values[:i] + values[i + 1 :], values[i]) for i in range(len(values))])
    for a in np.unique(ps):
        assert (ps <= a).mean() <= a + 1e-12


def test_no_reference_and_no_number():
    with pytest.raises(CalibrationError, match="at least one reference"):
        p_value([], 0.5)
    with pytest.raises(CalibrationError, match="finite"):
        p_value([0.1, float("nan")], 0.5)
    with pytest.raises(CalibrationError, match="finite"):
        p_value([0.1], float("inf"))


def test_the_least_favourable_stratum_decides():
    null = [reference(s, "disjoint") for s in (0.1, 0.2, 0.3)] + [reference(s, "same-data") for s in (0.1, 0.9)]
    found = stratified(null, 0.5, "s")
    assert found.p_values == {"disjoint": 1 / 4, "same-data": 2 / 3}
    assert found.p_value == 2 / 3
    assert found.null.deciding == "same-data"
    assert found.p_value_floor == 1 / 3
    assert found.null.n == 5
    assert found.null.strata == {"disjoint": 3, "same-data": 2}
    assert found.null.missing == ("same-architecture", "foreign-theft")


def test_without_references_there_is_no_p():
    found = stratified([], 0.5, "s")
    assert found.p_value is None
    assert found.null.kind == "none"
    assert found.null.missing == STRATA
