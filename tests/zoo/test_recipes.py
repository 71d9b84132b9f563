"""Who is who in the shipped populations: roles disjoint, strata full, queries seen by nobody."""

import json
from collections import Counter

import pytest

from locard.evidence.conformal import STRATA
from locard.models import load
from locard.zoo import Original, Theft, digits, fashion
from locard.zoo.population import digests_of
from locard.zoo.roles import MANIFEST

BOTH = pytest.mark.parametrize("recipe", [digits, fashion])


@BOTH
def test_every_model_has_a_name_and_a_seed_of_its_own(recipe):
    jobs = [job for job, _ in recipe.jobs()]
    assert len({job.name for job in jobs}) == len({job.seed for job in jobs}) == len(jobs)
    assert all(job.name == member.name for job, member in recipe.jobs())


@BOTH
def test_no_two_jobs_are_the_same(recipe):
    jobs = [job for job, _ in recipe.jobs()]
    parts = {"victim": "v", "other": "o", "attacker": "a", "queries": "q", "check": "c"}
    assert len(set(digests_of(jobs, parts, "queries").values())) == len(jobs)


@BOTH
def test_another_seed_changes_every_model(recipe):
    first, second = ({job.name: job.seed for job, _ in recipe.jobs(seed)} for seed in (0, 1))
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())


@BOTH
def test_references_fill_every_stratum(recipe):
    strata = Counter(member.kind for _, member in recipe.jobs() if member.role == "reference")
    assert set(strata) == set(STRATA)
    assert min(strata.values()) >= 19, "alpha 0.05 takes 19"


@BOTH
def test_a_models_truth_is_what_its_job_says(recipe):
    table = {job.name: (job, member) for job, member in recipe.jobs()}
    for job, member in table.values():
        root = job
        while not isinstance(root, Original):
            root = table[root.victim][0]
        assert (member.truth == "derived") == (root.name == "victim" and job is not root)
        if member.kind == "foreign-theft":
            assert job is not root
        if member.kind in ("same-data", "same-architecture", "disjoint"):
            victim = table["victim"][0]
            assert (job.data == victim.data) == (member.kind != "disjoint")
            assert (job.architecture == victim.architecture) == (member.kind != "same-data")


@BOTH
def test_nobody_trains_on_what_is_asked(recipe):
    assert {job.data for job, _ in recipe.jobs()} <= {"victim", "other", "attacker", None}


def test_a_suspects_victim_is_no_references_victim():
    members = {member.name: member for _, member in digits.jobs()}
    for job, member in digits.jobs():
        if member.kind == "foreign-theft":
            assert isinstance(job, Theft)
            assert members[job.victim].role == member.role


def test_the_fashion_pool_holds_at_least_sixty():
    assert sum(member.truth == "independent" for _, member in fashion.jobs()) >= 60


def test_the_digits_are_cut_without_overlap():
    parts = digits.parts()
    rows = Counter(row.tobytes() for part in parts.values() for row in part.inputs)
    whole = Counter(row.tobytes() for row in digits.read("digits").inputs)
    assert sum(rows.values()) == sum(digits.SIZES.values()) == sum(whole.values())
    assert rows == whole


def test_a_small_demo_is_built_sorted_and_written_down(tmp_path, monkeypatch):
    for name in ("REFERENCES", "INNOCENTS", "COPIES"):
        monkeypatch.setattr(digits, name, 1)
    people = digits.build(tmp_path, processes=1)
    assert {stratum: len(paths) for stratum, paths in people.references.items()} == dict.fromkeys(sorted(STRATA), 1)
    truths = Counter(suspect.truth for suspect in people.suspects)
    assert truths == {"derived": 9, "independent": 4}
    assert people.queries.digest == digits.parts()["queries"].digest
    victim = load(people.victim)
    assert all((load(s.path).lineage.parent == victim.digest) == (s.truth == "derived") for s in people.suspects)
    assert all(suspect.accepted for suspect in people.suspects if suspect.truth == "derived")
    mistakes = round((1 - people.built["victim"].accuracy) * len(people.queries))
    assert mistakes >= 25, "akh needs some to go by"

    manifest = json.loads((tmp_path / MANIFEST).read_text())
    rows = {row["name"]: row for row in manifest["models"]}
    assert rows.keys() == people.built.keys()
    assert manifest["parts"]["queries"] == {"n": 700, "digest": people.queries.digest}
    for name, one in people.built.items():
        assert (rows[name]["model"], rows[name]["job"], rows[name]["accuracy"]) == (one.model, one.job, one.accuracy)
    assert {row["role"] for row in rows.values()} == {"victim", "suspect", "reference", "derived"}


def test_a_failed_theft_gives_no_power(tmp_path, monkeypatch):
    for name in ("REFERENCES", "INNOCENTS", "COPIES"):
        monkeypatch.setattr(digits, name, 1)
    monkeypatch.setattr(digits, "_FRACTIONS", (0.99,))
    monkeypatch.setattr(digits, "_VARIED", ("prune", "noise"))
    people = digits.build(tmp_path, processes=1)
    assert sorted(people.derived) == ["noise"]
    rows = {row["name"]: row for row in json.loads((tmp_path / MANIFEST).read_text())["models"]}
    assert [row["accepted"] for row in rows.values() if row["role"] == "derived"] == [False, True]
