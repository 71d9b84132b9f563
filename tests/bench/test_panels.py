"""The geometry of the page's small plots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.bench.population import population

from locard.bench import summarise
from locard.bench.figures import Interval, Roc, Standing
from locard.bench.panels import Reach, growths, query_ticks, reach, roc_path


@pytest.fixture(scope="module")
def standing() -> Standing:
    return summarise(population(), alphas=(0.05, 0.025), resamples=100).standings[0]


def asked(standing: Standing, entry: str, found: dict[int, float | None]) -> list[Standing]:
    def share(value: float | None) -> Interval:
        return Interval(value=None, why="few") if value is None else Interval(value=value, low=value - 0.1, high=1.0)

    return [
        replace(standing, entry=entry, budget=n, queries=float(n), tpr={0.05: share(value), 0.025: share(None)})
        for n, value in found.items()
    ]


def test_a_roc_curve_keeps_its_steps_only() -> None:
    roc = Roc(fpr=np.array([0, 0.1, 0.2, 0.3, 1.0]), tpr=np.array([0.0, 0.5, 0.5, 0.75, 1.0]))
    assert roc_path(roc) == "M0 1000H100V500H300V250H1000V0H1000"


def test_a_roc_curve_may_start_above_nothing() -> None:
    roc = Roc(fpr=np.array([0.0, 0.5, 1.0]), tpr=np.array([0.8, 0.8, 0.8]))
    assert roc_path(roc) == "M0 1000V200H1000"


def test_growth_joins_the_budgets_of_an_entry(standing: Standing) -> None:
    rows = [*asked(standing, "a", {1000: 0.9, 10: 0.2, 100: None}), *asked(standing, "b", {100: 0.4})]
    (grown,) = growths(rows, (0.05, 0.025))
    assert (grown.entry, grown.numbers) == ("a", (1, 2, 0))
    assert [[point.x for point in points] for points in grown.points] == [[40, 960], []]
    assert grown.lines == ("M40 800L960 100", "")
    assert [(point.low, point.high) for point in grown.points[0]] == [(900, 0), (200, 0)]
    assert grown.points[0][1].text == "1,000 queries: 90% (80% to 100%)"
    assert [(tick.x, tick.text) for tick in query_ticks(rows)] == [(40, "10"), (500, "100"), (960, "1,000")]


def test_one_number_of_queries_is_no_growth(standing: Standing) -> None:
    rows = asked(standing, "a", {100: 0.4}) + [replace(one, budget=0) for one in asked(standing, "a", {100: 0.4})]
    assert growths(rows, (0.05, 0.025)) == ()
    assert query_ticks(rows) == ()


def test_a_scale_holds_every_rate(standing: Standing) -> None:
    assert [reach([], alpha).top for alpha in (0.01, 0.05, 0.1, 0.4)] == [0.05, 0.1, 0.2, 1.0]
    held = Interval(value=0.25, low=0.1, high=0.4, n=20)
    changed = replace(standing, calibration=tuple(replace(c, holdout=held) for c in standing.calibration))
    assert reach([standing, changed], 0.05).top == 0.5


def test_a_scale_spreads_what_is_small() -> None:
    scale = Reach(top=0.5)
    assert [scale.place(share) for share in (0.0, 0.125, 0.5, 0.9)] == ["0.0", "60.0", "120.0", "120.0"]
