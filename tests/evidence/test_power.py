"""Power and its interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from locard.errors import ParameterError
from locard.evidence import clopper_pearson, power
from locard.records import Reference


def models(scores, stratum):
    return [
        Reference(name=str(i), digest=f"{stratum}{i}", stratum=stratum, score=float(s)) for i, s in enumerate(scores)
    ]


@given(st.integers(1, 40), st.floats(0.02, 0.98))
def test_the_interval_covers(n, share):
    ks = np.arange(n + 1)
    low, high = np.array([clopper_pearson(int(k), n) for k in ks]).T
    assert binom.pmf(ks[(low <= share) & (share <= high)], n, share).sum() >= 0.95 - 1e-9


def test_ends():
    assert clopper_pearson(0, 90) == (0.0, pytest.approx(1 - 0.025 ** (1 / 90)))
    assert clopper_pearson(5, 5) == (pytest.approx(0.025 ** (1 / 5)), 1.0)
    with pytest.raises(ParameterError, match=r"k must lie in \[0, 5\]; got 6"):
        clopper_pearson(6, 5)


def test_counts_each_kind():
    null = models(np.linspace(0, 0.5, 19), "same-data")
    rows = power(models([0.9, 0.8, 0.2], "prune") + models([0.9], "finetune"), null, alpha=0.05)
    assert [(row.kind, row.flagged, row.n) for row in rows] == [("finetune", 1, 1), ("prune", 2, 3)]


def test_unknown_without_models():
    assert power([], models([0.1], "same-data"), 0.05) is None
    assert power(models([0.1], "prune"), [], 0.05) is None
