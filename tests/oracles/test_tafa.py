"""TAFA against the oracles of its card, and its score in plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import AccessError, ArtefactError, ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.models.torch_module import TorchModel
from locard.queries import Queries
from locard.queries.activation_boundary import ActivationBoundary, read
from locard.records import Access, Data, Domain
from locard.representations.bends import Bends
from locard.schemes import build
from locard.testing import toy_data, toy_model

SCHEME = build("tafa")
FREE = Domain(kind="tabular", shape=(6,))
DRAW = {"n": 30, "default": 300, "seed": 0, "population": None}


def table(n=50):
    inputs = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    return Data(inputs=inputs, labels=None, domain=FREE, name="noise")


def network(weight, bias, out, outputs="values"):
    """out @ relu(weight @ x + bias)."""

    def answer(x):
        return (np.maximum(x.astype(np.float64) @ weight.T + bias, 0) @ out.T).astype(np.float32)

    return CallableModel(answer, domain=FREE, outputs=outputs, classes=None if outputs == "values" else len(out),
                         name="network", identity=str(float(np.sum(weight))))  # fmt: skip


@pytest.fixture(scope="module")
def fp():
    return engine.extract(toy_model(0), scheme="tafa", data=toy_data(), queries=90)


def test_one_hidden_unit_bends_by_its_slope_times_the_step():
    source = np.random.default_rng(1)
    w, a, eta = source.normal(size=6), np.array([[2.5], [-1.0]]), 0.01
    v = source.normal(size=6)
    start = source.normal(size=6)
    place = -(w @ start + 0.3) / (w @ v)
    on = start + place * v
    triple = np.stack([on - eta * v, on, on + eta * v]).astype(np.float32)
    model = network(w[None], np.array([0.3]), a)
    bends = Bends(answers="values").record(restrict(model, Access.VALUES), Queries(inputs=triple))["bends"]
    assert bends[0] == pytest.approx(a[:, 0] * eta * abs(w @ v), rel=1e-2)
    # A bias that is shifted by d moves the surface by -d / (w . v).
    moved = on + (-0.05 / (w @ v)) * v
    other = np.stack([moved - eta * v, moved, moved + eta * v]).astype(np.float32)
    shifted = network(w[None], np.array([0.35]), a)
    again = Bends(answers="values").record(restrict(shifted, Access.VALUES), Queries(inputs=other))["bends"]
    assert again == pytest.approx(bends, rel=2e-2)
    away = Bends(answers="values").record(restrict(shifted, Access.VALUES), Queries(inputs=triple))["bends"]
    assert away == pytest.approx(0, abs=1e-5)


def test_a_linear_model_does_not_bend():
    source = np.random.default_rng(2)
    weight = source.normal(size=(3, 6))
    model = CallableModel(lambda x: (x @ weight.T).astype(np.float32), domain=FREE, outputs="values", name="linear")
    view = restrict(model, Access.VALUES)
    triples = source.normal(size=(30, 6)).astype(np.float32)
    triples[1::3] = (triples[::3] + triples[2::3]) / 2
    assert Bends(answers="values").record(view, Queries(inputs=triples))["bends"] == pytest.approx(0, abs=2e-5)
    with pytest.raises(ParameterError, match=r"10 bends are needed; \d+ of 40 lines bend: linear is linear, or too"):
        ActivationBoundary(answers="values").draw(view, table(), **DRAW)


def test_a_symmetric_copy_bends_alike(fp):
    weights = {name: torch.from_numpy(array.copy()) for name, array in toy_model(0, gradients=True).weights().items()}
    order, scale = torch.randperm(24, generator=torch.Generator().manual_seed(0)), 2.0 ** (torch.arange(24) % 5 - 2)
    copy = toy_model(0, gradients=True)
    copy.module().load_state_dict(
        {
            "1.weight": (weights["1.weight"] * scale[:, None])[order],
            "1.bias": (weights["1.bias"] * scale)[order],
            "3.weight": (weights["3.weight"] / scale)[:, order],
        }
    )
    assert SCHEME.similarity(fp, engine.respond(fp, copy)) == 1


def test_the_strongest_bends_of_all_lines_are_kept(fp):
    direction, strength = read(fp.queries)
    assert np.linalg.norm(direction, axis=1) == pytest.approx(1)
    assert (np.diff(strength) <= 0).all()
    assert fp.record["bends"] == pytest.approx(direction * strength[:, None], abs=1e-4)
    triples = fp.queries["inputs"].reshape(30, 3, 64).astype(np.float64)
    assert triples[:, 0] + triples[:, 2] == pytest.approx(2 * triples[:, 1], abs=1e-6)
    assert np.abs(triples[:, 1] - triples[:, 0]) == pytest.approx(5 / 255, abs=1e-6)


def test_the_score_is_the_share_of_bends_that_reach_half_the_victims(fp):
    record = engine.respond(fp, toy_model(0, noise=0.3))
    matched = [sum(b * q for b, q in zip(bend, way, strict=True)) >= 0.5 * size for bend, way, size in
               zip(record.record["bends"].tolist(), fp.queries["direction"].tolist(), fp.queries["strength"],
                   strict=True)]  # fmt: skip
    assert SCHEME.similarity(fp, record) == np.mean(matched)
    copies = [SCHEME.similarity(fp, engine.respond(fp, toy_model(0, noise=noise))) for noise in (0.01, 0.03)]
    strangers = [SCHEME.similarity(fp, engine.respond(fp, toy_model(seed))) for seed in range(1, 30)]
    assert min(copies) > max(strangers)


def test_a_regression_is_fingerprinted_from_end_to_end():
    source = np.random.default_rng(3)
    weight, bias, out = source.normal(size=(20, 6)), source.normal(size=20), source.normal(size=(1, 20))
    victim, copy = network(weight, bias, out), network(weight + 0.01 * source.normal(size=weight.shape), bias, out)

    def other():
        return network(source.normal(size=(20, 6)), source.normal(size=20), source.normal(size=(1, 20)))

    others = [other() for _ in range(19)]
    fp = engine.extract(victim, scheme="tafa", data=table(), queries=60, params={"answers": "values"})
    fp = engine.calibrate(fp, references={"disjoint": others})
    assert fp.victim_access == fp.suspect_access == "VALUES"
    assert engine.verify(fp, copy).decision == "derived"
    assert engine.verify(fp, other()).decision == "no-evidence"


def test_what_does_not_fit_is_refused(fp):
    with pytest.raises(ParameterError, match="so --queries must be a multiple of 3; got 10"):
        engine.extract(toy_model(0), scheme="tafa", data=toy_data(), queries=10)
    with pytest.raises(ParameterError, match="unknown kind of answers 'labels'"):
        build("tafa", {"answers": "labels"})
    words = Data(inputs=np.array(["a"], dtype=object), labels=None, name="texts",
                 domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="bends are looked for between inputs; texts holds text"):
        ActivationBoundary().draw(restrict(toy_model(0), Access.LOGITS), words, **DRAW)
    with pytest.raises(AccessError, match="bends of logits are looked for; record those too"):
        ActivationBoundary().draw(restrict(toy_model(0), Access.LABELS), toy_data(), **DRAW)
    with pytest.raises(ParameterError, match="bends are read off triples of inputs; got 4 inputs"):
        Bends().record(restrict(toy_model(0), Access.LOGITS), Queries(inputs=toy_data(4).inputs))
    wide = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7)), domain=toy_model(0).domain)
    with pytest.raises(ParameterError, match=r"the victim has 5 of them, .* has 7"):
        engine.respond(fp, wide)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"direction": None}, ParameterError, "need a direction and a strength for each unit"),
        ({"strength": np.ones(3)}, ParameterError, "need a direction and a strength for each unit"),
        ({"strength": -np.ones(30)}, ParameterError, "strengths positive ones"),
        ({"direction": np.ones((30, 4))}, ArtefactError, r"a record of bends of shape \(30, 4\); got \(30, 5\)"),
    ],
)
def test_a_strangers_bends_are_checked(fp, arrays, error, message):
    queries = {name: array for name, array in {**fp.queries, **arrays}.items() if array is not None}
    with pytest.raises(error, match=message):
        SCHEME.similarity(replace(fp, queries=queries), fp)


def test_on_a_coarse_grid_lines_are_shorter_and_on_a_coarser_one_there_are_none():
    for quantum, lengths in ((1 / 16, 13), (1 / 4, None)):
        domain = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0), quantum=quantum)
        data = Data(inputs=domain.deliver(toy_data(20).inputs.copy()), labels=None, domain=domain, name="coarse")
        if lengths is None:
            with pytest.raises(ParameterError, match=r"coarse has no room for lines of three steps of 0\.25"):
                ActivationBoundary()._lines(data, 4, 0)
        else:
            lines = ActivationBoundary()._lines(data, 4, 0)
            assert lines.shape == (4, lengths, 1, 8, 8)
            assert np.abs(np.diff(lines, axis=1)) == pytest.approx(quantum)
