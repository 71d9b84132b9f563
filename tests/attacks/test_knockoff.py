"""The adaptive knockoff: its bandit, rewards, groups and pool, each computed a second time."""

import math

import numpy as np
import pytest

from locard.attacks import build
from locard.attacks.knockoff import Bandit, Knockoff, Pool, groups, k_means, rewarded
from locard.errors import ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.records import Access, Data, Domain

QUICK = {"epochs": 2, "width": 4, "queries": 200, "stride": 50}


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def test_the_policy_follows_the_update_of_the_gradient_bandit():
    # Once more for two groups of classes, one draw after another.
    group, source = np.array([0, 1, 0, 1, 1]), np.random.default_rng(0)
    bandit, high, low = Bandit(group), np.zeros(2), np.zeros(5)
    times_high, times_low = [0, 0], [0] * 5
    for _ in range(40):
        drawn, rewards = source.integers(0, 5, 7), source.normal(size=7)
        bandit.learn(drawn, rewards)
        for one, reward in zip(drawn, rewards, strict=True):
            mine, beside = group[one], np.flatnonzero(group == group[one])
            share_high, share_low = softmax(high), softmax(low[beside])
            times_high[mine] += 1
            times_low[one] += 1
            for other in range(2):
                high[other] += reward / times_high[mine] * ((other == mine) - share_high[other])
            for place, other in enumerate(beside):
                low[other] += reward / times_low[one] * ((other == one) - share_low[place])
        wanted = np.array([softmax(high)[group[k]] * np.exp(low[k]) / np.exp(low[group == group[k]]).sum()
                           for k in range(5)])  # fmt: skip
        assert np.allclose(bandit.policy, wanted)
        assert bandit.policy.sum() == pytest.approx(1)


def test_the_bandit_prefers_the_class_that_pays():
    source, bandit = np.random.default_rng(1), Bandit(np.array([0, 0, 1, 1]))
    assert np.allclose(bandit.policy, 0.25)
    for _ in range(60):
        drawn = bandit.draw(20, source)
        bandit.learn(drawn, np.where(drawn == 2, 1.0, -0.3) + source.normal(size=20) / 10)
    assert bandit.policy.argmax() == 2
    assert bandit.policy[2] > 0.6


def test_a_closed_class_is_drawn_no_more_and_an_empty_group_neither():
    source, bandit = np.random.default_rng(0), Bandit(np.array([0, 0, 1]))
    bandit.learn(np.array([2, 2, 0]), np.array([3.0, 3.0, -1.0]))
    before = bandit.policy
    bandit.close(np.array([2]))
    assert np.allclose(bandit.policy, [*before[:2] / before[:2].sum(), 0])
    assert set(bandit.draw(100, source)) == {0, 1}
    bandit.close(np.array([0]))
    assert np.allclose(bandit.policy, [0, 1, 0])
    # However far the preference of what is closed lies above.
    bandit = Bandit(np.array([0, 1, 1]))
    bandit.learn(np.array([0]), np.array([1e4]))
    assert np.allclose(bandit.policy, [1, 0, 0])


def test_rewards_are_certainty_diversity_and_loss():
    source = np.random.default_rng(0)
    answers, logits = source.dirichlet(np.ones(4), 9).astype(np.float32), source.normal(size=(3, 4)).astype(np.float32)
    found = rewarded(answers, logits)
    assert found.shape == (3, 3)
    for row, (answer, logit) in enumerate(zip(answers[6:], logits, strict=True)):
        ranked, shares = sorted(answer), softmax(logit)
        mean = [sum(float(other[k]) for other in answers) / 9 for k in range(4)]
        assert found[row, 0] == pytest.approx(ranked[-1] - ranked[-2])
        assert found[row, 1] == pytest.approx(sum(max(0, answer[k] - mean[k]) for k in range(4)), abs=1e-6)
        assert found[row, 2] == pytest.approx(-sum(answer[k] * math.log(shares[k]) for k in range(4)), rel=1e-5)


def test_of_labels_the_certainty_is_always_1_and_a_huge_logit_does_no_harm():
    found = rewarded(np.eye(3)[[0, 1]], np.array([[1e4, 0.0, 0.0], [1e4, 0.0, 0.0]], np.float32))
    assert np.array_equal(found[:, 0], [1, 1])
    assert np.array_equal(found[:, 2], [0, 1e4])


@pytest.mark.parametrize(("reward", "columns"), [("all", [0, 1, 2]), ("certainty", [0]), ("diversity", [1]),
                                                 ("loss", [2])])  # fmt: skip
def test_rewards_are_brought_to_one_scale(reward, columns):
    rewards = np.random.default_rng(0).normal(size=(50, 3)) * [1, 10, 100] + [5, 0, -5]
    found = Knockoff(reward=reward)._one_scale(rewards)
    scaled = [(rewards[:, k] - rewards[:, k].mean()) / rewards[:, k].std() for k in columns]
    assert np.allclose(found, np.mean(scaled, axis=0))
    # What is always the same tells nothing.
    rewards[:, columns[0]] = 1
    assert np.allclose(Knockoff(reward=reward)._one_scale(rewards), np.sum(scaled[1:], axis=0)
                       / len(columns))  # fmt: skip


def test_classes_that_are_alike_make_a_group():
    source = np.random.default_rng(0)
    centres = np.repeat(100 * np.eye(3, 5), [3, 4, 2], axis=0) + source.normal(size=(9, 5))
    found = groups(centres[(order := source.permutation(9))])
    truth = np.repeat([0, 1, 2], [3, 4, 2])[order]
    assert set(found) == {0, 1, 2}
    assert all((found[a] == found[b]) == (truth[a] == truth[b]) for a in range(9) for b in range(9))
    assert list(groups(np.ones((1, 4)))) == [0]
    assert len(set(groups(source.normal(size=(30, 4))))) <= 6


def test_k_means_finds_what_lies_together():
    source = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 30)
    points = 20 * np.eye(3, 4)[truth] + source.normal(size=(90, 4))
    # A start in each blob; elsewhere the algorithm may end in a worse place.
    starts = (seed for seed in range(99) if len(set(truth[np.random.default_rng(seed).permutation(90)[:3]])) == 3)
    found = k_means(points, 3, np.random.default_rng(next(starts)))
    assert all(len(set(found[truth == one])) == 1 for one in range(3))
    assert set(found) == {0, 1, 2}
    centres = np.stack([points[found == one].mean(axis=0) for one in range(3)])
    assert np.array_equal(np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1), found)
    assert set(k_means(np.zeros((5, 2)), 3, source)) == {0}
    assert sorted(k_means(np.arange(4.0)[:, None], 9, source)) == [0, 1, 2, 3]


def test_the_pool_gives_its_own_inputs_first_and_then_mixtures_of_the_class():
    inputs = np.zeros((9, 2), np.float32)
    inputs[:5, 0], inputs[5:, 1] = np.arange(1, 6), np.arange(1, 5)
    data = Data(inputs=inputs, labels=None, domain=Domain(kind="tabular", shape=(2,)), name="two lines")
    pool = Pool(data, np.repeat([0, 1], [5, 4]), np.random.default_rng(0))
    assert np.allclose(pool.means, [[3, 0], [0, 2.5]])
    first, drawn = pool.draw(np.array([0, 1, 0]))
    assert sorted(drawn) == [0, 0, 1]
    assert list(pool.spent(np.array([0, 1]))) == [False, False]
    second, again = pool.draw(np.array([0, 1, 0, 0, 0, 1, 0]))
    assert list(pool.spent(np.array([0, 1]))) == [True, False]
    asked, of = np.concatenate([first, second]), np.concatenate([drawn, again])
    assert all(one[1 - k] == 0 for one, k in zip(asked, of, strict=True))
    known = {row.tobytes() for row in inputs}
    own = np.array([one.tobytes() in known for one in asked])
    assert (own.sum(), (own & (of == 0)).sum()) == (8, 5)
    assert len({one.tobytes() for one in asked}) == 10
    assert np.all((asked[~own][:, 0] > 1) & (asked[~own][:, 0] < 5))


def test_a_pool_that_has_no_more_to_give_ends_the_attack():
    # One input of each of three classes: mixtures of one are that one.
    domain = Domain(kind="tabular", shape=(4,))
    data = Data(inputs=np.eye(3, 4, dtype=np.float32), labels=np.arange(3), domain=domain, name="three inputs")
    model = CallableModel(lambda x: x.argmax(axis=1), domain=domain, outputs="labels", classes=4, name="rows",
                          identity="rows")  # fmt: skip
    attack = build("knockoff", {"answers": "labels", "architecture": "mlp", "epochs": 1, "stride": 8})
    stolen = attack.derive(restrict(model, Access.LABELS), data)
    assert stolen.effort.queries == 3
    assert stolen.notes == ()


def test_a_class_that_is_given_twice_is_not_closed_while_it_has_more(victim, parts):
    # Each input is there twice, and every draw is of one: half of them are nothing new.
    thief = parts["thief"]
    rows = np.repeat(np.arange(60), 2)
    twice = Data(inputs=thief.inputs[rows], labels=thief.labels[rows], domain=thief.domain, name="twice")
    attack = build("knockoff", {**QUICK, "answers": "labels", "queries": 60, "stride": 1})
    asked = restrict(victim, Access.LABELS)
    assert attack.derive(asked, twice).effort.queries == 60


def test_clusters_stand_in_for_labels(victim, parts):
    thief = parts["thief"]
    bare = Data(inputs=thief.inputs, labels=None, domain=thief.domain, name="bare")
    attack = build("knockoff", {**QUICK, "clusters": 12})
    assert not attack.needs_labels
    assert attack.derive(restrict(victim, attack.needs), bare).effort.queries == 200
    with pytest.raises(ParameterError, match="knockoff needs data with true labels; bare has none"):
        build("knockoff", QUICK).derive(restrict(victim, Access.PROBABILITIES), bare)


def test_the_pools_classes_need_not_be_the_victims(victim, parts):
    thief = parts["thief"]
    others = Data(inputs=thief.inputs, labels=1000 * thief.labels - 7, domain=thief.domain, name="others")
    attack = build("knockoff", QUICK)
    stolen, same = (attack.derive(restrict(victim, attack.needs), data) for data in (others, thief))
    assert stolen.arguments["classes"] == 10
    assert all((a == b).all() for a, b in zip(stolen.module.parameters(), same.module.parameters(), strict=True))


@pytest.mark.parametrize("reward", ["certainty", "diversity"])
def test_what_pays_is_asked_most(reward, parts):
    # A victim that is sure of one class, and in doubt about all others.
    thief, drawn = parts["thief"], []
    truth = {row.tobytes(): int(label) for row, label in zip(thief.inputs, thief.labels, strict=True)}

    def answer(x):
        mine = np.array([truth[one.tobytes()] for one in x])
        drawn.extend(mine)
        return np.where((mine == 3)[:, None], np.eye(10)[3] * 0.99 + 0.001, 0.1).astype(np.float32)

    model = CallableModel(answer, domain=thief.domain, outputs="probabilities", classes=10, name="one",
                          identity="one")  # fmt: skip
    attack = build("knockoff", {"epochs": 1, "width": 4, "queries": 120, "stride": 12, "reward": reward})
    attack.derive(restrict(model, Access.PROBABILITIES), thief)
    counts = np.bincount(drawn, minlength=10)
    assert counts.sum() == 120
    assert counts.argmax() == 3
    assert counts[3] >= 2 * np.median(counts)


def test_the_first_draws_teach_the_policy_nothing(victim, parts, monkeypatch):
    learnt = []
    learn = Bandit.learn

    def watched(bandit, drawn, rewards):
        learn(bandit, drawn, rewards)
        learnt.append((np.count_nonzero(rewards), bandit.policy))

    monkeypatch.setattr(Bandit, "learn", watched)
    attack = build("knockoff", QUICK)
    attack.derive(restrict(victim, attack.needs), parts["thief"])
    assert len(learnt) >= 4
    assert learnt[0][0] == 0
    sizes = np.unique(np.round(learnt[0][1], 12))
    # Each group alike, and each class in it.
    assert len(sizes) <= len(set(groups(Pool(parts["thief"], parts["thief"].labels, np.random.default_rng(0)).means)))
    assert all(n > 0 for n, _ in learnt[1:])


@pytest.mark.parametrize(("wrong", "message"), [
    ({"reward": "fame"}, "reward must be one of 'certainty', 'diversity', 'loss', 'all'; got 'fame'"),
    ({"queries": 0}, "queries must lie in"),
    ({"stride": 0}, "stride must lie in"),
    ({"clusters": -1}, "clusters must lie in"),
])  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("knockoff", wrong)
