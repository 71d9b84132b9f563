"""One page of a generated bench, and a browser to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bench.generated import ABOUT, records, written
from tests.browser import Chromium

from locard.bench import Records, Summary, summarise
from locard.bench.page import page


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
