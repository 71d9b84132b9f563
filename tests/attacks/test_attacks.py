"""What every attack keeps, and the rule by which a copy counts as a theft."""

from dataclasses import fields, replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from locard.attacks import accept, attacks, build
from locard.errors import AccessError, ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.models.fitting import build as network
from locard.models.torch_module import TorchModel
from locard.records import Access, Data, Domain, Lineage
from locard.testing import ATTACK_LAWS, check_attack

QUICK = {
    "active": {"epochs": 2, "width": 4, "queries": 200, "rounds": 2, "score": "dfal+k-centre", "subsample": 60},
    "adversarial-training": {"epochs": 1, "steps": 2},
    "answer": {},
    "datafree": {"width": 4, "queries": 200, "batch": 20, "epochs": 1},
    "disguise": {},
    "distil": {"epochs": 1, "width": 4},
    "ensemble": {"epochs": 1, "width": 4},
    "extraction": {"epochs": 2, "width": 4, "queries": 200},
    "finetune": {"epochs": 1},
    "jbda": {"epochs": 2, "width": 4, "queries": 200, "seeds": 60, "step": "random", "most": 50},
    "knockoff": {"epochs": 2, "width": 4, "queries": 200, "stride": 50},
    "lie": {"trigger": "data"},
    "lora": {"rank": 2, "epochs": 1},
    "merge": {"epochs": 1},
    "noise": {},
    "preprocess": {"kind": "blur"},
    "prune": {"fraction": 0.3, "recovery": 1},
    "prune-channels": {"recovery": 1},
    "quantise": {},
    "randomise": {},
    "smooth": {"copies": 4},
    "transfer": {"epochs": 1},
}
# Takes a victim of one kind only; its own file has these laws.
ELSEWHERE = {"relu"}
EVERY = pytest.mark.parametrize("name", sorted(QUICK))


def derive(name, victim, data, seed=0, **changed):
    attack = build(name, {**QUICK[name], **changed})
    return attack.derive(restrict(victim, attack.needs), data, seed=seed)


def digest(stolen, victim):
    return TorchModel(stolen.module, domain=victim.domain).digest


def test_each_attack_is_tried_here():
    assert attacks.names() == sorted({*QUICK, *ELSEWHERE})


@EVERY
@pytest.mark.parametrize("law", ATTACK_LAWS)
def test_keeps_the_laws_of_attacks(name, law):
    check_attack(name, law, params=QUICK[name])


@pytest.mark.parametrize("name", sorted(set(QUICK) - {"answer", "preprocess", "quantise"}))
def test_another_seed_gives_another_copy(name, victim, parts):
    copies = [digest(derive(name, victim, parts["thief"], seed), victim) for seed in (0, 1)]
    assert copies[0] != copies[1]


@pytest.mark.parametrize("name", ["finetune", "extraction"])
def test_an_attack_that_needs_data_says_so(name, victim):
    attack = build(name)
    with pytest.raises(ParameterError, match=f"{name} needs data of the thief's own; none were given"):
        attack.derive(restrict(victim, attack.needs))


def test_data_of_another_shape_are_refused(victim):
    table = Data(inputs=np.zeros((4, 3), np.float32), labels=np.zeros(4, np.int64), name="a table",
                 domain=Domain(kind="tabular", shape=(3,)))  # fmt: skip
    with pytest.raises(ParameterError, match=r"takes image .* a table holds tabular"):
        derive("finetune", victim, table)


def test_unlabelled_data_are_refused(victim, parts):
    thief = parts["thief"]
    bare = Data(inputs=thief.inputs, labels=None, domain=thief.domain, name="bare")
    with pytest.raises(ParameterError, match="finetune needs data with true labels; bare has none"):
        derive("finetune", victim, bare)


def finite(stolen, data):
    with torch.no_grad():
        answers = stolen.module(torch.from_numpy(data.inputs[:20]))
    return bool(answers.isfinite().all()) and all(bool(one.isfinite().all()) for one in stolen.module.parameters())


@EVERY
def test_a_victim_of_one_class_is_refused_where_there_is_nothing_to_learn(name, parts):
    module = network("cnn", {"shape": [1, 8, 8], "classes": 1, "width": 8}, seed=0)
    single = TorchModel(module, domain=parts["thief"].domain, lineage=Lineage(architecture="cnn"), source="single")
    thief = parts["thief"].take(np.arange(60))
    if name in {"disguise", "noise", "prune", "prune-channels", "quantise", "transfer"}:
        labels = thief.labels if name == "transfer" else np.zeros(60, np.int64)
        assert finite(derive(name, single, replace(thief, labels=labels)), thief)
    else:
        with pytest.raises(ParameterError, match=f"{name} needs a victim of two classes or more; single has one"):
            derive(name, single, thief)


@pytest.mark.parametrize("name", sorted(set(QUICK) - {"transfer"}))
def test_data_of_one_class_give_a_copy(name, victim, parts):
    one = replace(parts["thief"].take(np.arange(60)), labels=np.full(60, 3))
    assert finite(derive(name, victim, one), one)


def test_unknown_names_and_parameters_come_with_the_nearest():
    with pytest.raises(ParameterError, match="unknown attack 'finetun'; did you mean 'finetune'"):
        build("finetun")
    with pytest.raises(
        ParameterError, match="unknown parameter of attack 'prune': 'fractoin'; did you mean 'fraction'"
    ):
        build("prune", {"fractoin": 0.1})


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("finetune", {"layers": "first"}, "layers must be 'all' or 'last'; got 'first'"),
        ("finetune", {"epochs": 0}, "epochs must lie in"),
        ("prune", {"fraction": 1}, r"fraction must lie in \[0, 1\)"),
        ("prune", {"recovery": -1}, "recovery must lie in"),
        ("finetune", {"head": "new"}, "head must be 'kept' or 'fresh'; got 'new'"),
        ("lora", {"rank": 0}, "rank must lie in"),
        ("lora", {"epochs": 0}, "epochs must lie in"),
        ("prune-channels", {"fraction": 1}, r"fraction must lie in \[0, 1\)"),
        ("prune-channels", {"recovery": -1}, "recovery must lie in"),
        ("quantise", {"format": "int3"}, "format must be one of fp16, bf16, int16, int8, int4, nf4; got 'int3'"),
        ("quantise", {"group": -1}, "group must lie in"),
        ("noise", {"share": -0.1}, "share must lie in"),
        ("lie", {"length": 1e-40}, r"length must lie in \[0.001, 1000.0\]; got 1e-40"),
        ("randomise", {"length": 1e-40}, r"length must lie in \[0.001, 1000.0\]; got 1e-40"),
        ("ensemble", {"length": 1e-40}, r"length must lie in \[0.001, 1000.0\]; got 1e-40"),
        ("answer", {"temperature": 1e-40}, "temperature must lie in"),
        ("noise", {"share": 1e40}, "share must lie in"),
        ("smooth", {"sigma": 1e40}, "sigma must lie in"),
        ("merge", {"scale": 1e40}, "scale must lie in"),
        ("datafree", {"contrast": 1e40}, "contrast must lie in"),
        ("datafree", {"diversity": 1e40}, "diversity must lie in"),
        ("extraction", {"answers": "logits"}, "answers must be 'probabilities' or 'labels'; got 'logits'"),
        ("extraction", {"queries": -1}, "queries must lie in"),
        ("extraction", {"width": -1}, "width must lie in"),
    ],
)
def test_parameters_out_of_range_are_refused(name, wrong, message):
    with pytest.raises(ParameterError, match=message):
        build(name, wrong)


COUNTS = [(name, field.name) for name in attacks.names() for field in fields(cast(Any, attacks.get(name)))
          if type(field.default) is int]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), COUNTS)
def test_a_count_is_a_whole_number(name, count):
    with pytest.raises(ParameterError, match=f"{count} must be a whole number; got 2.5"):
        attacks.get(name)(**{count: 2.5})


@pytest.mark.parametrize(
    ("name", "params", "granted", "words"),
    [
        ("extraction", {}, Access.LABELS, ": --param answers=labels needs no more than LABELS"),
        ("knockoff", {}, Access.LABELS, ": --param answers=labels needs no more than LABELS"),
        ("datafree", {"estimate": "zeroth-order"}, Access.LABELS, "--param answers=labels estimate=disagreement needs"),
        ("relu", {}, Access.PROBABILITIES, ": --param answers=probabilities needs no more than PROBABILITIES"),
        ("relu", {}, Access.LABELS, "has no logits()"),
        ("distil", {"features": 1.0}, Access.LOGITS, ": --param features=0 needs no more than PROBABILITIES"),
        ("distil", {}, Access.LABELS, "has no probabilities()"),
        ("finetune", {}, Access.LOGITS, "has no module()"),
    ],
)
def test_too_little_access_comes_with_what_would_do(name, params, granted, words, victim, parts):
    attack = build(name, params)
    with pytest.raises(AccessError, match=f"{name} needs {attack.needs.text} of the victim") as told:
        attack.derive(restrict(victim, granted), parts["thief"])
    assert words in str(told.value)
    assert ("--param" in str(told.value)) is ("--param" in words)


def answering(parts, wrong):
    """A model that knows the held-out labels, but for the given rows, which it answers one class too high."""
    data = parts["held out"]
    table = {row.tobytes(): int(label) for row, label in zip(data.inputs, data.labels, strict=True)}
    for row in wrong:
        table[data.inputs[row].tobytes()] = (int(data.labels[row]) + 1) % 10

    def answer(x):
        return np.array([table[row.tobytes()] for row in x])

    return CallableModel(answer, domain=data.domain, outputs="labels", classes=10, name="table",
                         identity=str(list(wrong)))  # fmt: skip


@pytest.mark.parametrize(("lost", "accepted"), [(0, True), (15, True), (16, False)])
def test_a_copy_may_lose_its_margin_and_no_more(parts, lost, accepted):
    # finetune may lose 3 points: 15 of 500.
    found = accept(build("finetune"), answering(parts, range(lost)), answering(parts, []), parts["held out"])
    assert found.accepted is accepted
    assert found.accuracy == pytest.approx(1 - lost / 500)
    assert found.victim_accuracy == 1
    assert found.agreement == pytest.approx(1 - lost / 500)
    assert (found.reason is None) is accepted


def test_a_failed_theft_says_what_it_lost(parts):
    found = accept(build("quantise"), answering(parts, range(50)), answering(parts, []), parts["held out"])
    assert found.reason == "accuracy fell from 100.0% to 90.0%; quantise counts as a theft down to 99.0%"


def test_an_extraction_must_also_agree(parts):
    # Both are wrong on a tenth of the data, on other inputs each: accuracy is the same, agreement 80 % and just below.
    victim = answering(parts, range(50))
    assert accept(build("extraction"), answering(parts, range(50, 100)), victim, parts["held out"]).accepted
    found = accept(build("extraction"), answering(parts, range(50, 101)), victim, parts["held out"])
    assert found.reason == "it agrees with the victim on 79.8%; extraction counts as a theft from 80%"


def test_success_is_judged_on_labels(parts):
    data = parts["held out"]
    bare = Data(inputs=data.inputs, labels=None, domain=data.domain, name="bare")
    with pytest.raises(ParameterError, match="judged on true labels; bare has none"):
        accept(build("noise"), answering(parts, []), answering(parts, []), bare)


def test_success_is_judged_by_labels_of_the_victims_task(parts):
    data = parts["held out"]
    other = Data(inputs=data.inputs, labels=data.labels + 100, domain=data.domain, name="other labels")
    with pytest.raises(ParameterError, match=r"other labels has label 109; table has 10 classes"):
        accept(build("noise"), answering(parts, []), answering(parts, []), other)


def test_a_copy_that_answers_one_class_for_all_is_no_theft():
    labels = np.array([0] * 90 + [1] * 10)
    victim = np.array([0] * 88 + [1] * 12)
    found = build("extraction").judge(victim, np.zeros(100, np.int64), labels)
    assert found.reason == "accuracy is 90.0%, and always answering the most frequent class reaches 90.0%"
    assert build("extraction").judge(victim, np.where(np.arange(100) < 89, 0, 1), labels).accepted
