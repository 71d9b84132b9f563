"""AFA's marks against the oracles of its card."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import AccessError, ParameterError
from locard.models import restrict
from locard.models.torch_module import TorchModel
from locard.queries import Population
from locard.queries._adversarial import pgd
from locard.queries.ghost_ensemble import FRESH, GhostEnsemble, ghost_logits, last_linear
from locard.records import Access, Domain
from locard.schemes import build
from locard.testing import toy_data, toy_model

SCHEME = build("afa")
DRAW = {"default": 100, "seed": 0, "population": None}


@pytest.fixture(scope="module")
def data():
    return replace(toy_data(), labels=None)


@pytest.fixture(scope="module")
def fp(data):
    return engine.extract(toy_model(0, gradients=True), scheme="afa", data=data, queries=60)


def test_without_dropout_the_marks_are_those_of_plain_targeted_steps(data):
    victim = restrict(toy_model(0, gradients=True), Access.MODULE)
    sampler = GhostEnsemble(dropout=0.0, stable=0.0)
    drawn = sampler.draw(victim, data, n=20, **DRAW)
    x, targets = sampler._aims(victim, data, *_first(data))
    plain = pgd(victim, x, targets, radius=0.1, step=0.01, steps=50, targeted=True, domain=data.domain)
    hit = victim.labels(plain) == targets
    assert np.array_equal(drawn.inputs, plain[hit][:20])
    assert np.array_equal(drawn.extras["targets"], targets[hit][:20])


def _first(data):
    from locard.queries.ghost_ensemble import GROUP
    from locard.seeds import generator

    rows = generator(0, "ghost-ensemble/seeds").permutation(len(data))[:GROUP]
    return rows, generator(0, "ghost-ensemble/targets").random(len(data))[:GROUP]


def test_kept_marks_are_given_their_target_by_fresh_ghosts_and_by_fewer_the_more_is_dropped(fp):
    module = toy_model(0, gradients=True).module()
    x, targets = torch.from_numpy(fp.queries["inputs"]), fp.queries["targets"]
    assert np.array_equal(fp.record["labels"], targets)
    shares = []
    for dropout in (0.1, 0.2, 0.4, 0.7):
        random = torch.Generator().manual_seed(5)
        with torch.no_grad():
            logits = ghost_logits(module, x, count=FRESH, dropout=dropout, random=random)
        shares.append(float((logits.argmax(dim=2).numpy() == targets).mean()))
    assert shares == sorted(shares, reverse=True)
    assert shares[1] >= 0.9 - 0.03


def test_ghosts_of_a_linear_head_are_right_on_average():
    module = toy_model(0, gradients=True).module()
    x = torch.from_numpy(toy_data(8).inputs)
    with torch.no_grad():
        logits = ghost_logits(module, x, count=20_000, dropout=0.3, random=torch.Generator().manual_seed(1))
    error = logits.std(dim=0) / np.sqrt(20_000)
    assert (torch.abs(logits.mean(dim=0) - module(x).detach()) <= 4.5 * error + 1e-5).all()


def test_marks_lie_within_the_radius(fp, data):
    sources = data.inputs.reshape(len(data), -1)
    for mark in fp.queries["inputs"].reshape(60, -1):
        assert np.abs(sources - mark).max(axis=1).min() <= 0.1 + 0.5 / 255 + 1e-6


def test_with_a_population_no_mark_is_common(data):
    victim = restrict(toy_model(0, gradients=True), Access.MODULE)
    others = tuple(restrict(toy_model(seed), Access.LABELS) for seed in range(50, 60))
    population = Population(independent=others)
    drawn = GhostEnsemble(stable=0.5).draw(victim, data, n=20, default=100, seed=0, population=population)
    agree = np.mean([model.labels(drawn.inputs) == drawn.extras["targets"] for model in others], axis=0)
    assert (agree <= 0.1).all()


def test_the_score_is_the_targeted_success_rate(fp):
    record = engine.respond(fp, toy_model(4))
    assert SCHEME.similarity(fp, record) == pytest.approx(np.mean(record.record["labels"] == fp.queries["targets"]))
    derived = [SCHEME.similarity(fp, engine.respond(fp, toy_model(0, noise=noise))) for noise in (0.01, 0.03)]
    others = [SCHEME.similarity(fp, engine.respond(fp, toy_model(seed))) for seed in range(1, 30)]
    assert min(derived) > max(others)


def test_what_has_no_ghosts_is_refused(data):
    domain = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0))
    pooled = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(ParameterError, match="ghosts need a linear layer before the logits, and Sequential has none"):
        engine.extract(TorchModel(pooled, domain=domain), scheme="afa", data=data)
    doubled = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.Softplus())
    with pytest.raises(ParameterError, match="whose answers are those of its last linear layer, as they are"):
        engine.extract(TorchModel(doubled, domain=domain), scheme="afa", data=data)
    with pytest.raises(ParameterError, match=r"300 stable marks are needed; \d+ of 400 inputs .* gave one"):
        engine.extract(toy_model(0, gradients=True), scheme="afa", data=data, queries=300, params={"radius": 0.01})
    with pytest.raises(AccessError, match=r"afa needs .*MODULE of the victim"):
        engine.extract(toy_model(0), scheme="afa", data=data)
    assert last_linear(doubled) is doubled[1]
