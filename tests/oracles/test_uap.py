"""UAP's perturbation, views, encoder and score against what they are said to be, computed again from scratch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import AccessError, ArtefactError, ParameterError
from locard.fingerprint import Fingerprint
from locard.models import Session, restrict, view
from locard.models.torch_module import TorchModel
from locard.queries import Population
from locard.queries.universal import (
    Universal,
    contrast,
    embed,
    encoder_of,
    parallel,
    perturbation,
    profiles_of,
)
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.seeds import derive, generator
from locard.testing import toy_data, toy_domain, toy_model

SCHEME = build("uap")
POINTS, VIEWS = 10, 4


def toy(seed=0, noise=0.0):
    return toy_model(seed, gradients=True, noise=noise)


@pytest.fixture(scope="module")
def population():
    return Population(
        derived=tuple(restrict(toy(noise=noise), Access.PROBABILITIES) for noise in (0.02, 0.05, 0.1, 0.15)),
        independent=tuple(restrict(toy(seed), Access.PROBABILITIES) for seed in range(50, 58)),
    )


def extract(population, *, queries: int | None = 2 * POINTS * VIEWS, data=None, victim=None, **params):
    return engine.extract(victim or toy(), scheme="uap", data=data or toy_data(), population=population,
                          queries=queries, params=params)  # fmt: skip


@pytest.fixture(scope="module")
def fp(population):
    return extract(population)


def test_the_perturbation_is_small_and_fools(fp):
    """Oracle 1: in the box, and the fooling rate counted again."""
    v, victim, domain = fp.queries["perturbation"], toy(), toy_domain()
    assert v.shape == domain.shape
    assert np.abs(v).max() <= np.float32(0.4)
    rows = generator(derive(0, "sampler"), "universal/seeds").permutation(400)[:300]
    ask, fooled = restrict(victim, Access.LABELS), 0
    for x in toy_data().inputs[rows]:
        moved = np.rint(np.clip(x + v, 0, 1) * 255) / 255
        fooled += ask.labels(x[None])[0] != ask.labels(moved[None].astype(np.float32))[0]
    assert fooled / 300 >= 0.75


def test_the_queries_are_points_and_points_moved_by_it(fp):
    x = fp.queries["inputs"]
    first, second = fp.queries["pairs"].T
    assert np.array_equal(np.sort(fp.queries["pairs"].ravel()), np.arange(len(x)))
    assert np.array_equal(x[second], toy_domain().deliver(x[first] + fp.queries["perturbation"]))
    assert len(np.unique(x[first], axis=0)) == POINTS * VIEWS
    assert np.isin(x[first].reshape(-1, 64) @ np.arange(64), toy_data().inputs.reshape(-1, 64) @ np.arange(64)).all()
    assert np.array_equal(fp.queries["views"], np.repeat(np.arange(VIEWS), POINTS))


def test_without_a_perturbation_both_halves_are_equal(fp):
    """Oracle 2."""
    x, still = fp.queries["inputs"].copy(), np.zeros(toy_domain().shape, np.float32)
    first, second = fp.queries["pairs"].T
    x[second] = toy_domain().deliver(x[first] + still)
    profiles = profiles_of(fp.queries, restrict(toy(), Access.PROBABILITIES).probabilities(x))
    halves = profiles.reshape(VIEWS, POINTS, 2, 5)
    assert np.array_equal(halves[:, :, 0], halves[:, :, 1])
    moved = profiles_of(fp.queries, fp.record["probabilities"]).reshape(VIEWS, POINTS, 2, 5)
    assert np.abs(moved[:, :, 0] - moved[:, :, 1]).max() > 0.5


def test_the_model_itself_and_a_symmetric_copy_score_1(fp):
    """Oracle 3: the copy's hidden units stand in another order, and half as large, with twice the weight."""
    assert SCHEME.similarity(fp, engine.respond(fp, toy())) == pytest.approx(1, abs=1e-12)
    module = view(Session(toy(), toy().grants), Access.MODULE).module()
    linear = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    order = torch.from_numpy(np.random.default_rng(0).permutation(linear[0].out_features))
    with torch.no_grad():
        linear[0].weight.copy_(linear[0].weight[order] / 2)
        linear[0].bias.copy_(linear[0].bias[order] / 2)
        linear[1].weight.copy_(linear[1].weight[:, order] * 2)
    copy = engine.respond(fp, TorchModel(module, domain=toy_domain()))
    assert not np.array_equal(copy.record["probabilities"], fp.record["probabilities"])
    assert SCHEME.similarity(fp, copy) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("side", [1, -1])
def test_on_one_side_of_a_plane_it_points_across(side):
    """Oracle 4: of a linear model of two classes v is -side * w, as far as the box allows."""
    source = np.random.default_rng(1)
    w = source.normal(size=12).astype(np.float32)
    module = torch.nn.Linear(12, 2)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.stack([w, -w])))
        module.bias.zero_()
    domain = Domain(kind="tabular", shape=(12,))
    victim = restrict(TorchModel(module, domain=domain), Access.GRADIENTS)
    x = source.normal(size=(200, 12)).astype(np.float32)
    x = x[side * (x @ w) > 0]
    v, fooled = perturbation(victim, x, radius=1e3, share=1.0, rounds=3, domain=domain)
    assert fooled == 1
    assert v @ w / np.linalg.norm(v) / np.linalg.norm(w) == pytest.approx(-side, abs=1e-5)
    boxed, some = perturbation(victim, x, radius=0.1, share=1.0, rounds=3, domain=domain)
    assert np.abs(boxed).max() == np.float32(0.1)
    assert (boxed * w * side <= 0).all()
    assert some == np.mean(side * ((x + boxed) @ w) < 0)


def test_views_take_the_nearest_of_each_cluster():
    source = np.random.default_rng(2)
    centres = source.normal(0, 50, (6, 3))
    outputs = (centres[:, None] + source.normal(size=(6, 9, 3))).reshape(-1, 3)
    rows = parallel(outputs, 6, 9, 0)
    assert np.array_equal(np.sort(rows.ravel()), np.arange(54))
    for column in rows.T:
        (cluster,) = set(column // 9)
        far = np.linalg.norm(outputs[column] - outputs[cluster * 9 : cluster * 9 + 9].mean(axis=0), axis=1)
        assert (np.diff(far) >= 0).all()
    assert sorted(rows[0] // 9) == list(range(6))
    assert np.array_equal(rows, parallel(outputs, 6, 9, 0))


def test_a_cluster_too_small_takes_of_others():
    outputs = np.repeat([[0.0], [100.0]], [2, 10], axis=0)
    rows = parallel(outputs, 3, 4, 0)
    assert np.array_equal(np.sort(rows.ravel()), np.arange(12))


def test_the_loss_is_the_contrast_of_classes_without_self_pairs():
    source = np.random.default_rng(3)
    embeddings, labels = source.normal(size=(7, 4)), [True, True, True, False, False, True, False]
    total = 0.0
    for i in range(7):
        own = every = 0.0
        for j in range(7):
            if j == i:
                continue
            cosine = embeddings[i] @ embeddings[j] / np.linalg.norm(embeddings[i]) / np.linalg.norm(embeddings[j])
            every += np.exp(cosine / 0.2)
            own += np.exp(cosine / 0.2) if labels[i] == labels[j] else 0.0
        total -= np.log(own / every) / 7
    found = contrast(torch.from_numpy(embeddings), torch.tensor(labels), 0.2)
    assert found.item() == pytest.approx(total, rel=1e-9)
    # One alone in its class has no pair, and counts nothing.
    alone = contrast(torch.from_numpy(embeddings[:4]), torch.tensor(labels[:4]), 0.2)
    assert torch.isfinite(alone)


def test_the_victim_is_of_the_class_of_its_copies(fp, population):
    def unit(model):
        profiles = profiles_of(fp.queries, model.probabilities(fp.queries["inputs"]))
        embeddings = embed(profiles, encoder_of(fp.queries, profiles.shape[1]))
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    own = unit(restrict(toy(), Access.PROBABILITIES))
    copies = [(unit(model) * own).sum(axis=1).mean() for model in population.derived]
    strangers = [(unit(model) * own).sum(axis=1).mean() for model in population.independent]
    assert min(copies) > 0.8
    assert max(strangers) < 0.3


def test_the_score_in_plain_loops(fp):
    other = engine.respond(fp, toy(noise=0.4))
    w1, b1, w2, b2 = (fp.queries[name].astype(np.float64)
                      for name in ("hidden_weight", "hidden_bias", "out_weight", "out_bias"))  # fmt: skip

    def embedding(record, number):
        profile = []
        for pair in range(POINTS):
            for row in fp.queries["pairs"][number * POINTS + pair]:
                profile += record.record["probabilities"][row].astype(np.float64).tolist()
        hidden = [max(0.0, sum(p * w for p, w in zip(profile, w1[:, k], strict=True)) + b1[k]) for k in range(len(b1))]
        return [sum(h * w for h, w in zip(hidden, w2[:, k], strict=True)) + b2[k] for k in range(len(b2))]

    total = 0.0
    for number in range(VIEWS):
        a, b = embedding(fp, number), embedding(other, number)
        lengths = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
        total += sum(x * y for x, y in zip(a, b, strict=True)) / lengths
    assert SCHEME.similarity(fp, other) == pytest.approx(total / VIEWS, abs=1e-9)
    assert SCHEME.similarity(fp, other) < 0.9999


def test_copies_score_above_strangers(fp):
    copies = [SCHEME.similarity(fp, engine.respond(fp, toy(noise=noise))) for noise in (0.01, 0.07, 0.12)]
    strangers = [SCHEME.similarity(fp, engine.respond(fp, toy(seed))) for seed in range(1, 30)]
    assert min(copies) > max(strangers)


def test_a_view_that_is_mapped_to_nothing_counts_as_0(fp):
    blank = {**fp.queries, "out_bias": np.zeros(20, np.float32), "hidden_bias": np.full(50, -1e9, np.float32)}
    with pytest.raises(ArtefactError, match="maps the victim's own answers to 0"):
        SCHEME.similarity(replace(fp, queries=blank), fp)
    # The first hidden unit sees one probability, and nothing else is seen.
    weight = np.zeros_like(fp.queries["hidden_weight"])
    weight[:, 0] = 1
    silent = replace(fp, record={"probabilities": np.zeros_like(fp.record["probabilities"])})
    seen = replace(fp, queries={**blank, "hidden_weight": weight, "hidden_bias": np.zeros(50, np.float32)})
    assert SCHEME.similarity(seen, silent) == 0


def test_a_file_keeps_all(fp, tmp_path):
    again = Fingerprint.load(fp.save(tmp_path / "fp.locard"))
    assert again.to_bytes() == fp.to_bytes()
    assert SCHEME.similarity(again, engine.respond(again, toy(7))) == SCHEME.similarity(fp, engine.respond(fp, toy(7)))


def test_by_default_it_asks_what_the_data_allow(population):
    assert len(extract(population, queries=None).queries["inputs"]) == 400
    few = toy_data()
    few = replace(few, inputs=few.inputs[:30], labels=None)
    assert len(extract(population, queries=None, data=few, delta=0.3).queries["inputs"]) == 2 * 4 * 7


def test_what_cannot_be_is_refused(population):
    with pytest.raises(ParameterError, match="4 views of pairs need a multiple of 8 --queries; got 12"):
        extract(population, queries=12)
    with pytest.raises(ParameterError, match="4 views of 200 inputs are needed, toy data holds 400: give more data"):
        extract(population, queries=1600)
    with pytest.raises(
        ParameterError, match=r"must fool .* on 75% of 300 inputs; \d+% were reached within a radius of 0.02: set"
    ):
        extract(population, radius=0.02)
    with pytest.raises(ParameterError, match="need a population of 2 derived and 2 independent models or more"):
        extract(replace(population, derived=population.derived[:1]))
    blind = restrict(toy(9), Access.LABELS)
    with pytest.raises(AccessError, match=r"need PROBABILITIES of every model; .* gives less"):
        extract(replace(population, independent=(*population.independent, blind)))
    with pytest.raises(ParameterError, match=r"two classes or more; .* has 5, it 3: leave it out"):
        extract(replace(population, derived=(*population.derived, restrict(three(), Access.PROBABILITIES))))
    text = Data(inputs=np.array(["a", "b"], object), labels=None, name="texts",
                domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="need inputs that can be moved by a gradient"):
        Universal().draw(restrict(toy(), Access.GRADIENTS), text, n=8, default=8, seed=0, population=population)


def three():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    return TorchModel(module, domain=toy_domain(), source="it")


def test_a_suspect_of_other_classes_is_refused(fp):
    with pytest.raises(ParameterError, match="uap's encoder reads 5 classes, it has 3: use a scheme"):
        engine.respond(fp, three())


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("hidden_weight", lambda a: a[:-1], r"hidden_weight must be finite .* \(100, 50\); got float32 \(99, 50\)"),
        ("hidden_weight", lambda a: a.astype(np.int64), r"hidden_weight must be finite .*; got int64 \(100, 50\)"),
        ("hidden_bias", lambda a: a * np.nan, r"hidden_bias must be finite floating-point numbers \(50,\)"),
        ("hidden_bias", lambda a: a[:0], r"hidden_weight must be finite .* \(100, 0\)"),
        ("out_weight", lambda a: a[None], r"out_weight must be finite .* \(50, 20\); got float32 \(1, 50, 20\)"),
        ("out_bias", lambda _: None, r"out_weight must be finite .* \(50, 0\)"),
        ("pairs", lambda _: None, r"pairs must be whole numbers in 2 dimension\(s\); got none"),
        ("pairs", lambda a: a.astype(np.float32), "pairs must be whole numbers in 2 .*; got float32"),
        ("pairs", lambda a: a + 1, r"pairs must be two rows of 80 inputs for each of 40 .*; got \(40, 2\), 1 to 80"),
        ("pairs", lambda a: a[:-1], r"pairs must be two rows .*; got \(39, 2\)"),
        ("views", lambda a: a[:, None], r"views must be whole numbers in 1 dimension\(s\); got int64 \(40, 1\)"),
        ("views", lambda a: a + 1, r"views must be numbered from 0 and of one size; got \[1, 2, 3, 4\]"),
        ("views", lambda a: np.minimum(a, 2), r"views must be numbered from 0 and of one size; got \[0, 1, 2\]"),
    ],
)
def test_what_a_stranger_wrote_is_checked(fp, name, change, found):
    queries = {**fp.queries, name: change(fp.queries[name])}
    bent = replace(fp, queries={key: array for key, array in queries.items() if array is not None})
    with pytest.raises(ArtefactError, match=found):
        SCHEME.similarity(bent, fp)


def test_records_must_hold_probabilities(fp):
    for record in ({}, {"probabilities": fp.record["probabilities"][:-1]}, {"logits": fp.record["probabilities"]}):
        with pytest.raises(ArtefactError, match="two records must hold probabilities of one shape"):
            SCHEME.similarity(fp, replace(fp, record=record))


@pytest.mark.parametrize(
    ("name", "value"),
    [("radius", 0.0), ("delta", 1.0), ("delta", -0.1), ("rounds", 0), ("seeds", 0), ("views", 0), ("lessons", 0),
     ("temperature", 0.0), ("lr", 0.0), ("steps", 0)],
)  # fmt: skip
def test_ranges_are_checked(name, value):
    with pytest.raises(ParameterError, match=f"{name} must lie in"):
        build("uap", {name: value})
