"""Extraction pays for each query, sees what it was granted, and stops cleanly when the budget ends."""

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks._answers import Answers, Bought
from locard.attacks._pool import query_set
from locard.attacks.extraction import Extraction
from locard.errors import AccessError, BudgetError, ParameterError
from locard.models import Session, architectures, restrict, view
from locard.models.callable import CallableModel
from locard.models.fitting import fit
from locard.models.torch_module import TorchModel
from locard.records import Access, Data, Domain

QUICK = {"epochs": 2, "width": 4}
# Every attack that asks with data of the thief's own, at up to 300 queries.
ASKING = {
    "active": {"queries": 300, "rounds": 3},
    "extraction": {"queries": 300},
    "jbda": {"queries": 300, "seeds": 60},
    "knockoff": {"queries": 300, "stride": 70},
}
# What learns from 300 answers.
LEARN = {"epochs": 30, "lr": 1e-2, "batch": 32, "width": 8}
EVERY = pytest.mark.parametrize("name", sorted(ASKING))


def agreement(stolen, victim, data):
    with torch.no_grad():
        ours, theirs = (m(torch.from_numpy(data.inputs)).argmax(1) for m in (victim.module(), stolen.module))
    return float((ours == theirs).float().mean())


def counted(victim, outputs):
    """The victim as a function, and the inputs that it was asked, one after another."""
    asked, ask = [], restrict(victim, Access.PROBABILITIES)

    def answer(x):
        asked.extend(row.tobytes() for row in x)
        return ask.labels(x) if outputs == "labels" else ask.probabilities(x)

    model = CallableModel(answer, domain=victim.domain, outputs=outputs, classes=10, name="counted",
                          identity=victim.digest)  # fmt: skip
    return model, asked


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


def test_with_the_victims_own_start_and_enough_queries_a_copy_is_the_victim_again(parts):
    attack, own = Extraction(queries=4000, epochs=20, lr=1e-2, width=8), parts["victim"]
    blank = TorchModel(architectures.build("cnn", shape=[1, 8, 8], classes=10), domain=own.domain)
    victim = TorchModel(attack.student(restrict(blank, Access.LABELS), seed=3), domain=own.domain)
    fit(victim.module(), own.inputs, own.labels, recipe=attack.recipe, seed=3)
    stolen = attack.derive(restrict(victim, Access.PROBABILITIES), parts["thief"], seed=3)
    assert agreement(stolen, victim, parts["held out"]) > 0.95


def test_probabilities_teach_more_than_labels(victim, parts):
    held_out, accuracy, agreed = parts["held out"], {}, {}
    for answers in ("labels", "probabilities"):
        attack = build("extraction", {"answers": answers, "queries": 300, **LEARN})
        copies = [attack.derive(restrict(victim, attack.needs), parts["thief"], seed=seed) for seed in range(5)]
        agreed[answers] = np.mean([agreement(stolen, victim, held_out) for stolen in copies])
        copies = [restrict(TorchModel(stolen.module, domain=victim.domain), Access.LABELS) for stolen in copies]
        accuracy[answers] = np.mean([copy.labels(held_out.inputs) == held_out.labels for copy in copies])
    assert agreed["probabilities"] > agreed["labels"] + 0.005
    # The victim is sure of nearly all, so that its probabilities say little more of the truth.
    assert accuracy["probabilities"] > accuracy["labels"] - 0.005


@pytest.mark.parametrize("name", ["extraction", "knockoff"])
def test_shuffled_answers_teach_nothing(name, victim, parts):
    source = np.random.default_rng(0)

    def answer(x):
        return source.permutation(restrict(victim, Access.LABELS).labels(x))

    liar = CallableModel(answer, domain=victim.domain, outputs="labels", classes=10, name="liar", batch_size=512)
    attack = build(name, {"answers": "labels", "epochs": 10, "width": 8, "queries": 500})
    stolen = attack.derive(restrict(liar, Access.LABELS), parts["thief"])
    assert agreement(stolen, victim, parts["held out"]) < 0.35


@EVERY
@pytest.mark.parametrize("answers", ["labels", "probabilities"])
def test_the_thief_counts_as_the_session_and_the_victim_do(name, answers, victim, parts):
    model, asked = counted(victim, answers)
    attack = build(name, {**QUICK, **ASKING[name], "answers": answers})
    session = Session(model, attack.needs)
    stolen = attack.derive(view(session, attack.needs), parts["thief"])
    assert stolen.effort.queries == session.asked == len(asked) == len(set(asked))
    assert 280 < len(asked) <= 300
    assert session.from_journal == 0
    assert stolen.notes == ()


@EVERY
def test_what_is_asked_is_in_bounds_and_on_the_grid(name, victim, parts):
    model, asked = counted(victim, "labels")
    build(name, {**QUICK, **ASKING[name], "answers": "labels"}).derive(restrict(model, Access.LABELS), parts["thief"])
    inputs = np.stack([np.frombuffer(one, np.float32) for one in asked])
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert np.array_equal(inputs * 16, np.round(inputs * 16))


@EVERY
@pytest.mark.parametrize("budget", [1, 37, 150])
def test_a_spent_budget_ends_the_questions_and_not_the_attack(name, budget, victim, parts):
    attack = build(name, {**QUICK, **ASKING[name], "answers": "labels"})
    session = Session(victim, Access.LABELS, budget=budget)
    stolen = attack.derive(view(session, Access.LABELS), parts["thief"])
    assert stolen.effort.queries == session.asked == budget
    (note,) = stolen.notes
    # Of all that were meant, and not of those that came to be asked before the end.
    assert 280 < int(note.split()[2]) <= 300
    assert note.startswith(f"{budget} of ")
    assert f" queries were answered: the budget of {budget} queries" in note
    assert all(torch.isfinite(tensor).all() for tensor in stolen.module.state_dict().values())


@EVERY
def test_a_budget_that_is_just_enough_is_no_news(name, victim, parts):
    attack = build(name, {**QUICK, **ASKING[name]})
    wanted = attack.derive(restrict(victim, attack.needs), parts["thief"])
    exact = attack.derive(restrict(victim, attack.needs, budget=wanted.effort.queries), parts["thief"])
    assert exact.notes == ()
    assert exact.effort.queries == wanted.effort.queries
    states = wanted.module.state_dict(), exact.module.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@EVERY
def test_a_budget_that_was_spent_before_is_an_error(name, victim, parts):
    session = Session(victim, Access.LABELS, budget=10)
    view(session, Access.LABELS).labels(parts["held out"].inputs[:10])
    with pytest.raises(BudgetError, match="the budget of 10 queries"):
        build(name, {**QUICK, **ASKING[name], "answers": "labels"}).derive(view(session, Access.LABELS), parts["thief"])


@EVERY
def test_labels_are_enough_for_another_architecture(name, victim, parts):
    attack = build(name, {**ASKING[name], "answers": "labels", "architecture": "mlp", "epochs": 20})
    stolen = attack.derive(restrict(victim, Access.LABELS), parts["thief"])
    assert agreement(stolen, victim, parts["held out"]) > 0.7
    assert (stolen.architecture, stolen.arguments) == ("mlp", {"shape": [1, 8, 8], "classes": 10})
    assert stolen.effort.queries <= 300


@EVERY
@pytest.mark.parametrize("blur", [{"top_k": 1}, {"top_k": 3, "decimals": 2}, {"decimals": 1}])
def test_cut_and_rounded_probabilities_are_learnt_from(name, blur, victim, parts):
    blurred = restrict(victim, Access.PROBABILITIES, **blur)
    stolen = build(name, {**ASKING[name], **LEARN}).derive(blurred, parts["thief"])
    assert agreement(stolen, victim, parts["held out"]) > 0.7


@EVERY
@pytest.mark.parametrize("budget", [40, 300])
def test_progress_ends_where_it_said_and_never_goes_back(name, budget, victim, parts):
    seen = []
    attack = build(name, {**QUICK, **ASKING[name]})
    attack.derive(restrict(victim, attack.needs, budget=budget), parts["thief"],
                  progress=lambda *step: seen.append(step))  # fmt: skip
    (wanted,) = {total for _, total in seen}
    done = [step for step, _ in seen]
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (1, wanted)


def test_probabilities_are_not_to_be_had_from_labels(victim, parts):
    with pytest.raises(AccessError, match=r"extraction needs PROBABILITIES of the victim; LabelView"):
        build("extraction", QUICK).derive(restrict(victim, Access.LABELS), parts["thief"])


def test_rounded_answers_are_brought_to_a_sum_of_one(victim, parts):
    inputs = parts["held out"].inputs[:200]
    blurred = restrict(victim, Access.PROBABILITIES, top_k=2, decimals=1)
    found, given = Answers(blurred, Access.PROBABILITIES, most=200).ask(inputs), blurred.probabilities(inputs)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (given.sum(axis=1) < 0.95).any()
    for one, raw in zip(found, given, strict=True):
        assert np.allclose(one, raw / raw.sum() if raw.any() else np.full(10, 0.1), atol=1e-6)


def test_where_all_was_rounded_away_nothing_is_known(victim, parts):
    inputs = parts["held out"].inputs
    unsure = CallableModel(lambda x: np.full((len(x), 10), 0.1, np.float32), domain=victim.domain,
                           outputs="probabilities", classes=10, name="unsure", identity="unsure")  # fmt: skip
    blurred = restrict(unsure, Access.PROBABILITIES, decimals=0)
    assert not blurred.probabilities(inputs[:3]).any()
    assert np.allclose(Answers(blurred, Access.PROBABILITIES, most=3).ask(inputs[:3]), 0.1)


def test_what_was_bought_is_bought_once_and_no_more_than_was_said(victim, parts):
    inputs, seen = parts["held out"].inputs, restrict(victim, Access.PROBABILITIES)
    bought = Bought(seen, Access.PROBABILITIES, most=5)
    assert bought.ask(inputs[[0, 1, 0, 2, 1]]) == 3
    assert list(bought.new(inputs[[2, 3, 3, 0, 4]])) == [1, 4]
    assert bought.ask(inputs[[2, 0]]) == 0
    assert bought.ask(inputs[[0, 3, 4, 5]]) == 2
    assert (len(bought), bought.left, seen.asked, bought.notes) == (5, 0, 5, ())
    assert np.array_equal(bought.inputs, inputs[:5])
    assert np.allclose(bought.targets, seen.probabilities(inputs[:5]), atol=1e-6)
    assert np.array_equal(bought.labels, seen.labels(inputs[:5]))
    assert bought.ask(inputs[5:9]) == 0
    assert seen.asked == 5


def test_a_budget_that_ends_between_two_purchases_ends_the_second(victim, parts):
    inputs = parts["held out"].inputs
    bought = Bought(restrict(victim, Access.LABELS, budget=4), Access.LABELS, most=9)
    assert bought.ask(inputs[:4]) == 4
    assert (bought.left, bought.notes) == (5, ())
    assert bought.ask(inputs[4:7]) == 0
    assert bought.left == 0
    assert bought.notes[0].startswith("4 of 9 queries were answered: the budget of 4 queries")
    assert bought.labels is not None
    assert len(bought.targets) == 4


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


@EVERY
def test_what_cannot_be_mixed_is_refused(name):
    domain = Domain(kind="text", shape=(), dtype="str")
    text = Data(inputs=np.array(["a", "b"], object), labels=np.array([0, 1]), domain=domain, name="two texts")
    model = CallableModel(lambda x: np.zeros(len(x), int), domain=domain, outputs="labels", classes=2, name="reader")
    attack = build(name, {**ASKING[name], "answers": "labels", "architecture": "mlp"})
    with pytest.raises(ParameterError):
        attack.derive(restrict(model, Access.LABELS), text)
    with pytest.raises(ParameterError, match="extraction asks images or tables of real numbers; two texts holds text"):
        query_set(text, 2, seed=0)


@EVERY
@pytest.mark.parametrize(("classes", "message"), [
    (None, "{} needs a victim of two classes or more; mute does not say how many it has"),
    (1, "{} needs a victim of two classes or more; mute has one"),
])  # fmt: skip
def test_a_victim_of_unknown_classes_is_refused(name, classes, message, parts):
    model = CallableModel(lambda x: np.zeros(len(x), int), domain=parts["thief"].domain, outputs="labels",
                          classes=classes, name="mute")  # fmt: skip
    with pytest.raises(ParameterError, match=message.format(name)):
        build(name, {**QUICK, "answers": "labels"}).derive(restrict(model, Access.LABELS), parts["thief"])


@EVERY
@pytest.mark.parametrize(("wrong", "message"), [
    ({"answers": "logits"}, "answers must be 'probabilities' or 'labels'; got 'logits'"),
    ({"queries": -1}, "queries must lie in"),
    ({"width": -1}, "width must lie in"),
    ({"epochs": 0}, "epochs must lie in"),
    ({"lr": 0.0}, "lr must lie in"),
])  # fmt: skip
def test_parameters_out_of_range_are_refused(name, wrong, message):
    with pytest.raises(ParameterError, match=message):
        build(name, wrong)
