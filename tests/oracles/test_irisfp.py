"""IrisFP's points, selection and thresholds against what they are said to be, and its score in plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from locard import engine
from locard.errors import ArtefactError, ParameterError
from locard.models import restrict
from locard.queries import Population
from locard.queries.iris import Iris, cohens_d, divergence, thresholds
from locard.records import Access
from locard.schemes import build
from locard.testing import toy_data, toy_model

SCHEME = build("irisfp")


@pytest.fixture(scope="module")
def population():
    return Population(
        derived=tuple(restrict(toy_model(0, noise=noise), Access.LABELS) for noise in (0.02, 0.05, 0.1)),
        independent=tuple(restrict(toy_model(seed), Access.LABELS) for seed in range(50, 56)),
    )


@pytest.fixture(scope="module")
def fp(population):
    return engine.extract(toy_model(0, gradients=True), scheme="irisfp", data=toy_data(), queries=50,
                          population=population)  # fmt: skip


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 7))
def test_the_objective_is_the_divergence_from_the_goal(seed, classes):
    source = np.random.default_rng(seed)
    logits, goal = source.normal(0, 2, (5, classes)), source.dirichlet(np.ones(classes), 5).astype(np.float32) + 1e-3
    expected = []
    for z, t in zip(logits, goal, strict=True):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        expected.append(sum(t[c] * (np.log(t[c]) - np.log(p[c])) for c in range(classes)))
    loss = divergence(goal)
    found = torch.cat([loss(torch.from_numpy(logits[:2])), loss(torch.from_numpy(logits[2:]))])
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_points_lie_where_classes_meet(fp):
    """Nearer to the goal than the inputs they came from, and with the chosen class on top."""
    victim = restrict(toy_model(0, gradients=True), Access.LOGITS)
    spread = np.ptp(victim.logits(fp.queries["inputs"]), axis=1)
    assert np.median(spread) < 0.5 * np.median(np.ptp(victim.logits(toy_data().inputs), axis=1))
    assert fp.queries["units"].tolist() == np.repeat(np.arange(10), 5).tolist()
    assert np.array_equal(victim.labels(fp.queries["inputs"]), fp.record["labels"])


def test_the_units_kept_are_those_that_tell_best(population):
    asked = restrict(toy_model(0, gradients=True), Access.GRADIENTS)
    sampler = Iris(candidates=2)
    best = sampler.draw(asked, toy_data(), n=50, default=50, seed=3, population=population)
    units, said = sampler._candidates(asked, toy_data(), 20, 3)
    assert len(units) > 10
    shares = [np.stack([(model.labels(units.reshape(-1, 1, 8, 8)).reshape(said.shape) == said).mean(axis=1)
                        for model in models]) for models in (population.derived, population.independent)]  # fmt: skip
    rank = np.argsort(-cohens_d(*shares), kind="stable")
    assert np.array_equal(best.inputs.reshape(10, 5, 1, 8, 8), units[rank[:10]])
    assert best.extras["thresholds"] == pytest.approx(thresholds(*shares)[rank[:10]])


def test_cohens_d_and_the_threshold_by_hand():
    copies, strangers = np.array([[0.8], [1.0]]), np.array([[0.2], [0.4], [0.6]])
    pooled = np.sqrt((1 * 0.02 + 2 * 0.04) / 3)
    assert cohens_d(copies, strangers) == pytest.approx((0.9 - 0.4) / pooled, rel=1e-4)
    a, b = 1 / np.sqrt(0.02), 1 / 0.2
    assert thresholds(copies, strangers) == pytest.approx((a * 0.9 + b * 0.4) / (a + b), rel=2e-3)
    # As many of its own standard deviations from one mean as from the other.
    t = thresholds(copies, strangers)[0]
    assert (0.9 - t) / np.sqrt(0.02) == pytest.approx((t - 0.4) / 0.2, rel=2e-2)


def test_a_pool_without_spread_keeps_the_threshold_between_the_means():
    found = thresholds(np.ones((3, 1)), np.array([[0.2], [0.2]]))
    assert 0.2 < found[0] < 1


def test_the_score_is_the_share_of_units_at_their_threshold(fp):
    record = engine.respond(fp, toy_model(0, noise=0.3))
    matched = 0
    for number in range(10):
        here = fp.queries["units"] == number
        share = np.mean(fp.record["labels"][here] == record.record["labels"][here])
        matched += share >= fp.queries["thresholds"][number]
    assert SCHEME.similarity(fp, record) == matched / 10
    assert SCHEME.similarity(fp, engine.respond(fp, toy_model(0))) == 1


def test_copies_score_above_strangers(fp):
    copies = [SCHEME.similarity(fp, engine.respond(fp, toy_model(0, noise=noise))) for noise in (0.01, 0.03)]
    strangers = [SCHEME.similarity(fp, engine.respond(fp, toy_model(seed))) for seed in range(1, 30)]
    assert min(copies) > max(strangers)


def test_what_cannot_be_is_refused(population):
    victim, data = toy_model(0, gradients=True), toy_data()
    with pytest.raises(ParameterError, match="each unit has 5 points, so --queries must be a multiple of 5; got 12"):
        engine.extract(victim, scheme="irisfp", data=data, queries=12, population=population)
    with pytest.raises(ParameterError, match="need a population of 2 derived and 2 independent models or more"):
        engine.extract(victim, scheme="irisfp", data=data, population=Population(derived=population.derived))
    with pytest.raises(ParameterError, match=r"lift must leave something for 4 other classes; got 0.9"):
        engine.extract(victim, scheme="irisfp", data=data, params={"lift": 0.9}, population=population)
    with pytest.raises(ParameterError, match=r"200 units are needed; \d+ inputs of toy data led to points"):
        engine.extract(victim, scheme="irisfp", data=data, queries=1000, params={"steps": 1}, population=population)


@pytest.mark.parametrize("limits", [None, np.ones(3), np.full(10, 1.5), np.full(10, np.nan), np.ones(10, np.int64)])
def test_thresholds_that_are_none_are_refused(fp, limits):
    queries = {name: array for name, array in fp.queries.items() if name != "thresholds"}
    broken = replace(fp, queries=queries if limits is None else {**queries, "thresholds": limits})
    with pytest.raises(ArtefactError, match="needs a threshold of at most 1 for each of 10 units"):
        SCHEME.similarity(broken, fp)
