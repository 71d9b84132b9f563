"""A small population to run a bench on; a generated bench, its page, and a browser to look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.bench.generated import ABOUT, records, written
from tests.browser import Chromium

from locard.bench import Entry, Records, Row, Summary, summarise
from locard.bench.page import page
from locard.zoo import Zoo, build_zoo, read_recipe

SMALL = Path(__file__).parents[1] / "zoo" / "small.toml"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo | None:
    """Two victims, a few copies and strangers, all trained in seconds."""
    return build_zoo(read_recipe(str(SMALL)), tmp_path_factory.mktemp("zoo") / "small", processes=1)


@pytest.fixture(scope="session")
def entries() -> list[Entry]:
    """Two schemes that take next to no time."""
    return [Entry(scheme="akh", queries=20), Entry(scheme="sac", params={"answers": "labels"}, queries=30)]


@pytest.fixture(scope="session")
def told() -> Callable[[Records], list[Row]]:
    """All of some records that another run can say again: times are not."""
    return lambda records: [replace(row, seconds=0.0, extraction=0.0) for row in records.rows()]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def rows() -> Records:
    return records(budgets=(0, 50))


@pytest.fixture(scope="session")
def summary(rows: Records) -> Summary:
    return summarise(rows, alphas=(0.05, 0.03), resamples=100)


@pytest.fixture(scope="session")
def path(rows: Records, summary: Summary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("page"), page(summary, rows, title="Fashion", about=ABOUT))
