"""ModelDiff against the oracles of its card, and against its loss and its score in plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from locard import attacks, engine
from locard.errors import ArtefactError, ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.models.torch_module import TorchModel
from locard.queries.divergent import Divergent, nearness
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.testing import toy_data, toy_domain, toy_model

SCHEME = build("modeldiff")
STRANGERS = range(1, 41)


@pytest.fixture(scope="module")
def victim():
    return toy_model(0, gradients=True)


@pytest.fixture(scope="module")
def fp(victim):
    return engine.extract(victim, scheme="modeldiff", data=toy_data())


@pytest.fixture(scope="module")
def strangers(fp):
    return [score(fp, toy_model(seed)) for seed in STRANGERS]


def score(fp, model):
    return SCHEME.similarity(fp, engine.respond(fp, model))


def answering(answer, outputs="logits", name="another"):
    return CallableModel(answer, domain=toy_domain(), outputs=outputs, name=name)


def logits_of(model):
    view = restrict(model, Access.LOGITS)
    return view.logits


def plain_score(model, fp, answer):
    """Cosine of the two decision distance vectors, in loops."""
    inputs, vectors = fp.queries["inputs"], []
    for z in (logits_of(model)(inputs).tolist(), answer(inputs).tolist()):
        vector = []
        for i, j in fp.queries["pairs"].tolist():
            dot = sum(a * b for a, b in zip(z[i], z[j], strict=True))
            vector.append(1 - dot / math.sqrt(sum(a * a for a in z[i]) * sum(b * b for b in z[j])))
        length = math.sqrt(sum(v * v for v in vector))
        vectors.append([v / length for v in vector])
    return sum(a * b for a, b in zip(*vectors, strict=True))


def test_a_model_scores_one_with_itself(fp, victim):
    assert SCHEME.similarity(fp, fp) == pytest.approx(1, abs=1e-12)
    assert score(fp, victim) == pytest.approx(1, abs=1e-6)
    assert len(fp.queries["inputs"]) == fp.cost == 200
    assert fp.record["distances"].shape == (100,)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_score_is_the_plain_one(fp, victim, seed):
    other = toy_model(seed)
    assert score(fp, other) == pytest.approx(plain_score(victim, fp, logits_of(other)), abs=1e-5)


def test_scale_and_order_of_the_suspects_answers_do_not_count_but_an_offset_does(fp):
    other = logits_of(toy_model(3))
    before = score(fp, toy_model(3))
    assert score(fp, answering(lambda x: 40 * other(x)[:, [3, 1, 4, 0, 2]])) == pytest.approx(before, abs=1e-5)
    assert abs(score(fp, answering(lambda x: other(x) + 5)) - before) > 1e-3


def test_a_model_whose_answers_do_not_move_scores_nothing(fp):
    assert score(fp, answering(lambda x: np.tile(np.arange(1, 4), (len(x), 1)))) == 0
    pairs = fp.queries["pairs"]
    still = replace(fp, queries={**fp.queries, "pairs": np.stack([pairs[:, 0], pairs[:, 0]], axis=1)})
    blank = engine.respond(still, toy_model(0))
    assert not blank.record["distances"].any()
    assert SCHEME.similarity(blank, blank) == 0
    assert SCHEME.similarity(fp, blank) == 0


def test_pruned_and_quantised_copies_rank_above_every_model_of_another_root(fp, victim, strangers):
    handed = restrict(victim, Access.MODULE)
    for name, params in (
        ("prune", {"fraction": 0.2}),
        ("quantise", {"format": "int8"}),
        ("quantise", {"format": "fp16"}),
    ):
        copy = TorchModel(attacks.build(name, params).derive(handed).module, domain=toy_domain())
        assert score(fp, copy) > max(strangers)
    assert score(fp, toy_model(0, noise=0.05)) > max(strangers)


def headed(seed, head, classes):
    """The first layer of a toy model under a new random last layer."""
    first = list(toy_model(seed, gradients=True).module().children())[:3]
    last = torch.nn.Linear(24, classes, bias=False)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(np.random.default_rng(head).normal(size=(classes, 24))))
    return TorchModel(torch.nn.Sequential(*first, last), domain=toy_domain())


@pytest.mark.parametrize("root", [1, 2, 3, 4, 5])
def test_a_new_last_layer_for_new_classes_still_ranks_its_parent_first(root):
    # With classes enough for random heads to keep the angles between features; with few of them it need not hold.
    parent, child = headed(root, root, 60), headed(root, 100 + root, 40)
    fp = engine.extract(parent, scheme="modeldiff", data=replace(toy_data(), labels=None))
    others = [headed(other, other, 60) for other in range(6, 26)] + [
        headed(other, 100 + other, 40) for other in range(6, 26)
    ]
    assert score(fp, child) > max(score(fp, other) for other in others)


def test_suspects_of_other_classes_and_of_values_are_scored(fp, victim):
    own = logits_of(toy_model(0))
    source = np.random.default_rng(1)
    rotation = np.linalg.qr(source.normal(size=(9, 9)))[0][:5].astype(np.float32)
    wider = answering(lambda x: own(x) @ rotation)
    assert score(fp, wider) == pytest.approx(1, abs=1e-4)
    embedding = answering(lambda x: own(x) @ rotation, outputs="values", name="embedding")
    of_values = engine.extract(victim, scheme="modeldiff", data=toy_data(), params={"answers": "values"})
    assert of_values.suspect_access == "VALUES"
    assert of_values.victim_access == "GRADIENTS"
    assert np.array_equal(of_values.record["distances"], fp.record["distances"])
    assert score(of_values, embedding) == pytest.approx(1, abs=1e-4)
    strange = logits_of(toy_model(7))
    regression = answering(lambda x: strange(x)[:, :2], outputs="values")
    assert 0 < score(of_values, regression) < 0.95
    again = engine.calibrate(
        of_values,
        references={
            "disjoint": [
                CallableModel(logits_of(toy_model(seed)), domain=toy_domain(), outputs="values", name=f"value-{seed}")
                for seed in range(100, 119)
            ]
        },
    )
    assert engine.verify(again, embedding).decision == "derived"
    assert engine.verify(again, regression).decision == "no-evidence"


def test_probabilities_serve_where_logits_are_hidden(victim):
    fp = engine.extract(victim, scheme="modeldiff", data=toy_data(), params={"answers": "probabilities"}, queries=60)
    scheme = build(fp.scheme, fp.params)
    own = scheme.similarity(fp, engine.respond(fp, victim))
    assert own == pytest.approx(1, abs=1e-5)
    assert scheme.similarity(fp, engine.respond(fp, toy_model(1))) < 0.95


def test_one_number_is_refused_unasked(victim):
    fp = engine.extract(victim, scheme="modeldiff", data=toy_data(), params={"answers": "values"}, queries=20)
    single = CallableModel(
        lambda x: x.reshape(len(x), -1)[:, :1], domain=toy_domain(), outputs="values", classes=1, name="one"
    )
    with pytest.raises(ParameterError, match="modeldiff compares directions of answers, and one answers one number"):
        engine.respond(fp, single)


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 8))
def test_the_loss_is_the_notebooks(seed, classes):
    source = np.random.default_rng(seed)
    z, t = source.normal(size=(2, 6, classes))
    plain = []
    for row, target in zip(z.tolist(), t.tolist(), strict=True):
        rest = [(a - b) ** 2 for a, b in zip(row[1:], target[1:], strict=True)]
        plain.append(-((row[0] - target[0]) ** 2) - 0.1 * sum(rest) / len(rest))
    assert nearness(torch.from_numpy(z), torch.from_numpy(t)).numpy() == pytest.approx(plain)


def draw(model, data, *, n=None, default=40, seed=0, **params):
    handed = restrict(model, Access.GRADIENTS)
    return Divergent(**params).draw(handed, data, n=n, default=default, seed=seed, population=None)


def test_partners_of_a_linear_model_lie_in_the_corner_that_its_loss_points_to():
    domain = Domain(kind="tabular", shape=(12,))
    source = np.random.default_rng(4)
    layer = torch.nn.Linear(12, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(source.normal(size=(4, 12))))
    data = Data(inputs=source.normal(size=(50, 12)).astype(np.float32), labels=None, domain=domain, name="noise")
    seeds, partners = np.split(draw(TorchModel(layer, domain=domain), data, n=40, eps=0.1).inputs, 2)
    weight, bias = (tensor.detach().numpy().astype(np.float64) for tensor in (layer.weight, layer.bias))
    z = seeds @ weight.T + bias
    gap = 1000 * (z.mean(axis=0) - z) - z
    slope = (gap * np.array([1, *[0.1 / 3] * 3])) @ weight
    radius = 0.1 * data.inputs.std(axis=0)
    # So far away does the target lie that the slope of its loss is the same all over the box.
    expected = seeds + radius * np.sign(slope)
    clear = np.abs(slope) > 0.05 * np.abs(slope).max(axis=1, keepdims=True)
    assert clear.mean() > 0.8
    assert partners[clear] == pytest.approx(expected[clear], abs=1e-5)


def test_partners_stay_in_their_box_on_the_grid_and_turn_answers_more_than_noise_does(fp, victim):
    seeds, partners = np.split(fp.queries["inputs"], 2)
    assert np.array_equal(fp.queries["inputs"], toy_domain().deliver(fp.queries["inputs"]))
    assert 0.01 < np.abs(partners - seeds).max() <= 0.0135 + 0.5 / 255 + 1e-6
    noise = np.sign(np.random.default_rng(0).normal(size=seeds.shape)).astype(np.float32) * 4 / 255
    shaken = {**fp.queries, "inputs": np.concatenate([seeds, toy_domain().deliver(seeds + noise)])}
    assert np.median(fp.record["distances"]) > 5 * np.median(
        engine.respond(replace(fp, queries=shaken), victim).record["distances"]
    )


def test_the_batch_size_of_the_victim_does_not_mix_the_targets_up(fp):
    small = engine.extract(toy_model(0, gradients=True, batch_size=7), scheme="modeldiff", data=toy_data())
    assert np.abs(small.queries["inputs"] - fp.queries["inputs"]).max() <= 2 / 255
    assert (small.queries["inputs"] == fp.queries["inputs"]).mean() > 0.98


def test_a_victim_that_no_partner_moves_is_refused():
    layer = torch.nn.Linear(64, 3)
    torch.nn.init.zeros_(layer.weight)
    model = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), layer), domain=toy_domain(), source="a stone")
    with pytest.raises(ParameterError, match=r"no partner changes the answer of a stone, .* larger eps \(0.0135\)"):
        engine.extract(model, scheme="modeldiff", data=replace(toy_data(), labels=None))


def test_a_victim_of_one_output_is_refused():
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    model = TorchModel(layer, domain=toy_domain(), source="one logit")
    with pytest.raises(ParameterError, match="and one logit has one output: it has none"):
        engine.extract(model, scheme="modeldiff", data=replace(toy_data(), labels=None))


def test_odd_numbers_and_too_few_data_are_refused(victim):
    with pytest.raises(ParameterError, match="divergent queries come in pairs, so --queries must be even; got 7"):
        engine.extract(victim, scheme="modeldiff", data=toy_data(), queries=7)
    with pytest.raises(ParameterError, match="500 seeds are needed, the data hold 400; give more data or ask fewer"):
        engine.extract(victim, scheme="modeldiff", data=toy_data(), queries=1000)


def test_on_a_coarse_grid_partners_move_by_one_step_of_it():
    domain = replace(toy_domain(), quantum=1 / 16)
    data = replace(toy_data(), inputs=domain.deliver(toy_data().inputs), domain=domain, labels=None)
    model = TorchModel(toy_model(0, gradients=True).module(), domain=domain)
    seeds, partners = np.split(draw(model, data, n=40).inputs, 2)
    assert np.abs(partners - seeds).max() == pytest.approx(1 / 16)
    assert (partners != seeds).reshape(20, -1).any(axis=1).all()


def test_words_cannot_diverge(victim):
    texts = Data(inputs=np.array(["a"], dtype=object), labels=None, name="texts",
                 domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="divergent partners need inputs that can be moved by a gradient"):
        draw(victim, texts)


def test_records_of_other_lengths_are_refused(fp):
    with pytest.raises(ArtefactError, match=r"as many decision distances; got float32 \(100,\) and float32 \(99,\)"):
        SCHEME.similarity(fp, replace(fp, record={"distances": fp.record["distances"][1:]}))
    with pytest.raises(ArtefactError, match=r"as many decision distances; got float64 \(0,\) and float64 \(0,\)"):
        SCHEME.similarity(replace(fp, record={}), replace(fp, record={}))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"eps": 0}, r"eps must lie in \(0, inf\)"),
        ({"step": 0}, r"step must lie in \(0, inf\)"),
        ({"steps": 0}, r"steps must lie in \[1, inf\)"),
        ({"answers": "labels"}, "unknown kind of answers 'labels'"),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ParameterError, match=message):
        build("modeldiff", params)
