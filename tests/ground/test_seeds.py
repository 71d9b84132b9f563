import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard.errors import ParameterError
from locard.seeds import derive, generator


@given(st.integers(0, 2**70), st.text(max_size=20))
def test_streams_are_repeatable_and_apart(seed, name):
    assert 0 <= derive(seed, name) < 2**63
    assert derive(seed, name) == derive(seed, name)
    assert len({derive(seed, name), derive(seed + 1, name), derive(seed, name + "x")}) == 3
    np.testing.assert_array_equal(generator(seed, name).random(3), generator(seed, name).random(3))


def test_pinned_so_that_old_fingerprints_can_be_made_again():
    assert derive(0, "negative") == 7825959579809614849


@pytest.mark.parametrize("seed", [-1, 1.5, "3", None, True])
def test_no_seed(seed):
    with pytest.raises(ParameterError, match="seed must be an integer >= 0"):
        derive(seed, "x")


def test_global_state_is_left_alone():
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    generator(0, "x").random(10)
    assert (np.random.get_state(legacy=False)["state"]["key"] == before).all()  # noqa: NPY002
