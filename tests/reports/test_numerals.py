from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard.evidence import p_value
from locard.reports.numerals import Rank, decimals, listing, p_number, percent, plain, plural, shortened, significant


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (1 / 41, "0.024"),
        (1 / 21, "0.048"),
        (0.05, "0.05"),
        (40 / 41, "0.98"),
        (0.0999, "0.1"),
        (1.0, "1"),
        (0.0, "0"),
        (120.0, "120"),
        (3.2e-7, "3.2e-07"),
    ],
)
def test_two_significant_digits(x: float, text: str) -> None:
    assert significant(x) == text


@pytest.mark.parametrize(
    ("x", "text"), [(1 / 41, "2.4%"), (0.05, "5%"), (0.001, "0.1%"), (1.0, "100%"), (0.9996, "over 99%"), (0.78, "78%")]
)
def test_percentages(x: float, text: str) -> None:
    assert percent(x) == text


def test_a_p_value_just_above_alpha_is_not_written_as_alpha() -> None:
    p = 6 / 119
    assert significant(p) == "0.05"
    assert p_number(p, 0.05) == "0.0504"
    assert percent(p, 0.05) == "5.04%"


@given(st.integers(1, 2000), st.data(), st.sampled_from([0.001, 0.01, 0.05, 0.1, 1 / 3]))
def test_the_number_shown_lies_on_the_side_of_alpha_where_p_lies(n: int, data: st.DataObject, alpha: float) -> None:
    p = data.draw(st.integers(1, n + 1)) / (n + 1)
    assert (float(p_number(p, alpha)) <= alpha) == (p <= alpha)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=300), st.integers(0, 20))
def test_a_rank_is_what_the_p_value_counted(scores: list[int], score: int) -> None:
    rank = Rank.of(p_value(np.array(scores, float), float(score)), len(scores))
    assert rank == Rank(above=sum(s >= score for s in scores), n=len(scores))
    assert (rank.text, rank.odds) == (
        f"{rank.above + 1} of {len(scores) + 1}",
        f"{rank.above + 1} in {len(scores) + 1}",
    )


@pytest.mark.parametrize(
    ("scores", "digits"), [([0.1, 0.9], 3), ([0.9, 0.901], 4), ([0.99991, 0.99993], 6), ([0.5], 3), ([], 3)]
)
def test_scores_are_written_so_that_they_differ(scores: list[float], digits: int) -> None:
    assert decimals(scores) == digits
    assert len({f"{score:.{digits}f}" for score in scores}) == len(scores)


def test_words() -> None:
    assert [plural(n, "model") for n in (0, 1, 2, 1797)] == ["0 models", "1 model", "2 models", "1,797 models"]
    assert [listing(["a", "b", "c"][:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert (shortened("abcdef", 6), shortened("abcdefg", 6)) == ("abcdef", "abc...")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u202egnp.live", "\\u202egnp.live"),
        ("caf\udce9", "caf\\udce9"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("two\nlines\tof modèle 模型", "two\nlines\tof modèle 模型"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(st.characters()))
def test_what_is_written_can_be_encoded_and_seen(text: str) -> None:
    shown = plain(text)
    shown.encode()
    assert all(c.isprintable() or c in "\n\t" for c in shown)
