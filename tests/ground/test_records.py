from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard.errors import ParameterError
from locard.records import LADDER, Access, Data, Domain, Lineage, digest_arrays

IMAGE = Domain(kind="image", shape=(1, 2, 3), bounds=(0.0, 1.0), quantum=1 / 255)


def test_the_ladder():
    assert Access.LOGITS.implied == Access.LABELS | Access.PROBABILITIES | Access.LOGITS
    assert Access.VALUES.implied == Access.VALUES
    assert Access.MODULE.implied.top is Access.GRADIENTS
    assert Access.WEIGHTS in Access.MODULE.implied
    assert (Access.LOGITS | Access.WEIGHTS).text == "LOGITS + WEIGHTS"
    assert Access.WEIGHTS.top is None
    assert Access.parse("Labels") is Access.LABELS
    for lower, higher in pairwise(LADDER):
        assert lower in higher.implied
        assert higher not in lower.implied
    with pytest.raises(ParameterError, match="unknown access 'root'; known: labels, probabilities, logits"):
        Access.parse("root")


def test_check_casts_and_copies_nothing_needless():
    x = np.zeros((2, 1, 2, 3), np.float32)
    assert IMAGE.check(x) is x
    assert IMAGE.check(x.astype(np.uint8)).dtype == np.float32


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (np.zeros((2, 2, 3)), r"shape \(n, 1, 2, 3\); got \(2, 2, 3\)"),
        (np.zeros((1, 1, 2, 3), complex), "must be numbers.*complex"),
        (np.array([["a"]]), "must be numbers"),
        (np.full((2, 1, 2, 3), np.nan), "2 of 2 hold NaN"),
        (np.full((2, 1, 2, 3), 255.0), r"lie in \[0, 1\].*got values from 255 to 255"),
        (np.full((2, 1, 2, 3), -0.1), r"got values from -0.1 to -0.1"),
    ],
)
def test_bad_inputs(x, match):
    with pytest.raises(ParameterError, match=match):
        IMAGE.check(x)


@pytest.mark.parametrize(
    ("change", "apart"),
    [
        ({}, None),
        ({"dtype": "float64", "quantum": None}, None),
        ({"bounds": None}, None),
        ({"bounds": (0.0, 255.0)}, "bounds"),
        ({"shape": (1, 3, 2)}, "form"),
        ({"kind": "tokens"}, "form"),
        ({"shape": (1, 3, 2), "bounds": (0.0, 255.0)}, "form"),
    ],
)
def test_what_keeps_two_domains_apart(change, apart):
    other = replace(IMAGE, **change)
    assert IMAGE.apart(other) == other.apart(IMAGE) == apart


@pytest.mark.parametrize("x", [[[300, 1]], [[-1, 1]], [[0.5, 1]], [[np.nan, 1]], [[1e300, 1]]])
def test_numbers_that_the_dtype_does_not_hold_are_refused_not_wrapped(x):
    domain = Domain(kind="tabular", shape=(2,), dtype="uint8", bounds=(0.0, 255.0))
    with pytest.raises(ParameterError, match="whole numbers that uint8 holds"):
        domain.check(np.array(x))
    assert domain.check(np.array([[255.0, 0.0]])).tolist() == [[255, 0]]


def test_text():
    domain = Domain(kind="text", shape=(), dtype="str")
    assert domain.check(["a", "b"]).dtype == object
    for bad in ([1, 2], [["a"]], [b"a"]):
        with pytest.raises(ParameterError, match="list of strings"):
            domain.check(bad)


@given(st.lists(st.floats(-2, 3, width=32), min_size=6, max_size=6))
def test_delivery_lies_on_the_grid_and_stays_there(values):
    x = np.array(values, np.float32).reshape(1, 1, 2, 3)
    y = IMAGE.deliver(x)
    assert y.min() >= 0
    assert y.max() <= 1
    np.testing.assert_allclose(y * 255, np.rint(y * 255), atol=1e-4)
    np.testing.assert_array_equal(IMAGE.deliver(y), y)
    assert np.abs(y - np.clip(x, 0, 1)).max() <= 0.5 / 255 + 1e-6


def test_json_round_trips():
    assert Domain.from_json(IMAGE.to_json()) == IMAGE
    lineage = Lineage(architecture="cnn", data="d", seed=1, parent="p", derived_by="prune")
    assert Lineage.from_json(lineage.to_json()) == lineage


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "sound"}, "domain.kind"), ({"shape": "x"}, "domain.shape"), ({"shape": [0]}, "domain.shape"),
        ({"dtype": "object"}, "domain.dtype"), ({"bounds": [0]}, "domain.bounds"), ({"quantum": 0}, "domain.quantum"),
        ({"quantum": True}, "domain.quantum"), ({"columns": [1]}, "domain.columns"), ({"x": 1}, "unknown field 'x'"),
    ],
)  # fmt: skip
def test_wrong_fields(change, match):
    with pytest.raises(ParameterError, match=match):
        Domain.from_json(IMAGE.to_json() | change)


def test_not_an_object():
    with pytest.raises(ParameterError, match="domain must be a JSON object"):
        Domain.from_json([])
    with pytest.raises(ParameterError, match="lineage must be a JSON object"):
        Lineage.from_json(3)
    with pytest.raises(ParameterError, match="unknown field 'x'"):
        Lineage.from_json({"x": 1})


def test_digests_tell_dtype_shape_and_text_apart():
    a = np.zeros(4, np.float32)
    digests = [digest_arrays(a), digest_arrays(a.reshape(2, 2)), digest_arrays(a.astype(np.float64)),
               digest_arrays(a, a),
               digest_arrays(np.array(["ab", "c"])), digest_arrays(np.array(["a", "bc"]))]  # fmt: skip
    assert len(set(digests)) == len(digests)
    assert digest_arrays(np.array(["ab", "c"])) == digest_arrays(np.array(["ab", "c"], dtype=object))


def test_take():
    data = Data(
        inputs=np.arange(3.0)[:, None], labels=np.array([5, 6, 7]), domain=Domain(kind="tabular", shape=(1,)), name="d"
    )
    part = data.take(np.array([2, 0]), "p")
    assert part.labels.tolist() == [7, 5]
    assert part.name == "p"
    assert len(part) == 2
    assert part.digest != data.digest
