"""SAC against the oracles of its card, and against its formulas in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard import engine
from locard.distances import distance
from locard.errors import ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.queries import Population, Queries
from locard.records import Access, Data, Domain
from locard.representations.correlation import Correlation, correlation, spoken
from locard.schemes import build
from locard.testing import toy_data, toy_domain, toy_model

SEEDS = st.integers(0, 2**32)


def answers(seed, n=12, classes=5):
    return np.random.default_rng(seed).normal(size=(n, classes)).astype(np.float32)


def plain_relation(rows):
    n = len(rows)
    result = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(n):
            product = sum(float(a) * float(b) for a, b in zip(rows[i], rows[j], strict=True))
            lengths = math.sqrt(sum(float(a) ** 2 for a in rows[i])) * math.sqrt(sum(float(b) ** 2 for b in rows[j]))
            result[i][j] = (1 - product / lengths) / 2
    return result


def plain_distance(first, second):
    n = len(first)
    return sum(abs(first[i][j] - second[i][j]) for i in range(n) for j in range(n)) / n**2


def plain_row(label, classes):
    raised = [math.exp(1.0 if k == label else 0.01) for k in range(classes)]
    return [value / sum(raised) for value in raised]


def population():
    copies, strangers = (
        tuple(restrict(model, Access.LABELS) for model in models)
        for models in (
            [toy_model(0, noise=noise) for noise in (0.05, 0.1)],
            [toy_model(seed) for seed in range(50, 53)],
        )
    )
    return Population(derived=copies, independent=strangers)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "labels"])
@pytest.mark.parametrize("variant", ["m", "normal", "source", "w", "jc"])
def test_the_score_is_the_cards_formula_on_the_recorded_answers(variant, kind):
    params = {"variant": variant, "answers": kind}
    others = population() if variant == "w" else None
    fp = engine.extract(toy_model(0), scheme="sac", data=toy_data(), params=params, queries=30, population=others)
    suspect = toy_model(1)
    tables = []
    for model in (toy_model(0), suspect):
        view = restrict(model, Access.LOGITS)
        if kind == "labels":
            tables.append([plain_row(label, 5) for label in view.labels(fp.queries["inputs"])])
        else:
            tables.append(getattr(view, kind)(fp.queries["inputs"]))
    expected = 1 - plain_distance(*map(plain_relation, tables))
    assert build("sac", params).similarity(fp, engine.respond(fp, suspect)) == pytest.approx(expected, abs=1e-6)


@given(seed=SEEDS)
def test_a_record_is_at_distance_0_from_itself_with_0_on_the_diagonal(seed):
    relation = correlation(answers(seed))
    assert np.all(np.diag(relation) == 0)
    assert np.array_equal(relation, relation.T)
    assert relation.min() >= 0
    assert relation.max() <= 1
    assert distance("l1")(relation, relation) == 0


@given(seed=SEEDS)
def test_rotations_permutations_and_positive_row_factors_change_nothing(seed):
    rows, source = answers(seed).astype(np.float64), np.random.default_rng(seed + 1)
    rotation, _ = np.linalg.qr(source.normal(size=(5, 5)))
    factors = source.uniform(0.1, 10, (len(rows), 1))
    for changed in (rows @ rotation, rows[:, source.permutation(5)], rows * factors):
        assert correlation(changed) == pytest.approx(correlation(rows), abs=1e-6)


def test_two_answers_that_differ_against_two_that_agree():
    apart, alike = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert distance("l1")(correlation(apart), correlation(alike)) == 0.25


@pytest.mark.parametrize("constant", [np.ones(4), np.array([3.0, 0, 0, 0]), np.zeros(4)])
def test_a_constant_model_relates_everything_to_everything(constant):
    assert np.all(correlation(np.tile(constant, (6, 1))) == 0)


def test_a_row_of_zeros_is_unrelated_to_others():
    assert correlation(np.array([[0.0, 0.0], [1.0, 2.0]]))[0, 1] == 0.5


@pytest.mark.parametrize("variant", ["m", "normal", "source", "w", "jc"])
def test_a_derived_model_is_nearer_than_independent_ones(variant):
    params, others = {"variant": variant}, population() if variant == "w" else None
    fp = engine.extract(toy_model(0), scheme="sac", data=toy_data(), params=params, population=others)
    scheme = build("sac", params)
    derived = [scheme.similarity(fp, engine.respond(fp, toy_model(0, noise=noise))) for noise in (0.02, 0.05, 0.1)]
    others = [scheme.similarity(fp, engine.respond(fp, toy_model(seed))) for seed in range(1, 11)]
    assert min(derived) > max(others)


def test_a_model_asked_again_scores_1():
    fp = engine.extract(toy_model(0), scheme="sac", data=toy_data())
    assert build("sac").similarity(fp, engine.respond(fp, toy_model(0))) == 1


@pytest.mark.parametrize("kind", ["logits", "probabilities", "labels"])
def test_a_copy_with_more_classes_is_still_found(kind):
    victim = restrict(toy_model(0), Access.LOGITS)
    outputs = "labels" if kind == "labels" else "logits"

    def spare(x):
        unlikely = np.full((len(x), 3), victim.logits(x).min() - 20)
        scores = np.concatenate([victim.logits(x), unlikely], axis=1)
        return scores.argmax(axis=1) if kind == "labels" else scores

    suspect = CallableModel(spare, domain=toy_domain(), outputs=outputs, classes=8, name="three classes more")
    fp = engine.extract(toy_model(0), scheme="sac", data=toy_data(), params={"answers": kind})
    if kind == "logits":
        # Scores far below the rest turn every row by the same; what stays is that the two can be compared at all.
        assert engine.respond(fp, suspect).record["correlation"].shape == (100, 100)
    else:
        fp = engine.calibrate(fp, references=[toy_model(seed) for seed in range(100, 119)])
        assert engine.verify(fp, suspect).decision == "derived"


@given(classes=st.integers(2, 12), seed=SEEDS)
def test_a_label_stands_for_a_softmaxed_row(classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, 6)
    expected = [plain_row(label, classes) for label in labels]
    assert spoken(labels, classes) == pytest.approx(np.array(expected))


def test_the_source_variant_asks_the_victims_mistakes():
    data = toy_data()
    assert data.labels is not None
    fp = engine.extract(toy_model(0), scheme="sac", data=data, params={"variant": "source"}, queries=25)
    known = {row.tobytes(): label for row, label in zip(data.inputs, data.labels, strict=True)}
    said = restrict(toy_model(0), Access.LABELS).labels(fp.queries["inputs"])
    assert all(known[row.tobytes()] != label for row, label in zip(fp.queries["inputs"], said, strict=True))


def test_labels_need_the_number_of_classes():
    model = CallableModel(lambda x: np.zeros(len(x), int), domain=toy_domain(), outputs="labels", name="terse")
    with pytest.raises(ParameterError, match="number of classes, which terse does not tell"):
        Correlation(answers="labels").record(restrict(model, Access.LABELS), Queries(inputs=toy_data(5).inputs))


def test_wrong_parameters_are_refused():
    with pytest.raises(ParameterError, match="unknown variant of sac 'x'; known: jc, m, normal, source, w"):
        build("sac", {"variant": "x"})
    with pytest.raises(ParameterError, match="unknown kind of answers 'logit'; did you mean 'logits'"):
        build("sac", {"answers": "logit"})


def test_the_default_variant_refuses_what_is_no_image():
    domain = Domain(kind="tabular", shape=(4,))
    data = Data(inputs=np.zeros((20, 4), np.float32), labels=None, domain=domain, name="a table")
    model = CallableModel(lambda x: x, domain=domain, outputs="logits", name="identity")
    with pytest.raises(
        ParameterError, match=r"a table holds tabular .*: use the sampler 'random' \(sac: variant=normal\)"
    ):
        engine.extract(model, scheme="sac", data=data)
