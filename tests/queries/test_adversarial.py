"""Steps across a boundary against linear models, where they are known by hand; and the sampler made of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from locard import engine
from locard.errors import AccessError, ParameterError
from locard.models import Session, restrict, view
from locard.models.torch_module import TorchModel
from locard.queries._adversarial import class_gradients, climb, cross_entropy, dealt, deepfool, fgsm, pgd
from locard.queries.adversarial import Adversarial
from locard.records import Access, Data, Domain
from locard.testing import toy_data, toy_model

FREE = Domain(kind="tabular", shape=(6,))
BOX = Domain(kind="tabular", shape=(6,), bounds=(0.0, 1.0))
DATA = toy_data()


def linear(weight, bias, domain=FREE, **options):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return restrict(TorchModel(layer, domain=domain, **options), Access.GRADIENTS)


def drawn(seed, classes, n=20):
    source = np.random.default_rng(seed)
    weight = source.normal(size=(classes, 6)).astype(np.float32)
    bias = source.normal(size=classes).astype(np.float32)
    return weight, bias, source.uniform(0, 1, (n, 6)).astype(np.float32)


def loss_at(model, x, labels):
    z = model.logits(x).astype(np.float64)
    return np.log(np.exp(z - z[np.arange(len(x)), labels][:, None]).sum(axis=1))


def asked(model):
    session = Session(model, Access.GRADIENTS)
    return session, view(session, Access.GRADIENTS)


@given(seed=st.integers(0, 2**32), eps=st.floats(0.01, 1))
def test_fgsm_flips_a_linear_label_just_where_the_margin_is_below_eps_times_the_l1_norm(seed, eps):
    weight, bias, x = drawn(seed, 2)
    model = linear(weight, bias)
    own = model.labels(x)
    w, b = (weight[1] - weight[0]).astype(np.float64), float(bias[1]) - float(bias[0])
    margin = np.abs(x @ w + b) - eps * np.abs(w).sum()
    flipped = model.labels(fgsm(model, x, own, radius=eps, domain=FREE)) != own
    clear = np.abs(margin) > 1e-4
    assert np.array_equal(flipped[clear], margin[clear] < 0)


def test_fgsm_moves_every_entry_by_its_own_radius_and_keeps_the_bounds_and_the_dtype():
    weight, bias, x = drawn(1, 3)
    radius = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 3.0])
    model = linear(weight, bias)
    moved = fgsm(model, x, model.labels(x), radius=radius, domain=FREE)
    assert moved.dtype == np.float32
    assert np.abs(moved - x) == pytest.approx(np.broadcast_to(radius, x.shape), abs=1e-6)
    inside = linear(weight, bias, BOX)
    boxed = fgsm(inside, x, inside.labels(x), radius=radius, domain=BOX)
    assert np.array_equal(boxed, np.clip(moved, 0, 1))


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 5), radius=st.floats(0.01, 0.7), start=st.booleans())
def test_pgd_stays_in_its_box_and_in_the_bounds(seed, classes, radius, start):
    weight, bias, x = drawn(seed, classes)
    model = linear(weight, bias, BOX)
    source = np.random.default_rng(seed) if start else None
    moved = pgd(model, x, model.labels(x), radius=radius, step=radius / 3, steps=7, domain=BOX, source=source)
    assert np.abs(moved - x).max() <= radius + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_rounding_to_the_grid_leads_out_of_the_box_by_half_a_quantum_at_most():
    model = restrict(toy_model(0, gradients=True), Access.GRADIENTS)
    x = DATA.inputs[:50]
    moved = pgd(model, x, model.labels(x), radius=0.03, step=0.01, steps=6, domain=DATA.domain)
    assert np.array_equal(moved, DATA.domain.deliver(moved))
    assert 0.03 < np.abs(moved - x).max() <= 0.03 + 0.5 / 255 + 1e-6


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 5))
def test_no_step_of_pgd_lowers_the_loss_of_a_linear_model(seed, classes):
    weight, bias, x = drawn(seed, classes)
    model = linear(weight, bias, BOX)
    own, before = model.labels(x), -np.inf
    for steps in range(5):
        points = pgd(model, x, own, radius=0.2, step=0.07, steps=steps, domain=BOX)
        loss = loss_at(model, points, own)
        assert (loss >= before - 1e-5).all()
        before = loss
    assert (before > loss_at(model, x, own)).all()


def test_targeted_steps_lower_the_loss_of_the_target():
    weight, bias, x = drawn(2, 4)
    model = linear(weight, bias)
    target = (model.labels(x) + 1) % 4
    moved = pgd(model, x, target, radius=0.3, step=0.05, steps=10, domain=FREE, targeted=True)
    assert (loss_at(model, moved, target) < loss_at(model, x, target) - 0.05).all()


def test_one_step_of_the_radius_from_the_input_itself_is_fgsm():
    weight, bias, x = drawn(3, 4)
    model = linear(weight, bias, BOX)
    own = model.labels(x)
    once = pgd(model, x, own, radius=0.1, step=0.1, steps=1, domain=BOX)
    assert once == pytest.approx(fgsm(model, x, own, radius=0.1, domain=BOX), abs=1e-6)


def test_a_random_start_is_drawn_from_the_whole_box_and_forgotten_in_a_linear_model():
    weight, bias, x = drawn(4, 2)
    model = linear(weight, bias)
    own = model.labels(x)
    starts = pgd(model, x, own, radius=0.2, step=1, steps=0, domain=FREE, source=np.random.default_rng(0)) - x
    assert -0.2 <= starts.min() < -0.18
    assert 0.18 < starts.max() <= 0.2
    moved = [
        pgd(model, x, own, radius=0.2, step=0.05, steps=9, domain=FREE, source=source)
        for source in (None, np.random.default_rng(0), np.random.default_rng(1))
    ]
    assert moved[1] == pytest.approx(moved[0], abs=1e-6)
    assert moved[2] == pytest.approx(moved[0], abs=1e-6)


def test_climbing_goes_up_any_loss():
    weight, bias, x = drawn(5, 3)
    up = climb(linear(weight, bias), x, lambda: lambda z: z[:, 2], radius=0.1, step=0.1, steps=1, domain=FREE)
    assert up - x == pytest.approx(np.broadcast_to(0.1 * np.sign(weight[2]), x.shape), abs=1e-6)


def test_labels_are_dealt_out_batch_by_batch():
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 4)))
    labels = np.arange(10, dtype=np.int32) % 4
    labels.flags.writeable = False
    whole, loss = cross_entropy(labels)(logits), cross_entropy(labels)
    assert torch.equal(torch.cat([loss(logits[:3]), loss(logits[3:9]), loss(logits[9:])]), whole)
    plain = logits.exp().sum(1).log() - logits[torch.arange(10), torch.from_numpy(labels.astype(np.int64))]
    assert torch.allclose(whole, plain)
    rows = np.arange(10.0)
    assert torch.equal(dealt(lambda z, row: z[:, 0] * 0 + row, rows)(logits), torch.from_numpy(rows))


@pytest.mark.parametrize("classes", [2, 4])
def test_the_class_gradients_of_a_linear_model_are_its_rows(classes):
    weight, bias, x = drawn(6, classes)
    model = linear(weight, bias, batch_size=7)
    logits, gradients = class_gradients(model, x, classes)
    assert logits == pytest.approx(model.logits(x), abs=1e-6)
    assert gradients == pytest.approx(np.broadcast_to(weight, (20, classes, 6)), abs=1e-6)


def faces(weight, bias, x):
    """Each input's class, and how far away the boundary to every class is."""
    w, z = weight.astype(np.float64), x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    own, rows = z.argmax(axis=1), np.arange(len(x))
    length = np.linalg.norm(w[None] - w[own][:, None], axis=2)
    length[rows, own] = 1
    far = np.abs(z - z[rows, own][:, None]) / length
    far[rows, own] = np.inf
    return own, far


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 6))
def test_deepfool_takes_one_step_to_the_nearest_boundary_of_a_linear_model(seed, classes):
    weight, bias, x = drawn(seed, classes)
    own, far = faces(weight, bias, x)
    clear = np.ptp(np.partition(far, 1, axis=1)[:, :2], axis=1) > 1e-3 if classes > 2 else np.ones(20, bool)
    clear &= far.min(axis=1) > 1e-3
    found = deepfool(linear(weight, bias), x, domain=FREE, steps=1)
    assert found.crossed[clear].all()
    assert np.array_equal(found.own, own)
    assert np.array_equal(found.other[clear], far.argmin(axis=1)[clear])
    assert np.linalg.norm(found.step, axis=1)[clear] == pytest.approx(far.min(axis=1)[clear], rel=1e-3)
    # Without overshoot the two logits tie.
    z = (x + found.step).astype(np.float64) @ weight.T.astype(np.float64) + bias
    rows = np.flatnonzero(clear)
    assert z[rows, found.own[rows]] == pytest.approx(z[rows, found.other[rows]], abs=1e-4)


@pytest.mark.parametrize("overshoot", [0.02, 0.1, 1.0])
def test_an_affine_model_is_crossed_along_its_normal_and_the_gap_changes_sign_by_the_overshoot(overshoot):
    weight, bias, x = drawn(7, 2)
    found = deepfool(linear(weight, bias), x, domain=FREE, overshoot=overshoot)
    w, b = (weight[1] - weight[0]).astype(np.float64), float(bias[1]) - float(bias[0])
    gap = x.astype(np.float64) @ w + b
    assert found.step == pytest.approx(-gap[:, None] * w / (w @ w), abs=1e-5)
    after = (x + (1 + overshoot) * found.step).astype(np.float64) @ w + b
    assert after == pytest.approx(-overshoot * gap, abs=1e-5)
    assert found.crossed.all()


def test_deepfools_distance_knows_no_scale_or_offset_of_the_logits_but_that_of_the_inputs():
    weight, bias, x = drawn(8, 4)
    plain = deepfool(linear(weight, bias), x, domain=FREE)
    for same in (linear(37 * weight, 37 * bias), linear(weight + weight[1], bias + 5)):
        assert deepfool(same, x, domain=FREE).step == pytest.approx(plain.step, abs=1e-4)
    wide = deepfool(linear(weight / 16, bias), 16 * x, domain=FREE)
    assert wide.step == pytest.approx(16 * plain.step, abs=1e-3)


def test_deepfool_asks_no_more_where_it_has_arrived_and_looks_only_at_the_likeliest_classes():
    weight, bias, x = drawn(10, 5)
    layer = linear(weight, bias)._session.model
    for candidates in (10, 2):
        session, victim = asked(layer)
        found = deepfool(victim, x, domain=FREE, candidates=candidates)
        assert found.crossed.all()
        # For each input one answer, the gradients of one step in one pass, and one more answer.
        assert session.asked == 20 * (1 + 1 + 1)
    own, far = faces(weight, bias, x)
    assert np.array_equal(found.other, np.argsort(victim.logits(x), axis=1)[:, -2])
    assert not np.array_equal(found.other, far.argmin(axis=1))
    assert np.array_equal(found.own, own)


def test_a_model_without_slopes_is_not_crossed_and_asked_once():
    session, victim = asked(linear(np.zeros((3, 6), np.float32), np.arange(3, dtype=np.float32))._session.model)
    found = deepfool(victim, drawn(0, 3)[2], domain=FREE)
    assert not found.crossed.any()
    assert not found.step.any()
    assert np.array_equal(found.other, found.own)
    assert session.asked <= 20 * 4


def test_an_input_on_the_boundary_itself_gets_across():
    weight = np.array([[1, 0, 0, 0, 0, 0], [-1, 0, 0, 0, 0, 0]], np.float32)
    found = deepfool(linear(weight, np.zeros(2, np.float32)), np.zeros((1, 6), np.float32), domain=FREE, steps=1)
    # All logits are equal, so there is no spread to take a share of; the tie is broken by the first class.
    assert not found.crossed.any()
    near = np.full((1, 6), 1.0, np.float32)
    near[0, 0] = 1e-9
    assert deepfool(linear(weight, np.zeros(2, np.float32)), near, domain=FREE).crossed.all()


@pytest.mark.parametrize("method", ["fgsm", "pgd", "deepfool", "carlini-wagner"])
def test_the_batch_size_changes_nothing(method):
    drawn = [
        draw(toy_model(0, gradients=True, batch_size=size), n=20, method=method, steps=20).inputs for size in (7, 256)
    ]
    assert np.abs(drawn[0] - drawn[1]).max() <= 2 / 255
    assert (drawn[0] == drawn[1]).mean() > 0.9


def draw(model, data=DATA, *, n=None, default=20, seed=0, **params):
    handed = restrict(model, Access.GRADIENTS)
    return Adversarial(**params).draw(handed, data, n=n, default=default, seed=seed, population=None)


@pytest.fixture(scope="module")
def victim():
    return toy_model(0, gradients=True)


@pytest.mark.parametrize("method", ["fgsm", "pgd", "deepfool", "carlini-wagner"])
def test_seeds_come_first_and_partners_follow_in_their_order(victim, method):
    found = draw(victim, n=30, method=method, steps=20)
    seeds, partners = np.split(found.inputs, 2)
    assert found.inputs.shape == (30, 1, 8, 8)
    assert found.inputs.dtype == np.float32
    assert np.array_equal(found.inputs, DATA.domain.deliver(found.inputs))
    assert np.array_equal(found.extras["pairs"], [[i, 15 + i] for i in range(15)])
    assert np.array_equal(found.extras["units"], [*range(15), *range(15)])
    nearest = [int(((DATA.inputs - x) ** 2).sum(axis=(1, 2, 3)).argmin()) for x in partners]
    assert np.array_equal(DATA.inputs[nearest], seeds)
    assert len(set(nearest)) == 15
    assert (seeds != partners).reshape(15, -1).any(axis=1).all()


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_no_entry_moves_farther_than_eps_and_half_a_quantum(victim, method):
    seeds, partners = np.split(draw(victim, n=40, method=method, eps=0.05).inputs, 2)
    assert 0.045 < np.abs(seeds - partners).max() <= 0.05 + 0.5 / 255 + 1e-6


def test_pgd_lowers_the_victims_own_label_more_than_fgsm_does(victim):
    handed = restrict(victim, Access.GRADIENTS)
    gained = {}
    for method in ("fgsm", "pgd"):
        seeds, partners = np.split(draw(victim, n=60, method=method, eps=0.1).inputs, 2)
        own = handed.labels(seeds)
        gained[method] = (loss_at(handed, partners, own) - loss_at(handed, seeds, own)).mean()
    assert gained["pgd"] > gained["fgsm"] > 0


@pytest.mark.parametrize("method", ["deepfool", "carlini-wagner"])
@pytest.mark.parametrize("seeds", ["random", "negative", "right"])
def test_the_nearest_partners_all_have_another_label_as_delivered(victim, method, seeds):
    drawn = draw(victim, n=20, method=method, seeds=seeds, steps=30)
    labels = restrict(victim, Access.LABELS).labels(drawn.inputs)
    assert (labels[:10] != labels[10:]).all()


def test_carlini_wagner_goes_as_deep_as_it_is_told_and_no_deeper_than_deepfool_where_it_is_not(victim):
    deep = draw(victim, n=20, method="carlini-wagner", confidence=1.0)
    logits = restrict(victim, Access.LOGITS).logits(deep.inputs)
    own = logits[:10].argmax(axis=1)
    there = logits[10:]
    assert (np.sort(there, axis=1)[:, -1] - there[np.arange(10), own] >= 1 - 1e-5).all()
    length = {}
    for method in ("deepfool", "carlini-wagner"):
        seeds, partners = np.split(draw(victim, n=40, method=method).inputs, 2)
        length[method] = np.median(np.linalg.norm((seeds - partners).reshape(20, -1), axis=1))
    assert length["carlini-wagner"] <= length["deepfool"]


@pytest.mark.parametrize(("seeds", "wrong"), [("negative", True), ("right", False)])
def test_seeds_are_the_victims_mistakes_or_none_of_them(victim, seeds, wrong):
    found = draw(victim, n=40, seeds=seeds)
    truth = {x.tobytes(): label for x, label in zip(DATA.inputs, np.asarray(DATA.labels), strict=True)}
    labels = restrict(victim, Access.LABELS).labels(found.inputs[:20])
    assert all((label != truth[x.tobytes()]) == wrong for x, label in zip(found.inputs, labels, strict=False))


def test_up_to_the_default_where_no_number_is_named(victim):
    assert len(draw(victim, default=21).inputs) == 20
    assert len(draw(victim, DATA.take(np.arange(6)), default=100).inputs) == 12
    assert len(draw(victim, DATA.take(np.arange(6)), default=100, method="deepfool").inputs) <= 12


@pytest.mark.parametrize("method", ["fgsm", "pgd", "deepfool", "carlini-wagner"])
def test_partners_move_on_a_coarse_grid_too(method):
    domain = replace(DATA.domain, quantum=1 / 16)
    data = replace(DATA, inputs=domain.deliver(DATA.inputs), domain=domain)
    found = draw(TorchModel(toy_model(0, gradients=True).module(), domain=domain), data, n=40, method=method)
    seeds, partners = np.split(found.inputs, 2)
    assert np.array_equal(found.inputs, domain.deliver(found.inputs))
    assert (seeds != partners).reshape(20, -1).any(axis=1).all()
    if method in ("fgsm", "pgd"):
        assert np.abs(seeds - partners).max() == pytest.approx(1 / 16)


def test_a_table_moves_in_units_of_its_columns_spread_and_a_constant_column_not_at_all():
    spread = np.array([1e-3, 1, 1e3, 10, 1, 1])
    source = np.random.default_rng(0)
    x = source.normal(size=(60, 6)) * spread
    x[:, 5] = 7.0
    data = Data(inputs=x.astype(np.float32), labels=None, domain=FREE, name="a table")
    weight = (source.normal(size=(3, 6)) / spread).astype(np.float32)
    model = linear(weight, -7 * weight[:, 5])._session.model
    for method in ("fgsm", "pgd", "carlini-wagner"):
        seeds, partners = np.split(draw(model, data, n=20, method=method, eps=0.3).inputs, 2)
        moved = np.abs(seeds - partners)
        assert (moved[:, 5] == 0).all()
        assert ((moved / spread).max(axis=0)[:5] > 0.05).all()


def test_an_odd_number_of_queries_is_refused(victim):
    with pytest.raises(ParameterError, match="adversarial queries come in pairs, so --queries must be even; got 5"):
        draw(victim, n=5)


def test_mistakes_without_labels_are_refused(victim):
    with pytest.raises(ParameterError, match="negative seeds are found by true labels, and toy data has none"):
        draw(victim, replace(DATA, labels=None), seeds="negative")


def test_too_few_seeds_are_refused_with_the_way_out(victim):
    with pytest.raises(ParameterError, match="500 random seeds are needed, the data hold 400; give more data or ask"):
        draw(victim, n=1000)
    few = DATA.take(np.arange(9))
    with pytest.raises(ParameterError, match=r"10 pairs are needed; 9 of 9 random seeds of toy data have a partner"):
        draw(victim, few, n=20, method="deepfool")


def test_a_model_of_one_opinion_has_no_partners():
    model = linear(np.zeros((3, 6), np.float32), np.arange(3, dtype=np.float32))._session.model
    data = Data(inputs=drawn(0, 3)[2], labels=None, domain=FREE, name="noise")
    with pytest.raises(ParameterError, match=r"1 pairs are needed; 0 of 20 random seeds of noise .*allow more steps"):
        draw(model, data, method="carlini-wagner", steps=3)


def test_words_cannot_be_moved(victim):
    texts = Data(inputs=np.array(["a"], dtype=object), labels=None, name="texts",
                 domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="adversarial partners need inputs that can be moved by a gradient"):
        draw(victim, texts)


def test_a_model_without_gradients_is_refused():
    with pytest.raises(AccessError, match="needs GRADIENTS of the victim"):
        engine.extract(toy_model(0), scheme="adversarial+labels+hamming", data=DATA)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"seeds": "negativ"}, "unknown seeds 'negativ'; did you mean 'negative'"),
        ({"method": "deep-fool"}, "unknown method 'deep-fool'; did you mean 'deepfool'"),
        ({"eps": 0}, r"eps must lie in \(0, inf\)"),
        ({"step": -1}, r"step must lie in \(0, inf\)"),
        ({"steps": -1}, r"steps must lie in \[0, inf\)"),
        ({"overshoot": -0.1}, r"overshoot must lie in \[0, inf\)"),
        ({"confidence": -1}, r"confidence must lie in \[0, inf\)"),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ParameterError, match=message):
        Adversarial(**params)
