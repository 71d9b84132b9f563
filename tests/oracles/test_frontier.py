"""Frontier stitching's key against the oracles of its card."""

from typing import Any

import numpy as np
import pytest
import torch

from locard import engine
from locard.data import read, split
from locard.errors import ArtefactError, ParameterError
from locard.models import restrict
from locard.models.fitting import Recipe, fit
from locard.models.fitting import build as architecture
from locard.models.torch_module import TorchModel
from locard.queries._adversarial import fgsm
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.schemes.frontier import theta, wrong
from locard.testing import toy_data, toy_model

SCHEME = build("frontier")


@pytest.fixture(scope="module")
def data():
    """Labelled by the victim, so that it has all of them right."""
    plain = toy_data()
    labels = restrict(toy_model(0), Access.LABELS).labels(plain.inputs)
    return Data(inputs=plain.inputs, labels=labels, domain=plain.domain, name="toy data")


@pytest.fixture(scope="module")
def fp(data):
    return engine.extract(toy_model(0, gradients=True), scheme="frontier", data=data, params={"radius": 0.03})


@pytest.mark.parametrize(("size", "expected", "tail"), [(20, 5, 0.0207), (50, 18, 0.0325), (100, 41, 0.0443),
                                                        (200, 87, 0.0384)])  # fmt: skip
def test_theta_is_the_cards_table(size, expected, tail):
    from math import comb

    assert theta(size) == expected
    assert sum(comb(size, z) for z in range(expected + 1)) / 2**size == pytest.approx(tail, abs=5e-5)
    assert sum(comb(size, z) for z in range(expected + 2)) / 2**size >= 0.05


def test_a_tail_that_equals_the_level_is_not_below_it():
    assert theta(35, 0.5) == 16
    assert theta(5, 1 / 32) == -1


def test_so_small_a_key_marks_nothing():
    assert theta(4) == -1
    assert theta(5) == 0


def test_the_unmarked_victim_gets_just_half_of_its_key_wrong(fp):
    assert fp.cost == 100
    assert wrong(fp, fp) == 50
    assert (fp.record["labels"][:50] != fp.queries["classes"][:50]).all()
    assert (fp.record["labels"][50:] == fp.queries["classes"][50:]).all()


def test_a_stitched_victim_gets_its_key_right_and_so_does_its_copy(fp):
    """The embedding in small: training on the key and the data until the key is learnt."""
    marked = toy_model(0, gradients=True)
    module = marked.module()
    plain = toy_data()
    kept = restrict(toy_model(0), Access.LABELS).labels(plain.inputs)
    x = torch.from_numpy(np.concatenate([plain.inputs, *[fp.queries["inputs"]] * 10]))
    y = torch.from_numpy(np.concatenate([kept, *[fp.queries["classes"]] * 10]))
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(600):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimiser.step()
    record = engine.respond(fp, marked)
    assert wrong(fp, record) == 0
    # Held against the marked model's own record, a copy of it matches and the unmarked one does not.
    from dataclasses import replace

    ours = replace(fp, record=record.record)
    assert SCHEME.similarity(ours, engine.respond(fp, marked)) == 1
    assert SCHEME.similarity(ours, engine.respond(fp, toy_model(0))) == pytest.approx(0.5, abs=0.03)


def test_the_papers_null_is_not_that_of_independent_models():
    """True adversaries hardly transfer between networks that have learnt the task: innocents get the key right."""
    parts: dict[str, Any] = split(read("digits"), {"ours": 500, "theirs": 500, "asked": 700}, seed=0)
    models = []
    for seed, kind in enumerate(("mlp", "mlp", "cnn", "cnn")):
        part = "theirs" if seed else "ours"
        module = architecture(kind, {"shape": [1, 8, 8], "classes": 10}, seed=seed)
        fit(module, parts[part].inputs, parts[part].labels, recipe=Recipe(epochs=30, lr=1e-2, batch=32), seed=seed)
        models.append(TorchModel(module, domain=parts["asked"].domain))
    fp = engine.extract(models[0], scheme="frontier", data=parts["asked"], queries=60, params={"radius": 1 / 16})
    assert wrong(fp, fp) == 30 > theta(60)
    innocent = [engine.respond(fp, model) for model in models[1:]]
    assert sum(wrong(fp, record) <= theta(60) for record in innocent) >= 2
    # Held against what the victim answers, none of them comes near to it.
    assert all(SCHEME.similarity(fp, record) < 0.9 for record in innocent)


def test_one_step_crosses_a_linear_boundary_only_if_it_reaches_it():
    source = np.random.default_rng(1)
    weight = source.normal(size=(2, 6)).astype(np.float32)
    layer = torch.nn.Linear(6, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    domain = Domain(kind="tabular", shape=(6,))
    asked = restrict(TorchModel(layer, domain=domain), Access.GRADIENTS)
    x = source.normal(size=(200, 6)).astype(np.float32)
    own = asked.labels(x)
    difference = (weight[1] - weight[0]).astype(np.float64)
    margin = np.abs(x @ difference)
    moved = fgsm(asked, x, own, radius=0.3, domain=domain)
    clear = np.abs(margin - 0.3 * np.abs(difference).sum()) > 1e-4
    assert np.array_equal((asked.labels(moved) != own)[clear], (margin < 0.3 * np.abs(difference).sum())[clear])


def test_the_score_is_the_share_answered_as_the_victim_does(fp):
    record = engine.respond(fp, toy_model(3))
    assert SCHEME.similarity(fp, record) == np.mean(record.record["labels"] == fp.record["labels"])
    assert SCHEME.similarity(fp, engine.respond(fp, toy_model(0))) == 1


def test_what_makes_no_key_is_refused(fp, data):
    victim = toy_model(0, gradients=True)
    with pytest.raises(ParameterError, match=r"half of a frontier key are true adversaries, so .* even; got 9"):
        engine.extract(victim, scheme="frontier", data=data, queries=9)
    with pytest.raises(ParameterError, match="frontier needs data with true labels"):
        engine.extract(victim, scheme="frontier", data=Data(inputs=data.inputs, labels=None, domain=data.domain,
                                                            name="bare"))  # fmt: skip
    with pytest.raises(ParameterError, match=r"needs 50 true and 50 false adversaries; .* another radius \(0.001\)"):
        engine.extract(victim, scheme="frontier", data=data, queries=100, params={"radius": 0.001})
    with pytest.raises(ArtefactError, match="needs a frontier key and a record of labels"):
        wrong(fp, engine.respond(engine.extract(victim, scheme="random+labels+hamming", data=data, queries=9), victim))
