"""Queries without data: the generator, the differences, the meter, and what the copy learns."""

import math

import numpy as np
import pytest
import torch

from locard.attacks import build, datafree
from locard.attacks._generator import forward_differences, generator, inputs, reach, recovered
from locard.attacks.datafree import Memory, distance, estimated_slope, surprise
from locard.cli import run
from locard.errors import AccessError, BudgetError, ParameterError
from locard.models import Session, folder, load, restrict, view
from locard.models.callable import CallableModel
from locard.models.fitting import build as network
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain

PIXELS = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0))
BYTES = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0), quantum=1 / 255)
SMALL = {"width": 4, "queries": 200, "batch": 20, "epochs": 1}
ZEROTH = {**SMALL, "estimate": "zeroth-order"}
ARGUMENTS = {"shape": [1, 8, 8], "classes": 10, "width": 8}


@pytest.fixture(scope="module")
def plain(victim):
    """The victim behind inputs that are on no grid, so that no two queries coincide."""
    return TorchModel(victim.module(), domain=PIXELS)


def student(seed):
    return network("cnn", ARGUMENTS, seed=seed).eval()


def exact_slope(owner, raw, copy):
    """What `estimated_slope` estimates, with the victim's own module."""
    u = raw.detach().clone().requires_grad_()
    with torch.enable_grad():
        x = inputs(u, PIXELS)
        distance(copy(x), owner.module()(x).softmax(dim=1)).sum().backward()
    return u.grad


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def agreement(stolen, victim, data):
    with torch.no_grad():
        ours, theirs = (m(torch.from_numpy(data.inputs)).argmax(1) for m in (victim.module(), stolen.module))
    return float((ours == theirs).float().mean())


# The differences


def test_differences_of_a_linear_loss_average_to_its_gradient():
    source = torch.Generator().manual_seed(0)
    slope = torch.randn(20, generator=source, dtype=torch.float64)
    raw = torch.randn((2, 20), generator=source, dtype=torch.float64)
    found = forward_differences(lambda u: u @ slope, raw, step=1e-3, directions=20_000, source=source)
    assert found.shape == raw.shape
    for row in found:
        assert cosine(row, slope) > 0.99
        # The variance of one direction is about |slope|^2 in each coordinate, so this is four standard errors.
        assert (row - slope).abs().max() < 4 * slope.norm() / math.sqrt(20_000)


def test_differences_are_their_formula():
    raw = torch.arange(12, dtype=torch.float64).reshape(2, 1, 2, 3) / 10
    asked = []

    def losses(u):
        asked.append(u)
        return u.sin().flatten(1).sum(1)

    found = forward_differences(losses, raw, step=0.01, directions=3, source=torch.Generator().manual_seed(1))
    (everything,) = asked
    parts = everything.split(2)
    assert torch.equal(parts[0], raw)
    expected = torch.zeros_like(raw)
    for moved in parts[1:]:
        for row in range(2):
            way = (moved[row] - raw[row]) / 0.01
            assert float(way.norm()) == pytest.approx(1)
            rise = moved[row].sin().sum() - raw[row].sin().sum()
            expected[row] += 6 / 0.01 * rise * way / 3
    assert torch.allclose(found, expected, atol=1e-9)


def test_a_step_is_at_least_what_the_grid_shows():
    assert reach(PIXELS, 1e-3) == 1e-3
    assert reach(BYTES, 1e-3) == pytest.approx(2 / 255 * 8)
    assert reach(BYTES, 3.0) == 3.0
    wide = Domain(kind="image", shape=(1, 28, 28), bounds=(-1.0, 1.0), quantum=2 / 255)
    assert reach(wide, 1e-3) == pytest.approx(0.2196, abs=1e-4)


def test_on_a_grid_a_thousandth_is_rounded_away_and_the_least_step_is_not():
    source = torch.Generator().manual_seed(0)
    weights = torch.randn(64, generator=source)
    raw = 0.5 * torch.randn((1, *BYTES.shape), generator=source)
    true = weights.reshape(raw.shape) * (1 - raw.tanh() ** 2)

    def losses(u):
        return torch.from_numpy(BYTES.deliver(inputs(u, BYTES).numpy())).flatten(1) @ weights

    def found(step):
        return forward_differences(losses, raw, step=step, directions=4000, source=source)

    assert cosine(found(reach(BYTES, 1e-3)), true) > 0.95
    # What is left of a shorter step is what happened to lie on the edge of rounding.
    assert cosine(found(1e-3), true) < 0.5


@pytest.mark.parametrize(("domain", "taken"), [(PIXELS, 1e-3), (BYTES, 2 / 255 * 8)], ids=["smooth", "grid"])
def test_the_attack_takes_the_step_that_the_grid_shows(victim, monkeypatch, domain, taken):
    steps, own = [], datafree.forward_differences

    def differences(losses, raw, *, step, **options):
        steps.append(step)
        return own(losses, raw, step=step, **options)

    monkeypatch.setattr(datafree, "forward_differences", differences)
    model = TorchModel(victim.module(), domain=domain)
    build("datafree", ZEROTH).derive(restrict(model, Access.PROBABILITIES))
    assert steps == pytest.approx([taken] * 2)


def test_the_estimate_is_the_gradient_that_the_victims_owner_could_compute(plain):
    raw = torch.randn((1, *PIXELS.shape), generator=torch.Generator().manual_seed(2))
    copy = student(3)
    bought = Memory(restrict(plain, Access.PROBABILITIES), Access.PROBABILITIES, 20_000)
    found = estimated_slope(raw, copy, bought, PIXELS, step=0.05, directions=4000,
                            source=torch.Generator().manual_seed(0))  # fmt: skip
    assert bought.count == 4001
    assert cosine(found, exact_slope(plain, raw, copy)) > 0.95


def test_an_estimate_that_cannot_be_paid_for_is_none(plain):
    bought = Memory(restrict(plain, Access.PROBABILITIES, budget=5), Access.PROBABILITIES, 100)
    with pytest.raises(BudgetError, match="5 of 6 inputs were answered; the queries end here"):
        estimated_slope(torch.randn(2, *PIXELS.shape), student(0), bought, PIXELS, step=0.05, directions=2,
                        source=torch.Generator().manual_seed(0))  # fmt: skip
    assert bought.count == 5


def test_recovered_logits_are_the_true_ones_less_their_mean():
    logits = 5 * torch.randn((50, 10), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = logits - logits.mean(dim=1, keepdim=True)
    assert (recovered(logits.softmax(dim=1)) - expected).abs().max() < 1e-6
    # A zero stands for 1e-12, so that every logit is finite.
    half = -math.log(1e-12) / 2
    assert recovered(torch.tensor([[1.0, 0.0]]))[0].tolist() == pytest.approx([half, -half])


def owners(plain):
    """In place of `estimated_slope`: the exact one, for as many queries."""

    def slope(raw, copy, bought, _domain, *, directions, **_options):
        for _ in range(directions + 1):
            bought.ask(inputs(raw, PIXELS))
        return exact_slope(plain, raw, copy)

    return slope


def test_the_estimate_trains_the_generator_and_the_exact_gradient_no_worse(plain, monkeypatch):
    # The copy stays as it is, so what grows is the generator's own work.
    monkeypatch.setattr(datafree.Rounds, "_teach", lambda *_: None)

    def found():
        """Mean distance of victim and copy on the first 500 queries and on the last."""
        monkeypatch.setattr(datafree, "fit", lambda _module, x, y, **_options: seen.update(x=x, y=y))
        seen = {}
        attack = build("datafree", {**ZEROTH, "width": 8, "queries": 6000, "batch": 50, "generator_lr": 3e-3,
                                    "steps": 1})  # fmt: skip
        copy = attack.derive(restrict(plain, Access.PROBABILITIES)).module
        with torch.no_grad():
            apart = distance(copy(torch.from_numpy(seen["x"])), torch.from_numpy(seen["y"]))
        return float(apart[:500].mean()), float(apart[-500:].mean())

    before, estimated = found()
    monkeypatch.setattr(datafree, "estimated_slope", owners(plain))
    _, exact = found()
    assert before * 1.1 < estimated <= exact


def test_a_copy_trained_by_the_exact_gradient_is_no_worse(plain, parts, monkeypatch):
    def gap(seed):
        """How far the copy is from the victim on inputs that neither made."""
        attack = build("datafree", {**ZEROTH, "width": 8, "queries": 3000, "batch": 50, "steps": 5, "epochs": 3,
                                    "generator_lr": 3e-3})  # fmt: skip
        stolen = attack.derive(restrict(plain, Access.PROBABILITIES), seed=seed)
        x = torch.from_numpy(parts["held out"].inputs)
        with torch.no_grad():
            return float(distance(stolen.module(x), plain.module()(x).softmax(dim=1)).mean())

    estimated = [gap(seed) for seed in range(3)]
    monkeypatch.setattr(datafree, "estimated_slope", owners(plain))
    exact = [gap(seed) for seed in range(3)]
    assert np.mean(exact) <= np.mean(estimated)


# What the thief pays


@pytest.mark.parametrize(("batch", "directions", "steps"), [(256, 1, 5), (8, 3, 2)])
def test_a_zeroth_order_round_costs_what_the_card_says(plain, batch, directions, steps):
    session, seen = Session(plain, Access.PROBABILITIES), []
    cost = batch * (directions + 1 + steps)
    attack = build("datafree", {**ZEROTH, "batch": batch, "directions": directions, "steps": steps,
                                "queries": 2 * cost})  # fmt: skip
    stolen = attack.derive(view(session, Access.PROBABILITIES), progress=lambda *step: seen.append(step))
    assert (cost == 1792) == (batch == 256)
    assert seen == [(cost, 2 * cost), (2 * cost, 2 * cost)]
    assert session.asked == stolen.effort.queries == 2 * cost
    assert session.from_journal == 0


def test_a_round_of_disagreement_costs_its_batch_and_the_last_one_less(plain):
    session, seen = Session(plain, Access.LABELS), []
    attack = build("datafree", {**SMALL, "answers": "labels", "batch": 40, "queries": 100})
    attack.derive(view(session, Access.LABELS), progress=lambda *step: seen.append(step))
    assert seen == [(40, 100), (80, 100)]
    assert session.asked == 100


@pytest.mark.parametrize("estimate", ["disagreement", "zeroth-order"])
def test_a_spent_budget_ends_the_questions_and_not_the_attack(plain, estimate):
    attack = build("datafree", {**SMALL, "estimate": estimate, "batch": 20, "queries": 500})
    session = Session(plain, Access.PROBABILITIES, budget=207)
    stolen = attack.derive(view(session, Access.PROBABILITIES))
    assert stolen.effort.queries == session.asked == 207
    (note,) = stolen.notes
    assert note.startswith("207 of 500 queries were answered: the budget of 207 queries")
    assert attack.derive(restrict(plain, Access.PROBABILITIES, budget=500)).notes == ()


def test_a_budget_that_was_spent_before_is_an_error(plain, parts):
    session = Session(plain, Access.PROBABILITIES, budget=10)
    view(session, Access.PROBABILITIES).labels(parts["held out"].inputs[:10])
    with pytest.raises(BudgetError, match="the budget of 10 queries"):
        build("datafree", SMALL).derive(view(session, Access.PROBABILITIES))


def test_what_is_asked_lies_on_the_grid():
    asked = []

    def answer(x):
        asked.append(x.copy())
        return np.argmax(x.reshape(len(x), -1)[:, :3], axis=1)

    model = CallableModel(answer, domain=BYTES, outputs="labels", classes=3, name="grid")
    build("datafree", {**SMALL, "answers": "labels"}).derive(restrict(model, Access.LABELS))
    everything = np.concatenate(asked)
    assert len(everything) == 200
    assert np.array_equal(everything, BYTES.deliver(everything))
    assert len(np.unique(everything)) > 200


# What the generator makes


@pytest.mark.parametrize(
    "domain",
    [
        Domain(kind="image", shape=(3, 9, 14), bounds=(-1.0, 1.0)),
        Domain(kind="image", shape=(1, 3, 2), bounds=(0.0, 255.0)),
        Domain(kind="image", shape=(6, 6), bounds=(0.0, 1.0)),
        Domain(kind="tabular", shape=(7,), bounds=(2.0, 5.0)),
    ],
    ids=lambda domain: domain.text,
)
def test_raw_numbers_are_standard_and_inputs_lie_between_the_bounds(domain):
    noise = torch.randn((64, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw, again, other = (generator(domain, latent=5, width=4, seed=seed)(noise) for seed in (1, 1, 2))
    assert raw.shape == (64, *domain.shape)
    assert torch.equal(raw, again)
    assert not torch.equal(raw, other)
    channels = raw.movedim(1, 0).flatten(1) if domain.kind == "image" and len(domain.shape) == 3 else raw.flatten(1).T
    assert channels.mean(dim=1).abs().max() < 1e-4
    assert (channels.var(dim=1, correction=0) - 1).abs().max() < 1e-2
    made, (low, high) = inputs(raw, domain), domain.bounds
    assert low <= made.min() < made.max() <= high
    assert torch.equal(inputs(torch.zeros(1), domain), torch.tensor([(low + high) / 2]))


def test_the_generator_is_trained_for_disagreement_and_for_all_classes(plain, monkeypatch):
    raws, gains, copies = [], [], []
    own_raw, own_train = datafree.Rounds._raw, datafree.Rounds._train

    def raw(rounds):
        raws.append(own_raw(rounds))
        return raws[-1]

    def train(rounds, gain):
        x = inputs(raws[-1], PIXELS).detach()
        with torch.no_grad():
            copies.append([copy(x).softmax(dim=1).numpy().astype(np.float64) for copy in rounds.copies])
        # Else the statistics of a batch norm would be those of what the generator makes.
        assert not any(copy.training for copy in rounds.copies)
        gains.append(gain.item())
        own_train(rounds, gain)

    monkeypatch.setattr(datafree.Rounds, "_raw", raw)
    monkeypatch.setattr(datafree.Rounds, "_train", train)
    build("datafree", {**SMALL, "diversity": 0.7}).derive(restrict(plain, Access.PROBABILITIES))
    assert len(gains) == 200 // 20 - 1
    for gain, (one, other) in zip(gains, copies, strict=True):
        shares = ((one + other) / 2).mean(axis=0)
        apart = np.mean([sum(abs(a - b) for a, b in zip(p, q, strict=True)) for p, q in zip(one, other, strict=True)])
        assert gain == pytest.approx(apart - 0.7 * sum(share * math.log(share) for share in shares), rel=1e-4)


def test_the_generator_climbs_what_it_is_trained_for(plain, monkeypatch):
    # The copies stay as they are, so what grows is the generator's own work.
    gains, own = [], datafree.Rounds._train
    monkeypatch.setattr(datafree.Rounds, "_teach", lambda *_: None)
    monkeypatch.setattr(datafree.Rounds, "_train", lambda rounds, gain: (gains.append(gain.item()), own(rounds, gain)))
    build("datafree", {**SMALL, "queries": 2000, "diversity": 0.0}).derive(restrict(plain, Access.PROBABILITIES))
    assert len(gains) == 99
    assert np.mean(gains[-10:]) > gains[0] * 1.3


# What the copy learns


def test_the_distance_is_its_formula():
    source = torch.Generator().manual_seed(0)
    logits, other = (torch.randn((6, 4), generator=source, dtype=torch.float64) for _ in range(2))
    p = other.softmax(dim=1)
    found = distance(logits, p)
    for row in range(6):
        hidden = [math.log(p[row, k]) - sum(math.log(p[row, j]) for j in range(4)) / 4 for k in range(4)]
        assert float(found[row]) == pytest.approx(sum(abs(hidden[k] - float(logits[row, k])) for k in range(4)) / 4)


def test_the_cross_entropy_spreads_a_tenth_of_a_label_and_nothing_of_probabilities():
    source = torch.Generator().manual_seed(0)
    logits, other = (torch.randn((6, 4), generator=source, dtype=torch.float64) for _ in range(2))
    labels, logs, p = torch.tensor([0, 3, 1, 1, 2, 0]), logits.log_softmax(dim=1), other.softmax(dim=1)
    hard, soft = surprise(logits, labels), surprise(logits, p)
    for row in range(6):
        spread = -0.9 * logs[row, labels[row]] - 0.1 / 4 * logs[row].sum()
        assert float(hard[row]) == pytest.approx(float(spread))
        assert float(soft[row]) == pytest.approx(-sum(float(p[row, k] * logs[row, k]) for k in range(4)))


@pytest.mark.parametrize("answers", ["probabilities", "labels"])
def test_a_copy_is_learnt_without_data(plain, parts, answers):
    attack = build("datafree", {"answers": answers, "width": 8, "queries": 3000, "batch": 50})
    stolen = attack.derive(restrict(plain, attack.needs))
    assert agreement(stolen, plain, parts["held out"]) > 0.4
    assert stolen.arguments == {"shape": [1, 8, 8], "classes": 10, "width": 8}
    assert stolen.lineage.data is None


@pytest.mark.parametrize("blur", [{"decimals": 1}, {"top_k": 1}])
def test_cut_and_rounded_probabilities_are_learnt_from(plain, parts, blur):
    attack = build("datafree", {"width": 8, "queries": 3000, "batch": 50})
    stolen = attack.derive(restrict(plain, Access.PROBABILITIES, **blur))
    assert agreement(stolen, plain, parts["held out"]) > 0.4


def test_a_table_is_copied_into_another_architecture():
    weights = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    domain = Domain(kind="tabular", shape=(6,), bounds=(-2.0, 2.0))
    model = CallableModel(lambda x: x @ weights, domain=domain, outputs="logits", classes=3, name="linear table")
    attack = build("datafree", {"architecture": "mlp", "queries": 2000, "epochs": 5})
    stolen = attack.derive(restrict(model, Access.PROBABILITIES))
    x = np.random.default_rng(1).uniform(-2, 2, (500, 6)).astype(np.float32)
    with torch.no_grad():
        theirs = stolen.module(torch.from_numpy(x)).argmax(1).numpy()
    assert (theirs == (x @ weights).argmax(1)).mean() > 0.9
    assert stolen.lineage.architecture == "mlp"


def test_data_are_taken_without_being_looked_at(plain, parts):
    with_data, without = (build("datafree", SMALL).derive(restrict(plain, Access.PROBABILITIES), data)
                          for data in (parts["thief"], None))  # fmt: skip
    ours, theirs = (stolen.module.state_dict() for stolen in (with_data, without))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert with_data.lineage.data is None


# What is refused


def test_labels_have_no_differences():
    with pytest.raises(ParameterError, match="zeroth-order takes differences of probabilities, and labels have none"):
        build("datafree", {"estimate": "zeroth-order", "answers": "labels"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"estimate": "first-order"}, "estimate must be 'disagreement' or 'zeroth-order'; got 'first-order'"),
        ({"answers": "logits"}, "answers must be 'probabilities' or 'labels'; got 'logits'"),
        ({"batch": 1}, "batch must lie in"),
        ({"queries": 0}, "queries must lie in"),
        ({"steps": 0}, "steps must lie in"),
        ({"latent": 0}, "latent must lie in"),
        ({"directions": 0}, "directions must lie in"),
        ({"contrast": 0}, "contrast must lie in"),
        ({"step": 0.0}, "step must lie in"),
        ({"diversity": -1}, "diversity must lie in"),
        ({"width": -1}, "width must lie in"),
        ({"epochs": 0}, "epochs must lie in"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("datafree", wrong)


def test_probabilities_are_not_to_be_had_from_labels(plain):
    with pytest.raises(AccessError, match=r"datafree needs PROBABILITIES of the victim; LabelView"):
        build("datafree", SMALL).derive(restrict(plain, Access.LABELS))


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        (Domain(kind="tabular", shape=(3,)), r"tabular \(3,\) float32 without bounds"),
        (Domain(kind="tokens", shape=(3,), dtype="int64", bounds=(0, 9)), "tokens"),
        (Domain(kind="image", shape=(1, 4, 4), dtype="uint8", bounds=(0, 255)), "image .* uint8"),
    ],
)
def test_inputs_that_cannot_be_made_without_having_seen_some_are_refused(domain, words):
    model = CallableModel(lambda x: np.zeros(len(x), int), domain=domain, outputs="labels", classes=3, name="strange")
    with pytest.raises(ParameterError, match=rf"real numbers between bounds; strange takes {words}"):
        build("datafree", {**SMALL, "answers": "labels"}).derive(restrict(model, Access.LABELS))


def test_training_that_diverges_is_told(plain):
    with pytest.raises(ParameterError, match="training diverged: the loss is not finite; lower lr"):
        build("datafree", {**SMALL, "lr": 1e30}).derive(restrict(plain, Access.PROBABILITIES))


def test_a_victim_of_unknown_classes_is_refused():
    model = CallableModel(lambda x: np.zeros(len(x), int), domain=PIXELS, outputs="labels", name="mute")
    with pytest.raises(
        ParameterError, match="datafree needs a victim of two classes or more; mute does not say how many it has"
    ):
        build("datafree", {**SMALL, "answers": "labels"}).derive(restrict(model, Access.LABELS))


# On the command line


@pytest.mark.parametrize("ending", ["", ".pt2", ".onnx"])
def test_derive_needs_no_data(plain, tmp_path, ending, capsys):
    folder.save(tmp_path / "victim", student(0), architecture="cnn", arguments=ARGUMENTS, domain=BYTES)
    out = tmp_path / f"copy{ending}"
    words = ["derive", str(tmp_path / "victim"), "--attack", "datafree", "-o", str(out), "--budget", "90",
             "--param", "width=4", "queries=100", "epochs=1", "batch=20"]  # fmt: skip
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "datafree, 90 queries, 1 epochs" in printed
    assert "note: 90 of 100 queries were answered: the budget of 90 queries" in printed
    copy = load(str(out), trust=True)
    assert copy.lineage.derived_by == "datafree"
    assert copy.lineage.parent == load(str(tmp_path / "victim")).digest
