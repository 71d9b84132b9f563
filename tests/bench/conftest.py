from dataclasses import replace
from pathlib import Path

import pytest

from locard.bench import Entry
from locard.zoo import build_zoo, read_recipe

SMALL = Path(__file__).parents[1] / "zoo" / "small.toml"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Two victims, a few copies and strangers, all trained in seconds."""
    return build_zoo(read_recipe(str(SMALL)), tmp_path_factory.mktemp("zoo") / "small", processes=1)


@pytest.fixture(scope="session")
def entries():
    """Two schemes that take next to no time."""
    return [Entry(scheme="akh", queries=20), Entry(scheme="sac", params={"answers": "labels"}, queries=30)]


@pytest.fixture(scope="session")
def told():
    """All of some records that another run can say again: times are not."""
    return lambda records: [replace(row, seconds=0.0, extraction=0.0) for row in records.rows()]
