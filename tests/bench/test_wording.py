"""How the page of a bench writes figures and names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.bench.population import population

from locard.bench import summarise, wording
from locard.bench.figures import Interval, Missing
from locard.errors import ParameterError
from locard.records import Access


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0%"), (0.004, "<1%"), (0.5, "50%"), (0.994, "99%"), (0.9999, "99%"), (1.0, "100%")],
)
def test_a_share_is_all_or_nothing_only_where_it_is(value: float | None, text: str) -> None:
    assert wording.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.5, "0.50"), (0.984, "0.98"), (0.9871, "0.987"), (0.99999, ">0.999"), (1.0, "1")],
)
def test_an_area_is_one_only_where_it_is(value: float | None, text: str) -> None:
    assert wording.figure(value) == text


def test_an_interval_is_written_where_there_is_one() -> None:
    known = Interval(value=0.5, low=0.004, high=1.0)
    assert wording.between(known) == "<1 to 100%"
    assert wording.between(known, shares=False) == "0.00 to 1"
    assert wording.between(replace(known, value=None)) == ""
    assert wording.between(replace(known, low=None)) == ""


@pytest.mark.parametrize(
    ("access", "level"),
    [("nothing", 0), ("LABELS", 0), ("PROBABILITIES", 1), ("VALUES", 1), ("LOGITS", 2), ("GRADIENTS", 3),
     ("WEIGHTS", 4), ("LOGITS + WEIGHTS", 4), ("GRADIENTS + WEIGHTS + MODULE", 4), ("MODULE", 4)],
)  # fmt: skip
def test_an_entry_takes_part_from_the_level_it_needs(access: str, level: int) -> None:
    assert wording.level(access) == level


def test_every_access_has_a_level_and_others_are_refused() -> None:
    assert {wording.level(one.text) for one in Access} == set(range(len(wording.LEVELS)))
    with pytest.raises(ParameterError, match="unknown access 'SMELL'"):
        wording.level("SMELL")


def test_claims_stand_apart_and_broken_promises_last() -> None:
    one = summarise(population(), resamples=100).standings[0]
    claims = (("derived", True), ("derived", None), ("trained-on", True), ("identical", None), ("derived", False))
    kept = [replace(one, claim=claim, reliable=reliable) for claim, reliable in claims]
    assert [wording.rank(standing) for standing in kept] == [0, 0, 1, 2, 3]


def test_the_opening_counts() -> None:
    summary = summarise(population(victims=1, strata=("disjoint",), innocents=1), resamples=100)
    assert wording.opening(summary) == (
        "1 scheme was judged on 1 victim: how many of 16 thefts in 4 kinds each finds, and how many of 1 innocent "
        "model it accuses."
    )


def test_the_worst_stratum_is_named() -> None:
    rows = population(broken=("akh",), victims=2)
    one = summarise(rows, resamples=100).standings[0]
    worst = wording.worst(one, 0.05)
    assert worst is not None
    assert worst.holdout.value == max(c.holdout.value or 0 for c in one.calibration if c.alpha == 0.05)
    assert wording.worst(one, 0.01) is None  # 39 references cannot give p <= 0.01
    assert wording.splits(one, 0.01) == ""
    assert wording.splits(one, 0.05).startswith("over splits: ")
    assert wording.calibration(one, "elsewhere", 0.05) is None


def test_missing_scores_are_told_by_what_they_are_of() -> None:
    one = summarise(population(), resamples=100).standings[0]
    lacking = replace(one, missing=Missing(thefts=1, innocents=0, references=2, reasons={"no classes": 2, "": 1}))
    assert wording.missing([one]) == []
    assert wording.missing([lacking]) == [
        ("akh, 100 queries", "1 theft and 2 references", "no classes (2); no reason was given (1)")
    ]


def test_refusals_are_gathered_by_figure() -> None:
    summary = replace(
        summarise(population(), resamples=100), refused=("AUROC: few: 3 (akh)", "TPR: x (sac)", "AUROC: y (sac)")
    )
    assert wording.refused(summary) == {"AUROC": ["few: 3 (akh)", "y (sac)"], "TPR": ["x (sac)"]}


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0"), (0.0001, "<0.001"), (0.0123, "0.012"), (1234.5, "1,234")])
def test_seconds_are_short(seconds: float, text: str) -> None:
    assert wording.number(seconds) == text
