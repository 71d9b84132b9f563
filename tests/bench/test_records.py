"""Rows go to Parquet and come back."""

import math

import numpy as np
import pytest
from tests.bench.population import row

from locard.bench import Records
from locard.bench.records import COLUMNS
from locard.errors import ArtefactError


def test_rows_come_back_as_they_were(tmp_path):
    rows = [row(), row(suspect="t", truth="independent", accepted=False, queries=7), row(reason="no classes")]
    Records.of(rows).write(tmp_path / "r.parquet")
    assert Records.read(tmp_path / "r.parquet").rows() == rows
    assert [path.name for path in tmp_path.iterdir()] == ["r.parquet"]


def test_a_missing_score_stays_one(tmp_path):
    Records.of([row(score=math.nan)]).write(tmp_path / "r.parquet")
    assert math.isnan(Records.read(tmp_path / "r.parquet")["score"][0])


def test_no_rows_keep_their_columns(tmp_path):
    Records.of([]).write(tmp_path / "r.parquet")
    found = Records.read(tmp_path / "r.parquet")
    assert len(found) == 0
    assert {name: found[name].dtype for name in COLUMNS} == {name: Records.of([row()])[name].dtype for name in COLUMNS}


def test_parts_are_chosen_and_joined():
    records = Records.of([row(suspect=name, score=score) for name, score in (("a", 0.1), ("b", 0.9), ("a", 0.5))])
    assert records.names("suspect") == ["a", "b"]
    chosen = records.where(records["score"] > 0.3)
    assert chosen["suspect"].tolist() == ["b", "a"]
    assert Records.concatenate([chosen, records.where(np.array([0]))])["score"].tolist() == [0.9, 0.5, 0.1]
    assert len(Records.concatenate([])) == 0


def test_what_is_no_record_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(ArtefactError, match="no file"):
        Records.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ArtefactError, match="is no Parquet file"):
        Records.read(tmp_path / "text.parquet")
    pq.write_table(pa.table({"victim": ["v"]}), tmp_path / "other.parquet")
    with pytest.raises(ArtefactError, match=r"holds no records of a bench of this version \(2; it says nothing\)"):
        Records.read(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [("score", "high", "string"), ("truth", "Derived", "string"), ("claim", "x", "string"), ("queries", None, "int64"),
     ("victim", None, "string")],
)  # fmt: skip
def test_what_no_bench_writes_is_refused(tmp_path, column, value, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    Records.of([row()]).write(tmp_path / "r.parquet")
    table = pq.read_table(tmp_path / "r.parquet")
    at = table.column_names.index(column)
    changed = table.set_column(at, column, pa.array([value], kind))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), tmp_path / "r.parquet")
    with pytest.raises(ArtefactError, match=r"what no bench writes|holds no records of a bench"):
        Records.read(tmp_path / "r.parquet")
