import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import distance as scipy_distance

from locard.distances import DISTANCES, distance
from locard.errors import ParameterError

NUMBERS = st.floats(-100, 100, width=32)
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5))


@st.composite
def two_tables(draw):
    shape = draw(SHAPES)
    return tuple(draw(arrays(np.float32, shape, elements=NUMBERS)) for _ in range(2))


def table(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


# These two compare labels and probabilities; their laws are below.
@pytest.mark.parametrize("name", sorted(DISTANCES.keys() - {"mutual-information", "jensen-shannon"}))
@given(pair=two_tables())
def test_distances_are_zero_for_a_record_with_itself_symmetric_and_never_negative(name, pair):
    a, b = (x.astype(np.int64) for x in pair) if name == "hamming" else pair
    measure = distance(name)
    assert measure(a, a) == pytest.approx(0, abs=1e-6)
    assert 0 <= measure(a, b) <= 200
    # The greedy pairing may break a tie otherwise when the two change places.
    if name != "aligned-cosine":
        assert measure(a, b) == pytest.approx(measure(b, a), abs=1e-12)


def test_distances_are_what_their_names_say_in_plain_loops():
    a, b = table(0, 7, 4), table(1, 7, 4)
    rows = range(7)
    assert distance("l1")(a, b) == pytest.approx(sum(abs(a[i, j] - b[i, j]) for i in rows for j in range(4)) / 28)
    assert distance("l2")(a, b) == pytest.approx(
        (sum((a[i, j] - b[i, j]) ** 2 for i in rows for j in range(4)) / 28) ** 0.5
    )
    assert distance("cosine")(a, b) == pytest.approx(sum(scipy_distance.cosine(a[i], b[i]) for i in rows) / 7)
    assert distance("flat-cosine")(a, b) == pytest.approx(scipy_distance.cosine(a.ravel(), b.ravel()))
    labels = np.array([1, 2, 3, 4]), np.array([1, 2, 4, 3])
    assert distance("hamming")(*labels) == 0.5


def test_cosine_puts_two_zero_rows_together_and_a_zero_row_at_one_from_others():
    zeros, ones = np.zeros((1, 3)), np.ones((1, 3))
    assert distance("cosine")(zeros, zeros) == 0
    assert distance("cosine")(zeros, ones) == 1


@pytest.mark.parametrize("name", ["cosine", "flat-cosine", "aligned-cosine"])
@given(pair=two_tables(), factor=st.floats(0.01, 100))
def test_cosines_do_not_see_a_positive_factor(name, pair, factor):
    a, b = pair
    assert distance(name)(a, b.astype(np.float64) * factor) == pytest.approx(
        distance(name)(a, b.astype(np.float64)), abs=1e-6
    )


def plainly_aligned(a, b):
    """The card's step 6, as it is written: take the global minimum of the costs, delete its row and column."""
    costs = {(i, j): scipy_distance.cosine(a[:, i], b[:, j]) for i in range(a.shape[1]) for j in range(b.shape[1])}
    pairs = []
    while costs:
        i, j = min(costs, key=lambda pair: costs[pair])
        pairs.append((i, j))
        costs = {(k, m): cost for (k, m), cost in costs.items() if k != i and m != j}
    left, right = zip(*pairs, strict=True)
    return scipy_distance.cosine(a[:, left].ravel(), b[:, right].ravel())


@pytest.mark.parametrize("shapes", [(5, 5), (3, 6), (6, 3), (1, 4)])
def test_aligned_cosine_pairs_columns_off_as_the_card_says(shapes):
    a, b = table(3, 20, shapes[0]), table(4, 20, shapes[1])
    assert distance("aligned-cosine")(a, b) == pytest.approx(plainly_aligned(a, b))


@given(order=st.permutations(range(5)), kept=st.integers(1, 5))
def test_aligned_cosine_finds_permuted_and_missing_columns(order, kept):
    a = table(5, 12, 5)
    b = a[:, order][:, :kept]
    assert distance("aligned-cosine")(a, b) == pytest.approx(0, abs=1e-12)
    assert distance("aligned-cosine")(b, a) == pytest.approx(0, abs=1e-12)


def test_aligned_cosine_takes_columns_of_zeros():
    a = np.array([[0.0, 1.0], [0.0, 2.0]])
    assert distance("aligned-cosine")(a, a[:, ::-1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", sorted(set(DISTANCES) - {"aligned-cosine"}))
def test_records_of_two_shapes_are_refused(name):
    with pytest.raises(ParameterError, match=r"two records of one shape; got \(2, 3\) and \(2, 2\)"):
        distance(name)(np.zeros((2, 3), int), np.zeros((2, 2), int))
    with pytest.raises(ParameterError, match="at least one entry"):
        distance(name)(np.zeros((0, 3), int), np.zeros((0, 3), int))


def test_aligned_cosine_refuses_tables_with_other_rows():
    with pytest.raises(ParameterError, match=r"same rows; got \(4, 3\) and \(5, 3\)"):
        distance("aligned-cosine")(np.ones((4, 3)), np.ones((5, 3)))


def test_hamming_refuses_scores():
    with pytest.raises(ParameterError, match="discrete entries"):
        distance("hamming")(np.zeros(3), np.zeros(3))


def test_an_unknown_distance_is_refused_with_the_nearest_names():
    with pytest.raises(ParameterError, match="unknown distance 'cosin'; did you mean 'cosine'"):
        distance("cosin")


@pytest.mark.parametrize("name", ["l1", "l2", "cosine", "flat-cosine"])
def test_texts_are_no_numbers(name):
    texts = np.array(["a", "b"], dtype=object)
    with pytest.raises(ParameterError, match="compares numbers; got texts"):
        distance(name)(texts, np.array([1, 2]))


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 6))
def test_mutual_information_knows_no_names(seed, classes):
    source = np.random.default_rng(seed)
    a = source.integers(0, classes, 40)
    if len(np.unique(a)) < 2:
        return
    names = source.permutation(classes)
    assert distance("mutual-information")(a, names[a]) == pytest.approx(0, abs=1e-12)
    assert distance("mutual-information")(a, np.zeros_like(a)) == 1
    b = source.integers(0, classes, 40)
    found = distance("mutual-information")(a, b)
    assert 0 <= found <= 1
    assert found == pytest.approx(distance("mutual-information")(names[b], a))


def test_mutual_information_by_hand():
    # I = H(b) = ln 2 where b is a function of a; half of a tells nothing of c.
    a, b = np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1])
    assert distance("mutual-information")(a, b) == pytest.approx(0)
    assert distance("mutual-information")(b, np.array([0, 1, 0, 1])) == 1


def test_jensen_shannon_by_hand_and_against_scipy():
    from scipy.spatial.distance import jensenshannon

    a, b = np.eye(3)[[0, 1]], np.eye(3)[[1, 1]]
    assert distance("jensen-shannon")(a, b) == pytest.approx(np.log(2) / 2)
    p, q = np.random.default_rng(0).dirichlet(np.ones(4), (2, 9))
    assert distance("jensen-shannon")(p, q) == pytest.approx(np.mean([jensenshannon(x, y) ** 2 for x, y in
                                                                       zip(p, q, strict=True)]))  # fmt: skip
    assert distance("jensen-shannon")(p, p) == 0


def test_what_the_two_do_not_compare_is_refused():
    with pytest.raises(ParameterError, match="mutual-information compares discrete entries"):
        distance("mutual-information")(np.ones(3), np.ones(3))
    with pytest.raises(ParameterError, match="jensen-shannon compares probabilities"):
        distance("jensen-shannon")(np.ones((2, 3)), np.ones((2, 3)))
    for row in ([-0.1, 1.1], [np.nan, 1.0]):
        with pytest.raises(ParameterError, match="jensen-shannon compares probabilities"):
            distance("jensen-shannon")(np.array([row]), np.array([[0.5, 0.5]]))


@given(seed=st.integers(0, 2**32))
def test_jensen_shannon_is_symmetric_and_at_most_ln_2(seed):
    p, q = np.random.default_rng(seed).dirichlet(np.full(4, 0.05), (2, 6))
    measure = distance("jensen-shannon")
    assert 0 <= measure(p, q) <= np.log(2) + 1e-12
    assert measure(p, q) == pytest.approx(measure(q, p))
    # Far apart only where neither gives what the other says.
    assert measure(np.eye(4), np.roll(np.eye(4), 1, axis=1)) == pytest.approx(np.log(2))
