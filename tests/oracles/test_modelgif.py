"""ModelGiF against the oracles of its card, and its fields against plain loops."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import AccessError, ParameterError
from locard.models import Session, restrict, view
from locard.models.torch_module import TorchModel
from locard.queries import Population, Queries
from locard.queries._fields import between, fields
from locard.records import Access, Data, Domain
from locard.representations.gradient_field import GradientField
from locard.schemes import build
from locard.testing import toy_data, toy_model

SETTINGS: dict[str, Any] = {"scheme": "modelgif", "params": {"nodes": 8, "kept": 4}, "queries": 90}
FREE = Domain(kind="tabular", shape=(6,))


def linear(weight, domain=FREE):
    layer = torch.nn.Linear(6, len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.asarray(weight, np.float32)))
    return TorchModel(layer, domain=domain)


def seen(model):
    return view(Session(model, Access.GRADIENTS), Access.GRADIENTS)


@pytest.fixture(scope="module")
def fp():
    return engine.extract(toy_model(0, gradients=True), data=toy_data(), **SETTINGS)


def score(fp, model):
    return build(fp.scheme, fp.params).similarity(fp, engine.respond(fp, model))


def test_a_model_is_at_no_distance_from_itself(fp):
    assert score(fp, toy_model(0, gradients=True)) == pytest.approx(1, abs=1e-6)
    assert fp.cost == 90
    assert fp.record["fields"].shape == (10, 4, 64)


def test_the_last_step_is_complete():
    """Integrated gradients add up to what the answer grew by, to quadrature error."""
    model = toy_model(0, gradients=True)
    asked, x = seen(model), toy_data(12).inputs
    baseline = np.full((1, 8, 8), 0.3, np.float32)
    found = fields(asked, x, baseline, nodes=200, kept=1)
    own = asked.logits(x).argmax(axis=1)
    grown = asked.logits(x)[np.arange(12), own] - asked.logits(np.broadcast_to(baseline, x.shape).copy())[0, own]
    assert found[:, 0].sum(axis=1) == pytest.approx(grown, rel=2e-2, abs=2e-2)


def test_a_linear_models_field_is_its_weights_at_every_step():
    source = np.random.default_rng(0)
    w1, w2 = source.normal(size=(2, 4, 6))
    x = source.normal(size=(15, 6)).astype(np.float32)
    baseline = source.normal(size=6).astype(np.float32)
    a, b = (fields(seen(linear(w)), x, baseline, nodes=9, kept=9) for w in (w1, w2))
    way = (x - baseline).astype(np.float64)
    own = [(x @ w.T.astype(np.float32)).argmax(axis=1) for w in (w1, w2)]
    share = np.cumsum(np.polynomial.legendre.leggauss(9)[1]) / 2
    assert a == pytest.approx(way[:, None] * w1[own[0]][:, None] * share[:, None], rel=1e-3, abs=1e-4)
    u, v = way * w1[own[0]], way * w2[own[1]]
    cosine = (u * v).sum(axis=1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    assert between(a, b) == pytest.approx(1 - cosine, abs=1e-5)


def test_a_positive_factor_changes_nothing_and_a_negative_one_all():
    source = np.random.default_rng(1)
    weight, x = source.normal(size=(4, 6)), source.normal(size=(9, 6)).astype(np.float32)
    plain = fields(seen(linear(weight)), x, np.zeros(6, np.float32), nodes=5, kept=5)
    assert between(plain, fields(seen(linear(7 * weight)), x, np.zeros(6, np.float32), nodes=5, kept=5)) == (
        pytest.approx(0, abs=1e-6)
    )
    assert between(plain, -plain) == pytest.approx(2)


def test_fields_are_those_of_plain_loops():
    model, x = toy_model(0, gradients=True, batch_size=7), toy_data(4).inputs
    asked, module = seen(model), toy_model(0, gradients=True).module()
    baseline = np.full((1, 8, 8), 0.5, np.float32)
    found = fields(asked, x, baseline, nodes=6, kept=3)
    places, weights = np.polynomial.legendre.leggauss(6)
    for row, image in enumerate(x):
        own = int(asked.labels(image[None])[0])
        total = np.zeros((1, 8, 8))
        steps = []
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            point = torch.from_numpy((baseline + place * (image - baseline)).astype(np.float32))[None].requires_grad_()
            (slope,) = torch.autograd.grad(module(point)[0, own], point)
            total = total + weight * slope[0].numpy()
            steps.append(((image - baseline) * total).ravel())
        assert found[row] == pytest.approx(np.stack(steps)[[1, 3, 5]], abs=1e-4)


def test_copies_score_above_strangers_of_any_architecture(fp):
    copies = [score(fp, toy_model(0, gradients=True, noise=noise)) for noise in (0.02, 0.05)]
    strangers = [score(fp, toy_model(seed, gradients=True)) for seed in range(1, 20)]
    assert min(copies) > max(strangers)


def test_ranked_references_are_where_independent_models_differ_most():
    others = tuple(seen(toy_model(seed, gradients=True)) for seed in range(50, 54))
    settings: dict[str, Any] = SETTINGS | {"params": {"nodes": 8, "kept": 4, "references": "ranked"}}
    fp = engine.extract(toy_model(0, gradients=True), data=toy_data(), population=Population(independent=others),
                        **settings)  # fmt: skip
    plain = engine.extract(toy_model(0, gradients=True), data=toy_data(), **SETTINGS)
    judged = [toy_model(seed, gradients=True) for seed in range(1, 12)]
    assert np.mean([score(fp, model) for model in judged]) < np.mean([score(plain, model) for model in judged])
    with pytest.raises(ParameterError, match="chooses its queries with other models: give a population"):
        engine.extract(toy_model(0, gradients=True), data=toy_data(), **settings)
    blind = Population(independent=(restrict(toy_model(50), Access.LABELS),))
    with pytest.raises(AccessError, match="ranked references need GRADIENTS of a population's models"):
        engine.extract(toy_model(0, gradients=True), data=toy_data(), population=blind, **settings)


def test_what_cannot_be_followed_is_refused(fp):
    victim, data = toy_model(0, gradients=True), toy_data(5)
    with pytest.raises(
        ParameterError, match="each input is asked 9 times, so --queries must be a multiple of 9; got 10"
    ):
        engine.extract(victim, data=data, scheme="modelgif", params=SETTINGS["params"], queries=10)
    with pytest.raises(ParameterError, match="6 inputs are needed, the data hold 5"):
        engine.extract(victim, data=data, scheme="modelgif", params=SETTINGS["params"], queries=54)
    with pytest.raises(ParameterError, match="unknown kind of references 'best'"):
        build("modelgif", {"references": "best"})
    with pytest.raises(ParameterError, match="kept must lie in"):
        build("modelgif", {"nodes": 5})
    modelgif: Any = build("modelgif")
    words = Data(inputs=np.array(["a"], dtype=object), labels=None, name="texts",
                 domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="gradient fields need inputs that can be moved"):
        modelgif.sampler.draw(seen(victim), words, n=None, default=51, seed=0, population=None)
    for baseline in (np.zeros(3, np.float32), np.full((1, 8, 8), np.nan, np.float32), np.zeros((1, 8, 8), np.int64)):
        broken = replace(fp, queries={**fp.queries, "baseline": baseline})
        with pytest.raises(ParameterError, match="the baseline must be one input of shape"):
            engine.respond(broken, victim)


def test_without_a_baseline_the_ways_begin_at_nothing():
    x = toy_data(3).inputs
    plain = GradientField(nodes=4, kept=2).record(seen(toy_model(0, gradients=True)), Queries(inputs=x))["fields"]
    black = fields(seen(toy_model(0, gradients=True)), x, np.zeros((1, 8, 8), np.float32), nodes=4, kept=2)
    assert np.array_equal(plain, black)
