"""Extraction pays for each query, sees what it was granted, and stops cleanly when the budget ends."""

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks.extraction import query_set
from locard.errors import AccessError, BudgetError, ParameterError
from locard.models import Session, restrict, view
from locard.models.callable import CallableModel
from locard.records import Access, Data, Domain

QUICK = {"epochs": 2, "width": 4}


def agreement(stolen, victim, data):
    with torch.no_grad():
        ours, theirs = (m(torch.from_numpy(data.inputs)).argmax(1) for m in (victim.module(), stolen.module))
    return float((ours == theirs).float().mean())


def test_a_copy_by_probabilities_answers_as_the_victim_does(victim, parts):
    attack = build("extraction", {"queries": 1500, "epochs": 15, "width": 8})
    stolen = attack.derive(restrict(victim, Access.PROBABILITIES), parts["thief"])
    assert agreement(stolen, victim, parts["held out"]) > 0.9
    assert stolen.architecture == "cnn"
    assert stolen.arguments == {"shape": [1, 8, 8], "classes": 10, "width": 8}


def test_a_copy_by_labels_into_another_architecture_too(victim, parts):
    attack = build("extraction", {"answers": "labels", "architecture": "mlp", "queries": 1500, "epochs": 15})
    stolen = attack.derive(restrict(victim, Access.LABELS), parts["thief"])
    assert agreement(stolen, victim, parts["held out"]) > 0.85
    assert stolen.lineage.architecture == "mlp"


def test_shuffled_answers_teach_nothing(victim, parts):
    source = np.random.default_rng(0)

    def answer(x):
        return source.permutation(restrict(victim, Access.LABELS).labels(x))

    liar = CallableModel(answer, domain=victim.domain, outputs="labels", classes=10, name="liar", batch_size=512)
    attack = build("extraction", {"answers": "labels", "epochs": 10, "width": 8})
    stolen = attack.derive(restrict(liar, Access.LABELS), parts["thief"])
    assert agreement(stolen, victim, parts["held out"]) < 0.35


def test_the_thief_counts_as_the_session_does(victim, parts):
    session = Session(victim, Access.PROBABILITIES)
    attack = build("extraction", {**QUICK, "queries": 900})
    stolen = attack.derive(view(session, Access.PROBABILITIES), parts["thief"])
    assert stolen.effort.queries == session.asked <= 900
    assert session.from_journal == 0
    assert stolen.notes == ()


def test_a_spent_budget_ends_the_questions_and_not_the_attack(victim, parts):
    session = Session(victim, Access.LABELS, budget=300)
    attack = build("extraction", {**QUICK, "answers": "labels"})
    stolen = attack.derive(view(session, Access.LABELS), parts["thief"])
    assert stolen.effort.queries == session.asked == 300
    (note,) = stolen.notes
    assert note.startswith("trained on 300 of 500 queries: the budget of 300 queries")
    exact = build("extraction", {**QUICK, "answers": "labels"}).derive(
        restrict(victim, Access.LABELS, budget=500), parts["thief"]
    )
    assert exact.effort.queries == 500
    assert exact.notes == ()


def test_a_budget_that_was_spent_before_is_an_error(victim, parts):
    session = Session(victim, Access.LABELS, budget=10)
    view(session, Access.LABELS).labels(parts["held out"].inputs[:10])
    with pytest.raises(BudgetError, match="the budget of 10 queries"):
        build("extraction", {**QUICK, "answers": "labels"}).derive(view(session, Access.LABELS), parts["thief"])


def test_probabilities_are_not_to_be_had_from_labels(victim, parts):
    with pytest.raises(AccessError, match=r"extraction needs PROBABILITIES of the victim; LabelView"):
        build("extraction", QUICK).derive(restrict(victim, Access.LABELS), parts["thief"])


def test_cut_and_rounded_probabilities_are_learnt_from(victim, parts):
    blurred = restrict(victim, Access.PROBABILITIES, top_k=1, decimals=1)
    stolen = build("extraction", {"epochs": 15, "width": 8}).derive(blurred, parts["thief"])
    assert agreement(stolen, victim, parts["held out"]) > 0.8


def test_the_thiefs_own_inputs_are_asked_first(parts):
    thief = parts["thief"]
    own = {row.tobytes() for row in thief.inputs}
    some = query_set(thief, 100, seed=0)
    assert len(some) == 100
    assert all(row.tobytes() in own for row in some)
    more = query_set(thief, 800, seed=0)
    assert {row.tobytes() for row in more[: len(own)]} == own
    assert not any(row.tobytes() in own for row in more[len(own) :])


def test_queries_are_distinct_in_bounds_and_on_the_grid(parts):
    asked = query_set(parts["thief"], 1500, seed=3)
    assert len({row.tobytes() for row in asked}) == len(asked) <= 1500
    assert len(asked) > 1000
    assert np.array_equal(asked, parts["thief"].domain.deliver(asked))
    assert np.array_equal(asked, query_set(parts["thief"], 1500, seed=3))
    assert not np.array_equal(asked[:50], query_set(parts["thief"], 1500, seed=4)[:50])


def test_what_cannot_be_mixed_is_refused():
    text = Data(inputs=np.array(["a", "b"], object), labels=None, domain=Domain(kind="text", shape=(), dtype="str"),
                name="two texts")  # fmt: skip
    with pytest.raises(ParameterError, match="extraction asks images or tables of real numbers; two texts holds text"):
        query_set(text, 2, seed=0)


def test_a_victim_of_unknown_classes_is_refused(parts):
    model = CallableModel(lambda x: np.zeros(len(x), int), domain=parts["thief"].domain, outputs="labels", name="mute")
    with pytest.raises(ParameterError, match="mute does not say how many classes it has"):
        build("extraction", {**QUICK, "answers": "labels"}).derive(restrict(model, Access.LABELS), parts["thief"])
