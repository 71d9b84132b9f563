"""The pairs of a page: which stand in a cell, what the JSON says of them, and how they are kept small."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from locard.bench import Records, Row
from locard.bench.metrics import p_values
from locard.bench.pairs import Cells, cells, pack

ROW = Row(
    victim="v", architecture="cnn", suspect="s", model="m", parent="v", shares=True, role="evaluation",
    truth="derived", kind="prune", family="weights", accepted=True, entry="akh", scheme="akh", claim="derived",
    access="LABELS", budget=0, queries=10, seed=0, score=0.5, own=1.0, extraction=0.1, seconds=0.01,
)  # fmt: skip
INNOCENT = replace(ROW, parent="", shares=False, truth="independent", kind="disjoint", family="disjoint")
REFERENCES = [
    replace(INNOCENT, suspect=f"r{i}", model=f"r{i}", role="calibration", family="weights", score=i / 10)
    for i in range(4)
]


def of(*rows: Row, standings: tuple[tuple[str, int], ...] = (("akh", 0),)) -> tuple[Records, Cells]:
    records = Records.of(rows)
    return records, cells(records, standings=standings, kinds=["prune", "distil"], strata=["disjoint", "same-data"])


def packed(records: Records, chosen: Cells, room: int = 1_000_000) -> dict[str, Any]:
    return json.loads(pack(records, chosen, room=room).text)


def test_a_cell_holds_the_judged_pairs_the_smallest_p_first() -> None:
    rows = [*REFERENCES, replace(ROW, suspect="low", score=0.15), replace(ROW, suspect="none", score=np.nan),
            replace(ROW, suspect="high", score=0.9), replace(INNOCENT, suspect="i", score=0.25)]  # fmt: skip
    records, chosen = of(*rows)
    assert {name: records["suspect"][found].tolist() for name, found in chosen.rows.items()} == {
        "0/0": ["high", "low", "none"],
        "0/2": ["i"],
    }
    np.testing.assert_array_equal(chosen.p, p_values(records))


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, accepted=False),
        replace(ROW, role="calibration"),
        replace(ROW, entry="other"),
        replace(ROW, budget=50),
        replace(ROW, kind="noise"),
        replace(INNOCENT, claim="identical"),
        replace(INNOCENT, claim="trained-on", kind="same-data", shares=True),
        replace(INNOCENT, kind="prune"),
        replace(ROW, kind="disjoint"),
    ],
)
def test_other_pairs_stand_in_no_cell(row: Row) -> None:
    assert of(row)[1].rows == {}
    assert packed(*of(row))["cells"] == {}


def test_standings_have_their_own_pairs() -> None:
    rows = [replace(ROW, budget=budget, entry=entry) for entry in ("akh", "sac") for budget in (0, 50)]
    chosen = of(*rows, standings=(("sac", 50), ("akh", 0)))[1]
    assert {name: found.tolist() for name, found in chosen.rows.items()} == {"0/0": [3], "1/0": [0]}


def test_the_json_says_what_the_rows_say() -> None:
    rows = [*REFERENCES, replace(ROW, victim="v1", suspect="a", score=0.123456, seed=0),
            replace(ROW, victim="v2", suspect="b", score=np.nan, reason="why <so>", seed=3)]  # fmt: skip
    text = pack(*of(*rows), room=1_000_000).text
    assert "<" not in text
    whole = json.loads(text)
    (cell,) = whole["cells"].values()
    assert cell["n"] == 2
    assert [whole["victims"][i] for i in cell["v"]] == ["v1", "v2"]
    assert [whole["suspects"][i] for i in cell["s"]] == ["a", "b"]
    assert cell["x"] == [0.1235, None]
    assert [whole["p"][i] for i in cell["p"]] == [None, None]  # the references are another victim's
    assert {place: whole["reasons"][i] for place, i in cell["w"].items()} == {"1": "why <so>"}
    assert whole["seeds"] is True
    assert cell["d"] == [0, 3]


def test_p_is_kept_so_that_it_lies_on_its_side_of_alpha() -> None:
    rows = [replace(REFERENCES[0], suspect=f"r{i}", score=0.0) for i in range(19)]
    whole = packed(*of(*rows, replace(ROW, score=0.5)))
    assert whole["p"] == [0.05]
    assert whole["seeds"] is False
    assert "d" not in whole["cells"]["0/0"]


def many(n: int, few: int = 3) -> tuple[Records, Cells]:
    thefts = [replace(ROW, suspect=f"theft-{i:05}", score=i / n) for i in range(n)]
    return of(*REFERENCES, *thefts, *(replace(INNOCENT, suspect=f"i{i}", score=i / few) for i in range(few)))


def test_what_has_room_is_whole() -> None:
    records, chosen = many(500)
    full = pack(records, chosen, room=1_000_000)
    assert (full.held, full.total) == (503, 503)
    assert pack(records, chosen, room=len(full.text)).text == full.text


@pytest.mark.parametrize("room", [20_000, 5_000, 2_000])
def test_what_has_no_room_is_thinned_evenly(room: int) -> None:
    records, chosen = many(1_000)
    thin = pack(records, chosen, room=room)
    assert 0.8 * room < len(thin.text) <= room
    whole = json.loads(thin.text)
    cell = whole["cells"]["0/0"]
    assert cell["n"] == thin.total - 3 == 1_000
    assert thin.held == len(cell["v"]) + 3
    assert len(whole["cells"]["0/2"]["v"]) == 3, "a small cell stays whole"
    places = {row: place for place, row in enumerate(chosen.rows["0/0"].tolist())}
    ranks = [places[len(REFERENCES) + int(whole["suspects"][i].removeprefix("theft-"))] for i in cell["s"]]
    assert ranks[0] == 0
    assert ranks[-1] == 999
    assert np.ptp(np.diff(ranks)) <= 1, "evenly in the order of p, so that hits and misses stay in proportion"


def test_where_there_is_no_room_nothing_is_held() -> None:
    thin = pack(*many(50), room=1)
    assert (thin.held, thin.total) == (0, 53)
    assert json.loads(thin.text)["cells"]["0/0"]["n"] == 50


def test_many_pairs_take_little() -> None:
    records, chosen = many(20_000)
    full = pack(records, chosen, room=10_000_000)
    assert len(full.text) / full.total < 33, "300,000 pairs of different suspects stay below 10 MB"


def test_names_are_written_so_that_nothing_acts() -> None:
    text = pack(*of(replace(ROW, suspect="\u202e</script>&\u2028<!--", victim='"\\')), room=10_000).text
    assert not set("<>&\u2028\u202e") & set(text)
    whole = json.loads(text)
    assert whole["suspects"] == ["\\u202e</script>&\\u2028<!--"]
    assert whole["victims"] == ['"\\']
