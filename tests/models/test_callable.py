"""Any callable as a model: each rung, and each kind of garbage with its message. This file must run without torch."""

from __future__ import annotations

import numpy as np
import pytest

from locard.errors import AccessError, LocardError, ParameterError
from locard.models import Session, adapters, load, restrict
from locard.models.callable import CallableModel
from locard.records import Access, Domain
from locard.testing import ADAPTER_LAWS, check_adapter

DOMAIN = Domain(kind="tabular", shape=(3,), bounds=(0.0, 1.0))
X = np.random.default_rng(0).random((7, 3), np.float32)
W = np.array([[1.0, -2.0], [0.5, 0.25], [-1.0, 3.0]], np.float32)
LOGITS = X @ W
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def logits(x):
    return x @ W


def probabilities(x):
    scores = np.exp(x @ W)
    return scores / scores.sum(axis=1, keepdims=True)


def labels(x):
    return (x @ W).argmax(axis=1)


FUNCTIONS = {"labels": labels, "probabilities": probabilities, "logits": logits, "values": logits}


def model(function, **options):
    return load(function, **{"domain": DOMAIN, **options})


@pytest.mark.parametrize("law", ADAPTER_LAWS)
@pytest.mark.parametrize("outputs", FUNCTIONS)
def test_keeps_the_laws_of_adapters(outputs, law):
    check_adapter(lambda: model(FUNCTIONS[outputs], outputs=outputs), X, law)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ("labels", {Access.LABELS: LOGITS.argmax(axis=1)}),
        ("probabilities", {Access.LABELS: LOGITS.argmax(axis=1), Access.PROBABILITIES: PROBABILITIES}),
        (
            "logits",
            {Access.LABELS: LOGITS.argmax(axis=1), Access.PROBABILITIES: PROBABILITIES, Access.LOGITS: LOGITS},
        ),
        ("values", {Access.VALUES: LOGITS}),
    ],
)
def test_each_rung_and_those_below_it(outputs, expected):
    wrapped = model(FUNCTIONS[outputs], outputs=outputs, classes=None if outputs == "values" else 2)
    for rung in (Access.LABELS, Access.PROBABILITIES, Access.LOGITS, Access.GRADIENTS, Access.VALUES, Access.WEIGHTS):
        if rung in expected:
            assert np.allclose(Session(wrapped, rung).answer(X, rung), expected[rung], atol=1e-6)
        else:
            with pytest.raises(AccessError, match=f"{rung.text} is asked of callable {FUNCTIONS[outputs].__name__}"):
                Session(wrapped, rung)


def test_lists_are_answers_too():
    wrapped = model(lambda x: (x @ W).tolist(), outputs="logits")
    answers = Session(wrapped, Access.LOGITS).answer(X, Access.LOGITS)
    assert answers.dtype == np.float32
    assert np.allclose(answers, LOGITS, atol=1e-6)


def fails(x):
    raise RuntimeError("out of\nmemory")


def refuses(x):
    raise AccessError("not today")


GARBAGE = {
    "one row too few": (
        lambda x: logits(x)[1:],
        "logits",
        r"must answer numbers of shape \(7, classes\); got float32 \(6, 2\)",
    ),
    "one number an input": (
        lambda x: x[:, 0],
        "logits",
        r"must answer numbers of shape \(7, classes\); got float32 \(7,\)",
    ),
    "an axis too many": (lambda x: logits(x)[:, :, None], "values", r"got float32 \(7, 2, 1\)"),
    "text": (lambda x: np.array([["a", "b"]] * len(x)), "logits", r"must answer numbers .* got <U1 \(7, 2\)"),
    "nothing": (lambda x: None, "logits", r"must answer numbers .* got object \(\)"),
    "complex numbers": (lambda x: logits(x) + 1j, "logits", "got complex"),
    "NaN": (
        lambda x: np.where(x[:, :1] > 0.5, np.nan, logits(x)),
        "logits",
        r"answers NaN or infinity to \d of 7 inputs",
    ),
    "infinity": (lambda x: logits(x) * np.inf, "values", "answers NaN or infinity to 7 of 7 inputs"),
    "too large for float32": (lambda x: np.full((len(x), 2), 1e300), "logits", "answers NaN or infinity to 7 of 7"),
    "other classes": (lambda x: x, "logits", "answers 3 numbers an input; expected 2"),
    "rows of unequal length": (lambda x: [[1.0], *[[1.0, 2.0]] * (len(x) - 1)], "logits", "fails on a batch of shape"),
    "negative probabilities": (
        lambda x: np.tile([1.5, -0.5], (len(x), 1)),
        "probabilities",
        "negative or do not add up",
    ),
    "logits called probabilities": (logits, "probabilities", "say outputs='logits' if they are logits"),
    "probabilities of many labels": (lambda x: np.full((len(x), 2), 0.9), "probabilities", "do not add up to 1"),
    "labels that are fractions": (
        lambda x: x[:, 0],
        "labels",
        r"must answer whole numbers of shape \(7,\); got float32",
    ),
    "labels in a column": (lambda x: labels(x)[:, None], "labels", r"must answer whole numbers .* got int64 \(7, 1\)"),
    "scores called labels": (logits, "labels", r"must answer whole numbers of shape \(7,\); got float32 \(7, 2\)"),
    "labels too large": (lambda x: labels(x) + 1, "labels", "answers labels from 1 to 2; expected 0 to 1"),
    "negative labels": (lambda x: labels(x) - 1, "labels", "answers labels from -1 to 0; expected 0 to 1"),
    "an error": (fails, "logits", r"callable fails fails on a batch of shape \(7, 3\) .*: RuntimeError: out of$"),
    "an error of ours": (refuses, "logits", "^not today$"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_refused_in_one_line(kind):
    function, outputs, message = GARBAGE[kind]
    wrapped = model(function, outputs=outputs, classes=2)
    session = Session(wrapped, wrapped.native)
    with np.errstate(over="ignore"), pytest.raises(LocardError, match=message) as caught:
        session.answer(X, wrapped.native)
    assert "\n" not in str(caught.value)
    assert (session.asked, len(session.journal)) == (0, 0)


def test_answers_before_the_garbage_are_kept():
    def breaks(x):
        return logits(x) if x[0, 0] == X[0, 0] else None

    session = Session(model(breaks, outputs="logits", batch_size=3), Access.LOGITS)
    with pytest.raises(ParameterError, match="must answer numbers"):
        session.answer(X, Access.LOGITS)
    assert (session.asked, len(session.journal)) == (3, 3)


def test_identity():
    one, two = (lambda x: x), (lambda x: x)
    assert model(one).digest == model(one).digest != model(two).digest
    assert model(one, identity="v1").digest == model(two, identity="v1").digest != model(one, identity="v2").digest
    assert model(one, name="mine").source == "mine"
    assert model(one, name="mine").digest == model(two, name="mine").digest


def test_an_object_with_a_call_is_a_callable():
    class Machine:
        def __call__(self, x):
            return logits(x)

    assert model(Machine(), outputs="logits").source == "callable Machine"


def test_options():
    assert load(logits, like=DOMAIN, outputs="logits").domain == DOMAIN
    other = Domain(kind="tabular", shape=(3,))
    assert load(logits, like=DOMAIN, domain=other, outputs="logits").domain == other
    with pytest.raises(ParameterError, match="a callable does not say what its inputs are: give domain=Domain"):
        load(logits)
    with pytest.raises(
        ParameterError, match="outputs must be one of labels, probabilities, logits, values; got 'odds'"
    ):
        model(logits, outputs="odds")
    with pytest.raises(ParameterError, match="unknown option of a callable 'clases'; did you mean 'classes'"):
        model(logits, clases=2)
    with pytest.raises(ParameterError, match="batch_size must be a whole number >= 1; got 0"):
        model(logits, batch_size=0)


def test_a_loaded_model_is_left_as_it_is():
    wrapped = CallableModel(logits, domain=DOMAIN, outputs="logits")
    assert load(wrapped, like=DOMAIN) is wrapped
    with pytest.raises(ParameterError, match=r"is loaded already; options \['outputs'\] come too late"):
        load(wrapped, outputs="labels")


def test_what_is_no_model():
    with pytest.raises(
        ParameterError, match="no adapter reads a int; expected a torch module, a scikit-learn estimator"
    ):
        load(3)
    assert "callable" in adapters


def test_top_k_shows_no_more_than_k_of_equal_scores():
    even = CallableModel(lambda x: np.full((len(x), 4), 0.25), domain=DOMAIN, name="even")
    shown = restrict(even, Access.PROBABILITIES, top_k=1).probabilities(X[:2])
    assert shown.tolist() == [[0.25, 0, 0, 0]] * 2
