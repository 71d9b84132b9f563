"""Multipoints against the oracles of their card, symmetric copies, and the score in plain loops."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from locard import engine
from locard.errors import ArtefactError, ParameterError
from locard.models import Session, restrict, view
from locard.models.callable import CallableModel
from locard.models.torch_module import TorchModel
from locard.queries._adversarial import pgd
from locard.queries.boundary import median_gap
from locard.queries.multipoint import Multipoint, differences, meet, sectors, shortest, stiffness, unmet
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.testing import toy_data, toy_model
from locard.testing.toys import toy_domain

WORD, UNIT = build("multipoint"), build("multipoint", {"score": "unit"})


@pytest.fixture(scope="module")
def victim():
    return toy_model(0, gradients=True)


@pytest.fixture(scope="module")
def fp(victim):
    return engine.extract(victim, scheme="multipoint", data=toy_data())


def seen(model):
    return view(Session(model, model.grants), Access.GRADIENTS)


def scores(fp, model):
    record = engine.respond(fp, model)
    return WORD.similarity(fp, record), UNIT.similarity(fp, record)


class Double:
    """A victim's answers in double precision; a view gives single."""

    def __init__(self, model):
        self.module, self.domain, self.classes, self.source = model.module(), model.domain, model.classes, "double"

    def logits(self, x):
        return self.module(torch.from_numpy(x)).detach().numpy()

    def input_gradient(self, x, loss):
        inputs = torch.from_numpy(x).requires_grad_()
        logits = self.module(inputs)
        (gradient,) = torch.autograd.grad(loss(logits).sum(), inputs)
        return logits.detach().numpy(), gradient.numpy()


def double(model) -> Any:
    return Double(model)


def linear(weight, bias):
    """A linear victim in double precision, without bounds."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return TorchModel(layer, domain=Domain(kind="tabular", shape=(weight.shape[1],), dtype="float64"))


def move(model, seeds, *, classes, lead=0.0, steps=30, tolerance=1e-9):
    return meet(double(model), seeds, classes=classes, lead=lead, tolerance=tolerance, steps=steps, span=1.0,
                domain=model.domain)  # fmt: skip


def network(source, sizes):
    """A random ReLU network in double precision."""
    layers = []
    for inner, outer in pairwise(sizes):
        layer = torch.nn.Linear(inner, outer).double()
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(source.normal(0, (2 / inner) ** 0.5, (outer, inner))))
            layer.bias.copy_(torch.from_numpy(source.normal(0, 0.1, outer)))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


# Oracle 1: a linear victim takes one step.


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_on_a_linear_victim_one_step_is_the_shortest_there_is(classes):
    source = np.random.default_rng(0)
    weight, bias, seeds = source.normal(size=(6, 20)), source.normal(size=6), source.normal(size=(50, 20))
    points, sets, arrived = move(linear(weight, bias), seeds, classes=classes, lead=-np.inf, steps=1)
    assert arrived.all()
    z = seeds @ weight.T + bias
    for x0, x, chosen, logits in zip(seeds, points, sets, z, strict=True):
        assert np.array_equal(chosen, np.argsort(-logits)[:classes])
        j = weight[chosen[1:]] - weight[chosen[0]]
        assert x == pytest.approx(x0 - np.linalg.pinv(j) @ (logits[chosen[1:]] - logits[chosen[0]]), abs=1e-9)


def test_all_classes_in_one_dimension_less_meet_in_the_one_solution_of_the_linear_system():
    source = np.random.default_rng(1)
    weight, bias = source.normal(size=(6, 5)), source.normal(size=6)
    points, _, arrived = move(linear(weight, bias), source.normal(size=(30, 5)), classes=6, steps=1)
    assert arrived.all()
    meeting = np.linalg.solve(weight[1:] - weight[0], bias[0] - bias[1:])
    assert points == pytest.approx(np.broadcast_to(meeting, points.shape), abs=1e-8)


def test_other_classes_are_kept_below_by_the_lead():
    source = np.random.default_rng(2)
    weight, bias = source.normal(size=(6, 20)), source.normal(size=6)
    # A lead that hardly any shortest step respects by itself.
    points, sets, arrived = move(linear(weight, bias), source.normal(size=(50, 20)), classes=3, lead=3.0)
    assert arrived.all()
    z = points @ weight.T + bias
    meeting = np.take_along_axis(z, sets, axis=1)
    np.put_along_axis(z, sets, -np.inf, axis=1)
    assert np.ptp(meeting, axis=1).max() <= 2e-9
    room = meeting.mean(axis=1) - z.max(axis=1)
    assert room.min() >= 3 - 1e-8
    assert (room < 3.001).any()


# Oracle 2: in double precision the logits meet, in the box, and S are the largest.


def test_in_double_precision_the_logits_meet_to_nine_places_within_the_bounds():
    source = np.random.default_rng(3)
    domain = Domain(kind="tabular", shape=(30,), dtype="float64", bounds=(0.0, 1.0))
    model = TorchModel(network(source, (30, 64, 64, 10)), domain=domain)
    seeds = source.random((200, 30))
    scale = median_gap(double(model), seeds)
    points, sets, arrived = move(model, seeds, classes=4, lead=0.05, tolerance=1e-9 * scale)
    assert arrived.mean() >= 0.9
    assert points.min() >= 0
    assert points.max() <= 1
    assert ((points == 0) | (points == 1)).any()
    z = model.module()(torch.from_numpy(points[arrived])).detach().numpy()
    assert np.array_equal(np.sort(np.argsort(-z, axis=1)[:, :4]), np.sort(sets[arrived]))
    ranked = -np.sort(-z, axis=1)
    assert (ranked[:, 0] - ranked[:, 3]).max() <= 2e-9 * scale
    assert (ranked[:, :4].mean(axis=1) - ranked[:, 4]).min() >= 0.05 - 2e-9 * scale


def test_stored_points_meet_as_well_as_single_precision_tells(fp, victim):
    logits = restrict(victim, Access.LOGITS).logits(fp.queries["points"])
    gap = median_gap(seen(victim), toy_data().inputs)
    assert fp.queries["depth"] == pytest.approx(0.6 * gap)
    assert np.abs(unmet(logits, fp.queries["classes"], 0.05 * gap)).max() <= 2e-4 * gap


# Oracle 3: to first order a probe's class leads by t.


def test_on_a_linear_victim_each_probe_leads_by_exactly_t_and_is_the_card_s_formula():
    source = np.random.default_rng(4)
    weight, bias = source.normal(size=(6, 20)), source.normal(size=6)
    model = linear(weight, bias)
    points, sets, arrived = move(model, source.normal(size=(40, 20)), classes=4)
    points, sets = points[arrived], sets[arrived]
    probes = sectors(points, differences(double(model), points, sets), 0.7, span=1.0, domain=model.domain)
    assert len(points) >= 30
    for x, chosen, around in zip(points, sets, probes, strict=True):
        centred = weight[chosen] - weight[chosen].mean(axis=0)
        for i, probe in enumerate(around):
            goal = 0.7 * (np.eye(4)[i] - 1 / 4)
            assert probe - x == pytest.approx(np.linalg.pinv(centred) @ goal, abs=1e-9)
            z = (weight @ probe + bias)[chosen]
            assert z[i] - np.delete(z, i) == pytest.approx(np.full(3, 0.7), abs=1e-8)


def test_within_the_bounds_the_first_order_margin_is_still_t(fp, victim):
    points, sets, depth = fp.queries["points"], fp.queries["classes"], float(fp.queries["depth"][0])
    slopes = differences(seen(victim), points, sets)
    probes = sectors(points, slopes, depth, span=1.0, domain=toy_domain())
    assert probes.min() >= 0
    assert probes.max() <= 1
    assert ((probes == 0) | (probes == 1)).any()
    moved = (probes.astype(np.float64) - points[:, None]).reshape(len(points), 3, -1)
    lead = np.pad(moved @ slopes.transpose(0, 2, 1), ((0, 0), (0, 0), (1, 0)))
    for i in range(3):
        others = np.delete(lead[:, i], i, axis=1)
        assert lead[:, i, i, None] - others == pytest.approx(np.full(others.shape, depth), abs=1e-3 * depth)


def test_sigma_min_is_the_smallest_singular_value_of_the_centred_gradients_and_bounds_the_shift(fp, victim):
    slopes = differences(seen(victim), fp.queries["points"], fp.queries["classes"])
    rows = np.concatenate([np.zeros_like(slopes[:, :1]), slopes], axis=1)
    rows -= rows.mean(axis=1, keepdims=True)
    expected = np.linalg.svd(rows, compute_uv=False)[:, 1]
    assert stiffness(slopes) == pytest.approx(expected)
    assert fp.queries["sigma_min"] == pytest.approx(expected, rel=1e-3)


def test_a_change_of_the_logits_moves_a_linear_multipoint_by_less_than_sigma_min_allows():
    source = np.random.default_rng(5)
    weight, bias, change = source.normal(size=(4, 9)), source.normal(size=4), 0.1 * source.normal(size=4)
    before, sets, _ = move(linear(weight, bias), source.normal(size=(1, 9)), classes=4)
    # From where it was, the shortest step to where it is.
    after, _, _ = move(linear(weight, bias + change), before, classes=4)
    slopes = differences(double(linear(weight, bias)), before, sets)
    bound = np.linalg.norm(change - change.mean()) / stiffness(slopes)[0]
    assert 0 < np.linalg.norm(after - before) <= bound + 1e-9


# Oracle 4, and card 13: copies that are the same function.


def symmetric(model, seed, *, scale=True, sign=1.0, columns=True):
    """The toy network with its hidden units in another order and scaled up, and the next layer undoing it."""
    source = np.random.default_rng(seed)
    weights = {name: torch.from_numpy(array.copy()) for name, array in model.weights().items()}
    order = torch.from_numpy(source.permutation(24))
    factors = torch.from_numpy(np.exp(source.normal(size=24)) if scale else np.ones(24)).float() * sign
    back = (weights["3.weight"] / factors)[:, order] if columns else weights["3.weight"] / factors
    copy = toy_model(0, gradients=True)
    copy.module().load_state_dict(
        {
            "1.weight": (weights["1.weight"] * factors[:, None])[order],
            "1.bias": (weights["1.bias"] * factors)[order],
            "3.weight": back,
        }
    )
    return copy


@pytest.mark.parametrize("seed", range(5))
def test_a_symmetric_copy_says_every_word(fp, victim, seed):
    copy = symmetric(victim, seed)
    assert copy.digest != victim.digest
    assert np.array_equal(engine.respond(fp, copy).record["labels"], fp.record["labels"])
    assert scores(fp, copy) == (1, 1)


def test_a_symmetric_copy_has_the_same_multipoints(fp, victim):
    copy = engine.extract(symmetric(victim, 9), scheme="multipoint", data=toy_data())
    assert np.array_equal(copy.queries["classes"], fp.queries["classes"])
    assert copy.queries["points"] == pytest.approx(fp.queries["points"], abs=1e-4)
    assert copy.queries["sigma_min"] == pytest.approx(fp.queries["sigma_min"], rel=1e-3)
    assert np.abs(copy.queries["inputs"] - fp.queries["inputs"]).max() <= 1.01 / 255


def test_a_symmetric_copy_has_the_same_answers_gradients_and_adversarial_examples(victim):
    copy, stranger, x = seen(symmetric(victim, 3)), seen(toy_model(1, gradients=True)), toy_data().inputs[:50]
    own = seen(victim)
    logits = own.logits(x)
    assert np.abs(copy.logits(x) - logits).max() <= 1e-5 * np.ptp(logits)
    slopes = [model.input_gradient(x, lambda z: z[:, 0])[1] for model in (own, copy)]
    assert np.abs(slopes[0] - slopes[1]).max() <= 1e-4 * np.abs(slopes[0]).max()
    # The owner's labels for all three: the attack is the same but for whose gradients it follows.
    found = [pgd(model, x, logits.argmax(axis=1), radius=0.3, step=0.03, steps=50, domain=replace(toy_domain(),
                 quantum=None)) for model in (own, copy, stranger)]  # fmt: skip
    far = [np.abs(found[0] - other).reshape(50, -1).max(axis=1) for other in found[1:]]
    assert (far[0] <= 1e-4).mean() >= 0.95
    assert np.median(far[1]) >= 0.3


@pytest.mark.parametrize("broken", [{"sign": -1.0}, {"columns": False, "scale": False}])
def test_what_is_no_symmetry_is_another_function(victim, broken):
    x = toy_data().inputs
    logits = seen(victim).logits(x)
    assert np.abs(seen(symmetric(victim, 3, **broken)).logits(x) - logits).max() > 0.1 * np.ptp(logits)


# Oracle 5: a model of one opinion.


def constant(label):
    return CallableModel(lambda x: np.full(len(x), label), domain=toy_domain(), outputs="labels", classes=5,
                         name="constant")  # fmt: skip


@pytest.mark.parametrize("label", range(5))
def test_a_model_of_one_opinion_scores_nothing(fp, label):
    assert scores(fp, constant(label)) == (0, 0)


# The score and the probes.


def test_the_score_is_the_plain_count_of_words_and_of_matches(fp):
    for model in (toy_model(0, noise=0.1), toy_model(0, noise=0.3), toy_model(3)):
        labels = restrict(model, Access.LABELS).labels(fp.queries["inputs"])
        whole, u = [], []
        for unit, word in enumerate(fp.queries["classes"]):
            said = [int(label) for label, of in zip(labels, fp.queries["units"], strict=True) if of == unit]
            matches = sum(a == b for a, b in zip(said, word.tolist(), strict=True))
            whole.append(matches == 3)
            u.append(max(matches - 1, 0) / 2)
        assert scores(fp, model) == pytest.approx((np.mean(whole), np.mean(u)))


def test_the_victim_says_its_words_at_the_8_bit_probes(fp, victim):
    inputs = fp.queries["inputs"]
    assert len(inputs) == 99
    assert np.array_equal(inputs, toy_domain().deliver(inputs))
    assert np.array_equal(fp.queries["units"], np.repeat(np.arange(33), 3))
    assert np.array_equal(fp.record["labels"], fp.queries["classes"].ravel())
    assert all(len(set(word)) == 3 for word in fp.queries["classes"].tolist())
    assert scores(fp, victim) == (1, 1)


def test_derived_models_say_more_words_than_random_ones(fp):
    derived = [scores(fp, toy_model(0, noise=noise)) for noise in (0.01, 0.05)]
    random = [scores(fp, toy_model(seed)) for seed in range(1, 41)]
    assert np.min(derived) >= 0.8
    for own, other in zip(np.min(derived, axis=0), np.max(random, axis=0), strict=True):
        assert own > other
    assert np.mean(random, axis=0)[0] < 0.05


def test_exact_junctions_break_sooner_than_deep_ones(victim):
    near, deep = (
        engine.extract(victim, scheme="multipoint", data=toy_data(), params={"margin": margin}, queries=90)
        for margin in (0.1, 0.6)
    )
    assert scores(near, victim) == scores(deep, victim) == (1, 1)
    copy = toy_model(0, noise=0.1)
    assert scores(near, copy)[0] < scores(deep, copy)[0]


def test_a_box_pins_entries_to_its_walls_and_the_rest_make_up_for_them():
    source = np.random.default_rng(6)
    j, g = source.normal(size=(20, 2, 12)), 0.5 * source.normal(size=(20, 2))
    low, high = -source.uniform(0, 0.6, (20, 12)), source.uniform(0, 0.6, (20, 12))
    step = shortest(j, g, low, high)
    assert ((step >= low) & (step <= high)).all()
    assert ((step == low) | (step == high)).any(axis=1).sum() >= 10
    assert np.einsum("nij,nj->ni", j, step) == pytest.approx(-g, abs=1e-9)
    for i in range(20):
        heavy = np.concatenate([1e4 * j[i], np.eye(12)]), np.concatenate([-1e4 * g[i], np.zeros(12)])
        best = lsq_linear(*heavy, bounds=(low[i], high[i]), tol=1e-14).x
        assert step[i] @ step[i] <= 1.02 * best @ best


def test_a_box_that_allows_no_step_is_not_left():
    j, walls = np.ones((1, 1, 4)), np.full((1, 4), 0.1)
    assert np.array_equal(shortest(j, np.array([[-1.0]]), -walls, walls), walls)


def test_without_walls_the_step_is_the_pseudo_inverse_s_and_a_flat_victim_gives_none():
    source = np.random.default_rng(7)
    j, g, wide = source.normal(size=(5, 3, 12)), source.normal(size=(5, 3)), np.full((5, 12), np.inf)
    j[0], j[1, 2], g[1, 2] = 0, 0, 0
    step = shortest(j, g, -wide, wide)
    assert step[1:] == pytest.approx(-np.einsum("nij,nj->ni", np.linalg.pinv(j), g)[1:], abs=1e-9)
    assert np.array_equal(step[0], np.zeros(12))


def test_columns_without_bounds_move_in_shares_of_their_spread():
    source = np.random.default_rng(8)
    spread = np.array([1e3, 1.0, 1e-3, 1.0, 0.0, 1.0])
    weight = source.normal(size=(4, 6)) / np.where(spread == 0, 1, spread)
    model = linear(weight, source.normal(size=4))
    data = Data(inputs=source.normal(size=(60, 6)) * spread, labels=None, domain=model.domain, name="columns")
    fp = engine.extract(model, scheme="multipoint", data=data, queries=30)
    assert (fp.queries["points"][:, 4] == 0).all()
    # What varies by thousands moves by more than what varies by thousandths could.
    moved = np.abs(fp.queries["points"][:, None, 0] - data.inputs[:, 0]).min(axis=1)
    assert float(moved.max()) > 1
    assert scores(fp, model) == (1, 1)


def test_the_batch_size_of_the_victim_does_not_mix_the_points_up(fp):
    small = engine.extract(toy_model(0, gradients=True, batch_size=7), scheme="multipoint", data=toy_data())
    assert np.array_equal(small.queries["classes"], fp.queries["classes"])
    assert small.queries["points"] == pytest.approx(fp.queries["points"], abs=1e-4)


def test_two_classes_meet_on_a_face():
    model = toy_model(0, gradients=True)
    fp = engine.extract(model, scheme="multipoint", data=toy_data(), params={"classes": 2}, queries=40)
    assert fp.queries["classes"].shape == (20, 2)
    assert build("multipoint", {"classes": 2}).similarity(fp, engine.respond(fp, model)) == 1


# Errors.


def test_a_number_of_queries_that_leaves_a_point_unfinished_is_refused(victim):
    with pytest.raises(ParameterError, match=r"must be a multiple of 3; got 100: ask another number"):
        engine.extract(victim, scheme="multipoint", data=toy_data(), queries=100)


def test_more_classes_than_there_are_cannot_meet(victim):
    with pytest.raises(ParameterError, match=r"6 classes are to meet, and .* has 5: set fewer"):
        engine.extract(victim, scheme="multipoint", data=toy_data(), params={"classes": 6})


def test_too_few_multipoints_are_an_error_that_says_how_many(victim):
    with pytest.raises(ParameterError, match=r"100 multipoints are needed; \d+ of 20 inputs of toy data led to one"):
        engine.extract(victim, scheme="multipoint", data=toy_data(20), queries=300)
    with pytest.raises(ParameterError, match=r"10 multipoints are needed; 0 of 400 inputs .* lead \(50\)"):
        engine.extract(victim, scheme="multipoint", data=toy_data(), params={"lead": 50.0, "steps": 2})


def test_texts_have_no_gradient(victim):
    data = replace(toy_data(), inputs=np.array(["a"], object), labels=None, domain=Domain(kind="text", shape=()))
    with pytest.raises(ParameterError, match="multipoints need inputs that can be moved by a gradient"):
        Multipoint().draw(seen(victim), data, n=None, default=99, seed=0, population=None)


def test_parameters_out_of_range_are_refused():
    with pytest.raises(ParameterError, match=r"classes must lie in \[2"):
        build("multipoint", {"classes": 1})
    with pytest.raises(ParameterError, match=r"margin must lie in \(0"):
        build("multipoint", {"margin": 0})
    with pytest.raises(ParameterError, match=r"lead must lie in \[0"):
        build("multipoint", {"lead": -1})
    with pytest.raises(ParameterError, match=r"steps must lie in \[1"):
        build("multipoint", {"steps": 0})
    with pytest.raises(ParameterError, match="unknown score of multipoint 'words'; did you mean 'word'"):
        build("multipoint", {"score": "words"})


def test_a_stranger_s_units_are_checked(fp):
    uneven = replace(fp, queries={**fp.queries, "units": np.r_[np.zeros(4, int), fp.queries["units"][4:]]})
    with pytest.raises(ArtefactError, match=r"classes=3 needs so many probes to a point; got 2 to 4"):
        WORD.similarity(uneven, fp)
    none = replace(fp, queries={"inputs": fp.queries["inputs"]})
    with pytest.raises(ArtefactError, match="units must be whole numbers"):
        WORD.similarity(none, fp)
