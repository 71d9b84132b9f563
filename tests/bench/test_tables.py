"""A summary in Markdown and CSV."""

import csv
import io

import pytest
from tests.bench.population import population

from locard.bench import Records, summarise, tables
from locard.bench.records import COLUMNS
from locard.records import Access


@pytest.fixture(scope="module")
def summary():
    parts = [
        population(entries=("akh", "liar"), broken=("liar",)),
        population(entries=("zest|4",), access="LOGITS", shift=4.0, score=lambda x: x / 20 + 0.5, innocents=50),
        population(entries=("layers",), access="LABELS + MODULE", budgets=(50,), shift=1.0),
        population(entries=("sensitive",), claim="identical"),
    ]
    return summarise(Records.concatenate(parts), resamples=100)


def test_an_entry_appears_from_the_level_it_needs(summary):
    assert tables.levels(summary) == [Access.LABELS, Access.LOGITS, Access.MODULE]
    head, rows = tables.leaderboard(summary, Access.LABELS)
    assert [line[0] for line in rows] == ["akh", "sensitive ?", "liar \\*"]
    assert {len(line) for line in rows} == {len(head)}
    _, rows = tables.leaderboard(summary, Access.PROBABILITIES)
    assert len(rows) == 3
    _, rows = tables.leaderboard(summary, Access.MODULE)
    assert [line[0] for line in rows] == ["zest|4", "akh", "layers at 50", "sensitive ?", "liar \\*"]


def test_cells_say_figure_and_interval(summary):
    head, rows = tables.leaderboard(summary, Access.LOGITS)
    zest = dict(zip(head, rows[0], strict=True))
    one = summary.standings[0]
    found = one.tpr[0.05]
    assert zest["found at alpha 0.05"] == f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"
    assert zest["found at alpha 0.01"] == "-"
    assert zest["AUROC"] == f"{one.auroc.value:.3f} ({one.auroc.low:.2f} to {one.auroc.high:.2f})"
    assert (zest["claim"], zest["access"], zest["queries"], zest["seconds"]) == ("derived", "logits", "100", "0.01")
    worst = max(row.holdout.value for row in one.calibration if row.alpha == 0.05)
    assert zest["accused"].startswith(f"{worst:.1%} of ")
    same = dict(zip(head, next(line for line in rows if line[0] == "sensitive ?"), strict=True))
    assert same["AUROC"] == same["accused"] == "-"


def test_kinds_of_theft(summary):
    head, rows = tables.kinds(summary)
    assert head == ["scheme, alpha 0.05", "distil", "finetune", "prune", "steal"]
    one = summary.standings[0].kinds["distil"]
    assert rows[0][1] == f"{one.tpr[0.05].value:.0%} of {one.n_thefts}"
    assert tables.kinds(summary, 0.01)[1][0][1] == "-"


def test_false_accusations(summary):
    head, rows = tables.calibration(summary)
    lines = [dict(zip(head, line, strict=True)) for line in rows]
    liar = [line for line in lines if line["scheme"] == "liar \\*"]
    assert [(line["stratum"], line["alpha"], line["promise"]) for line in liar] == [
        ("disjoint", "0.05", "broken"), ("same-data", "0.05", "broken"),
        ("disjoint", "0.01", "untested"), ("same-data", "0.01", "untested"),
    ]  # fmt: skip
    row = summary.standings[-1].calibration[0]
    assert (
        liar[0]["as recorded"]
        == f"{row.holdout.value:.1%} ± {row.holdout.error:.1%} of 30, at most {row.holdout.high:.1%}"
    )
    assert (liar[2]["as recorded"], liar[2]["p"]) == ("-", "-")


def test_markdown_holds_all_of_it(summary):
    text = tables.markdown(summary)
    assert "## labels\n" in text
    assert "| zest\\|4 | derived |" in text
    widths = {}
    for part in text.split("\n\n"):
        if part.startswith("| "):
            widths[part] = {line.replace("\\|", "").count("|") for line in part.splitlines()}
    assert len(widths) == 5
    assert all(len(width) == 1 for width in widths.values())
    assert "- liar: accuses " in text
    assert "- refused: TPR at calibrated alpha 0.01: 39 references" in text
    assert "innocents to be judged 100 (50 disjoint, 50 same-data)" in text


def test_missing_and_failed_are_told():
    records = population(victims=1)
    lost, failed = records["score"].copy(), records["accepted"].copy()
    lost[[0, 40 * 2]] = float("nan")
    failed[-1] = False
    columns = {name: records[name] for name in COLUMNS}
    text = tables.markdown(summarise(Records(columns | {"score": lost, "accepted": failed}), resamples=100))
    assert "- failed thefts left out: 1 of steal" in text
    assert (
        "- akh: without a score are 0 pairs with thefts, which count as missed, 1 with innocents, which count as not "
        "accused, and 1 with references, which are left out: no reason given (2)"
    ) in text


def test_csv_has_every_figure(summary):
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(summary))))
    one = summary.standings[0]
    zest = {(line["figure"], line["level"], line["of"]): line for line in lines if line["entry"] == "zest|4"}
    assert float(zest["tpr", "0.05", "all"]["value"]) == pytest.approx(one.tpr[0.05].value, rel=1e-5)
    assert float(zest["aruc", "", "all"]["high"]) == pytest.approx(one.aruc.high, rel=1e-5)
    assert float(zest["auroc", "", "kind prune"]["error"]) == pytest.approx(one.kinds["prune"].auroc.error, rel=1e-5)
    assert zest["tpr", "0.05", "family extraction"]["n"] == "24"
    assert zest["tpr", "0.01", "all"]["value"] == ""
    assert zest["tpr", "0.01", "all"]["why"].endswith("needs 99")
    assert zest["accused over splits", "0.05", "stratum disjoint"]["n"] == "89"
    assert {line["reliable"] for line in lines} == {"yes", "no", "unknown"}
    assert len(lines) == sum(6 + 3 * len(s.families) + 3 * len(s.kinds) + 3 * len(s.calibration)
                             for s in summary.standings)  # fmt: skip


def test_nothing_makes_empty_tables():
    empty = summarise(Records.of([]))
    assert tables.levels(empty) == []
    assert tables.markdown(empty).startswith("0 thefts from 0 victims, innocents to be judged 0 (none)")
    assert len(tables.to_csv(empty).splitlines()) == 1
