"""A bench asks every pair once, keeps what it has whatever happens, and comes to one table by any way."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from locard import extract
from locard.bench import Entry, Records, processes, run_bench
from locard.bench.work import Workbench
from locard.cli import run as command
from locard.engine.respond import respond
from locard.errors import ArtefactError, ParameterError
from locard.models import Model, folder, load
from locard.schemes import build
from locard.zoo import open_zoo


@pytest.fixture(scope="module")
def bench(zoo, tmp_path_factory, entries):
    out = tmp_path_factory.mktemp("bench")
    assert run_bench(zoo, out, entries, budgets=(0, 10), runner=processes(1)).whole
    return out


@pytest.fixture(scope="module")
def records(bench):
    return Records.read(bench / "records.parquet")


def test_every_pair_has_a_row_for_each_entry_and_budget(zoo, records):
    pairs = {(pair.victim.name, pair.suspect.name): pair for pair in zoo.pairs()}
    assert len(records) == len(pairs) * 4
    assert records.names("entry") == ["akh", "sac(answers=labels)"]
    for row in records.rows():
        pair = pairs[row.victim, row.suspect]
        assert (row.truth == "derived") == pair.derived
        assert (row.kind, row.family, row.role) == (pair.kind, pair.family, pair.suspect.role)
        assert row.model == zoo.built[row.suspect].model
        assert row.accepted
        assert row.architecture == "plain"


def test_a_score_is_the_one_that_verify_would_give(zoo, records):
    for row in records.rows()[::23]:
        assert not row.reason
        params = {"answers": "labels"} if row.scheme == "sac" else {}
        fp = extract(zoo.built[row.victim].path, scheme=row.scheme, params=params, data=zoo.data("queries"),
                     queries=row.budget or (20 if row.scheme == "akh" else 30), seed=0)  # fmt: skip
        scheme = build(row.scheme, params)
        assert row.queries == fp.cost
        assert row.score == scheme.similarity(fp, respond(fp, load(zoo.built[row.suspect].path)))
        assert row.own == scheme.similarity(fp, fp)


def test_each_suspect_is_asked_each_query_once(zoo, tmp_path, monkeypatch, entries):
    asked: dict[str, list[bytes]] = {}
    stream = Model.stream

    def counted(self, x):
        asked.setdefault(self.source, []).extend(row.tobytes() for row in x)
        return stream(self, x)

    run_bench(zoo, tmp_path, entries, budgets=(0, 10), runner=processes(1), seconds=0)
    workbench = Workbench(zoo=zoo.path, out=tmp_path)
    from locard.bench.work import plan

    takings, askings = plan(zoo, tmp_path, entries, (0, 10), (0,))
    for taking in takings:
        workbench.take(taking)
    monkeypatch.setattr(Model, "stream", counted)
    for asking in askings[:4]:
        workbench.ask(asking)
    assert len(asked) == 4
    for queries in asked.values():
        assert len(set(queries)) == len(queries) > 30


def test_what_is_there_is_not_done_again(zoo, bench, records, monkeypatch, entries):
    monkeypatch.setattr(Workbench, "take", None)
    monkeypatch.setattr(Workbench, "ask", None)
    (bench / "records.parquet").unlink()
    assert run_bench(zoo, bench, entries, budgets=(0, 10), runner=processes(1)).whole
    assert Records.read(bench / "records.parquet").rows() == records.rows()


def test_time_that_is_over_leaves_the_rest_for_the_next_time(zoo, tmp_path, records, entries, told):
    first = run_bench(zoo, tmp_path, entries, budgets=(0, 10), runner=processes(1), seconds=0)
    assert (first.fingerprints, first.suspects, first.whole) == (0, 0, False)
    assert not (tmp_path / "records.parquet").exists()
    assert run_bench(zoo, tmp_path, entries, budgets=(0, 10), runner=processes(2)).whole
    assert told(Records.read(tmp_path / "records.parquet")) == told(records)


def test_a_scheme_that_cannot_is_told_and_the_others_go_on(zoo, tmp_path, entries):
    entries = [entries[0], Entry(scheme="akh", params={"discount": True}, queries=2_000)]
    assert run_bench(zoo, tmp_path, entries, runner=processes(1)).whole
    found = Records.read(tmp_path / "records.parquet")
    bad = found.where(found["entry"] == "akh(discount=True)")
    assert np.isnan(bad["score"]).all()
    assert all(str(zoo.path) not in reason and reason for reason in bad["reason"].tolist())
    assert not np.isnan(found.where(found["entry"] == "akh")["score"]).any()


def test_what_is_no_fault_of_a_scheme_ends_the_bench_and_is_not_noted(zoo, tmp_path, entries):
    other = shutil.copytree(zoo.path, tmp_path / "zoo")
    victim = zoo.victims[0].name
    shutil.copy(other / zoo.victims[1].name / folder.WEIGHTS, other / victim / folder.WEIGHTS)
    with pytest.raises(ArtefactError, match="is not the model that its population lists: build the population again"):
        run_bench(open_zoo(other), tmp_path / "bench", entries, runner=processes(1))
    assert not list((tmp_path / "bench").glob("fingerprints/*.json"))


def test_a_lost_fingerprint_is_taken_again(zoo, tmp_path, entries):
    assert run_bench(zoo, tmp_path, entries[:1], runner=processes(1)).whole
    first, *_ = (tmp_path / "fingerprints").glob("*.locard")
    whole = first.read_bytes()
    first.unlink()
    assert run_bench(zoo, tmp_path, entries[:1], runner=processes(1)).whole
    assert first.read_bytes() == whole


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"entries": []}, "a bench needs at least one entry; got none"),
        ({"budgets": ()}, "a bench needs at least one budget; got none"),
        ({"seeds": (0, 0)}, "a bench asks each seed once; got 0, 0"),
        ({"budgets": (-1,)}, "budgets and seeds must lie in"),
        ({"seconds": -1}, "seconds must lie in"),
    ],
)
def test_a_bench_that_makes_no_sense_is_refused(zoo, tmp_path, changed, message, entries):
    with pytest.raises(ParameterError, match=message):
        run_bench(zoo, tmp_path, **({"entries": entries} | changed))


def test_a_folder_that_cannot_be_written_is_one_clear_error(zoo, tmp_path, entries):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot write a bench to"):
        run_bench(zoo, tmp_path / "file", entries)


def test_the_command_goes_on_where_it_was(zoo, tmp_path, capsys):
    words = ["bench", "run", str(zoo.path), "-o", str(tmp_path), "--schemes", "akh,sac:answers=labels", "--budgets",
             "10", "--processes", "1"]  # fmt: skip
    assert command([*words, "--time", "0s"]) == 0
    assert "0 of 4 fingerprints taken, 0 of 20 suspects asked\nTime is over" in capsys.readouterr().out
    assert command(words) == 0
    assert f"20 of 20 suspects asked\nGo on: locard bench report {tmp_path}" in capsys.readouterr().out
    assert command([*words[:-4], "--budgets", "ten"]) == 2
    assert "--budgets takes whole numbers separated by commas; got 'ten'" in capsys.readouterr().err


def test_the_report_is_a_page_and_tables(bench, tmp_path, capsys):
    words = ["bench", "report", str(bench), "--alphas", "0.25"]
    files = {name: tmp_path / f"r.{name}" for name in ("html", "markdown", "csv")}
    assert command([*words, *(word for name, path in files.items() for word in (f"--{name}", str(path)))]) == 0
    printed = capsys.readouterr().out
    assert "sac(answers=labels) at 10" in printed
    assert "2 thefts of 2 victims, 1 innocents judged by 13 references" in printed
    assert f"report: {files['html']}" in printed
    assert "<title>" in files["html"].read_text()
    assert "## labels" in files["markdown"].read_text()
    assert files["csv"].read_text().startswith("entry,scheme,claim,access")
    assert command([*words, "--alphas", "often"]) == 2
    assert "--alphas takes numbers separated by commas; got 'often'" in capsys.readouterr().err
    assert command(["bench", "report", str(tmp_path)]) == 2
    assert "holds no finished bench: run one with `locard bench run POPULATION" in capsys.readouterr().err


def start(zoo, out, workers):
    words = ["bench", "run", str(zoo.path), "-o", str(out), "--schemes", "akh,sac:answers=labels", "--budgets", "0,10"]
    command = [sys.executable, "-m", "locard", *words, "--processes", str(workers)]
    # In a group of its own, so that the blow reaches its workers too.
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_ten_kills_lose_no_record_and_change_none(zoo, tmp_path, records, told):
    """At random moments, the workers with it."""
    source, left, takes = random.Random(0), {}, {}
    for workers in (1, 2):
        began = time.monotonic()
        with start(zoo, tmp_path / f"undisturbed-{workers}", workers) as process:
            assert process.wait(timeout=300) == 0
        takes[workers] = time.monotonic() - began
    # Workers take as long to begin as the whole bench does without them, so most of the blows fall on one process.
    for workers in (1, 1, 2) * 3 + (1,):
        with start(zoo, tmp_path / "killed", workers) as process:
            time.sleep(source.uniform(0.3, 0.8) * takes[workers])
            os.killpg(process.pid, signal.SIGKILL)
        now = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*/*") if path.name[0] != "."}
        assert left.items() <= now.items(), "a finished piece was lost or done again"
        left = now
    with start(zoo, tmp_path / "killed", 1) as process:
        assert process.wait(timeout=300) == 0
    names = ("undisturbed-1", "undisturbed-2", "killed")
    first, second, killed = (told(Records.read(tmp_path / name / "records.parquet")) for name in names)
    assert first == second == killed
