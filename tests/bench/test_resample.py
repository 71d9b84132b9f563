"""Resampled figures against plain ones, and intervals against a truth that is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from tests.bench.population import numbers, population

from locard.bench.metrics import Side, Trial
from locard.bench.resample import Weights, above, areas, interval, over_victims, shares
from locard.bench.summary import summarise
from locard.evidence import aruc, auroc, clopper_pearson, tpr_at_fpr

scores = st.lists(st.integers(0, 8).map(lambda x: x / 8), min_size=1, max_size=8)
times = st.integers(1, 4)


def side(values, name="m"):
    n = len(values)
    models = np.array([f"{name}{i}" for i in range(n)], object)
    kind = np.full(n, "k", object)
    return Side(
        score=np.array(values, float), model=models, origin=models, kind=kind, family=kind, p=np.full(n, np.nan)
    )


def trial(thefts, innocents):
    return Trial(victim="v", seed=0, thefts=side(thefts, "t"), innocents=side(innocents, "i"), references=side([]))


@given(scores, scores, st.data())
def test_a_weight_is_so_many_copies(thefts, innocents, data):
    """Whole weights say what plain figures say of models written down so many times."""
    of_thefts = np.array([[1, data.draw(times)] for _ in thefts], float)
    of_innocents = np.array([[1, data.draw(times)] for _ in innocents], float)
    one = trial(thefts, innocents)
    below, flagged = above(one, of_innocents, [0.05, 0.3])
    whole = np.ones((1, len(thefts)), bool)
    for column in (0, 1):
        a = np.repeat(thefts, of_thefts[:, column].astype(int))
        b = np.repeat(innocents, of_innocents[:, column].astype(int))
        assert shares(below, of_thefts, whole)[0, column] == pytest.approx(auroc(a, b))
        for fpr, found in zip([0.05, 0.3], flagged, strict=True):
            assert shares(found, of_thefts, whole)[0, column] == pytest.approx(tpr_at_fpr(a, b, fpr))
        assert areas(one, of_thefts, of_innocents)[column] == pytest.approx(aruc(a, b))


def test_a_model_without_a_score_is_below_all():
    one = trial([-np.inf, 0.5], [-np.inf, 0.25])
    weights = np.ones((2, 1))
    below, flagged = above(one, weights, [0.5])
    assert below[:, 0].tolist() == [0.25, 1.0]
    assert flagged[0, :, 0].tolist() == [False, True]
    assert areas(one, weights, weights)[0] == pytest.approx(0.25)  # half found up to 0.5, half cleared below 0.25


def test_groups_have_their_own_shares():
    found = shares(np.array([1.0, 0.0, 1.0]), np.array([[1.0, 3.0], [1.0, 1.0], [1.0, 1.0]]),
                   np.array([[True, True, False], [False, False, True], [False] * 3]))  # fmt: skip
    assert np.array_equal(found, [[0.5, 0.75], [1, 1], [np.nan, np.nan]], equal_nan=True)


def test_each_victim_counts_once():
    weights = Weights(["a", "b"], ["m"], resamples=100, seed=0)
    rows = [np.full(101, x) for x in (0.0, 0.5, 1.0)]
    found, victims = over_victims(rows, ["a", "a", "b"], weights)
    assert (found[0], victims) == (0.625, 2)
    assert 0.25 < found.min() < found.max() < 1
    found, victims = over_victims([rows[0], np.full(101, np.nan)], ["a", "b"], weights)
    assert (found.tolist(), victims) == ([0.0] * 101, 1)


def test_weights_know_their_models_in_any_order():
    first = Weights(["a"], ["m0", "m1", "m2"], resamples=100, seed=3)
    other = Weights(["a"], ["m2", "m0", "m1", "m0"], resamples=100, seed=3)
    assert np.array_equal(first.of(side([0, 0, 0])), other.of(side([0, 0, 0])))
    assert (first.of(side([0]))[:, 0] == 1).all()
    assert not np.array_equal(first.of(side([0])), Weights(["a"], ["m0"], resamples=100, seed=4).of(side([0])))


def test_the_error_is_that_of_a_mean():
    """Of ten values with one weight each, and of ten victims: s / sqrt(n), within the luck of 20,000 resamples."""
    values = np.linspace(0, 0.9, 10)
    weights = Weights([f"v{i}" for i in range(10)], [f"m{i}" for i in range(10)], resamples=20_000, seed=1)
    plain = np.std(values, ddof=1) / np.sqrt(10)
    within = shares(values, weights.of(side(values)), np.ones((1, 10), bool))[0]
    assert interval(within, victims=1, n=10).error == pytest.approx(plain, rel=0.03)
    rows = [np.full(20_001, value) for value in values]
    between, victims = over_victims(rows, [f"v{i}" for i in range(10)], weights)
    assert interval(between, victims=victims, n=50).error == pytest.approx(plain, rel=0.03)


def test_what_resampling_cannot_tell():
    always = np.ones(101)
    found = interval(always, victims=3, n=12, exact=12, always=True)
    assert (found.value, found.low, found.high) == (1, clopper_pearson(12, 12)[0], 1)
    never = interval(0 * always, victims=3, n=12, exact=12, always=True)
    assert (never.low, never.high) == (0, clopper_pearson(0, 12)[1])
    one = interval(always, victims=1, n=1, exact=1, always=True)
    assert (one.low, one.error) == (clopper_pearson(1, 1)[0], None)
    assert (interval(0.5 * always, victims=1, n=1).low, interval(0.5 * always, victims=1, n=1).high) == (0, 1)


@pytest.mark.parametrize(("victims", "thefts"), [(5, 4), (3, 2), (1, 12)])
def test_intervals_hold_the_truth(victims, thefts):
    """Of 100 benches whose AUROC is known: at least 90 intervals of 95% hold it, and their errors are about right.

    Of a binomial of 100 at 95%, 90 or fewer has a probability of 3%; the seeds are fixed.
    """
    truth = norm.cdf(2 / np.sqrt(2))
    found = [
        summarise(population(seed=seed, victims=victims, thefts=thefts, kinds={"a": "a"}, references=19), resamples=200)
        .standings[0].auroc
        for seed in range(100)
    ]  # fmt: skip
    assert ((numbers(found, "low") <= truth) & (truth <= numbers(found, "high"))).sum() >= 90
    assert 0.75 < numbers(found, "error").mean() / numbers(found).std() < 1.4


def test_the_headline_holds_its_truth_too():
    """The share found, of the test that references make, between victims: 100 benches of five."""
    found = [summarise(population(seed=seed, victims=5), resamples=200).standings[0].tpr[0.05] for seed in range(100)]
    truth = numbers(found).mean()
    assert ((numbers(found, "low") <= truth) & (truth <= numbers(found, "high"))).sum() >= 90
    assert 0.75 < numbers(found, "error").mean() / numbers(found).std() < 1.4
