"""DeepJudge's tests against what they are said to be, and its six metrics a second time, in plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import ArtefactError, ParameterError
from locard.models import restrict
from locard.models.fitting import build as build_module
from locard.models.torch_module import TorchModel
from locard.queries import Queries
from locard.queries.fooling import Fooling
from locard.queries.neurons import Neurons, _turns
from locard.records import Access, Domain
from locard.representations._judged import metrics, scales, vote
from locard.representations.activations import Activations
from locard.schemes import build
from locard.testing import toy_data, toy_model

PARAMS = {"access": "module", "climb": 300}
SCHEME = build("deepjudge", PARAMS)


def view(seed=0, **options):
    return restrict(toy_model(seed, gradients=True, **options), Access.MODULE)


@pytest.fixture(scope="module")
def fp():
    return engine.extract(toy_model(0, gradients=True), scheme="deepjudge", data=toy_data(), queries=41, params=PARAMS)


def test_the_victim_itself_has_metrics_of_0(fp):
    own = engine.respond(fp, toy_model(0, gradients=True, batch_size=7))
    values = metrics(fp.queries, fp.record, own.record)
    assert set(values) == {"robd", "jsd", "nod", "nad", "lod", "lad"}
    assert all(value <= 1e-5 for value in values.values())
    assert set(metrics(fp.queries, fp.record, fp.record).values()) == {0.0}
    assert SCHEME.similarity(fp, fp) == 1
    # Every black-box test fools the victim, as delivered.
    assert len(fp.queries["classes"]) == 20
    assert not np.any(view().labels(fp.queries["inputs"][:20]) == fp.queries["classes"])


def test_outputs_that_disagree_wholly_diverge_by_ln_2():
    queries = {"classes": np.array([2, 2])}
    a, b = np.eye(3, dtype=np.float32)[[0, 1]], np.eye(3, dtype=np.float32)[[1, 0]]
    found = metrics(queries, {"probabilities": a}, {"probabilities": b})
    assert found["jsd"] == pytest.approx(0.6931, abs=5e-5)
    assert found["robd"] == 0
    assert scales(queries, {"probabilities": a}) == {"robd": 1.0, "jsd": pytest.approx(found["jsd"])}


def test_of_a_linear_layer_the_metrics_have_a_closed_form():
    """NOD is |(W_f - W_g)_i x|; a layer scaled by c has LOD |1 - c| ||phi_f|| and LAD 0."""
    source = np.random.default_rng(0)
    w = [source.normal(size=(6, 4)).astype(np.float32) for _ in range(2)]
    x, whose = source.normal(size=(9, 4)).astype(np.float32), source.integers(0, 6, 9)

    def record(weight):
        first = torch.nn.Linear(4, 6, bias=False)
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(weight))
        module = torch.nn.Sequential(first, torch.nn.Linear(6, 3))
        model = restrict(TorchModel(module, domain=Domain(kind="tabular", shape=(4,))), Access.MODULE)
        name = {"activations": model.activations(x, ["0"])["0"]}
        return name | {"probabilities": np.full((2, 3), 1 / 3, np.float32)}

    queries = {"classes": np.zeros(2, np.int64), "neurons": whose}
    f, g, scaled = record(w[0]), record(w[1]), record(2.5 * w[0])
    nod = np.mean([abs((w[0] - w[1])[i] @ row) for i, row in zip(whose, x, strict=True)])
    assert metrics(queries, f, g)["nod"] == pytest.approx(nod, rel=1e-5)
    found = metrics(queries, f, scaled)
    assert found["lod"] == pytest.approx(1.5 * np.mean(np.linalg.norm(x @ w[0].T, axis=1)), rel=1e-5)
    assert found["lad"] == found["nad"] == 0


@pytest.mark.parametrize("method", ["pgd", "fgsm", "carlini-wagner"])
def test_without_points_that_fool_the_victim_there_is_no_fingerprint(method):
    """A victim that no gradient leads out of its class."""
    layer = torch.nn.Linear(64, 5)
    with torch.no_grad():
        layer.weight.mul_(1e-3)
        layer.bias.copy_(torch.tensor([9.0, 0, 0, 0, 0]))
    module = torch.nn.Sequential(torch.nn.Flatten(), layer)
    data = replace(toy_data(40), labels=np.zeros(40, np.int64))
    victim = TorchModel(module, domain=data.domain)
    with pytest.raises(ParameterError, match=r"20 points that fool torch module Sequential are needed; 0 of the 40"):
        engine.extract(victim, scheme="deepjudge", data=data, queries=20, params={"method": method, "confidence": 0.0})


def test_a_fine_tuned_copy_is_fooled_far_more_often_than_strangers():
    victim, data = toy_model(0, gradients=True), toy_data()
    fp = engine.extract(victim, scheme="deepjudge", data=data, queries=60, params={"access": "labels"})
    tuned = toy_model(0, gradients=True)
    module = tuned.module()
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    before = (restrict(victim, Access.LABELS).labels(data.inputs) == data.labels).mean()
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(torch.tensor(data.inputs)), torch.tensor(data.labels)).backward()
        optimiser.step()
    assert (restrict(tuned, Access.LABELS).labels(data.inputs) == data.labels).mean() > before + 0.05

    def robd(model):
        return metrics(fp.queries, fp.record, engine.respond(fp, model).record)["robd"]

    assert robd(tuned) < 0.5 * min(robd(toy_model(seed)) for seed in range(1, 20))


def test_the_metrics_in_plain_loops(fp):
    record = engine.respond(fp, toy_model(3, gradients=True)).record
    classes, whose = fp.queries["classes"].tolist(), fp.queries["neurons"].tolist()
    ours, theirs = fp.record["probabilities"].astype(float), record["probabilities"].astype(float)
    true = [sum(row.argmax() == c for row, c in zip(p, classes, strict=True)) / 20 for p in (ours, theirs)]
    jsd = nod = nad = lod = lad = 0.0
    for p, q in zip(ours, theirs, strict=True):
        for a, b in zip(p, q, strict=True):
            m = (a + b) / 2
            jsd += sum(v / 2 * math.log(v / m) for v in (a, b) if v > 0) / 20
    for i, phi, psi in zip(whose, fp.record["activations"], record["activations"], strict=True):
        s = [[(v - min(row)) / (max(row) - min(row)) > 0.5 for v in row] for row in (phi.tolist(), psi.tolist())]
        nod += abs(float(phi[i]) - float(psi[i])) / 21
        nad += abs(s[0][i] - s[1][i]) / 21 * len(set(whose))
        lod += math.sqrt(sum((a - b) ** 2 for a, b in zip(phi.tolist(), psi.tolist(), strict=True))) / 21
        lad += sum(a != b for a, b in zip(*s, strict=True)) / 21
    expected = {"robd": abs(true[1] - true[0]), "jsd": jsd, "nod": nod, "nad": nad, "lod": lod, "lad": lad}
    found = metrics(fp.queries, fp.record, record)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert min(found.values()) > 0
    phi = fp.record["activations"].astype(float)
    most = {"robd": 1, "jsd": math.log(2), "nod": sum(abs(phi[k, i]) for k, i in enumerate(whose)) / 21,
            "nad": len(set(whose)), "lod": sum(math.sqrt(sum(row**2)) for row in phi) / 21, "lad": 24}  # fmt: skip
    assert scales(fp.queries, fp.record) == pytest.approx(most, rel=1e-6)
    score = 1 - sum(min(1, expected[name] / most[name]) for name in most) / 6
    assert SCHEME.similarity(fp, engine.respond(fp, toy_model(3, gradients=True))) == pytest.approx(score, rel=1e-5)


def test_the_vote_by_hand():
    """t of 0.99 with 2 degrees of freedom is 6.9646."""
    negatives = [{"robd": value, "lod": 10 * value} for value in (0.7, 0.8, 0.9)]
    bound = 0.8 - 6.9646 * 0.1 / math.sqrt(3)
    result = vote({"robd": 0.3, "lod": 3.0}, negatives)
    assert result.thresholds == pytest.approx({"robd": 0.9 * bound, "lod": 0.6 * 10 * bound}, rel=1e-4)
    assert result.votes == {"robd": True, "lod": False}
    # One of two is not more than half.
    assert not result.copy
    assert vote({"robd": 0.3, "lod": 2.0}, negatives).copy


def test_black_box_tests_come_from_the_inputs_the_victim_is_most_certain_of():
    victim, data = view(), toy_data()
    drawn = Fooling(eps=0.2).draw(victim, data, n=30, default=1, seed=0, population=None)
    p = victim.probabilities(data.inputs).astype(float)
    right = [k for k in range(len(data)) if p[k].argmax() == data.labels[k]]
    ranked = sorted(right, key=lambda k: -sum(p[k] ** 2))
    nearest = [min(range(len(data)), key=lambda k, x=x: np.abs(data.inputs[k] - x).max()) for x in drawn.inputs]
    places = [ranked.index(k) for k in nearest]
    assert places == sorted(places)
    assert [data.labels[k] for k in nearest] == drawn.extras["classes"].tolist()
    # In the box, but for half a grey level of rounding.
    assert np.abs(drawn.inputs - data.inputs[nearest]).max() <= 0.2 + 0.5 / 255 + 1e-6
    assert not np.any(victim.labels(drawn.inputs) == drawn.extras["classes"])


def test_white_box_tests_drive_their_neuron_beyond_the_data():
    victim, data = view(), toy_data()
    drawn = Neurons(layer="2", factor=2.0).draw(victim, data, n=30, default=1, seed=0, population=None)
    most = victim.activations(data.inputs, ["2"])["2"].max(axis=0)
    whose = drawn.extras["neurons"]
    height = victim.activations(drawn.inputs, ["2"])["2"][np.arange(30), whose]
    assert (height > 2.0 * most[whose] * (1 - 1e-6)).all()
    assert len(set(whose.tolist())) >= 15
    assert np.array_equal(drawn.inputs, data.domain.deliver(drawn.inputs))


def test_channels_are_driven_by_their_means():
    module = build_module("cnn", {"shape": [1, 8, 8], "classes": 5, "width": 4}, seed=0)
    data = toy_data(60)
    victim = restrict(TorchModel(module, domain=data.domain, mean=(0.5,), std=(0.2,)), Access.MODULE)
    drawn = Neurons(layer="conv2", factor=1.2).draw(victim, data, n=6, default=1, seed=1, population=None)
    heights = Activations(layer="conv2").record(victim, drawn)["activations"]
    assert heights == pytest.approx(victim.activations(drawn.inputs, ["conv2"])["conv2"].mean(axis=(2, 3)), abs=1e-5)
    most = victim.activations(data.inputs, ["conv2"])["conv2"].mean(axis=(2, 3)).max(axis=0)
    whose = drawn.extras["neurons"]
    assert (heights[np.arange(6), whose] > 1.2 * most[whose] * (1 - 1e-5)).all()


def test_neurons_and_seeds_are_all_paired_and_take_turns():
    pairs = _turns(3, 4)
    assert len({tuple(pair) for pair in pairs.tolist()}) == 12
    assert pairs[:4].tolist() == [[0, 0], [1, 1], [2, 2], [0, 1]]


def test_activations_are_a_part_of_composed_schemes():
    victim = toy_model(0, gradients=True)
    fp = engine.extract(victim, scheme="random+activations+l2", data=toy_data(), queries=20)
    assert np.array_equal(fp.record["activations"], view().activations(fp.queries["inputs"], ["2"])["2"])
    scheme, other = build("random+activations+l2"), engine.respond(fp, toy_model(1, gradients=True))
    assert scheme.similarity(fp, engine.respond(fp, victim)) > 1 - 1e-5
    assert scheme.similarity(fp, other) < 0.5


def test_what_cannot_be_is_refused(fp):
    victim, data = toy_model(0, gradients=True), toy_data()
    with pytest.raises(ParameterError, match="unknown access of deepjudge 'labls'; did you mean 'labels'"):
        build("deepjudge", {"access": "labls"})
    with pytest.raises(ParameterError, match="needs a test of either kind: ask 2 --queries or more"):
        engine.extract(victim, scheme="deepjudge", data=data, queries=1, params=PARAMS)
    with pytest.raises(ParameterError, match="unknown layer of torch module Sequential: 'fc'; known: 0, 1, 2, 3"):
        engine.extract(victim, scheme="deepjudge", data=data, params=PARAMS | {"layer": "fc"})
    with pytest.raises(ParameterError, match=r"20 tests of neurons are needed; 0 of \d+ arrive in layer '2' of"):
        Neurons(steps=1, seeds=2).draw(view(), data, n=20, default=1, seed=0, population=None)
    with pytest.raises(ParameterError, match="and toy data has none"):
        Fooling().draw(view(), replace(data, labels=None), n=2, default=1, seed=0, population=None)
    linear = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), domain=data.domain)
    with pytest.raises(ParameterError, match="compares probabilities of 5 classes; torch module Sequential has 3"):
        SCHEME.check_suspect(fp, linear)
    wider = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 30), torch.nn.ReLU(), torch.nn.Linear(30, 5))
    with pytest.raises(ParameterError, match=r"the victim's has 24, '2' of torch module Sequential has 30"):
        engine.respond(fp, TorchModel(wider, domain=data.domain))
    single = restrict(TorchModel(torch.nn.Linear(4, 3), domain=Domain(kind="tabular", shape=(4,))), Access.MODULE)
    with pytest.raises(ParameterError, match="torch module Linear has no hidden layer"):
        Activations().record(single, Queries(inputs=np.zeros((2, 4), np.float32)))
    with pytest.raises(ParameterError, match="needs robd of the suspect and of two independent models or more; got 1"):
        vote({"robd": 0.1}, [{"robd": 0.5}])


@pytest.mark.parametrize(
    ("part", "name", "array", "message"),
    [
        ("queries", "classes", np.zeros(7, np.int64), "20 black-box tests need as many classes; got 7"),
        ("queries", "classes", np.zeros(20), "classes of deepjudge must be whole numbers, one a test; got float64"),
        ("queries", "neurons", np.full(21, 24), "21 white-box tests need as many neurons, numbered from 0 to 23"),
        ("queries", "neurons", np.zeros(3, np.int64), "21 white-box tests need as many neurons"),
        ("record", "activations", np.full((21, 24), np.nan, np.float32), "activations of deepjudge must be finite"),
        ("record", "activations", np.zeros((21, 24), np.float32), "are silent in its own record"),
        ("record", "labels", np.zeros(20, np.int64), "a record of deepjudge holds labels, or probabilities and act"),
        ("record", "probabilities", np.ones((19, 5), np.float32) / 5, "must hold the same answers"),
    ],
)
def test_a_fingerprint_that_does_not_fit_is_refused(fp, part, name, array, message):
    broken = replace(fp, **{part: getattr(fp, part) | {name: array}})
    with pytest.raises(ArtefactError, match=message):
        SCHEME.similarity(broken, fp)
