"""Active extraction: what each score picks, computed a second time; which answers are learnt and which are kept."""

import itertools

import numpy as np
import pytest
import torch

from locard.attacks import active, build
from locard.attacks._student import eyes
from locard.attacks.active import Active, Best, farthest_first
from locard.errors import ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain

QUICK = {"answers": "labels", "epochs": 2, "width": 4}
FREE = Domain(kind="image", shape=(1, 4, 4))


def by_force(points, centres, n):
    """Farthest first in the plainest way: all distances again at each pick."""
    centres, picked = list(centres), []
    for _ in range(n):
        gaps = [min(float(np.linalg.norm(point - centre)) for centre in centres) for point in points]
        picked.append(max(set(range(len(points))) - set(picked), key=lambda row: (gaps[row], -row)))
        centres.append(points[picked[-1]])
    return picked


@pytest.mark.parametrize("seed", [0, 1])
def test_k_centre_picks_what_farthest_first_picks_by_force(seed):
    source = np.random.default_rng(seed)
    points, centres = source.dirichlet(np.full(5, 0.3), 200), source.dirichlet(np.full(5, 0.3), 20)
    assert list(farthest_first(points, centres, 40)) == by_force(points, centres, 40)


def test_k_centre_picks_each_once_even_where_all_are_alike():
    assert list(farthest_first(np.zeros((4, 2)), np.zeros((1, 2)), 3)) == [0, 1, 2]
    assert list(farthest_first(np.array([[1.0], [3.0]]), np.zeros((1, 1)), 5)) == [1, 0]


@pytest.fixture(scope="module")
def choice():
    """A linear student of three classes, a pool of a hundred inputs, of which some were asked, and what was learnt."""
    source = np.random.default_rng(3)
    layer = torch.nn.Linear(16, 3)
    layer.weight.data.copy_(torch.from_numpy(source.normal(size=(3, 16))))
    layer.bias.data.copy_(torch.from_numpy(source.normal(size=3)))
    pool = source.normal(size=(100, 1, 4, 4)).astype(np.float32)
    rest, module = source.permutation(100)[:80], torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
    learnt = source.normal(size=(9, 1, 4, 4)).astype(np.float32)
    weights, bias = (tensor.detach().double().numpy() for tensor in (layer.weight, layer.bias))

    def pick(n, **params):
        return list(Active(**params)._choose(eyes(module, FREE), pool, rest, n, learnt, FREE,
                                                    np.random.default_rng(0)))  # fmt: skip

    def probabilities(x):
        shares = np.exp(x.reshape(len(x), 16).astype(np.float64) @ weights.T + bias)
        return shares / shares.sum(axis=1, keepdims=True)

    def distances(x):
        logits = x.reshape(len(x), 16).astype(np.float64) @ weights.T + bias
        found = []
        for row in logits:
            own = row.argmax()
            found.append(min((row[own] - row[k]) / np.linalg.norm(weights[own] - weights[k])
                             for k in range(3) if k != own))  # fmt: skip
        return np.array(found)

    return pick, pool[rest], learnt, probabilities, distances


def test_entropy_picks_what_the_student_is_least_sure_of(choice):
    pick, rest, _, probabilities, _ = choice
    entropy = [-sum(p * np.log(p) for p in row) for row in probabilities(rest)]
    assert pick(7, score="entropy") == sorted(range(80), key=lambda row: -entropy[row])[:7]


def test_an_answer_of_0_has_no_entropy():
    layer = torch.nn.Linear(16, 2, bias=False)
    layer.weight.data.copy_(torch.cat([torch.full((1, 16), 1e4), torch.full((1, 16), -1e4)]))
    module = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
    pool = np.stack([np.full((1, 4, 4), value, np.float32) for value in (1, 0, -1)])
    found = Active()._choose(eyes(module, FREE), pool, np.arange(3), 3, pool, FREE, np.random.default_rng(0))
    assert list(found) == [1, 0, 2]


def test_dfal_picks_what_is_nearest_to_the_boundary(choice):
    pick, rest, _, _, distances = choice
    assert pick(7, score="dfal") == list(np.argsort(distances(rest))[:7])


def test_dfal_looks_at_a_random_part_of_the_pool(choice):
    pick, rest, _, _, distances = choice
    part = np.sort(np.random.default_rng(0).permutation(80)[:30])
    assert pick(7, score="dfal", subsample=30) == list(part[np.argsort(distances(rest[part]))[:7]])
    # No fewer than are wanted.
    assert len(set(pick(50, score="dfal", subsample=1))) == 50


def test_k_centre_goes_by_the_students_answers(choice):
    pick, rest, learnt, probabilities, _ = choice
    assert pick(9, score="k-centre") == by_force(probabilities(rest), probabilities(learnt), 9)


def test_both_together_take_the_farthest_of_the_nearest(choice):
    pick, rest, learnt, probabilities, distances = choice
    near = np.argsort(distances(rest))[:18]
    wanted = by_force(probabilities(rest)[near], probabilities(learnt), 6)
    assert pick(6, score="dfal+k-centre") == list(near[wanted])


def test_rounds_share_the_queries_and_the_kept_answers_are_never_learnt(victim, parts, monkeypatch):
    trained, asked = [], []
    fit = active.fit

    def watched(module, inputs, targets, **rest):
        trained.append([row.tobytes() for row in inputs])
        return fit(module, inputs, targets, **rest)

    def answer(x):
        asked.extend(row.tobytes() for row in x)
        return restrict(victim, Access.LABELS).labels(x)

    monkeypatch.setattr(active, "fit", watched)
    model = CallableModel(answer, domain=victim.domain, outputs="labels", classes=10, name="seen", identity="seen")
    attack = build("active", {**QUICK, "queries": 200, "rounds": 4})
    stolen = attack.derive(restrict(model, Access.LABELS), parts["thief"])
    # 40 are kept, 20 are asked at random, and four rounds share the 140 that are left.
    assert [len(rows) for rows in trained] == [20, 55, 90, 125, 160]
    assert all(rows == asked[40 : 40 + len(rows)] for rows in trained)
    assert stolen.effort.epochs == 2 * 5


def test_each_round_asks_what_the_student_of_that_round_scores_highest(victim, parts, monkeypatch):
    asked, rounds = [], []
    fit = active.fit

    def watched(module, inputs, targets, **rest):
        rounds.append((fit(module, inputs, targets, **rest), len(inputs)))
        return module

    def answer(x):
        asked.extend(x)
        return restrict(victim, Access.LABELS).labels(x)

    monkeypatch.setattr(active, "fit", watched)
    model = CallableModel(answer, domain=victim.domain, outputs="labels", classes=10, name="seen", identity="seen")
    attack = build("active", {**QUICK, "queries": 100, "rounds": 3})
    attack.derive(restrict(model, Access.LABELS), parts["thief"])
    thief, bought = parts["thief"].inputs, np.stack(asked)
    for (module, n), (_, after) in itertools.pairwise(rounds):
        known, new = {one.tobytes() for one in bought[: 20 + n]}, bought[20 + n : 20 + after]
        left = np.stack([one for one in thief if one.tobytes() not in known])
        shares = eyes(module, victim.domain).probabilities(left).astype(np.float64)
        best = np.argsort((shares * np.log(np.maximum(shares, 1e-30))).sum(axis=1), kind="stable")[: len(new)]
        assert {one.tobytes() for one in left[best]} == {one.tobytes() for one in new}


def test_a_small_pool_is_asked_whole_and_a_large_one_holds_mixtures(victim, parts):
    ask, own = restrict(victim, Access.LABELS), {row.tobytes() for row in parts["thief"].inputs}
    whole = build("active", {**QUICK, "queries": 300, "pool": 150, "rounds": 2}).derive(ask, parts["thief"])
    assert whole.effort.queries == 150
    for params, mixed in (({"queries": 200}, False), ({"queries": 400}, True), ({"queries": 200, "pool": 900}, True)):
        asked = []

        def answer(x, asked=asked):
            asked.extend(row.tobytes() for row in x)
            return ask.labels(x)

        model = CallableModel(answer, domain=victim.domain, outputs="labels", classes=10, name="seen", identity="seen")
        build("active", {**QUICK, "rounds": 2, **params}).derive(restrict(model, Access.LABELS), parts["thief"])
        assert bool(set(asked) - own) is mixed


def test_the_epoch_that_agrees_most_often_with_the_kept_answers_stays(parts):
    # A bias says which class the module gives to all; classes 3, 7 and 3 come in three epochs, and 3 is the commonest.
    inputs, labels = parts["held out"].inputs[:10], np.array([3, 3, 3, 3, 7, 7, 1, 2, 0, 9])
    seen = []
    for classes, wanted in (([3, 7, 1], 0), ([7, 3, 3], 2), ([1, 2, 7], 2)):
        layer = torch.nn.Linear(64, 10)
        module = torch.nn.Sequential(torch.nn.Flatten(), layer)
        best = Best(module, parts["thief"].domain, inputs, labels, lambda *step: seen.append(step))
        for epoch, one in enumerate(classes):
            layer.weight.data.fill_(epoch / 1000)
            layer.bias.data.copy_(torch.nn.functional.one_hot(torch.tensor(one), 10))
            module.train()
            best(epoch + 1, 3)
            assert module.training
        best.restore()
        assert layer.weight[0, 0].item() == pytest.approx(wanted / 1000)
    assert seen == [(1, 3), (2, 3), (3, 3)] * 3


def test_with_nothing_kept_the_last_epoch_stays(victim, parts):
    attack = build("active", {**QUICK, "queries": 100, "rounds": 1, "validation": 0.0})
    stolen = attack.derive(restrict(victim, Access.LABELS), parts["thief"])
    assert stolen.effort.queries == 100
    module = torch.nn.Linear(2, 2)
    best = Best(module, victim.domain, parts["thief"].inputs[:0], np.empty(0, np.int64), None)
    best(1, 1)
    state = module.weight.clone()
    best.restore()
    assert torch.equal(module.weight, state)


def test_where_the_budget_ends_at_the_start_a_share_is_still_learnt(victim, parts):
    attack = build("active", {**QUICK, "queries": 400, "rounds": 2, "validation": 0.5})
    stolen = attack.derive(restrict(victim, Access.LABELS, budget=60), parts["thief"])
    assert stolen.effort.queries == 60
    assert stolen.effort.epochs == 2


@pytest.mark.parametrize("score", ["entropy", "k-centre"])
def test_fidelity_grows_with_the_queries(score, victim, parts):
    held_out, found = parts["held out"].inputs, []
    ours = restrict(victim, Access.LABELS).labels(held_out)
    for queries in (50, 150, 450):
        attack = build("active", {"answers": "labels", "width": 8, "queries": queries, "rounds": 4, "score": score,
                                  "lr": 1e-2, "batch": 32, "epochs": 20})  # fmt: skip
        copies = [attack.derive(restrict(victim, Access.LABELS), parts["thief"], seed=seed) for seed in range(2)]
        theirs = [restrict(TorchModel(one.module, domain=victim.domain), Access.LABELS).labels(held_out)
                  for one in copies]  # fmt: skip
        found.append(np.mean([their == ours for their in theirs]))
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.85


@pytest.mark.parametrize("score", active.SCORES)
def test_every_score_asks_all_it_may(score, victim, parts):
    attack = build("active", {**QUICK, "queries": 120, "rounds": 3, "score": score, "subsample": 50})
    assert attack.derive(restrict(victim, Access.LABELS), parts["thief"]).effort.queries == 120


@pytest.mark.parametrize(("wrong", "message"), [
    ({"score": "margin"}, "score must be one of 'entropy', 'k-centre', 'dfal', 'dfal.k-centre'; got 'margin'"),
    ({"queries": 1}, "queries must lie in"),
    ({"pool": -1}, "pool must lie in"),
    ({"rounds": 0}, "rounds must lie in"),
    ({"first": 0.0}, "first must lie in"),
    ({"first": 0.6}, "first must lie in"),
    ({"validation": 0.6}, "validation must lie in"),
    ({"subsample": 0}, "subsample must lie in"),
])  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("active", wrong)
