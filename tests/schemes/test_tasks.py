"""Every scheme on every kind of task: it works, or says in one line why not and what would."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import LocardError, ParameterError
from locard.fingerprint import Fingerprint
from locard.models import Session, view
from locard.models.callable import CallableModel
from locard.models.torch_module import TorchModel
from locard.queries import Population
from locard.records import Access, Data, Domain
from locard.schemes import build, schemes

TABLE = Domain(kind="tabular", shape=(8,))
TEXT = Domain(kind="text", shape=(), dtype="str")
WORDS = ["good", "bad", "film", "plot", "dull", "fine", "long", "odd"]
# Smaller than the papers' defaults where only time would change.
SMALL = {"zest": {"queries": 200, "params": {"masks": 20}}, "adv-tra": {"queries": 130},
         "modelgif": {"queries": 90, "params": {"nodes": 8, "kept": 4}}, "multipoint": {"queries": 30},
         "frontier": {"queries": 20}, "anafp": {"params": {"anchor": 0.0}}, "ipguard": {"queries": 20},
         "irisfp": {"queries": 25, "params": {"steps": 300}}}  # fmt: skip
# What can be asked without a gradient, and what of that without classes.
NO_GRADIENT = {"akh", "sac", "zest", "tafa"}
TEXTS = {"akh", "sac", "zest"}
VALUES = {"sac", "zest", "tafa", "modeldiff"}


def weights(seed):
    """Of model 7, and of 7.01 a hundredth of another model's added to it."""
    source = np.random.default_rng(int(seed))
    first, second = source.normal(size=(8, 16)), source.normal(size=(16, 4))
    other = np.random.default_rng(1000)
    first, second = (w + (seed - int(seed)) * other.normal(size=w.shape) for w in (first, second))
    return first.astype(np.float32), second.astype(np.float32)


def scores(seed, x):
    first, second = weights(seed)
    return np.maximum(x @ first, 0) @ second


def words(texts):
    return np.array([[text.split().count(word) for word in WORDS] for text in texts], np.float32)


def text_model(seed=0):
    return CallableModel(lambda texts: scores(seed, words(texts)), domain=TEXT, outputs="logits", classes=4,
                         name=f"text-{seed}", identity=f"text-{seed}")  # fmt: skip


def table_model(seed=0, outputs="logits"):
    return CallableModel(lambda x: scores(seed, x), domain=TABLE, outputs=outputs, name=f"table-{seed}",
                         classes=4 if outputs == "logits" else None, identity=f"table-{seed}-{outputs}")  # fmt: skip


def torch_table(seed=0):
    layers = torch.nn.Linear(8, 16, bias=False), torch.nn.Linear(16, 4, bias=False)
    with torch.no_grad():
        for layer, weight in zip(layers, weights(seed), strict=True):
            layer.weight.copy_(torch.from_numpy(weight.T.copy()))
    return TorchModel(torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1]), domain=TABLE)


def rows(n=400):
    source = np.random.default_rng(9)
    x = source.normal(size=(n, 8)).astype(np.float32)
    return Data(inputs=x, labels=scores(77, x).argmax(axis=1), domain=TABLE, name="rows")


def texts(n=300):
    source = np.random.default_rng(9)
    x = np.array([" ".join(source.choice(WORDS, 6)) for _ in range(n)], dtype=object)
    return Data(inputs=x, labels=scores(77, words(x)).argmax(axis=1), domain=TEXT, name="texts")


def population(make, data):
    seen = [view(Session(m, m.grants), Access.MODULE if Access.MODULE in m.grants else m.grants.top) for m in
            (make(seed) for seed in (0.01, 0.03, 52, 53, 54, 55))]  # fmt: skip
    return Population(derived=tuple(seen[:2]), independent=tuple(seen[2:]))


def settings_of(name):
    settings = dict(SMALL.get(name, {}))
    if name == "sac":
        settings["params"] = {"variant": "normal"}
    return settings


def from_end_to_end(name, make, data, **settings):
    fp = engine.extract(make(0), scheme=name, data=data, population=population(make, data), **settings)
    # Through the file, which holds no NaN, so that "none" must be said otherwise.
    with tempfile.TemporaryDirectory() as folder:
        fp = Fingerprint.load(fp.save(Path(folder) / "fp.locard"))
    fp = engine.calibrate(fp, references={"disjoint": [make(seed) for seed in range(1, 20)]})
    assert engine.verify(fp, make(0)).decision == "derived"
    assert engine.verify(fp, make(30)).decision == "no-evidence"


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_texts_are_fingerprinted(name):
    from_end_to_end(name, text_model, texts(), **settings_of(name))


@pytest.mark.parametrize("name", sorted(NO_GRADIENT))
def test_tables_are_fingerprinted_without_gradients(name):
    from_end_to_end(name, table_model, rows(), **settings_of(name))


@pytest.mark.parametrize("name", ["adv-tra", "anafp", "deepfool", "ipguard", "irisfp", "modeldiff", "modelgif",
                                  "multipoint"])  # fmt: skip
def test_tables_are_fingerprinted_with_gradients(name):
    data = rows()
    data = data if name == "frontier" else Data(inputs=data.inputs, labels=None, domain=TABLE, name="rows")
    from_end_to_end(name, torch_table, data, **settings_of(name))


@pytest.mark.parametrize("name", sorted(VALUES - {"modeldiff"}))
def test_values_are_fingerprinted_as_values(name):
    settings = settings_of(name)
    settings["params"] = {**settings.get("params", {}), "answers": "values"}
    data = Data(inputs=rows().inputs, labels=None, domain=TABLE, name="rows")
    from_end_to_end(name, lambda seed: table_model(seed, "values"), data, **settings)


@pytest.mark.parametrize("name", schemes.names())
@pytest.mark.parametrize("kind", ["text", "values"])
def test_a_scheme_that_cannot_says_why(name, kind):
    """In one line, and naming what it needs or a way out; with the defaults nothing but what is listed works."""
    model, data = (text_model(), texts()) if kind == "text" else (table_model(0, "values"), rows())
    if kind == "text" and name in TEXTS:
        return
    with pytest.raises(LocardError) as caught:
        engine.extract(model, scheme=name, data=data, population=population(text_model, data), **SMALL.get(name, {}))
    message = str(caught.value)
    assert "\n" not in message
    assert any(word in message for word in ("needs", "need", "use ", "give", "--param", "locard schemes"))


@pytest.mark.parametrize("name", ["sac", "modeldiff"])
def test_a_suspect_of_other_classes_is_judged(name):
    data = Data(inputs=rows().inputs, labels=None, domain=TABLE, name="rows")
    settings = {"queries": 60, "params": {"variant": "normal"} if name == "sac" else {}}
    fp = engine.extract(torch_table(0), scheme=name, data=data, **settings)
    wide = CallableModel(lambda x: np.hstack([scores(5, x), scores(6, x)]), domain=TABLE, outputs="logits", classes=8,
                         name="wide")  # fmt: skip
    scheme = build(fp.scheme, fp.params)
    assert scheme.similarity(fp, engine.respond(fp, wide)) < scheme.similarity(fp, fp)


@pytest.mark.parametrize("name", ["akh", "zest", "tafa", "metav", "ipguard", "deepfool"])
def test_a_suspect_of_other_classes_is_refused_where_answers_are_compared_class_by_class(name):
    data = rows() if name == "akh" else Data(inputs=rows().inputs, labels=None, domain=TABLE, name="rows")
    fp = engine.extract(torch_table(0), scheme=name, data=data, population=population(torch_table, data),
                        **settings_of(name))  # fmt: skip
    wide = CallableModel(lambda x: np.hstack([scores(5, x), scores(6, x)]), domain=TABLE, outputs="logits", classes=8,
                         name="wide")  # fmt: skip
    with pytest.raises(LocardError, match=r"the victim has 4 of them, wide has 8\. Use a scheme that does not"):
        engine.verify(fp, wide)


def test_a_population_of_another_architecture_or_task_is_named():
    data = Data(inputs=rows().inputs, labels=None, domain=TABLE, name="rows")
    for name in ("conferrable", "metav", "anafp"):
        with pytest.raises(LocardError, match=r"(MODULE|GRADIENTS|LOGITS)"):
            engine.extract(torch_table(0), scheme=name, data=data, population=population(table_model, data))


def test_no_walk_leads_from_a_text(tmp_path):
    data = texts()
    np.savez(tmp_path / "private.npz", x=data.inputs.astype(str), y=np.asarray(data.labels))
    with pytest.raises(ParameterError, match=r"random walks need inputs that can be moved .*; texts holds text str"):
        engine.extract(text_model(), scheme="dataset-inference", data=data,
                       params={"private": str(tmp_path / "private.npz")})  # fmt: skip
