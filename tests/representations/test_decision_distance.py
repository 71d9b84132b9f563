"""What pairs are reduced to: angles between answers, and changes of label."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard import engine
from locard.errors import AccessError, ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.queries import Queries
from locard.records import Access, Domain
from locard.representations.decision_change import DecisionChange
from locard.representations.decision_distance import DecisionDistance, decision_distance
from locard.testing import toy_data, toy_model

ROWS = Domain(kind="tabular", shape=(3,))
PAIRS = np.array([[0, 3], [1, 4], [2, 5]])


def echo(outputs="logits", columns=3, domain=ROWS, classes=None):
    """A model that answers with its inputs."""
    answers = (lambda x: x.argmax(axis=1)) if outputs == "labels" else lambda x: x[:, :columns]
    return CallableModel(answers, domain=domain, outputs=outputs, classes=classes, name="echo")


def queries(first, second, pairs=PAIRS):
    inputs = np.concatenate([np.asarray(first, np.float32), np.asarray(second, np.float32)])
    return Queries(inputs=inputs, extras={} if pairs is None else {"pairs": pairs})


def plain(a, b):
    """1 - cos, in loops."""
    result = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        result.append(1 - dot / (sum(p * p for p in x) * sum(q * q for q in y)) ** 0.5)
    return np.array(result)


@given(seed=st.integers(0, 2**32), columns=st.integers(2, 12))
def test_it_is_one_minus_the_cosine(seed, columns):
    source = np.random.default_rng(seed)
    a, b = source.normal(size=(2, 9, columns)).astype(np.float32)
    found = decision_distance(a, b)
    assert found.dtype == np.float32
    assert found == pytest.approx(plain(a, b), abs=1e-6)
    assert found.min() >= 0
    assert found.max() <= 2
    assert np.array_equal(found, decision_distance(b, a))


@given(seed=st.integers(0, 2**32))
def test_it_knows_no_scale_and_no_order_of_the_answers_but_an_offset(seed):
    source = np.random.default_rng(seed)
    a, b = source.normal(size=(2, 9, 5))
    found, order = decision_distance(a, b), source.permutation(5)
    assert decision_distance(7 * a[:, order], 0.3 * b[:, order]) == pytest.approx(found, abs=1e-6)
    assert not np.allclose(decision_distance(a + 3, b + 3), found, atol=1e-3)


def test_equal_answers_are_exactly_nothing_apart_and_opposite_ones_two():
    a = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    assert not decision_distance(a, a).any()
    assert decision_distance(a, -a) == pytest.approx(np.full(50, 2.0))


def test_small_angles_do_not_drown_in_rounding():
    angle = np.array([1e-3, 1e-5, 1e-7])
    a, b = np.tile([1.0, 0.0], (3, 1)), np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert decision_distance(a, b) == pytest.approx(angle**2 / 2, rel=1e-6)


def test_zeros_are_alike_among_themselves_and_unlike_all_else():
    zero, other = np.zeros((1, 4)), np.array([[1.0, 2.0, 3.0, 4.0]])
    assert decision_distance(zero, zero) == [0]
    assert decision_distance(zero, other) == [1]
    assert decision_distance(other, zero) == [1]


def test_pairs_say_which_row_belongs_to_which():
    first, second = np.eye(3), [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    asked = queries(first, second)
    view = restrict(echo(), Access.LOGITS)
    assert DecisionDistance().record(view, asked)["distances"] == pytest.approx([0, 1 - 0.5**0.5, 1])
    crossed = queries(first, second, np.array([[5, 0], [0, 1], [4, 1], [2, 2]], np.int32))
    assert DecisionDistance().record(view, crossed)["distances"] == pytest.approx([0, 1, 1 - 0.5**0.5, 0])
    assert DecisionDistance().cost(asked) == 6
    assert DecisionDistance().inputs(asked) is asked.inputs


@pytest.mark.parametrize(("answers", "access"), [("probabilities", Access.PROBABILITIES), ("values", Access.VALUES)])
def test_probabilities_and_values_serve_too(answers, access):
    source = np.random.default_rng(1)
    a, b = source.dirichlet(np.ones(3), (2, 3))
    representation = DecisionDistance(answers=answers)
    assert representation.access is access
    view = restrict(echo(answers), access)
    found = representation.record(view, queries(a, b))["distances"]
    assert found == pytest.approx(plain(a, b), abs=1e-6)


def test_one_number_has_no_direction():
    view = restrict(echo("values", columns=1), Access.VALUES)
    with pytest.raises(ParameterError, match="echo answers one number; it needs two or more"):
        DecisionDistance(answers="values").record(view, queries(np.eye(3), np.eye(3)))


def test_labels_have_no_angle():
    with pytest.raises(ParameterError, match="unknown kind of answers 'labels'"):
        DecisionDistance(answers="labels")
    fp = engine.extract(toy_model(0, gradients=True), scheme="adversarial+decision-distance+cosine", data=toy_data())
    with pytest.raises(AccessError, match="needs LOGITS of the suspect"):
        engine.verify(fp, toy_model(1), access=Access.LABELS)


@pytest.mark.parametrize("representation", [DecisionDistance(), DecisionChange()])
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (None, "the queries must carry 'pairs': use the sampler 'adversarial' or 'divergent'"),
        (PAIRS.astype(np.float64), r"pairs must be whole numbers of shape \(m, 2\); got float64 \(3, 2\)"),
        (PAIRS[:, :1], r"shape \(m, 2\); got int64 \(3, 1\)"),
        (PAIRS[:0], r"shape \(m, 2\); got int64 \(0, 2\)"),
        (PAIRS.ravel(), r"shape \(m, 2\); got int64 \(6,\)"),
        (PAIRS + 1, "pairs must be rows of 6 inputs; got 1 to 6"),
        (PAIRS - 1, "pairs must be rows of 6 inputs; got -1 to 4"),
    ],
)
def test_pairs_of_a_stranger_are_checked(representation, pairs, message):
    view = restrict(echo(), Access.LOGITS)
    with pytest.raises(ParameterError, match=message):
        representation.record(view, queries(np.eye(3), np.eye(3), pairs))


def test_a_change_of_label_is_counted_round_the_classes():
    source = np.random.default_rng(2)
    first, second = source.normal(size=(2, 3, 3))
    first[0], second[0] = np.eye(3)[2], np.eye(3)[0]
    view = restrict(echo("labels", classes=3), Access.LABELS)
    found = DecisionChange().record(view, queries(first, second))["changes"]
    assert found.dtype == np.int64
    assert found[0] == 1
    assert np.array_equal((first.argmax(axis=1) + found) % 3, second.argmax(axis=1))
    assert np.array_equal(DecisionChange().record(view, queries(first, first))["changes"], [0, 0, 0])
    asked = queries(first, second)
    assert DecisionChange().cost(asked) == 6
    assert DecisionChange().inputs(asked) is asked.inputs


def test_a_rotation_of_the_classes_changes_nothing_but_another_order_does():
    source = np.random.default_rng(3)
    answers = source.normal(size=(2, 30, 4))
    pairs = np.arange(60).reshape(2, 30).T
    domain = Domain(kind="tabular", shape=(4,))
    view = restrict(echo("labels", domain=domain, classes=4), Access.LABELS)
    changes = [
        DecisionChange().record(view, queries(answers[0][:, order], answers[1][:, order], pairs))["changes"]
        for order in ([0, 1, 2, 3], [1, 2, 3, 0], [1, 0, 2, 3])
    ]
    assert np.array_equal(changes[0], changes[1])
    assert not np.array_equal(changes[0], changes[2])


def test_the_number_of_classes_must_be_known():
    view = restrict(echo("labels"), Access.LABELS)
    with pytest.raises(ParameterError, match=r"whose number echo does not tell; load it with classes=\.\.\."):
        DecisionChange().record(view, queries(np.eye(3), np.eye(3)))
