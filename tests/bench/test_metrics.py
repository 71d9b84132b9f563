"""Who is judged by whom."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bench.population import population, row

from locard.bench import Records, p_values
from locard.bench.metrics import allowed, check, needed, ordered, trials, unattainable
from locard.errors import ParameterError
from locard.evidence import stratified
from locard.records import Reference


def references(*scores, kind="disjoint", **changed):
    return [row(suspect=f"{kind}-{i}", model=f"{kind}-{i}", role="calibration", truth="independent", kind=kind,
                family=kind, score=score, **changed) for i, score in enumerate(scores)]  # fmt: skip


def test_p_by_hand():
    rows = [*references(0.1, 0.2, 0.3), *references(0.1, 0.6, kind="same-data"), row(score=0.25), row(score=0.9)]
    assert p_values(Records.of(rows))[:5].tolist() == pytest.approx([math.nan] * 5, nan_ok=True)
    # 2 of 4 in disjoint, 2 of 3 in same-data; 1 of 4, 1 of 3.
    assert p_values(Records.of(rows))[5:].tolist() == [2 / 3, 1 / 3]


def test_p_as_a_verdict_has_it():
    records = population(victims=2, entries=("a", "b"), budgets=(10, 20), seeds=(0, 1), innocents=5)
    found = p_values(records)
    listed = list(enumerate(records.rows()))
    for i, one in listed[:: len(listed) // 40]:
        mine = [Reference(name="", digest="", stratum=r.kind, score=r.score) for _, r in listed
                if r.role == "calibration"
                and (r.victim, r.entry, r.budget, r.seed) == (one.victim, one.entry, one.budget, one.seed)]  # fmt: skip
        told = stratified(mine, one.score, "").p_value if one.role == "evaluation" else math.nan
        assert found[i] == pytest.approx(told, nan_ok=True)


@given(st.permutations(range(12)))
def test_order_says_nothing(order):
    records = population(victims=1, thefts=1, references=2, innocents=2, strata=("disjoint", "same-data"))
    records = records.where(np.arange(12))
    moved = records.where(np.array(order))
    assert p_values(moved).tolist() == pytest.approx(p_values(records)[np.array(order)].tolist(), nan_ok=True)


def test_without_a_score():
    """A reference is left out; a suspect has no p, and stands below all others."""
    rows = [*references(0.1, math.nan), row(score=0.5), row(suspect="t", model="cd", score=math.nan)]
    assert p_values(Records.of(rows))[2:].tolist() == pytest.approx([1 / 2, math.nan], nan_ok=True)
    (trial,) = trials(Records.of(rows))
    assert len(trial.references) == 1
    assert trial.thefts.score.tolist() == [0.5, -math.inf]
    assert np.isnan(p_values(Records.of([row(), *references(math.nan)]))).all()


def test_a_failed_theft_is_left_out():
    (trial,) = trials(Records.of([row(accepted=False), row(suspect="t", model="cd"), *references(0.1)]))
    assert trial.thefts.model.tolist() == ["cd"]


def test_models_that_share_the_data_are_no_innocents_of_a_claim_about_data():
    about = {"claim": "trained-on"}
    rows = [
        *references(0.1, 0.2, **about),
        *references(0.9, 0.9, kind="same-data", **about),
        row(score=0.5, **about),
        row(suspect="i", model="i", score=0.8, truth="independent", kind="same-architecture", **about),
        row(suspect="j", model="j", score=0.15, truth="independent", kind="foreign-theft", **about),
    ]
    (trial,) = trials(Records.of(rows))
    assert set(trial.references.kind) == {"disjoint"}
    assert trial.innocents.model.tolist() == ["j"]
    assert trial.thefts.p.tolist() == [1 / 3]
    rows = [one for one in rows if one.kind != "same-architecture"]
    derived = trials(Records.of([row(**{**vars_of(one), "claim": "derived"}) for one in rows]))[0]
    assert derived.thefts.p.tolist() == [1.0]


def test_of_the_claim_identical_only_the_own_score_decides():
    rows = [*references(0.1, claim="identical"), row(score=0.9, own=1.0, claim="identical"),
            row(suspect="same", model="ef", score=1.0, own=1.0, claim="identical")]  # fmt: skip
    assert p_values(Records.of(rows))[1:].tolist() == [0.0, 1.0]
    (trial,) = trials(Records.of(rows))
    assert len(trial.innocents) == len(trial.references) == 0


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ParameterError, match=r"akh gives 's' the score inf; a score is a finite number, or NaN"):
        check(Records.of([row(score=math.inf)]))
    with pytest.raises(ParameterError, match="'s' stands 2 times before akh's fingerprint of 'v'; join only"):
        check(Records.of([row(), row(suspect="t"), row(score=0.1)]))
    check(Records.of([row(), row(seed=1), row(budget=5), row(victim="w"), row(entry="zest")]))
    check(Records.of([]))


def test_why_alpha_cannot_be_reached():
    found = trials(Records.of([*references(*range(19)), *references(*range(5), kind="same-data"), row()]))
    assert unattainable(found, 0.2) == ""
    assert unattainable(found, 0.05) == (
        "5 references of stratum same-data of victim 'v' cannot give p below 0.167; alpha 0.05 needs 19"
    )
    assert unattainable(trials(Records.of([row()])), 0.05) == "victim 'v' has no reference with a score"


@given(st.integers(1, 300), st.sampled_from([0.01, 0.05, 0.07, 0.1, 0.29]))
def test_how_many_may_be_accused(references, alpha):
    ranks = [i for i in range(1, references + 2) if i <= alpha * (references + 1) + 1e-9]
    assert allowed(references, alpha) == len(ranks)
    assert (references >= needed(alpha)) == bool(ranks)


def test_strata_have_their_order():
    assert ordered({"zeta", "foreign-theft", "alpha", "disjoint"}) == ["disjoint", "foreign-theft", "alpha", "zeta"]


def vars_of(one):
    return {name: getattr(one, name) for name in type(one).__slots__}


def test_a_theft_of_a_model_that_saw_the_data_is_no_innocent_of_a_claim_about_data():
    theft = {"truth": "independent", "kind": "foreign-theft", "claim": "trained-on", "parent": "other"}
    rows = [row(suspect=name, model=name, shares=shares, **theft) for name, shares in (("i", True), ("j", False))]
    (trial,) = trials(Records.of([*references(0.1, 0.2, claim="trained-on"), *rows]))
    assert trial.innocents.model.tolist() == ["j"]
