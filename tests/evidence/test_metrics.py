"""AUROC against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard.errors import ParameterError
from locard.evidence import auroc

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
