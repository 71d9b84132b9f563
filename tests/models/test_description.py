"""Descriptions beside models: what they pass on, and what a stranger's may not do. This file must run without torch."""

from __future__ import annotations

import numpy as np
import pytest

skops = pytest.importorskip("skops.io")
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.tree import DecisionTreeClassifier  # noqa: E402
from tests.models.fake_server import SHAPE, FakeServer  # noqa: E402

from locard.errors import ArtefactError, ParameterError  # noqa: E402
from locard.models import description, load  # noqa: E402
from locard.records import Access, Domain  # noqa: E402
from locard.testing import ADAPTER_LAWS, check_adapter, toy_data, toy_domain  # noqa: E402

DATA = toy_data(120)
TABLE = DATA.inputs.reshape(len(DATA), -1)
IMAGE = """
model = "model.skops"
outputs = "labels"
batch_size = 7

[domain]
kind = "image"
shape = [1, 8, 8]
bounds = [0, 1]
quantum = 0.00392156862745098
"""


@pytest.fixture(scope="module")
def estimator():
    return GaussianNB().fit(TABLE, DATA.labels)


@pytest.fixture
def write(tmp_path, estimator):
    skops.dump(estimator, tmp_path / "model.skops")

    def write(text, name="model.toml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write


def test_what_it_says_is_passed_on(write, estimator):
    model = load(write(IMAGE))
    assert model.domain == toy_domain()
    assert (model.native, model.batch_size, model.classes) == (Access.LABELS, 7, 5)
    assert np.array_equal(model._forward(DATA.inputs), estimator.predict(TABLE))
    assert model.digest == load(estimator, outputs="labels").digest


@pytest.mark.parametrize("law", ADAPTER_LAWS)
def test_keeps_the_laws_of_adapters(write, law):
    path = write(IMAGE)
    check_adapter(lambda: load(path), DATA.inputs[:7], law)


def test_what_it_leaves_open_stays_open(write):
    path = write('model = "model.skops"')
    assert load(path).domain == Domain(kind="tabular", shape=(64,), dtype="float64")
    assert load(path, like=toy_domain()).domain == toy_domain()
    assert description.read(path) == (str(path.parent / "model.skops"), {})


def test_the_caller_has_the_last_word(write):
    assert load(write(IMAGE), outputs="probabilities", batch_size=3).native is Access.PROBABILITIES
    other = Domain(kind="tabular", shape=(64,))
    assert load(write(IMAGE), domain=other).domain == other


def test_paths_count_from_the_description(write, tmp_path, monkeypatch):
    path = write(IMAGE.replace("model.skops", "../model.skops"), "inner/model.toml")
    monkeypatch.chdir("/")
    assert load(path).classes == 5
    assert load(write(f"model = '{tmp_path / 'model.skops'}'")).classes == 5


def test_everything_that_can_be_said(write):
    path = write("""
        model = "https://models.example/v2/models/digits"
        outputs = "logits"
        mean = [0.5, 1, 2]
        std = 0.25
        batch_size = 64

        [domain]
        kind = "tabular"
        shape = [3]
        dtype = "float64"
        columns = ["a", "b", "c"]

        [options]
        version = "2"
        token_env = "LOCARD_DIGITS"
        """)
    assert description.read(path) == (
        "https://models.example/v2/models/digits",
        {
            "outputs": "logits",
            "batch_size": 64,
            "mean": (0.5, 1.0, 2.0),
            "std": (0.25,),
            "domain": Domain(kind="tabular", shape=(3,), dtype="float64", columns=("a", "b", "c")),
            "version": "2",
            "token_env": "LOCARD_DIGITS",
        },
    )


def test_text_needs_no_shape(write):
    _, options = description.read(write('model = "m.skops"\n[domain]\nkind = "text"'))
    assert options == {"domain": Domain(kind="text", shape=(), dtype="str")}


def test_an_endpoint_is_reached_with_its_options(write, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("LOCARD_HERE", "secret")
    with FakeServer() as server:
        name = server.url.rpartition("/")[2]
        model = load(
            write(f"""
            model = "{server.server}"
            [domain]
            kind = "image"
            shape = {list(SHAPE)}
            [options]
            name = "{name}"
            token_env = "LOCARD_HERE"
            """)
        )
        assert model.source == server.url
        assert model.domain.shape == SHAPE
        assert model.remote


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "m.onnx"', "unknown key 'modle'; did you mean 'model'"),
        ("", "model must be a path or URL; got None"),
        ("model = 3", "model must be a path or URL; got 3"),
        ('model = "other.toml"', "model is a description itself, 'other.toml'; name the model's own file"),
        ('model = "model.TOML"', "model is a description itself"),
        ('model = "file:///etc/passwd"', r"model must be a path or an http\(s\) URL; got 'file:"),
        ('model = "a\\u0000b.skops"', r"model must be a path or URL; got 'a.x00b.skops'"),
        ('model = "m"\noutputs = 3', "outputs must be a word; got 3"),
        ('model = "m"\nbatch_size = 2.5', "batch_size must be a whole number; got 2.5"),
        ('model = "m"\nbatch_size = true', "batch_size must be a whole number; got True"),
        ('model = "m"\nbatch_size = 0', "batch_size must be at least 1; got 0"),
        ('model = "m"\nmean = "0.5"', "mean must be a list of numbers, one or one a channel; got '0.5'"),
        ('model = "m"\nstd = []', r"std must be a list of numbers, one or one a channel; got \[\]"),
        ('model = "m"\ndomain = "image"', "domain must be a table; got 'image'"),
        ('model = "m"\n[domain]\nkind = "image"\nshap = [1]', "unknown key of .domain. 'shap'; did you mean 'shape'"),
        ('model = "m"\n[domain]\nkind = "sound"\nshape = [1]', "domain.kind must be image, tabular, text or tokens"),
        ('model = "m"\n[domain]\nkind = "image"', "domain.shape must be a list of positive integers; got None"),
        ('model = "m"\n[domain]\nkind = "image"\nshape = []', "all else has numbers and a shape; got image"),
        ('model = "m"\n[domain]\nkind = "image"\nshape = [1]\nbounds = [1, 0]', "domain.bounds must be two numbers"),
        ('model = "m"\noptions = 1', "options must be a table; got 1"),
        ('model = "m"\n[options]\nmean = [1]', "mean has its place at the top of the file, not under .options."),
        ('model = "m"\n[options]\ntrust = true', "trust is no option that a file can set"),
        ('model = "m"\n[options]\nlike = 1', "like is no option that a file can set"),
        ("model = ", "is no TOML: "),
        ("a = " + "[" * 100_000, "is no TOML: "),
        ("x" * (1 << 20) + "x", "has more than 1,048,576 bytes"),
    ],
)
def test_what_is_wrong_is_named(write, text, message):
    path = write(text)
    with pytest.raises(ArtefactError, match=message) as caught:
        load(path)
    assert "model.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ArtefactError, match=r"m\.toml' is no TOML: 'utf-8' codec"):
        load(tmp_path / "m.toml")


def test_missing_files(write, tmp_path):
    with pytest.raises(ArtefactError, match=r"the description .*absent\.toml' cannot be read: No such file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(ArtefactError, match=r"no model at .*gone\.bin"):
        load(write('model = "gone.bin"'))


def test_options_that_the_adapter_does_not_know(write):
    with pytest.raises(ParameterError, match="unknown option of a scikit-learn estimator 'bach_size'; did you mean"):
        load(write('model = "model.skops"\n[options]\nbach_size = 3'))


def test_a_secret_of_the_readers_is_not_sent_where_a_stranger_says(write):
    path = write('model = "https://evil.example"\n[options]\nname = "m"\ntoken_env = "AWS_SECRET_ACCESS_KEY"')
    with pytest.raises(ArtefactError, match=r"send your environment's 'AWS_SECRET_ACCESS_KEY'.*LOCARD_.*pass --trust"):
        load(path)
    assert description.read(path, trust=True)[1] == {"name": "m", "token_env": "AWS_SECRET_ACCESS_KEY"}


def test_trust_is_the_callers_and_not_the_files(write, tmp_path):
    path = write('model = "tree.skops"')
    skops.dump(DecisionTreeClassifier().fit(TABLE, DATA.labels), tmp_path / "tree.skops")
    with pytest.raises(ArtefactError, match=r"not known to be harmless: sklearn.tree._tree.Tree"):
        load(path)
    assert load(path, trust=True).classes == 5
