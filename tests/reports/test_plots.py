from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard.evidence import stratified
from locard.records import Reference, Verdict
from locard.reports.plots import Strip, stack, strip, threshold, ticks

SCORES = st.floats(-50, 50, allow_subnormal=False)


def known(groups: dict[str, list[float]]) -> tuple[Reference, ...]:
    return tuple(
        Reference(name=f"{group}-{i}", digest=f"{group}{i}", stratum=group, score=score)
        for group, scores in groups.items()
        for i, score in enumerate(scores)
    )


def drawn(verdict: Verdict, *, width: float = 720.0, beside: bool = True) -> Strip:
    plot = strip(verdict, width=width, beside=beside)
    assert plot is not None
    return plot


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 12), min_size=1, max_size=30), min_size=1),
    st.sampled_from([0.05, 0.1, 0.3, 0.9]),
)
def test_scores_above_the_threshold_are_those_with_p_at_most_alpha(groups: dict[str, list[int]], alpha: float) -> None:
    references = known({group: [float(score) for score in scores] for group, scores in groups.items()})
    limit = threshold(references, alpha)
    for score in np.arange(-0.5, 13.5, 0.5):
        p = stratified(references, float(score), "").p_value
        assert p is not None
        assert (p <= alpha) == (limit is not None and score > limit)


def test_no_references_no_threshold() -> None:
    assert threshold((), 0.05) is None


@given(SCORES, SCORES, st.integers(3, 8))
def test_ticks_are_round_evenly_spaced_and_span_the_scores(a: float, b: float, most: int) -> None:
    low, high = min(a, b), max(a, b)
    values = ticks(low, high, most=most)
    steps = np.diff(values)
    assert 2 <= len(values) <= most
    assert (steps > 0).all()
    assert np.allclose(steps, steps[0], rtol=1e-6)
    slack = 1e-6 * steps[0]
    assert values[0] <= low + slack
    assert values[-1] >= high - slack
    mantissa = steps[0] / 10.0 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - round_number) for round_number in (1, 2, 5)) < 1e-4


@given(st.lists(st.floats(0, 100), max_size=60), st.floats(0.5, 10))
def test_stacked_marks_never_overlap_and_stay_low(xs: list[float], distance: float) -> None:
    xs = sorted(xs)
    levels = stack(xs, distance)
    for i, (x, level) in enumerate(zip(xs, levels, strict=True)):
        others = [other for other, there in zip(xs[:i], levels[:i], strict=True) if there == level]
        assert all(x - other >= distance for other in others)
        assert level <= sum(x - other < distance for other in xs[:i])


@pytest.mark.parametrize(("width", "beside"), [(720.0, True), (340.0, False)])
def test_marks_stand_at_their_scores_inside_the_plot(make: Callable[..., Verdict], width: float, beside: bool) -> None:
    rng = np.random.default_rng(0)
    groups = {"disjoint": list(rng.normal(0.3, 0.1, 40)), "same-data": [0.5] * 300}
    plot = drawn(make(0.9, references=groups, derived={"prune": [0.8, 0.97]}), width=width, beside=beside)
    assert [(row.mark, row.label) for row in plot.rows] == [
        ("reference", "disjoint"), ("reference", "same-data"), ("derived", "prune"),
    ]  # fmt: skip
    pixels = [dot.x for row in plot.rows for dot in row.dots]
    scores = [*sorted(groups["disjoint"]), *groups["same-data"], 0.8, 0.97]
    slope, origin = np.polyfit(scores, pixels, 1)
    assert np.abs(np.array(pixels) - (slope * np.array(scores) + origin)).max() < 0.02
    assert plot.suspect_x == pytest.approx(slope * 0.9 + origin, abs=0.02)
    assert plot.threshold_x == pytest.approx(slope * 0.5 + origin, abs=0.02)
    for row in plot.rows:
        assert all(plot.left <= dot.x <= plot.right and plot.top <= dot.y <= row.base for dot in row.dots)
    bases = [row.base for row in plot.rows]
    assert bases == sorted(bases)
    assert bases[-1] < plot.bottom < plot.height
    assert [tick.text for tick in plot.ticks][-1] == "1.0"


def test_few_references_leave_no_region(make: Callable[..., Verdict]) -> None:
    assert drawn(make(0.9, references={"disjoint": [0.1] * 18})).threshold_x is None
    assert drawn(make(0.9, references={"disjoint": [0.1] * 19})).threshold_x is not None


@pytest.mark.parametrize(("score", "anchor"), [(0.0, "start"), (0.5, "middle"), (1.0, "end")])
def test_the_suspects_label_stays_on_the_page(make: Callable[..., Verdict], score: float, anchor: str) -> None:
    assert drawn(make(score, references={"disjoint": [0.0, 1.0]})).suspect_anchor == anchor


def test_equal_scores_have_an_axis_too(make: Callable[..., Verdict]) -> None:
    plot = drawn(make(1.0, references={"disjoint": [1.0]}))
    assert len({tick.text for tick in plot.ticks}) == len(plot.ticks) >= 2


def test_nothing_to_compare_with_no_plot(make: Callable[..., Verdict]) -> None:
    assert strip(make(0.9)) is None
    assert strip(make(float("nan"), references={"disjoint": [0.1]})) is None


def test_the_description_says_what_is_seen(make: Callable[..., Verdict]) -> None:
    verdict = make(0.9, references={"disjoint": [0.1, 0.3] * 10}, derived={"prune": [0.8]})
    assert drawn(verdict).description == (
        "The suspect scores 0.900. disjoint (references): 20 models from 0.100 to 0.300. "
        "prune (known to be derived): 1 model at 0.800. Scores above 0.300 have p at most 0.05."
    )
