"""Dataset inference: margins in plain loops, the regressor's gradient, and the oracles of its card."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from locard import engine
from locard.data import read, split
from locard.errors import ArtefactError, CalibrationError, ParameterError
from locard.models import restrict
from locard.models.fitting import Recipe, build, fit
from locard.models.torch_module import TorchModel
from locard.queries import Queries
from locard.queries.members import Members
from locard.records import Access, Data, Domain
from locard.representations.margins import WIDTHS, Margins, length
from locard.schemes import build as scheme_of
from locard.schemes.dataset_inference import fit as regress
from locard.schemes.dataset_inference import privacy, welch
from locard.seeds import generator
from locard.testing import toy_data, toy_model

FREE = Domain(kind="tabular", shape=(6,))


def linear(weight, bias):
    layer = torch.nn.Linear(6, len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.asarray(weight, np.float32)))
        layer.bias.copy_(torch.from_numpy(np.asarray(bias, np.float32)))
    return TorchModel(layer, domain=FREE)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A victim that has learnt its 500 digits by heart, a stranger that learnt 500 others, and 600 that nobody saw.

    Two in five labels are random, so that there is something to learn by heart.
    """
    source, whole = np.random.default_rng(0), read("digits")
    assert whole.labels is not None
    noise = np.where(source.random(len(whole)) < 0.4, source.integers(0, 10, len(whole)), whole.labels)
    parts: dict[str, Any] = split(replace(whole, labels=noise), {"private": 500, "other": 500, "public": 600}, seed=0)
    models = {}
    for name, data in (("victim", "private"), ("stranger", "other")):
        module = build("mlp", {"shape": [1, 8, 8], "classes": 10}, seed=len(name))
        fit(module, parts[data].inputs, parts[data].labels, recipe=Recipe(epochs=100, lr=1e-2, batch=32), seed=1)
        models[name] = TorchModel(module, domain=parts["private"].domain)
    path = tmp_path_factory.mktemp("data") / "private.npz"
    np.savez(path, x=parts["private"].inputs, y=parts["private"].labels)
    return parts, models, str(path)


def walked(view, x, classes, representation, seed=5):
    domain = view.domain
    grid = np.array([*(domain.bounds or (0.0, 0.0)), domain.quantum or 0.0])
    queries = Queries(inputs=x, extras={"classes": classes, "walk": np.array([seed]), "grid": grid,
                                        "span": np.ones(domain.shape, np.float32)})  # fmt: skip
    return representation.record(view, queries)["margins"]


def test_margins_are_those_of_plain_walks():
    view, data = restrict(toy_model(0), Access.LABELS), toy_data(9)
    classes = view.labels(data.inputs)
    classes[0] = (classes[0] + 1) % 5
    found = walked(view, data.inputs, classes, Margins(directions=2, steps=12, scale=6.0))
    sources = {norm: generator(5, f"margins/{norm}") for norm in WIDTHS}
    noise = {"uniform": sources["uniform"].uniform(-1, 1, (9, 2, 1, 8, 8)),
             "gaussian": sources["gaussian"].normal(size=(9, 2, 1, 8, 8)),
             "laplace": sources["laplace"].laplace(size=(9, 2, 1, 8, 8))}  # fmt: skip
    for row in range(9):
        for kind, norm in enumerate(WIDTHS):
            for number in range(2):
                way = (noise[norm][row, number] * (WIDTHS[norm] * 6.0)).astype(np.float32)
                margin = 0.0
                for step in range(1, 13) if row else ():
                    point = data.domain.deliver((data.inputs[row] + step * way).astype(np.float32))
                    margin = length((point - data.inputs[row])[None], norm)[0]
                    if view.labels(point[None])[0] != classes[row]:
                        break
                assert found[row, 2 * kind + number] == pytest.approx(margin, abs=1e-5)


def test_a_linear_models_margin_is_no_less_than_its_distance():
    source = np.random.default_rng(0)
    weight, bias = source.normal(size=(2, 6)), source.normal(size=2)
    view = restrict(linear(weight, bias), Access.LABELS)
    x = source.normal(size=(200, 6)).astype(np.float32)
    classes = view.labels(x)
    found = walked(view, x, classes, Margins(directions=20, steps=400, scale=2.0))[:, 20:40]
    normal = weight[1] - weight[0]
    distance = np.abs(x @ normal + bias[1] - bias[0]) / np.linalg.norm(normal)
    assert (found.min(axis=1) >= distance - 1e-3).all()
    # Of twenty random directions in six dimensions one points roughly at the boundary.
    near = distance < 0.5
    assert np.corrcoef(found.min(axis=1)[near], distance[near])[0, 1] > 0.8


def test_the_regressors_descent_is_that_of_autograd():
    source = np.random.default_rng(1)
    margins, member = source.normal(size=(40, 6)), np.arange(40) < 20
    ours = regress(margins, member, seed=3)
    x = (margins - ours["mean"]) / ours["std"]
    assert x[member].mean(axis=0) == pytest.approx(0, abs=1e-12)
    start = generator(3, "dataset-inference/regressor")
    w1, b1 = start.uniform(-(6**-0.5), 6**-0.5, (6, 100)), start.uniform(-(6**-0.5), 6**-0.5, 100)
    w2, b2 = start.uniform(-0.1, 0.1, 100), start.uniform(-0.1, 0.1, 1)
    parts = [torch.from_numpy(part).requires_grad_() for part in (w1, b1, w2, b2)]
    descent, sign = torch.optim.SGD(parts, lr=0.1), torch.where(torch.from_numpy(member), 1.0, -1.0)
    for _ in range(1000):
        descent.zero_grad()
        out = torch.tanh(torch.relu(torch.from_numpy(x) @ parts[0] + parts[1]) @ parts[2] + parts[3])
        (sign * out).mean().backward()
        descent.step()
    for name, part in zip(("w1", "b1", "w2", "b2"), parts, strict=True):
        assert ours[name] == pytest.approx(part.detach().numpy(), abs=1e-8)


SETTINGS = {"directions": 4, "steps": 25, "scale": 6.0}


def taken(digits, **params):
    parts, models, path = digits
    scheme: Any = scheme_of("dataset-inference", SETTINGS)
    return engine.extract(models["victim"], scheme="dataset-inference", data=parts["public"],
                          queries=100 * scheme._each, params={"private": path, **SETTINGS, **params})  # fmt: skip


def test_the_victim_and_its_copy_show_the_effect_and_a_stranger_does_not(digits):
    parts, models, _ = digits
    fp = taken(digits)
    scheme = scheme_of(fp.scheme, fp.params)
    scores = {name: scheme.similarity(fp, engine.respond(fp, model)) for name, model in models.items()}
    assert scores["victim"] == pytest.approx(scheme.similarity(fp, fp))
    assert scores["victim"] > 0.2
    assert scores["stranger"] < scores["victim"] / 2
    assert fp.claim == "trained-on"
    assert len(fp.queries["inputs"]) == 100
    # By the paper's own test: more inputs revealed, a smaller p for the victim, on average.
    values, member = privacy(fp, fp)
    found = [
        np.mean([welch(values, member, revealed=m, draws=1, seed=seed) for seed in range(100)]) for m in (3, 9, 27)
    ]
    assert found == sorted(found, reverse=True)
    strange = privacy(fp, engine.respond(fp, models["stranger"]))
    assert welch(*strange, revealed=27, draws=1) > 100 * welch(values, member, revealed=27, draws=1)
    # Public and private inputs from the training set are told apart; every private one was seen, no public one.
    seen = {image.tobytes() for image in parts["private"].inputs}
    assert [image.tobytes() in seen for image in fp.queries["inputs"]] == [True] * 50 + [False] * 50


def test_where_private_and_public_are_one_the_papers_test_is_level():
    """Values that know nothing of membership give p below 5% no more than 5% of the time, harmonic means aside."""
    source = np.random.default_rng(2)
    member = np.arange(100) < 50
    found = [welch(source.normal(size=100), member, revealed=50, draws=1, seed=seed) for seed in range(400)]
    assert np.mean(np.array(found) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    values = source.normal(size=100)
    one = stats.ttest_ind(values[~member], values[member], equal_var=False, alternative="greater").pvalue
    assert welch(values, member, revealed=50, draws=3) == pytest.approx(one)


def test_what_is_missing_is_named(digits):
    parts, models, path = digits
    extract = {"scheme": "dataset-inference", "data": parts["public"]}
    with pytest.raises(ParameterError, match=r"with their labels: extract with --param private=\.\.\."):
        engine.extract(models["victim"], **extract)
    with pytest.raises(ParameterError, match="so --queries must be a multiple of 3002; got 100"):
        Members(private=path, each=1501).draw(restrict(models["victim"], Access.LABELS), parts["public"], n=100,
                                             default=1, seed=0, population=None)  # fmt: skip
    with pytest.raises(ParameterError, match="needs data with true labels"):
        engine.extract(models["victim"], scheme="dataset-inference", data=replace(parts["public"], labels=None))
    table = Data(inputs=np.zeros((9, 6), np.float32), labels=np.zeros(9, np.int64), domain=FREE, name="rows")
    with pytest.raises(ParameterError, match="private and public data must be of one kind; rows holds tabular"):
        engine.extract(linear(np.eye(2, 6), np.zeros(2)), scheme="dataset-inference", data=table,
                       params={"private": path})  # fmt: skip
    view = restrict(toy_model(0), Access.LABELS)
    with pytest.raises(
        ParameterError,
        match=r"margins need \'classes\' of shape \(3,\) with the queries, as \'members\' gives it; got none",
    ):
        Margins().record(view, Queries(inputs=toy_data(3).inputs))
    with pytest.raises(ParameterError, match=r"'classes' of shape \(3,\) with the queries, .* got float64"):
        walked(view, toy_data(3).inputs, np.zeros(3), Margins())
    with pytest.raises(ParameterError, match="the walks' seed must be positive"):
        walked(view, toy_data(3).inputs, np.zeros(3, np.int64), Margins(), seed=-1)
    with pytest.raises(ParameterError, match="25 inputs of each kind are to be drawn; got 3 and 3"):
        welch(np.zeros(6), np.arange(6) < 3, revealed=25)


def test_a_strangers_regressor_is_checked(digits):
    fp = taken(digits)
    scheme = scheme_of(fp.scheme, fp.params)
    for change, message in [
        ({"w1": np.zeros((3, 3))}, "does not fit 12 margins"),
        ({"b2": None}, "does not fit 12 margins"),
        ({"member": np.ones(100, np.uint8)}, "needs private and public inputs, both"),
        ({"member": None}, "needs a record of margins"),
    ]:
        queries = {name: array for name, array in {**fp.queries, **change}.items() if array is not None}
        with pytest.raises(ArtefactError, match=message):
            scheme.similarity(replace(fp, queries=queries), fp)


def test_a_fingerprint_names_the_private_file_but_not_where_it_lies(digits):
    fp = taken(digits)
    assert fp.params["private"] == "private.npz"
    assert str(digits[2]).encode() not in fp.to_bytes()


def test_private_data_that_are_none_are_told(digits, tmp_path):
    parts, models, path = digits
    settings = {"scheme": "dataset-inference", "params": {**SETTINGS, "private": path}}
    with pytest.raises(
        ParameterError, match=r"inputs of .*private.npz are in digits:private too; data that the victim"
    ):
        engine.extract(models["victim"], data=parts["private"], **settings)
    with pytest.raises(ParameterError, match="--queries must be a multiple of 602; got 61"):
        engine.extract(models["victim"], data=parts["public"], queries=61, **settings)
    # Of ten draws some show a stranger no wider margins, and these are refused.
    answers = [refusal(models["stranger"], parts["public"], seed, settings) for seed in range(10)]
    assert any("shows no wider margins on" in answer for answer in answers)
    far = tmp_path / "far.npz"
    np.savez(far, x=parts["private"].inputs, y=parts["private"].labels + 10)
    with pytest.raises(ParameterError, match=r"far.npz has label 19; .* has 10 classes"):
        engine.extract(models["victim"], scheme="dataset-inference", data=parts["public"], params={"private": str(far)})


def test_models_of_the_private_data_are_no_references(digits):
    fp = taken(digits)
    lineage = replace(fp.lineage, data="its data")
    fp = replace(fp, lineage=lineage)
    twin = models_of(digits, "stranger", replace(lineage, seed=5))
    with pytest.raises(
        CalibrationError, match="was trained on the victim's data, so of dataset-inference, whose claim"
    ):
        engine.calibrate(fp, references=[twin])
    other = models_of(digits, "stranger", replace(lineage, data="other data"))
    verdict = engine.verify(engine.calibrate(fp, references=[other]), digits[1]["victim"])
    assert "same-data" not in " ".join(notice.text for notice in verdict.warnings)


def models_of(digits, name, lineage):
    model = digits[1][name]
    return TorchModel(model.module(), domain=model.domain, lineage=lineage)


def refusal(model, data, seed, settings):
    try:
        engine.extract(model, data=data, queries=10 * 602, seed=seed, **settings)
    except ParameterError as error:
        return str(error)
    return ""
