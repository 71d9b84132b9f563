"""A network of texts: how it reads them, and that it is trained, kept, asked and robbed like any other."""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from locard.attacks import build as build_attack  # noqa: E402
from locard.errors import ArtefactError, ParameterError  # noqa: E402
from locard.models import exported, folder, load, onnx, restrict  # noqa: E402
from locard.models.architectures import build  # noqa: E402
from locard.models.fitting import Recipe, fit  # noqa: E402
from locard.models.fitting import build as draw  # noqa: E402
from locard.models.torch_module import TorchModel  # noqa: E402
from locard.records import Access, Data, Domain, Lineage  # noqa: E402
from locard.seeds import generator  # noqa: E402
from locard.testing import ADAPTER_LAWS, check_adapter  # noqa: E402
from locard.zoo import Original, Theft, train_many  # noqa: E402

TEXT = Domain(kind="text", shape=(), dtype="str")
ARGUMENTS: dict[str, Any] = {"shape": [], "classes": 2, "buckets": 500, "width": 8, "hidden": [8]}
RECIPE = Recipe(epochs=20, lr=2e-2, batch=50)
GOOD, BAD, REST = ("good", "great", "fine"), ("bad", "poor", "sad"), ("tea", "the", "a", "cake", "was", "so", "very")


def reviews(n, seed):
    """Seven words of no meaning and one that says the class, in random places."""
    source = generator(seed, "test/reviews")
    labels = source.integers(0, 2, n)
    texts = np.empty(n, object)
    for row, label in enumerate(labels):
        words = list(source.choice(REST, 7))
        words.insert(int(source.integers(0, 8)), str(source.choice(BAD if label else GOOD)))
        texts[row] = " ".join(words)
    return Data(inputs=texts, labels=labels, domain=TEXT, name=f"reviews {seed}", classes=("good", "bad"))


@pytest.fixture(scope="module")
def model():
    data = reviews(400, 0)
    assert data.labels is not None
    module = fit(draw("bag", ARGUMENTS, seed=0), data.inputs, data.labels, recipe=RECIPE, seed=0)
    return TorchModel(module, domain=TEXT, lineage=Lineage(architecture="bag"))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return folder.save(tmp_path_factory.mktemp("bag") / "m", model.module(), architecture="bag", arguments=ARGUMENTS,
                       domain=TEXT, classes=("good", "bad"))  # fmt: skip


def accuracy(model):
    data = reviews(300, 9)
    return (restrict(model, Access.LABELS).labels(data.inputs) == data.labels).mean()


def numbers(text, **changed):
    """What the first text is encoded to, without what fills it up."""
    module: Any = build("bag", **{**ARGUMENTS, **changed})
    row = module.encode([text, "one two three four five"])[0]
    return row[row > 0].tolist()


def bucket(run, buckets=500):
    return zlib.crc32(run.encode()) % buckets + 1


def test_runs_of_words_by_their_hashes():
    assert numbers("So GOOD, so!") == [*map(bucket, ["so", "good", "so", "!", "so good", "good so", "so !"])]
    assert numbers("a b c", grams=3)[-1] == bucket("a b c")
    assert numbers("a b c", grams=1, words=2) == [bucket("a"), bucket("b")]
    assert numbers("naïve ☃ \ud800", grams=1) == [bucket("naïve")]
    assert numbers("") == []


def test_the_mean_of_the_vectors_and_then_dense_layers():
    module: Any = build("bag", **ARGUMENTS)
    rows = [bucket("good"), bucket("tea"), bucket("good tea")]
    mean = module.vectors.weight[rows].mean(dim=0)
    expected = module.layers[1](torch.relu(module.layers[0](mean)))
    # The longer text fills the shorter one up, which must not count.
    answers = module(module.encode(["good tea", "one two three four"]))
    assert torch.allclose(answers[0], expected, atol=1e-6)
    assert torch.equal(module(module.encode([""]))[0], module.layers[1](torch.relu(module.layers[0].bias)))


def test_the_vectors_begin_no_larger_than_the_dense_weights():
    module: Any = build("bag", shape=[], classes=2)
    assert (module.vectors.weight[0] == 0).all()
    assert module.vectors.weight[1:].std().item() == pytest.approx(0.1, rel=0.01)
    assert module.layers[0].weight.abs().max() > 0.15


def test_number_of_parameters():
    module = build("bag", **ARGUMENTS)
    assert sum(p.numel() for p in module.parameters()) == 501 * 8 + 8 * 8 + 8 + 8 * 2 + 2
    assert sum(p.numel() for p in build("bag", **{**ARGUMENTS, "hidden": []}).parameters()) == 501 * 8 + 8 * 2 + 2


def test_it_learns_words(model):
    assert accuracy(model) > 0.95


@pytest.mark.parametrize("changed", [{"grams": 1}, {"words": 8}])
def test_how_it_reads_is_part_of_its_identity(changed):
    """No weight says it, and the answers differ."""
    one, two = (
        TorchModel(draw("bag", arguments, seed=0), domain=TEXT) for arguments in (ARGUMENTS, ARGUMENTS | changed)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one.weights().values(), two.weights().values(), strict=True))
    assert one.digest != two.digest


def test_a_folder_keeps_it(saved, model):
    again = load(saved)
    assert again.domain == TEXT
    assert again.digest == model.digest
    texts = reviews(20, 3).inputs
    assert np.array_equal(restrict(again, Access.LOGITS).logits(texts), restrict(model, Access.LOGITS).logits(texts))
    assert again.layers() == {"vectors": (8,), "layers.0": (8,), "layers.1": (2,)}
    assert again.activations(texts, ["vectors"])["vectors"].shape == (20, 8)


@pytest.mark.parametrize("law", ADAPTER_LAWS)
def test_keeps_the_laws_of_adapters(saved, law):
    check_adapter(lambda: load(saved), reviews(6, 4).inputs, law)


def test_a_folder_that_lies(saved, tmp_path):
    text = (saved / folder.CARD).read_text()
    for change, message in [
        (('"mean": null', '"mean": [0.5]'), "mean and std must be null where the inputs are texts"),
        (('"std": null', '"std": [0.5]'), "mean and std must be null where the inputs are texts"),
        (('"buckets": 500', '"buckets": 501'), r"the tensor 'vectors.weight' must be .*\(502, 8\)"),
    ]:
        target = tmp_path / re.sub(r"\W", "", change[1])
        target.mkdir()
        (target / folder.WEIGHTS).write_bytes((saved / folder.WEIGHTS).read_bytes())
        assert change[0] in text
        (target / folder.CARD).write_text(text.replace(*change))
        with pytest.raises(ArtefactError, match=message):
            load(target)


def test_texts_have_no_mean(model):
    with pytest.raises(ParameterError, match="texts have no mean and no std"):
        TorchModel(model.module(), domain=TEXT, mean=(0.5,))


def test_a_network_of_numbers_takes_no_texts(tmp_path):
    module = build("mlp", shape=[3], classes=2)
    message = r"MLP takes no texts: a network for them has a method encode\(texts\).* as the architecture bag"
    with pytest.raises(ParameterError, match=message):
        TorchModel(module, domain=TEXT)
    with pytest.raises(ParameterError, match=message):
        fit(module, reviews(4, 0).inputs, np.zeros(4, np.int64), recipe=RECIPE, seed=0)
    with pytest.raises(ParameterError, match=message):
        folder.save(tmp_path, module, architecture="mlp", arguments={"shape": [3], "classes": 2}, domain=TEXT)


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_a_graph_holds_no_texts(model, ending, tmp_path):
    with pytest.raises(ParameterError, match="holds what becomes of numbers, not how a text becomes them"):
        (exported.save if ending == ".pt2" else onnx.export)(model, tmp_path / f"m{ending}")
    assert not list(tmp_path.iterdir())


def test_texts_have_no_gradient_by_the_input_but_by_the_weights(model):
    texts = reviews(5, 2).inputs
    with pytest.raises(ParameterError, match=r"gradients need floating-point inputs; .* takes text"):
        model.input_gradient(texts, lambda logits: logits[:, 0])
    gram = model.weight_gram(texts, lambda logits: logits[:, 0])
    assert gram.shape == (5, 5)
    assert (np.diag(gram) > 0).all()


@pytest.mark.parametrize("answers", ["probabilities", "labels"])
def test_extraction_asks_texts_as_they_are(model, answers):
    data = reviews(300, 1)
    twice = Data(inputs=np.concatenate([data.inputs, data.inputs[:50]]), labels=None, domain=TEXT, name="thief")
    attack = build_attack("extraction", {"answers": answers, "architecture": "bag", "lr": 2e-2, "epochs": 20})
    stolen = attack.derive(restrict(model, attack.needs), twice, seed=0)
    assert stolen.effort.queries == len(set(data.inputs))
    assert accuracy(TorchModel(stolen.module, domain=TEXT)) > 0.9
    few = build_attack("extraction", {"answers": answers, "architecture": "bag", "epochs": 1, "queries": 20})
    assert few.derive(restrict(model, few.needs), data).effort.queries == 20
    many = build_attack("extraction", {"architecture": "bag", "queries": 500})
    with pytest.raises(
        ParameterError, match=r"reviews 1 holds 300 texts, and there are no mixtures .* queries=300, or 0"
    ):
        many.derive(restrict(model, many.needs), data)


@pytest.mark.parametrize("name", ["active", "jbda", "knockoff"])
def test_what_asks_mixtures_refuses_texts(name, model):
    attack = build_attack(name, {"architecture": "bag"})
    with pytest.raises(
        ParameterError, match=r"asks images or tables of real numbers; .* \(the attack extraction asks texts"
    ):
        attack.derive(restrict(model, attack.needs), reviews(50, 1))


def test_features_of_texts_are_not_matched(model):
    attack = build_attack("distil", {"features": 1.0})
    with pytest.raises(ParameterError, match=r"features are matched for numbers; .* takes texts: give features=0"):
        attack.derive(restrict(model, attack.needs), reviews(50, 1))


def test_channels_of_a_network_of_texts_are_not_pruned(model):
    attack = build_attack("prune-channels", {"recovery": 0})
    with pytest.raises(ParameterError, match="by the graph of a network of numbers; Bag takes text"):
        attack.derive(restrict(model, attack.needs))


def test_a_population_of_text_models(tmp_path):
    parts = {"victim": reviews(300, 0), "thief": reviews(300, 1), "check": reviews(200, 2)}
    victim = Original(name="victim", data="victim", architecture="bag", recipe=RECIPE, seed=0,
                      arguments={"buckets": 500, "width": 8, "hidden": [8]})  # fmt: skip
    thefts = {
        "distil": {"alpha": 0.5, "lr": 2e-2, "epochs": 20},
        "extraction": {"architecture": "bag", "lr": 2e-2, "epochs": 20},
        "finetune": {"epochs": 1},
        "noise": {},
        "prune": {"fraction": 0.3},
        "quantise": {"format": "int8"},
    }
    jobs = [victim, *(Theft(name=name, victim="victim", attack=name, params=params, data="thief", seed=1)
                      for name, params in thefts.items())]  # fmt: skip
    built = train_many(jobs, parts, tmp_path, held_out="check", processes=1)
    assert built["victim"].accuracy > 0.95
    for name in thefts:
        accepted = built[name].acceptance
        assert accepted is not None
        assert accepted.accepted, (name, accepted.reason)
        assert load(built[name].path).domain == TEXT
    assert folder.read_card(built["extraction"].path).arguments["shape"] == []
