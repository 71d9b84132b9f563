"""Sensitive samples against the oracles of their card, and against S in plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from locard import engine
from locard.errors import ParameterError
from locard.fingerprint import Fingerprint
from locard.models import Session, fitting, restrict, view
from locard.models.torch_module import TorchModel
from locard.queries import sensitive
from locard.queries.sensitive import OF, Sensitive, cover, gap_shares, probe
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.testing import toy_data, toy_domain, toy_model


@pytest.fixture(scope="module")
def victim():
    return toy_model(0, gradients=True)


@pytest.fixture(scope="module")
def fp(victim):
    return engine.extract(victim, scheme="sensitive", data=replace(toy_data(), labels=None))


def open_view(model):
    return view(Session(model, Access.MODULE), Access.MODULE)


def linear(weight, **domain):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    return TorchModel(layer, domain=Domain(kind="tabular", shape=(weight.shape[1],), **domain))


def tabular(x, model):
    return Data(inputs=x.astype(np.float32), labels=None, domain=model.domain, name="table")


def outputs(logits, of):
    if of == "logits":
        return logits
    shares = logits.softmax(dim=-1)
    return shares if of == "probabilities" else (shares + 1e-8).log().sum()[None]


def plain_sensitivity(module, x, of, weights):
    """S by one backward pass for each output of each input."""
    found = []
    for one in x:
        logits = module(torch.from_numpy(one[None]))[0]
        total = 0.0
        for output in outputs(logits, of):
            slopes = torch.autograd.grad(output, weights, retain_graph=True)
            total += sum(float((slope.double() ** 2).sum()) for slope in slopes)
        found.append(total)
    return np.array(found)


def noisy(model, relative, seed):
    copy = toy_model(0, gradients=True)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for mine, theirs in zip(copy.module().parameters(), model.module().parameters(), strict=True):
            mine.copy_(theirs * (1 + relative * torch.randn(theirs.shape, generator=source)))
    return copy


# Oracle 1.
def test_an_unchanged_model_has_no_mismatch_however_often_and_however_it_is_asked(fp, victim, tmp_path):
    again = Fingerprint.load(fp.save(tmp_path / "fp.locard"))
    stored = np.rint(again.queries["inputs"] * 255).astype(np.uint8)
    inputs = (stored / np.float32(255)).astype(np.float32)
    for size in (1, 3, 256):
        copy = toy_model(0, gradients=True, batch_size=size)
        for _ in range(3):
            assert np.array_equal(restrict(copy, Access.LABELS).labels(inputs), again.record["labels"])
    # In double precision every label is the same too: each keeps its margin.
    with torch.no_grad():
        double = toy_model(0, gradients=True).module().double()(torch.from_numpy(inputs).double())
    assert np.array_equal(double.argmax(dim=1).numpy(), again.record["labels"])
    verdict = engine.verify(again, victim)
    assert (verdict.decision, verdict.evidence.score) == ("no-evidence", 1)


# Oracle 2.
def test_of_a_linear_model_the_sensitivity_is_the_squared_length_of_the_input():
    source = np.random.default_rng(0)
    x = source.random((7, 6)).astype(np.float32)
    one = linear(source.normal(size=(1, 6)).astype(np.float32))
    three = linear(source.normal(size=(3, 6)).astype(np.float32))
    with probe(open_view(one), "") as slopes:
        assert slopes.sensitivity(x, "logits") == pytest.approx((x**2).sum(axis=1), rel=1e-5)
    with probe(open_view(three), "") as slopes:
        assert slopes.sensitivity(x, "logits") == pytest.approx(3 * (x**2).sum(axis=1), rel=1e-5)


def test_of_a_linear_model_the_climb_ends_at_all_ones_or_where_the_ball_does():
    source = np.random.default_rng(1)
    seeds = source.uniform(0.2, 0.8, (5, 6)).astype(np.float32)
    boxed = linear(source.normal(size=(2, 6)).astype(np.float32), bounds=(0.0, 1.0))
    wide = Sensitive(of="logits", radius=10.0, lr=0.05, steps=100, margin=0.0)
    with probe(open_view(boxed), "") as slopes:
        ends, _ = wide.climb(slopes, seeds, tabular(seeds, boxed), source=np.random.default_rng(2))
    assert ends == pytest.approx(1, abs=1e-5)
    # Without a box, from columns of one deviation: along x, to the surface of the ball.
    free = linear(source.normal(size=(2, 6)).astype(np.float32))
    rows = np.concatenate([seeds, -seeds]) / np.concatenate([seeds, -seeds]).std(axis=0)
    data = tabular(rows, free)
    ball = Sensitive(of="logits", radius=0.3, lr=0.02, steps=400, margin=0.0)
    with probe(open_view(free), "") as slopes:
        ends, _ = ball.climb(slopes, data.inputs, data, source=np.random.default_rng(3))
    change = (ends - data.inputs).astype(np.float64)
    length = np.linalg.norm(data.inputs.astype(np.float64), axis=1)
    assert np.sqrt((change**2).mean(axis=1)) == pytest.approx(0.3, rel=1e-3)
    # Adam moves all entries alike, so it comes near to the way along x, not onto it.
    cosines = (change * data.inputs).sum(axis=1) / np.linalg.norm(change, axis=1) / length
    assert cosines.min() > 0.9
    most = (length + 0.3 * np.sqrt(6)) ** 2
    assert ((ends.astype(np.float64) ** 2).sum(axis=1) > 0.97 * most).all()
    assert ((ends.astype(np.float64) ** 2).sum(axis=1) <= most + 1e-4).all()


# Oracle 3.
def test_of_the_released_proxy_the_slope_at_the_last_layer_is_one_less_the_share_times_classes():
    source = np.random.default_rng(4)
    weight, x = source.normal(size=(4, 6)).astype(np.float32), source.normal(size=(9, 6)).astype(np.float32)
    logits = x.astype(np.float64) @ weight.T
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slopes = (1 - 4 * shares)[:, :, None] * x[:, None]
    with probe(open_view(linear(weight)), "") as found:
        assert found.sensitivity(x, OF[2]) == pytest.approx((slopes**2).sum(axis=(1, 2)), rel=1e-3)


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize(("layer", "names"), [("", ["3.weight"]), ("1", ["1.weight", "1.bias"]),
                                              ("all", ["1.weight", "1.bias", "3.weight"])])  # fmt: skip
def test_the_sensitivity_is_that_of_autograd_output_by_output(victim, of, layer, names):
    x = toy_data().inputs[:6]
    module = victim.module()
    weights = [dict(module.named_parameters())[name] for name in names]
    with probe(open_view(victim), layer) as slopes:
        assert slopes.sensitivity(x, of) == pytest.approx(plain_sensitivity(module, x, of, weights), rel=1e-3)


def test_of_probabilities_the_last_layer_has_a_closed_form(victim):
    x = toy_data().inputs[:20]
    module = victim.module()
    with torch.no_grad():
        features = module[:3](torch.from_numpy(x)).numpy().astype(np.float64)
        p = module(torch.from_numpy(x)).softmax(dim=1).numpy().astype(np.float64)
    jacobians = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    expected = (jacobians**2).sum(axis=(1, 2)) * (features**2).sum(axis=1)
    with probe(open_view(victim), "") as slopes:
        assert slopes.sensitivity(x, "probabilities") == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_of_two_leading_classes_the_sensitivity_is_that_of_the_gap():
    source = np.random.default_rng(5)
    model = linear(source.normal(size=(2, 6)).astype(np.float32))
    x = source.normal(size=(9, 6)).astype(np.float32)
    logits = restrict(model, Access.LOGITS).logits(x)
    gap = np.abs(logits[:, 0] - logits[:, 1]).astype(np.float64)
    with probe(open_view(model), "") as slopes:
        leads = slopes.gap_slopes(x, logits)
        expected = leads**2 / (8 * np.cosh(gap / 2) ** 4)
        assert slopes.sensitivity(x, "probabilities") == pytest.approx(expected, rel=1e-3)
    assert leads == pytest.approx(np.sqrt(2) * np.linalg.norm(x, axis=1), rel=1e-5)


def test_random_signs_estimate_the_sensitivity(victim):
    x = toy_data().inputs[:4]
    source = np.random.default_rng(6)
    with probe(open_view(victim), "") as slopes:
        exact = slopes.sensitivity(x, "logits")
        signs = source.integers(0, 2, (4, 2000, 5)) * 2 - 1
        many = slopes.squares(np.repeat(x, 2000, axis=0), signs.reshape(-1, 5), "logits").reshape(4, 2000)
    assert (np.abs(many.mean(axis=1) - exact) <= 5 * many.std(axis=1) / np.sqrt(2000) + 1e-3 * exact).all()


def test_the_gradient_of_the_look_is_that_of_the_logarithm(victim):
    x = toy_data().inputs[:3].astype(np.float32)
    ways = np.random.default_rng(7).normal(size=(3, 5))
    direction = np.random.default_rng(8).normal(size=x.shape).astype(np.float32)
    with probe(open_view(victim), "3") as slopes:
        logits, slope = slopes.look(x, ways, "logits")
        step = 1e-3
        up, down = (np.log(slopes.squares(x + sign * step * direction, ways, "logits")) for sign in (1, -1))
    assert (slope * direction).reshape(3, -1).sum(axis=1) == pytest.approx((up - down) / (2 * step), rel=2e-2, abs=1e-2)
    assert logits == pytest.approx(restrict(victim, Access.LOGITS).logits(x), abs=1e-4)


# Oracle 4.
def test_the_samples_are_far_more_sensitive_than_inputs_as_they_are(fp, victim):
    natural = toy_data().inputs
    with probe(open_view(victim), "") as slopes:
        made = slopes.sensitivity(fp.queries["inputs"], "probabilities")
        found = slopes.sensitivity(natural, "probabilities")
    assert np.median(made) > 5 * np.median(found)


def test_a_thousandth_of_the_weights_flips_labels_of_samples_and_none_of_natural_inputs(fp, victim):
    natural = toy_data().inputs[:200]
    before = restrict(victim, Access.LABELS).labels(natural)
    copies = [noisy(victim, 1e-3, seed) for seed in range(20)]
    made = [float(np.mean(engine.respond(fp, copy).record["labels"] != fp.record["labels"])) for copy in copies]
    found = [float(np.mean(restrict(copy, Access.LABELS).labels(natural) != before)) for copy in copies]
    assert np.mean(made) > 10 * np.mean(found)
    assert np.mean([engine.verify(fp, copy).decision == "altered" for copy in copies]) >= 0.9


# Oracle 5.
@given(seed=st.integers(0, 2**32), n=st.integers(1, 9), columns=st.integers(0, 20))
def test_the_cover_grows_with_n_and_is_greedy(seed, n, columns):
    active = np.random.default_rng(seed).random((9, columns)) < 0.3
    chosen = cover(active, n)
    assert len(set(chosen.tolist())) == n
    covered = np.zeros(columns, bool)
    for place, row in enumerate(chosen):
        left = [r for r in range(9) if r not in chosen[:place]]
        gains = [int((active[r] & ~covered).sum()) for r in left]
        assert row == left[gains.index(max(gains))]
        covered |= active[row]
    fewer = cover(active, max(1, n - 1))
    assert np.array_equal(chosen[: len(fewer)], fewer)
    assert active[fewer].any(axis=0).sum() <= covered.sum()


def test_every_sample_keeps_its_margin_as_delivered_and_lies_in_its_ball(fp, victim):
    logits = restrict(victim, Access.LOGITS).logits(fp.queries["inputs"]).astype(np.float64)
    ranked = np.sort(logits, axis=1)
    gaps = (ranked[:, -1] - ranked[:, -2]) / (ranked[:, -1] - ranked[:, 0])
    assert fp.queries["gaps"] == pytest.approx(gaps, abs=1e-6)
    assert (gaps >= 3e-4 - 1e-7).all()
    assert np.median(gaps) < 0.01
    moved = np.sqrt(((fp.queries["inputs"][:, None] - toy_data().inputs[None]) ** 2).mean(axis=(2, 3, 4))).min(axis=1)
    assert (moved <= 10 / 255 + 0.5 / 255).all()
    assert np.array_equal(toy_domain().deliver(fp.queries["inputs"]), fp.queries["inputs"])
    assert gap_shares(np.zeros((2, 3), np.float32)).tolist() == [0, 0]


def test_the_flips_tell_how_small_a_change_of_the_last_layer_changes_the_label(fp, victim):
    inputs, flips = torch.from_numpy(fp.queries["inputs"]), fp.queries["flips"]
    for row, (one, flip) in enumerate(zip(inputs.split(1), flips, strict=True)):
        for share, same in ((0.98, True), (1.02, False)):
            copy = toy_model(0, gradients=True).module()
            weight = dict(copy.named_parameters())["3.weight"]
            logits = copy(one)[0]
            first, second = logits.topk(2).indices
            gap = logits[first] - logits[second]
            (slope,) = torch.autograd.grad(gap, weight)
            with torch.no_grad():
                weight -= share * float(flip) * slope / slope.norm()
                assert (int(copy(one).argmax()) == int(fp.record["labels"][row])) is same


def test_probabilities_lead_to_the_boundary_and_the_released_proxy_away_from_it(victim):
    data = toy_data(60)
    shares = {}
    for of in ("probabilities", "log-probabilities"):
        with probe(open_view(victim), "") as slopes:
            ends, kept = Sensitive(of=of).climb(slopes, data.inputs, data, source=np.random.default_rng(0))
        shares[of] = [gap_shares(restrict(victim, Access.LOGITS).logits(x)) for x in (data.inputs, ends, kept)]
    before, after, kept = shares["probabilities"]
    assert np.median(after) < np.median(before) / 5
    assert (kept[kept < before] >= 3e-4 - 1e-7).all()
    assert np.median(kept) < np.median(after)
    before, after, _ = shares["log-probabilities"]
    assert np.median(after) > np.median(before)


def test_gradients_in_groups_are_those_of_all_at_once(victim, monkeypatch):
    x, ways = toy_data().inputs[:10], np.random.default_rng(0).normal(size=(10, 5))
    with probe(open_view(victim), "1") as slopes:
        whole = (*slopes.look(x, ways, "probabilities"), slopes.squares(x, ways, "logits"))
        monkeypatch.setattr(sensitive, "HELD", 3 * 4 * 65 * 24)
        parts = (*slopes.look(x, ways, "probabilities"), slopes.squares(x, ways, "logits"))
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_a_column_that_never_changes_is_not_moved():
    source = np.random.default_rng(3)
    model = linear(source.normal(size=(3, 6)).astype(np.float32))
    rows = source.normal(size=(50, 6))
    rows[:, 2] = 7
    fp = engine.extract(model, scheme="sensitive", data=tabular(rows, model), queries=5)
    assert (fp.queries["inputs"][:, 2] == 7).all()
    assert not np.isin(fp.queries["inputs"][:, 0], rows.astype(np.float32)[:, 0]).any()


def test_the_victims_mode_and_gradients_are_left_as_they_were():
    model = toy_model(0, gradients=True)
    model.module().train()
    engine.extract(model, scheme="sensitive", data=toy_data(), params={"steps": 2, "margin": 0.0})
    assert model.module().training
    assert all(p.grad is None and p.requires_grad for p in model.module().parameters())


def test_a_cnn_with_normalisation_and_a_module_that_works_in_place_are_served():
    cnn = fitting.build("cnn", {"shape": [1, 8, 8], "classes": 5}, seed=0)
    # In place on the very input.
    inplace = torch.nn.Sequential(torch.nn.ReLU(inplace=True), *toy_model(0, gradients=True).module().children())
    for model in (TorchModel(cnn, domain=toy_domain(), mean=(0.5,), std=(0.25,)),
                  TorchModel(inplace, domain=toy_domain())):  # fmt: skip
        fp = engine.extract(model, scheme="sensitive", data=toy_data(), queries=5,
                            params={"steps": 40, "candidates": 20, "margin": 0.0})  # fmt: skip
        assert len(fp.queries["inputs"]) == 5
        assert engine.verify(fp, model).decision == "no-evidence"


def test_a_model_with_another_number_of_classes_was_altered(fp):
    module = toy_model(0, gradients=True).module()
    fewer = torch.nn.Sequential(*list(module.children())[:3], torch.nn.Linear(24, 3))
    assert engine.verify(fp, TorchModel(fewer, domain=toy_domain())).decision == "altered"


def test_a_model_of_one_layer_is_covered_by_none():
    source = np.random.default_rng(9)
    model = linear(source.normal(size=(3, 8)).astype(np.float32), bounds=(0.0, 1.0))
    fp = engine.extract(model, scheme="sensitive", data=tabular(source.random((60, 8)), model), queries=4)
    assert (np.diff(fp.queries["flips"]) >= 0).all()


def test_what_cannot_be_is_refused(victim):
    data = toy_data()
    with pytest.raises(ParameterError, match=r"10 sensitive samples are needed; 0 of 100 .* smaller margin \(0.9\)"):
        engine.extract(victim, scheme="sensitive", data=data, queries=10, params={"margin": 0.9, "steps": 1})
    with pytest.raises(ParameterError, match=r"500 sensitive samples are needed; .* of 400 inputs"):
        engine.extract(victim, scheme="sensitive", data=data, queries=500, params={"steps": 1})
    with pytest.raises(ParameterError, match="unknown layer of torch module Sequential with weights: '2'"):
        engine.extract(victim, scheme="sensitive", data=data, params={"layer": "2"})
    with pytest.raises(ParameterError, match="unknown output 'probability'; did you mean 'probabilities'"):
        build("sensitive", {"of": "probability"})
    with pytest.raises(ParameterError, match=r"margin must lie in \[0, 1\)"):
        build("sensitive", {"margin": 1.0})
    one = linear(np.ones((1, 8), np.float32))
    with pytest.raises(ParameterError, match=r"two classes; .* has one"):
        engine.extract(one, scheme="sensitive", data=tabular(np.eye(8), one))
    bare = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), domain=toy_domain())
    with pytest.raises(ParameterError, match="no layer with weights"):
        engine.extract(bare, scheme="sensitive", data=replace(data, labels=None))


class Branching(torch.nn.Module):
    """Looks at its numbers, which no batch of gradients allows."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(64, 5)

    def forward(self, x):
        """Logits."""
        return self.last(x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1))


def test_a_module_that_branches_on_its_inputs_is_refused():
    model = TorchModel(Branching(), domain=toy_domain())
    with pytest.raises(ParameterError, match="Branching gives no gradient by its weights for each input of a batch"):
        engine.extract(model, scheme="sensitive", data=toy_data())


@pytest.mark.parametrize("suspect", [0, 1])
def test_a_verdict_on_identity_can_be_printed_and_put_on_a_page(suspect):
    from locard.reports import to_html, to_json

    fp = engine.extract(toy_model(0, gradients=True), scheme="sensitive", data=toy_data())
    verdict = engine.verify(fp, toy_model(suspect))
    page = to_html(verdict)
    assert ("Evidence that the suspect" in page) == bool(suspect)
    assert "How often a real theft is found" not in page
    assert "answers otherwise than the victim did." in page
    assert to_json(verdict)["decision"] == ("altered" if suspect else "no-evidence")
