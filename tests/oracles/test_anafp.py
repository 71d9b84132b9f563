"""AnaFP's points against linear models, where its bounds are exact."""

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import AccessError, ParameterError
from locard.models import Session, restrict, view
from locard.models.torch_module import TorchModel
from locard.queries import Population
from locard.queries.anchored import Anchored, margin, to_boundary
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.testing import toy_data, toy_model

DOMAIN = Domain(kind="tabular", shape=(6,))


def linear(weight, bias=None):
    layer = torch.nn.Linear(6, len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.asarray(weight, np.float32)))
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else torch.from_numpy(np.asarray(bias, np.float32)))
    return TorchModel(layer, domain=DOMAIN)


def seen(model, access=Access.GRADIENTS):
    return view(Session(model, model.grants), access)


@pytest.fixture(scope="module")
def world():
    source = np.random.default_rng(0)
    weight = source.normal(size=(3, 6))
    victim = linear(weight)
    derived = [linear(weight + 0.02 * source.normal(size=weight.shape)) for _ in range(4)]
    others = [linear(source.normal(size=(3, 6))) for _ in range(6)]
    inputs = source.normal(size=(400, 6)).astype(np.float32)
    data = Data(inputs=inputs, labels=None, domain=DOMAIN, name="noise")
    population = Population(derived=tuple(map(seen, derived)), independent=tuple(map(seen, others)))
    drawn = Anchored(candidates=5).draw(seen(victim), data, n=20, default=20, seed=0, population=population)
    return weight, victim, derived, others, data, population, drawn


def test_on_a_linear_victim_the_stretch_is_how_far_the_margin_has_gone_down(world):
    """g(x + t d) = (1 - t) g(x): the card's oracle, from the stored points alone."""
    weight, _, _, _, data, _, drawn = world
    for point, stretch in zip(drawn.inputs.astype(np.float64), drawn.extras["stretch"], strict=True):
        logits = data.inputs.astype(np.float64) @ weight.T
        found = False
        for anchor, z in zip(data.inputs.astype(np.float64), logits, strict=True):
            own = z.argmax()
            there = weight @ point
            for other in {0, 1, 2} - {int(own)}:
                normal = weight[own] - weight[other]
                foot = anchor - (z[own] - z[other]) / (normal @ normal) * normal
                if np.abs(anchor + stretch * (foot - anchor) - point).max() < 5e-3:
                    found = True
                    assert there[own] - there[other] == pytest.approx((1 - stretch) * (z[own] - z[other]), abs=2e-2)
        assert found


def test_within_the_bounds_every_covered_copy_has_crossed_and_every_covered_stranger_has_not(world):
    _, victim, derived, others, _, _, drawn = world
    said = restrict(victim, Access.LABELS).labels(drawn.inputs)
    cover = drawn.extras["cover"][0]
    copies = np.mean([restrict(model, Access.LABELS).labels(drawn.inputs) == said for model in derived], axis=0)
    assert (copies >= np.floor(cover * 4) / 4 - 1e-9).all()
    strangers = np.mean([restrict(model, Access.LABELS).labels(drawn.inputs) == said for model in others], axis=0)
    assert strangers.mean() < copies.mean() - 0.3
    assert (drawn.extras["room"] > 0).all()
    assert (drawn.extras["stretch"] > 1).all()


def test_the_margin_is_to_the_best_of_the_others():
    logits = np.array([[3.0, 1.0, 2.5], [0.0, -1.0, 5.0]], np.float32)
    assert margin(logits, np.array([0, 1])).tolist() == [0.5, -6.0]


def test_bisection_ends_at_the_boundary(world):
    weight, victim, *_ = world
    source = np.random.default_rng(1)
    x = source.normal(size=(30, 6)).astype(np.float32)
    own = (x @ weight.T.astype(np.float32)).argmax(axis=1)
    far = (10 * source.normal(size=(30, 6))).astype(np.float32)
    crosses = restrict(victim, Access.LABELS).labels(x + far) != own
    x, own, far = x[crosses], own[crosses], far[crosses]
    step = to_boundary(restrict(victim, Access.LABELS), x, own, far, DOMAIN)
    share = np.linalg.norm(step, axis=1) / np.linalg.norm(far, axis=1)
    just = (x + (share - 1 / 1024)[:, None] * far).astype(np.float32)
    labels = restrict(victim, Access.LABELS)
    assert (labels.labels((x + step).astype(np.float32)) != own).all()
    assert (labels.labels(just) == own).mean() > 0.9


def test_copies_score_above_strangers():
    data = toy_data(800)
    population = Population(
        derived=tuple(seen(toy_model(0, gradients=True, noise=noise)) for noise in (0.02, 0.05)),
        independent=tuple(seen(toy_model(seed, gradients=True)) for seed in range(50, 56)),
    )
    fp = engine.extract(toy_model(0, gradients=True), scheme="anafp", data=data, queries=20, population=population)
    scheme = build("anafp")
    copies = [scheme.similarity(fp, engine.respond(fp, toy_model(0, noise=noise))) for noise in (0.01, 0.03)]
    strangers = [scheme.similarity(fp, engine.respond(fp, toy_model(seed))) for seed in range(1, 20)]
    assert min(copies) > max(strangers)
    assert scheme.similarity(fp, engine.respond(fp, toy_model(0))) == 1


def test_what_is_missing_is_named(world):
    _, victim, _, _, data, population, _ = world
    draw = {"n": 20, "default": 20, "seed": 0}
    with pytest.raises(ParameterError, match="need a population of 1 derived and 1 independent models or more"):
        Anchored().draw(seen(victim), data, population=None, **draw)
    blind = Population(derived=population.derived, independent=(seen(victim, Access.LABELS),))
    with pytest.raises(AccessError, match="anchored points need GRADIENTS of a population's models"):
        Anchored().draw(seen(victim), data, population=blind, **draw)
    other = Population(derived=population.derived, independent=(seen(linear(np.eye(4, 6))),))
    with pytest.raises(ParameterError, match=r"the victim's 3 classes; torch module Linear has 4"):
        Anchored().draw(seen(victim), data, population=other, **draw)
    with pytest.raises(ParameterError, match=r"anchored points are needed; .* have room between"):
        Anchored(candidates=1).draw(seen(victim), data, population=population, n=300, default=20, seed=0)
