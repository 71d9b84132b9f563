"""A population is built once, whatever happens meanwhile, and each model says where it comes from."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from locard.data import read, split
from locard.errors import ArtefactError, ParameterError
from locard.models import folder, load, restrict
from locard.models.fitting import Recipe
from locard.records import Access
from locard.zoo import Original, Theft, train_many, workers
from locard.zoo.population import Workshop, digests_of

QUICK = Recipe(epochs=20, lr=1e-2, batch=50)


@pytest.fixture(scope="module")
def parts():
    return split(read("digits"), {"victim": 200, "other": 200, "thief": 200, "queries": 200}, seed=0)


def original(name, **changed):
    job = Original(name=name, data="victim", architecture="mlp", arguments={"hidden": [16]}, recipe=QUICK, seed=0)
    return replace(job, **changed)


def theft(name, victim, attack="finetune", *, data: str | None = "thief", seed=0, **params):
    return Theft(name=name, victim=victim, attack=attack, params=params, data=data, seed=seed)


@pytest.fixture(scope="module")
def family():
    """A victim, a copy, a copy of the copy, and a stranger; the youngest first, for the order must not matter."""
    return [
        theft("grandchild", "child", "quantise", data=None),
        theft("child", "victim", epochs=1),
        original("victim"),
        original("stranger", data="other", seed=1, mean=(0.3,), std=(0.4,)),
    ]


@pytest.fixture(scope="module")
def built(family, parts, tmp_path_factory):
    out = tmp_path_factory.mktemp("zoo")
    return train_many(family, parts, out, held_out="queries", processes=1)


@pytest.fixture
def copied(built, tmp_path):
    """A folder with the family already in it."""
    (source,) = {one.path.parent for one in built.values()}
    return Path(shutil.copytree(source, tmp_path / "zoo"))


@pytest.fixture
def made(monkeypatch):
    """The names of the jobs done from here on, in this process."""
    names, make = [], Workshop.make

    def noted(self, job):
        names.append(job.name)
        return make(self, job)

    monkeypatch.setattr(Workshop, "make", noted)
    return names


def test_models_come_back_in_the_order_of_the_jobs(built, family):
    assert list(built) == [job.name for job in family]


def test_each_model_says_how_it_was_made(built, parts):
    victim, child, grandchild = (load(built[name].path) for name in ("victim", "child", "grandchild"))
    assert victim.lineage.data == parts["victim"].digest
    assert (victim.lineage.parent, victim.lineage.derived_by, victim.lineage.architecture) == (None, None, "mlp")
    assert child.lineage.parent == victim.digest == built["victim"].model
    assert (child.lineage.derived_by, child.lineage.data) == ("finetune", parts["thief"].digest)
    assert grandchild.lineage.parent == child.digest
    assert grandchild.lineage.derived_by == "quantise"


def test_accuracy_is_measured_on_what_no_model_has_seen(built, parts):
    for one in built.values():
        labels = restrict(load(one.path), Access.LABELS).labels(parts["queries"].inputs)
        assert one.accuracy == pytest.approx((labels == parts["queries"].labels).mean())
        assert folder.read_card(one.path).accuracy == pytest.approx(one.accuracy)
        assert one.accuracy > 0.7


def test_normalisation_is_kept_by_the_card(built):
    card = folder.read_card(built["stranger"].path)
    assert (card.mean, card.std) == ((0.3,), (0.4,))


def test_a_theft_is_held_against_its_victim(built):
    found = built["child"].acceptance
    assert found.accepted
    assert found.victim_accuracy == built["victim"].accuracy
    assert built["child"].effort["epochs"] == 1
    assert built["victim"].acceptance is None


def test_the_number_of_processes_changes_no_model(built, family, parts, tmp_path):
    again = train_many(family, parts, tmp_path, held_out="queries", processes=2)
    assert {name: one.model for name, one in again.items()} == {name: one.model for name, one in built.items()}


def test_what_is_there_is_kept(built, family, parts, copied, made):
    seen = []
    again = train_many(family, parts, copied, held_out="queries", processes=1, progress=lambda *row: seen.append(row))
    assert made == []
    assert seen == [(4, 4)]
    for name, one in again.items():
        assert replace(one, path=built[name].path) == built[name]


def test_a_changed_job_takes_its_descendants_with_it(family, parts, copied, made):
    changed = [replace(job, seed=5) if job.name == "child" else job for job in family]
    train_many(changed, parts, copied, held_out="queries", processes=1)
    assert made == ["child", "grandchild"]


def test_changed_data_take_with_them_what_saw_them(family, parts, copied, made):
    other = {**parts, "thief": parts["thief"].take(np.arange(100))}
    train_many(family, other, copied, held_out="queries", processes=1)
    assert made == ["child", "grandchild"]


@pytest.mark.parametrize("damage", ["weights", "card", "record", "half"])
def test_a_damaged_model_is_made_anew(built, family, parts, copied, made, damage):
    path = copied / "stranger"
    if damage == "weights":
        raw = bytearray((path / folder.WEIGHTS).read_bytes())
        raw[-1] ^= 1
        (path / folder.WEIGHTS).write_bytes(raw)
    elif damage == "card":
        (path / folder.CARD).write_text("{}")
    elif damage == "record":
        (path / "job.json").write_text('{"job": 3')
    else:
        (path / "job.json").unlink()
    again = train_many(family, parts, copied, held_out="queries", processes=1)
    assert made == ["stranger"]
    assert again["stranger"].model == built["stranger"].model


def test_a_failed_job_loses_nothing_that_was_done(parts, tmp_path, made):
    jobs = [original("one"), original("two", architecture="cnn", arguments={"width": -1}), original("three", seed=3)]
    with pytest.raises(ParameterError, match="width must be a whole number"):
        train_many(jobs, parts, tmp_path, held_out="queries", processes=1)
    assert made == ["one", "two"]
    train_many([jobs[0], jobs[2]], parts, tmp_path, held_out="queries", processes=1)
    assert made == ["one", "two", "three"]


def test_a_copy_of_no_named_architecture_is_kept_as_a_graph(parts, tmp_path, made):
    jobs = [original("victim"), theft("cut", "victim", "prune-channels", recovery=0),
            theft("wrapped", "cut", "answer", data=None)]  # fmt: skip
    built = train_many(jobs, parts, tmp_path, held_out="queries", processes=1)
    assert built["cut"].path == tmp_path / "cut" / "model.onnx"
    for name, parent in (("cut", "victim"), ("wrapped", "cut")):
        model = load(built[name].path)
        assert (model.digest, model.lineage.parent) == (built[name].model, built[parent].model)
        labels = restrict(model, Access.LABELS).labels(parts["queries"].inputs)
        assert built[name].accuracy == pytest.approx((labels == parts["queries"].labels).mean())
    again = train_many(jobs, parts, tmp_path, held_out="queries", processes=1)
    assert again == built
    assert made == ["victim", "cut", "wrapped"]


def test_what_was_a_folder_becomes_a_graph_and_back(parts, tmp_path):
    for attack in ("prune-channels", "finetune", "prune-channels"):
        params = {"recovery": 0} if attack == "prune-channels" else {"epochs": 1}
        jobs = [original("victim"), replace(theft("copy", "victim", attack), params=params)]
        built = train_many(jobs, parts, tmp_path, held_out="queries", processes=1)["copy"]
        assert load(built.path).digest == built.model
        assert (tmp_path / "copy" / "model.onnx").exists() == (attack == "prune-channels")
        assert (tmp_path / "copy" / folder.CARD).exists() == (attack == "finetune")


def test_time_that_is_over_leaves_the_rest_for_the_next_time(family, parts, tmp_path, made):
    assert train_many(family, parts, tmp_path, held_out="queries", processes=1, seconds=0) == {}
    assert train_many(family, parts, tmp_path, held_out="queries", processes=2, seconds=0) == {}
    assert made == []
    with pytest.raises(ParameterError, match="seconds must lie in"):
        train_many(family, parts, tmp_path, held_out="queries", seconds=-1)


def test_two_builds_at_once_share_the_work(parts, tmp_path):
    script = tmp_path / "build.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "zoo")]
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [build.wait(timeout=120) for build in builds] == [0, 0]
    for build in builds:
        assert build.stdout is not None
        build.stdout.close()
    records = [json.loads(path.read_text()) for path in (tmp_path / "zoo").glob("*/job.json")]
    assert len({record["weights"] for record in records}) == len(records) == 8
    for path in (tmp_path / "zoo").glob("*/job.json"):
        assert json.loads(path.read_text())["model"] == load(path.parent).digest


def test_a_victim_that_another_build_has_replaced_is_stolen_by_nobody(family, parts, copied):
    jobs = {job.name: job for job in family}
    digests = digests_of(family, {name: part.digest for name, part in parts.items()}, "queries")
    other = replace(jobs["victim"], seed=5)
    theirs = digests_of([other], {name: part.digest for name, part in parts.items()}, "queries")
    Workshop(out=copied, data=parts, held_out="queries", digests=theirs).make(other)
    (copied / "child" / "job.json").unlink()
    with pytest.raises(ArtefactError, match="no longer holds the model that child is to be stolen from"):
        Workshop(out=copied, data=parts, held_out="queries", digests=digests).make(jobs["child"])


def test_an_error_in_a_worker_arrives_as_it_is(parts, tmp_path):
    jobs = [original("one"), original("two", architecture="cnn", arguments={"width": -1})]
    with pytest.raises(ParameterError, match="width must be a whole number"):
        train_many(jobs, parts, tmp_path, held_out="queries", processes=2)


def test_a_dead_worker_is_an_error_and_no_hang():
    with pytest.raises(ArtefactError, match="a worker process died before its work was done"):
        list(workers.run_all(os._exit, {"a": 3, "b": 3}, {}, processes=2))


def test_a_copy_that_lost_its_task_is_marked(built, family, parts, copied):
    ruined = theft("ruined", "victim", "prune", data=None, fraction=0.99)
    found = train_many([*family, ruined], parts, copied, held_out="queries", processes=1)["ruined"]
    assert found.acceptance is not None
    assert not found.acceptance.accepted
    assert found.acceptance.reason is not None
    assert "prune counts as a theft down to" in found.acceptance.reason


def test_the_thiefs_budget_holds(family, parts, copied):
    job = replace(theft("extracted", "victim", "extraction", epochs=1, width=4), budget=50)
    found = train_many([*family, job], parts, copied, held_out="queries", processes=1)["extracted"]
    assert found.effort is not None
    assert found.effort["queries"] == 50
    assert "50 of 200 queries were answered" in found.notes[0]


def test_a_jobs_digest_covers_what_its_model_depends_on():
    parts = {"victim": "a", "other": "b", "thief": "c", "queries": "d"}
    jobs = [original("v"), theft("t", "v", epochs=1)]
    before = digests_of(jobs, parts, "queries")
    for changed in (
        replace(jobs[0], seed=1),
        replace(jobs[0], arguments={"hidden": [17]}),
        replace(jobs[0], recipe=replace(jobs[0].recipe, lr=0.02)),
        replace(jobs[0], data="other"),
        replace(jobs[0], mean=(0.1,)),
    ):
        after = digests_of([changed, jobs[1]], parts, "queries")
        assert after["v"] != before["v"]
        assert after["t"] != before["t"], "a theft depends on its victim"
    for changed in (theft("t", "v", epochs=2), theft("t", "v", epochs=1, seed=1), replace(jobs[1], budget=3)):
        after = digests_of([jobs[0], changed], parts, "queries")
        assert after["v"] == before["v"]
        assert after["t"] != before["t"]
    assert digests_of([replace(jobs[0], name="w")], parts, "queries")["w"] == before["v"], "a name is no cause"


def test_default_parameters_are_part_of_the_digest():
    parts = {"victim": "a", "thief": "c", "queries": "d"}
    silent, spelt = (
        digests_of([original("v"), theft("t", "v", **params)], parts, "queries")["t"]
        for params in ({}, {"epochs": 3, "layers": "all"})
    )
    assert silent == spelt


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([original("a"), original("a", seed=1)], "two jobs have the name 'a'"),
        ([theft("a", "nobody"), original("somebody")], "unknown victim 'nobody'"),
        ([theft("a", "b"), theft("b", "a")], "'a' is derived from itself: a <- b <- a"),
        ([original("a", data="victims")], "unknown part of the data 'victims'; did you mean 'victim'"),
        ([original("a"), theft("b", "a", "finetun")], "unknown attack 'finetun'"),
        ([original("a"), theft("b", "a", epohcs=3)], "unknown parameter of attack 'finetune': 'epohcs'"),
    ],
)
def test_jobs_that_make_no_sense_are_refused_before_any_is_done(jobs, message, parts, tmp_path, made):
    with pytest.raises(ParameterError, match=message):
        train_many(jobs, parts, tmp_path, held_out="queries", processes=1)
    assert made == []


def test_held_out_data_need_labels(parts, tmp_path):
    bare = replace(parts["queries"], labels=None)
    with pytest.raises(ParameterError, match="accuracy is measured on digits:queries, which has no labels"):
        train_many([original("a")], {**parts, "queries": bare}, tmp_path, held_out="queries")
    with pytest.raises(ParameterError, match="a is to be trained on digits:victim, which has no labels"):
        train_many([original("a")], {**parts, "victim": replace(parts["victim"], labels=None)}, tmp_path,
                   held_out="queries", processes=1)  # fmt: skip


def test_a_folder_that_cannot_be_written_is_one_clear_error(parts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot write models to"):
        train_many([original("a")], parts, tmp_path / "file", held_out="queries", processes=1)


SCRIPT = """
import sys
from pathlib import Path
from locard.data import read, split
from locard.models.fitting import Recipe
from locard.zoo import Original, train_many

if __name__ == "__main__":
    parts = split(read("digits"), {"victim": 200, "queries": 200}, seed=0)
    recipe = Recipe(epochs=80)
    jobs = [Original(name=f"m{i}", data="victim", architecture="mlp", recipe=recipe, seed=i) for i in range(8)]
    train_many(jobs, parts, Path(sys.argv[1]), held_out="queries", processes=2,
               progress=lambda done, wanted: print(done, flush=True))
"""


def children(pid):
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in out.split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("blow", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_build_that_is_stopped_leaves_nobody_behind_and_goes_on(tmp_path, blow):
    script, out = tmp_path / "build.py", tmp_path / "zoo"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(out)]
    # In a group of its own, so that Ctrl-C reaches it and its workers alone.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          start_new_session=True) as build:  # fmt: skip
        assert build.stdout is not None
        while int(build.stdout.readline()) < 2:
            pass
        workers = children(build.pid)
        assert len(workers) >= 2
        if blow is signal.SIGINT:
            os.killpg(build.pid, blow)
        else:
            build.kill()
        assert build.wait(timeout=30) != 0
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))
    before = {path.parent.name: json.loads(path.read_text())["weights"] for path in out.glob("*/job.json")}
    assert 2 <= len(before) < 8
    stamps = {name: (out / name / folder.WEIGHTS).stat().st_mtime_ns for name in before}
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == str(len(before)), "what was done was kept"
    assert done.stdout.split()[-1] == "8"
    assert {name: (out / name / folder.WEIGHTS).stat().st_mtime_ns for name in before} == stamps
