"""Sorting finished models by role."""

from pathlib import Path

import pytest

from locard.attacks import Acceptance
from locard.testing import toy_data
from locard.zoo import Built, populate
from locard.zoo.roles import Member

FAILED = Acceptance(accuracy=0.1, victim_accuracy=0.9, agreement=0.1, accepted=False, reason="accuracy fell")


def sort(tmp_path, *members, acceptance=FAILED):
    built = {
        member.name: Built(name=member.name, path=Path(member.name), job="j", model="m", accuracy=0.1,
                           acceptance=None if member.role == "victim" else acceptance)
        for member in members
    }  # fmt: skip
    return populate(tmp_path, members, built, {"queries": toy_data(20)}, seed=0)


VICTIM = Member(name="v", role="victim", truth="victim", kind="victim")


def test_a_failed_theft_is_judged_but_marked_and_gives_no_power(tmp_path):
    people = sort(
        tmp_path,
        VICTIM,
        Member(name="a", role="suspect", truth="derived", kind="prune"),
        Member(name="b", role="derived", truth="derived", kind="prune"),
    )
    assert [(suspect.path.name, suspect.accepted) for suspect in people.suspects] == [("a", False)]
    assert people.derived == {}


def test_a_strangers_failed_theft_of_a_stranger_is_innocent_all_the_same(tmp_path):
    people = sort(
        tmp_path,
        VICTIM,
        Member(name="a", role="suspect", truth="independent", kind="foreign-theft"),
        Member(name="b", role="reference", truth="independent", kind="foreign-theft"),
    )
    assert [(suspect.truth, suspect.accepted) for suspect in people.suspects] == [("independent", True)]
    assert people.references == {"foreign-theft": [Path("b")]}


def test_a_population_without_a_victim_is_none(tmp_path):
    with pytest.raises(ValueError, match="a population has a victim"):
        sort(tmp_path, Member(name="b", role="reference", truth="independent", kind="disjoint"))
