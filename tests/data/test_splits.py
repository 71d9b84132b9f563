"""Parts are disjoint in what they hold, not in their row numbers alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locard.data import split
from locard.errors import ParameterError
from locard.records import Data, Domain
from locard.seeds import generator

TABLE = Domain(kind="tabular", shape=(1,), bounds=(0.0, 1e6))
TEXT = Domain(kind="text", shape=(), dtype="str")


def numbers(values, groups=None):
    inputs = np.asarray(values, np.float32)[:, None]
    return Data(inputs=inputs, labels=None, domain=TABLE, name="numbers", groups=groups)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=40, max_size=60), st.booleans(), st.integers(0, 5))
def test_equal_inputs_and_groups_come_into_one_part(values, grouped, seed):
    # Inputs of their own fill the parts up, whatever the others' groups.
    spare = range(100, 120)
    groups = np.array([*(np.arange(len(values)) // 2), *spare]) if grouped else None
    parts = split(numbers([*values, *spare], groups), {"a": 10, "b": 10}, seed=seed)
    assert {len(part) for part in parts.values()} == {10}
    assert not set(parts["a"].inputs.ravel()) & set(parts["b"].inputs.ravel())
    if grouped:
        assert not set(parts["a"].groups.tolist()) & set(parts["b"].groups.tolist())


def test_equal_texts_come_into_one_part():
    data = Data(inputs=np.array(["a", "b"] * 4 + list("cdefgh"), object), labels=None, domain=TEXT, name="texts")
    parts = split(data, {"one": 6, "two": 6}, seed=0)
    assert not set(parts["one"].inputs) & set(parts["two"].inputs)


def test_groups_that_share_an_input_stay_together():
    data = numbers([1, 2, 2, 3, 3, 4, *range(10, 20)], np.array([0, 0, 1, 1, 2, 2, *range(10, 20)]))
    parts = split(data, {"a": 8, "b": 8}, seed=0)
    assert any({1, 2, 3, 4} <= set(part.inputs.ravel().tolist()) for part in parts.values())


def test_different_inputs_are_parted_by_their_order_alone():
    parts = split(numbers(range(20)), {"a": 5, "b": 7}, seed=3)
    order = generator(3, "split").permutation(20)
    assert parts["a"].inputs.ravel().tolist() == order[:5].tolist()
    assert parts["b"].inputs.ravel().tolist() == order[5:12].tolist()


def test_parts_larger_than_the_data_are_refused():
    with pytest.raises(ParameterError, match="the parts need 21 inputs; numbers has 20"):
        split(numbers(range(20)), {"a": 21}, seed=0)
