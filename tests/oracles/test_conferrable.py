"""Conferrable examples against the oracles of their card, and against their loss in plain loops."""

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
from locard.queries import Population
from locard.queries._ensemble import ensemble
from locard.queries.conferrable import Conferrable, _kept, conferrability
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.schemes.conferrable import ConferrableExamples
from locard.testing import toy_data, toy_domain, toy_model

SCHEME = ConferrableExamples()
NEAR, FAR = (0.02, 0.05, 0.1), range(50, 58)


def owned(model):
    return view(Session(model, model.grants), Access.MODULE)


def toy(seed=0, noise=0.0):
    return toy_model(seed, noise=noise, gradients=True)


@pytest.fixture(scope="module")
def population():
    return Population(
        derived=tuple(owned(toy(noise=noise)) for noise in NEAR), independent=tuple(owned(toy(seed)) for seed in FAR)
    )


@pytest.fixture(scope="module")
def fp(population):
    # Without labels: the toy labels are another network's, so the victim rarely has them right.
    return engine.extract(toy(), scheme="conferrable", data=replace(toy_data(), labels=None), population=population)


def rate(fp, model):
    return SCHEME.similarity(fp, engine.respond(fp, model))


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def logits_of(probabilities):
    return torch.tensor(np.log(np.maximum(probabilities, 1e-300)))


@given(p=st.floats(1e-6, 1 - 1e-6), members=st.integers(1, 5))
def test_where_references_are_the_surrogates_it_is_p_times_one_less_p(p, members):
    same = logits_of(np.tile([p, 1 - p], (members, 3, 1)))
    confers = conferrability(same, same).exp().numpy()
    assert confers == pytest.approx(np.full((3, 2), p * (1 - p)))
    assert confers.max() <= 0.25 + 1e-12


def test_it_is_one_where_all_surrogates_say_a_class_and_no_reference_does():
    sure = torch.full((4, 1, 3), -200.0, dtype=torch.float64)
    surrogates, references = sure.clone(), sure.clone()
    surrogates[:, :, 2], references[:, :, 0] = 200, 200
    assert conferrability(surrogates, references).exp().numpy()[0] == pytest.approx([0, 0, 1])


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 6))
def test_the_loss_is_the_one_written_down(seed, classes):
    source = np.random.default_rng(seed)
    f, s, r, f0 = (
        source.normal(0, 3, shape) for shape in ((4, classes), (3, 4, classes), (2, 4, classes), (4, classes))
    )
    sampler = Conferrable(alpha=0.7, beta=0.3, gamma=1.3)
    victim, surrogates, references, at_x0 = map(torch.from_numpy, (f, s, r, np.log(softmax(f0))))
    found = sampler.loss(victim, surrogates, references, at_x0).numpy()
    said, first, mean_s, mean_r = softmax(f), softmax(f0), softmax(s).mean(axis=0), softmax(r).mean(axis=0)
    for row in range(4):
        y = max((c for c in range(classes) if c != f0[row].argmax()), key=lambda c: f[row, c])
        e = mean_s[row, y] * (1 - mean_r[row, y])
        away = -sum(first[row, c] * np.log(max(said[row, c], 1e-7)) for c in range(classes))
        alike = -sum(said[row, c] * np.log(mean_s[row, c]) for c in range(classes))
        assert found[row] == pytest.approx(-0.7 * np.log(e) - 0.3 * away + 1.3 * alike)


def tiny(seed):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(6, 12, generator=generator, dtype=torch.float64) / 3
    second = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    return lambda x: torch.tanh(x @ first) @ second


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_its_gradient_is_that_of_finite_differences(weights):
    sampler = Conferrable(alpha=weights[0], beta=weights[1], gamma=weights[2])
    victim, surrogates, references = tiny(0), [tiny(seed) for seed in (1, 2)], [tiny(seed) for seed in (3, 4, 5)]
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    first = victim(x + 0.1).log_softmax(dim=1)

    def loss(x):
        return sampler.loss(
            victim(x), torch.stack([s(x) for s in surrogates]), torch.stack([r(x) for r in references]), first
        )

    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(at).sum(), at)
    for column in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[column] = 1e-6
        assert gradient[:, column].numpy() == pytest.approx(
            ((loss(x + step) - loss(x - step)) / 2e-6).numpy(), abs=1e-6
        )
    assert (gradient.norm(dim=1) > 1e-6).all()


def test_the_first_term_has_a_gradient_where_references_are_sure_of_the_class():
    logits = torch.zeros(2, 1, 3)
    logits[:, :, 1] = 40.0
    references = logits.clone().requires_grad_()
    assert (references.softmax(dim=2)[:, :, 1] == 1).all()
    log_e = conferrability(torch.zeros(2, 1, 3), references)[0, 1]
    (gradient,) = torch.autograd.grad(log_e, references)
    assert log_e.item() == pytest.approx(np.log(1 / 3) + np.log(2) - 40, rel=1e-6)
    assert gradient[:, 0, 1].numpy() == pytest.approx([-0.5, -0.5], abs=1e-5)


def test_the_victim_matches_every_point_and_references_hardly_any(fp, population):
    assert rate(fp, toy()) == 1
    assert len(fp.queries["inputs"]) == 100
    of_the_pool = [rate(fp, toy(seed)) for seed in FAR]
    assert np.mean(of_the_pool) <= 1 - SCHEME.score + 0.05
    held_out = [rate(fp, toy(seed)) for seed in range(100, 130)]
    derived = [rate(fp, toy(noise=noise)) for noise in (0.03, 0.06, 0.08)]
    assert min(derived) > max(held_out)
    # Chosen against the pool, they say a little more of it than of others; those match one point in so many classes.
    assert np.mean(of_the_pool) < np.mean(held_out) < 0.4


def test_every_point_is_judged_as_delivered(fp, population):
    x = fp.queries["inputs"]
    assert np.array_equal(toy_domain().deliver(x), x)
    s, r = (
        np.mean([softmax(one.logits(x).astype(np.float64)) for one in group], axis=0)
        for group in (population.derived, population.independent)
    )
    y, rows = fp.record["labels"], np.arange(len(x))
    e = s[rows, y] * (1 - r[rows, y])
    assert fp.queries["score"] == pytest.approx(e, abs=1e-5)
    assert (e >= SCHEME.score - 1e-5).all()


def test_every_point_is_an_adversarial_example_within_the_radius(fp):
    seeds = toy_data().inputs
    x = fp.queries["inputs"]
    far = np.abs(seeds[None] - x[:, None]).reshape(len(x), len(seeds), -1).max(axis=2)
    own = restrict(toy(), Access.LABELS).labels(seeds)
    assert (far.min(axis=1) <= SCHEME.radius + 0.5 / 255 + 1e-6).all()
    assert (own[far.argmin(axis=1)] != fp.record["labels"]).all()


def test_with_labels_only_inputs_the_victim_has_right_are_moved(population):
    fp = engine.extract(toy(), scheme="conferrable", data=toy_data(), population=population, queries=20)
    far = np.abs(toy_data().inputs[None] - fp.queries["inputs"][:, None]).reshape(20, len(toy_data()), -1).max(axis=2)
    seeds = far.argmin(axis=1)
    assert np.array_equal(restrict(toy(), Access.LABELS).labels(toy_data().inputs[seeds]), toy_data().labels[seeds])


def test_dropout_leaves_one_of_each_kind():
    kinds, source = np.repeat([0, 1, 2], [1, 3, 4]), np.random.default_rng(0)
    kept = np.array([_kept(kinds, source, 0.3) for _ in range(4000)])
    assert kept[:, 0].all()
    assert kept[:, 1:4].any(axis=1).all()
    # Of three, all would be left out once in 37 times; then the one with the largest draw stays.
    assert kept[:, 1:4].mean() == pytest.approx(0.7 + 0.3**3 / 3, abs=0.015)
    assert _kept(kinds, source, 0.0).all()


def test_tables_move_in_units_of_their_columns_and_need_no_bounds():
    source = np.random.default_rng(3)
    domain = Domain(kind="tabular", shape=(12,))

    def linear(weight):
        layer = torch.nn.Linear(12, 3, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.astype(np.float32)))
        return TorchModel(layer, domain=domain)

    scale = 10.0 ** source.integers(-2, 3, 12)
    own = source.normal(size=(3, 12)) / scale
    data = Data(
        inputs=(source.normal(size=(200, 12)) * scale).astype(np.float32), labels=None, domain=domain, name="table"
    )
    near = tuple(owned(linear(own + 0.02 * source.normal(size=(3, 12)) / scale)) for _ in range(2))
    others = tuple(owned(linear(source.normal(size=(3, 12)) / scale)) for _ in range(3))
    params = {"radius": 0.5, "score": 0.5, "lr": 0.02}
    fp = engine.extract(linear(own), scheme="conferrable", data=data, queries=10, params=params,
                        population=Population(derived=near, independent=others))  # fmt: skip
    far = np.abs(data.inputs[None] - fp.queries["inputs"][:, None]) / data.inputs.std(axis=0)
    assert far.max(axis=2).min(axis=1).max() <= 0.5 + 1e-4
    assert rate(fp, linear(own)) == 1


class Crooked(torch.nn.Module):
    """Trains, asks for gradients of some weights, works in place, and reads memory as it lies."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 3, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(3)
        self.dense = torch.nn.Linear(3 * 64, 5)
        self.dense.bias.requires_grad_(False)

    def forward(self, x):
        x.sub_(0.5)
        return self.dense(torch.relu_(self.norm(self.conv(x))).view(len(x), -1))


def test_an_ensemble_answers_as_its_members_do_and_leaves_them_as_they_were():
    crooked = TorchModel(Crooked().train(), domain=toy_domain())
    normalised = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5)), domain=toy_domain(),
                            mean=(0.5,), std=(0.2,))  # fmt: skip
    models = [owned(crooked), owned(normalised), owned(toy())]
    x = toy_data(7).inputs
    before = crooked.weights()["norm.running_mean"].copy()
    with ensemble(models, like=models[2], what="tests") as together:
        assert len(together) == 3
        at = torch.from_numpy(x).requires_grad_()
        answers = together.logits(at, np.array([True, False, True]))
        (gradient,) = torch.autograd.grad(answers[1:].sum(), at)
        assert not any(parameter.requires_grad for parameter in crooked.module().parameters())
    assert answers.shape == (3, 7, 5)
    for model, logits in zip(models, answers.detach().numpy(), strict=True):
        assert logits == pytest.approx(model.logits(x), abs=1e-5)
    # The second was not to be followed.
    _, alone = models[2].input_gradient(x, lambda logits: logits.sum(dim=1))
    assert gradient.numpy() == pytest.approx(alone, abs=1e-5)
    flags = {name: parameter.requires_grad for name, parameter in crooked.module().named_parameters()}
    assert flags == {name: name != "dense.bias" for name in flags}
    assert crooked.module().training
    assert crooked.module().get_submodule("norm").training
    assert np.array_equal(crooked.weights()["norm.running_mean"], before)
    assert np.array_equal(at.detach().numpy(), x)


class Deaf(torch.nn.Module):
    """Gives no gradient by its inputs."""

    def forward(self, x):
        return x.detach().flatten(1)[:, :5]


def refused(error, match, population, *, victim=None, data=None, queries=None, **params):
    with pytest.raises(error, match=match):
        engine.extract(victim or toy(), scheme="conferrable", data=data or replace(toy_data(), labels=None),
                       population=population, queries=queries, params=params)  # fmt: skip


def test_a_population_that_does_not_fit_is_named(population):
    refused(ParameterError, "give a population", None)
    refused(ParameterError, "2 derived and 2 independent models or more; 3 and 1 were given",
            replace(population, independent=population.independent[:1]))  # fmt: skip
    blind = restrict(toy_model(50), Access.LOGITS)
    refused(AccessError, "conferrable examples need MODULE of every model of the population; toy-50 gives less",
            replace(population, independent=(*population.independent, blind)))  # fmt: skip

    def with_stranger(module, domain=None):
        stranger = owned(TorchModel(module, domain=domain or toy_domain(), source="a stranger"))
        return replace(population, derived=(*population.derived, stranger))

    flat = torch.nn.Flatten()
    refused(ParameterError, "the victim's 5 classes; a stranger has 3: leave it out",
            with_stranger(torch.nn.Sequential(flat, torch.nn.Linear(64, 3))))  # fmt: skip
    wide = replace(toy_domain(), shape=(1, 9, 9))
    refused(ParameterError, r"takes the victim's inputs, image \(1, 8, 8\).*; a stranger takes image \(1, 9, 9\)",
            with_stranger(torch.nn.Sequential(flat, torch.nn.Linear(81, 5)), wide))  # fmt: skip
    other = replace(toy_domain(), bounds=(-1.0, 1.0))
    refused(ParameterError, r"a stranger takes .* in \[-1, 1\]",
            with_stranger(torch.nn.Sequential(flat, torch.nn.Linear(64, 5)), other))  # fmt: skip
    refused(ParameterError, "a stranger gives no gradient by its inputs: leave it out", with_stranger(Deaf()))


def test_what_cannot_be_found_is_said(population):
    refused(ParameterError, r"100 conferrable examples are needed; \d+ of \d+ inputs of toy data that .* classifies "
            r"rightly gave one: set a lower score \(0.85\)", population, queries=100, radius=1e-3)  # fmt: skip
    text = Data(inputs=np.array(["a", "b"], object), labels=None, name="texts",
                domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="conferrable examples need inputs that can be moved by a gradient"):
        Conferrable().draw(owned(toy()), text, n=2, default=2, seed=0, population=population)
    single = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1)), domain=toy_domain())
    refused(ParameterError, "cross into another class, and .* does not have two", population, victim=single)


@pytest.mark.parametrize(
    ("name", "value"),
    [("radius", 0.0), ("score", 1.0), ("alpha", -1.0), ("beta", -1.0), ("gamma", -1.0), ("dropout", 1.0), ("lr", 0.0),
     ("steps", 0)],
)  # fmt: skip
def test_ranges_are_checked(name, value):
    with pytest.raises(ParameterError, match=f"{name} must lie in"):
        build("conferrable", {name: value})
