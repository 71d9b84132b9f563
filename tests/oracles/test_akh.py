"""AKH against the oracles of its card."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard import engine
from locard.data import read
from locard.errors import ArtefactError, ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.queries import Population
from locard.records import Access, Data, Domain
from locard.schemes import build

DOMAIN = Domain(kind="tabular", shape=(1,))
SCHEME = build("akh")


def speaker(labels, name):
    """A model whose one input is the number of a row, and whose answer is that row's label."""
    return CallableModel(
        lambda x: labels[x[:, 0].astype(np.int64)], domain=DOMAIN, outputs="labels", classes=10, name=name
    )


def rows(truth):
    return Data(inputs=np.arange(len(truth), dtype=np.float32)[:, None], labels=truth, domain=DOMAIN, name="rows")


def d(victim, suspect, truth, queries):
    fp = engine.extract(speaker(victim, "victim"), scheme="akh", data=rows(truth), queries=queries)
    return 1 - SCHEME.similarity(fp, engine.respond(fp, speaker(suspect, "suspect")))


def erring(truth, rate, source):
    """The truth, wrong at the given rate, with each wrong label as likely as another."""
    wrong = (truth + source.integers(1, 10, len(truth))) % 10
    return np.where(source.random(len(truth)) < rate, wrong, truth)


def test_a_model_is_at_distance_0_from_itself():
    source = np.random.default_rng(0)
    truth = source.integers(0, 10, 500)
    victim = erring(truth, 0.3, source)
    assert d(victim, victim, truth, None) == 0


def test_the_truth_is_at_distance_1():
    source = np.random.default_rng(1)
    truth = source.integers(0, 10, 500)
    assert d(erring(truth, 0.3, source), truth, truth, None) == 1


def test_independent_uniform_errors_give_the_expected_distance():
    source = np.random.default_rng(2)
    truth = source.integers(0, 10, 40_000)
    victim, suspect = erring(truth, 0.13, source), erring(truth, 0.13, source)
    n = int((victim != truth).sum())
    expected = 1 - 0.13 / 9
    error = np.sqrt(expected * (1 - expected) / n)
    assert d(victim, suspect, truth, n) == pytest.approx(expected, abs=4 * error)


@given(seed=st.integers(0, 2**32), n=st.integers(20, 80))
def test_bayes_identity_holds_exactly_over_all_mistakes(seed, n):
    source = np.random.default_rng(seed)
    truth = source.integers(0, 10, n)
    victim, suspect = erring(truth, 0.4, source), erring(truth, 0.4, source)
    wrong, differ = victim != truth, victim != suspect
    if not wrong.any() or not differ.any():
        return
    expected = wrong[differ].mean() * differ.mean() / wrong.mean()
    assert d(victim, suspect, truth, int(wrong.sum())) == pytest.approx(expected, abs=1e-12)


def test_mistakes_tell_a_copy_from_a_stranger_better_than_right_answers_do():
    from sklearn.linear_model import LogisticRegression

    digits = read("digits")
    assert digits.labels is not None
    x, y = digits.inputs.reshape(len(digits), -1), digits.labels
    ours, theirs, asked = np.split(np.random.default_rng(3).permutation(len(x)), [150, 300])
    victim = LogisticRegression(max_iter=500).fit(x[ours], y[ours])
    stranger = LogisticRegression(max_iter=500).fit(x[theirs], y[theirs])
    copy = LogisticRegression(max_iter=500).fit(x[theirs], victim.predict(x[theirs]))
    labels = {name: model.predict(x[asked]) for name, model in
              {"victim": victim, "stranger": stranger, "copy": copy}.items()}  # fmt: skip
    wrong = labels["victim"] != y[asked]

    def gap(where):
        agree = {name: (labels[name] == labels["victim"])[where].mean() for name in ("copy", "stranger")}
        return agree["copy"] - agree["stranger"]

    assert gap(wrong) > gap(~wrong) + 0.1
    assert gap(wrong) == pytest.approx(
        d(labels["victim"], labels["stranger"], y[asked], int(wrong.sum()))
        - d(labels["victim"], labels["copy"], y[asked], int(wrong.sum()))
    )


def test_too_few_mistakes_are_refused_with_the_way_out():
    truth = np.arange(50) % 10
    victim = truth.copy()
    victim[:3] += 1
    with pytest.raises(
        ParameterError, match=r"10 inputs that the victim misclassifies are needed, the data hold 3; give"
    ):
        d(victim, victim, truth, None)
    with pytest.raises(ParameterError, match=r"20 inputs that .* the data hold 3; .* fewer --queries"):
        d(victim, victim, truth, 20)


def family(*members):
    return Population(independent=tuple(restrict(speaker(labels, f"m{i}"), Access.LABELS) for i, labels in
                                        enumerate(members)))  # fmt: skip


def test_a_mistake_that_everybody_makes_counts_for_little():
    truth = np.arange(40) % 10
    victim = (truth + 1) % 10
    # Four models: the first makes the first twenty mistakes too, the others only the first ten.
    shared = np.where(np.arange(40) < 10, victim, truth)
    others = [np.where(np.arange(40) < 20, victim, truth), shared, shared, shared]
    fp = engine.extract(speaker(victim, "victim"), scheme="akh", data=rows(truth), params={"discount": True},
                        population=family(*others))  # fmt: skip
    order = fp.queries["inputs"][:, 0].astype(int)
    repeated = np.where(order < 10, 4, np.where(order < 20, 1, 0))
    weights = -np.log((repeated + 1) / 6)
    assert fp.queries["weights"] == pytest.approx(weights)
    scheme = build("akh", {"discount": True})
    suspect = engine.respond(fp, speaker(shared, "suspect"))
    assert scheme.similarity(fp, suspect) == pytest.approx(weights[order < 10].sum() / weights.sum())
    assert scheme.similarity(fp, suspect) < 0.1 < (order < 10).mean()
    assert scheme.similarity(fp, engine.respond(fp, speaker(victim, "victim"))) == 1


def test_discounting_needs_other_models():
    truth = np.arange(40) % 10
    victim = speaker((truth + 1) % 10, "victim")
    with pytest.raises(ParameterError, match="chooses its queries with other models: give a population"):
        engine.extract(victim, scheme="akh", data=rows(truth), params={"discount": True})
    with pytest.raises(ParameterError, match="0 derived and 4 independent models or more; 0 and 1 were given"):
        engine.extract(victim, scheme="akh", data=rows(truth), params={"discount": True}, population=family(truth))


@pytest.mark.parametrize("weights", [None, np.ones(3), np.ones(40, np.int64), np.zeros(40)])
def test_weights_that_are_none_are_refused(weights):
    truth = np.arange(40) % 10
    victim = (truth + 1) % 10
    fp = engine.extract(speaker(victim, "victim"), scheme="akh", data=rows(truth), params={"discount": True},
                        population=family(*[truth] * 4))  # fmt: skip
    queries = {name: array for name, array in fp.queries.items() if name != "weights"}
    broken = replace(fp, queries=queries if weights is None else {**queries, "weights": weights})
    with pytest.raises(ArtefactError, match="needs a positive weight for each query"):
        build("akh", {"discount": True}).similarity(broken, engine.respond(fp, speaker(victim, "victim")))
