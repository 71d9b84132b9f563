"""Estimators as objects and as files; this file must run without torch."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
skops = pytest.importorskip("skops.io")
from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402
from sklearn.svm import SVC  # noqa: E402
from sklearn.tree import DecisionTreeClassifier  # noqa: E402

from locard.errors import ArtefactError, MissingExtraError, ParameterError  # noqa: E402
from locard.models import Session, load  # noqa: E402
from locard.models._identity import digest_object  # noqa: E402
from locard.records import Access, Domain  # noqa: E402
from locard.testing import ADAPTER_LAWS, check_adapter, toy_data, toy_domain  # noqa: E402

DATA = toy_data(120)
TABLE = DATA.inputs.reshape(len(DATA), -1)
LABELS = np.asarray(DATA.labels)
WORDS = np.array(["a good day", "a bad day", "so good", "so bad", "good good", "bad bad"], dtype=object)

ESTIMATORS = [
    LogisticRegression(max_iter=300),
    RidgeClassifier(),
    SGDClassifier(random_state=0),
    GaussianNB(),
    SVC(),
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(4, random_state=0),
    GradientBoostingClassifier(n_estimators=2, random_state=0),
    HistGradientBoostingClassifier(max_iter=2, random_state=0),
    KNeighborsClassifier(algorithm="kd_tree"),
    MLPClassifier((6,), max_iter=300, tol=0.1, random_state=0),
    make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
    make_pipeline(FunctionTransformer(np.log1p), GaussianNB()),
    RandomForestRegressor(3, random_state=0),
    LinearRegression(),
]


def name(estimator):
    return type(estimator[-1] if hasattr(estimator, "steps") else estimator).__name__


@pytest.fixture(scope="module", params=ESTIMATORS, ids=name)
def fitted(request):
    return request.param.fit(TABLE, LABELS)


@pytest.fixture(scope="module")
def bayes():
    return GaussianNB().fit(TABLE, LABELS)


def dump(estimator, path):
    skops.dump(estimator, path)
    return path


def test_object_and_file_are_one_model(fitted, tmp_path):
    path = dump(fitted, tmp_path / "m.skops")
    one, two = load(fitted), load(path, trust=True)
    assert one.digest == two.digest
    assert len(one.digest) == 64
    assert np.array_equal(one._forward(TABLE), two._forward(TABLE))


WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(name, path, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Absent)
from locard.models import load

for path in sys.argv[1:]:
    print(load(path, trust=True).digest)
assert "torch" not in sys.modules
"""


def test_digests_are_the_same_in_another_process_and_without_torch(tmp_path):
    paths = [
        str(dump(estimator.fit(TABLE, LABELS), tmp_path / f"{number}.skops"))
        for number, estimator in enumerate(ESTIMATORS)
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *paths], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "11"},
    )  # fmt: skip
    digests = [load(estimator).digest for estimator in ESTIMATORS]
    assert done.stdout.split() == digests
    assert len(set(digests)) == len(ESTIMATORS)


def test_digest_follows_what_was_fitted(bayes):
    digests = {load(bayes).digest}
    digests.add(load(GaussianNB(var_smoothing=1e-8).fit(TABLE, LABELS)).digest)
    digests.add(load(GaussianNB().fit(TABLE[1:], LABELS[1:])).digest)
    digests.add(load(bayes, outputs="labels").digest)
    assert len(digests) == 4
    assert load(GaussianNB().fit(TABLE, LABELS)).digest in digests


def test_digest_looks_into_trees():
    one, two = (DecisionTreeClassifier(random_state=0).fit(TABLE, LABELS) for _ in range(2))
    assert load(one).digest == load(two).digest
    np.asarray(two.tree_.value)[-1] += 1
    assert load(one).digest != load(two).digest


@pytest.mark.parametrize("law", ADAPTER_LAWS)
@pytest.mark.parametrize("estimator", [GaussianNB(), RidgeClassifier(), LinearRegression()], ids=name)
def test_keeps_the_laws_of_adapters(estimator, law):
    estimator.fit(TABLE, LABELS)
    check_adapter(lambda: load(estimator), TABLE[:7].astype(np.float64), law)


def test_probabilities_are_the_estimators(bayes):
    model = load(bayes)
    assert (model.native, model.classes, model.grants) == (Access.PROBABILITIES, 5, Access.PROBABILITIES.implied)
    assert np.array_equal(model._forward(TABLE), bayes.predict_proba(TABLE))
    assert np.array_equal(Session(model, Access.LABELS).answer(TABLE, Access.LABELS), bayes.predict(TABLE))


@pytest.mark.parametrize("names", [["e", "b", "a", "d", "c"], [30, -4, 7, 1000, 2], [False, True, True, False, True]])
def test_labels_are_positions_among_the_classes(names):
    labels = np.array(names)[LABELS]
    estimator = RidgeClassifier().fit(TABLE, labels)
    model = load(estimator)
    assert model.native is Access.LABELS
    assert model.classes == len(set(names))
    found = Session(model, Access.LABELS).answer(TABLE, Access.LABELS)
    assert estimator.classes_[found].tolist() == np.asarray(estimator.predict(TABLE)).tolist()


def test_unsorted_classes():
    class Fixed(ClassifierMixin, BaseEstimator):
        def fit(self, x, y):
            self.classes_, self.n_features_in_ = np.array(["z", "a", "m"]), x.shape[1]
            return self

        def predict(self, x):
            return np.array(["a", "z", "m"])[: len(x)]

    assert load(Fixed().fit(TABLE, LABELS))._forward(TABLE[:3]).tolist() == [1, 0, 2]


def test_an_answer_that_is_no_class():
    class Stray(ClassifierMixin, BaseEstimator):
        def fit(self, x, y):
            self.classes_, self.n_features_in_ = np.array([0, 1]), x.shape[1]
            return self

        def predict(self, x):
            return np.full(len(x), 7)

    with pytest.raises(ParameterError, match="answers something that is none of its 2 classes"):
        load(Stray().fit(TABLE, LABELS))._run(TABLE)


def test_values():
    one = LinearRegression().fit(TABLE, TABLE[:, 0])
    model = load(one)
    assert (model.native, model.classes) == (Access.VALUES, None)
    assert np.allclose(model._forward(TABLE), TABLE[:, :1], atol=1e-5)
    two = LinearRegression().fit(TABLE, TABLE[:, :2])
    assert np.allclose(load(two)._forward(TABLE), TABLE[:, :2], atol=1e-5)


def test_images_are_flattened(bayes):
    model = load(bayes, like=toy_domain())
    assert model.domain == toy_domain()
    assert np.array_equal(model._forward(DATA.inputs), bayes.predict_proba(TABLE))


def test_domains(bayes):
    assert load(bayes).domain == Domain(kind="tabular", shape=(64,), dtype="float64")
    other = Domain(kind="image", shape=(1, 9, 9))
    assert load(bayes, like=other).domain == Domain(kind="tabular", shape=(64,), dtype="float64")
    given = Domain(kind="tabular", shape=(64,), bounds=(0.0, 1.0))
    assert load(bayes, like=toy_domain(), domain=given).domain == given
    with pytest.raises(ParameterError, match=r"takes 64 numbers an input; the domain says image \(1, 9, 9\)"):
        load(bayes, domain=other)


def test_names_of_columns():
    estimator = GaussianNB().fit(TABLE, LABELS)
    # What fitting on a table with named columns leaves behind.
    vars(estimator)["feature_names_in_"] = np.array([f"column {i}" for i in range(64)], dtype=object)
    model = load(estimator)
    assert model.domain.columns[:2] == ("column 0", "column 1")
    # Without the filter, scikit-learn's warning about missing names would be an error here.
    assert model._forward(TABLE).shape == (120, 5)


def test_text(tmp_path):
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(list(WORDS), [1, 0] * 3)
    with pytest.raises(ParameterError, match="does not say what its inputs are: give domain=Domain"):
        load(estimator)
    domain = Domain(kind="text", shape=(), dtype="str")
    model = load(estimator, domain=domain)
    assert np.array_equal(Session(model, Access.LABELS).answer(WORDS, Access.LABELS), [1, 0] * 3)
    assert load(dump(estimator, tmp_path / "t.skops"), like=domain).digest == model.digest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNB(), "scikit-learn GaussianNB is not fitted: call its fit first"),
        (lambda: make_pipeline(StandardScaler(), GaussianNB()), "scikit-learn Pipeline is not fitted"),
        (lambda: KMeans(2).fit(TABLE), "KMeans is neither a classifier nor a regressor"),
        (
            lambda: DecisionTreeClassifier().fit(TABLE, np.stack([LABELS, LABELS], axis=1)),
            "must have one output with classes_",
        ),
    ],
)
def test_estimators_that_are_refused(make, message):
    with pytest.raises(ParameterError, match=message):
        load(make())


def test_options(bayes):
    assert load(bayes, outputs="labels").grants == Access.LABELS
    assert load(bayes, batch_size=5).batch_size == 5
    with pytest.raises(ParameterError, match="GaussianNB gives PROBABILITIES, not logits"):
        load(bayes, outputs="logits")
    with pytest.raises(ParameterError, match="gives LABELS, not probabilities"):
        load(RidgeClassifier().fit(TABLE, LABELS), outputs="probabilities")
    with pytest.raises(ParameterError, match="unknown option of a scikit-learn estimator 'mean'"):
        load(bayes, mean=(0.5,))
    with pytest.raises(ParameterError, match="batch_size must be a whole number >= 1; got -1"):
        load(bayes, batch_size=-1)


def test_a_class_is_no_estimator():
    with pytest.raises(ParameterError, match="a callable does not say what its inputs are"):
        load(GaussianNB)


# Files made to do harm.


def rebuilt(source, target, change):
    """A copy of an archive with `change` applied to its members, a dictionary of bytes by name."""
    with zipfile.ZipFile(source) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    return target


def test_types_that_are_not_known_need_trust(tmp_path):
    path = dump(DecisionTreeClassifier(random_state=0).fit(TABLE, LABELS), tmp_path / "m.skops")
    with pytest.raises(ArtefactError, match=r"not known to be harmless: sklearn.tree._tree.Tree. .*pass --trust"):
        load(path)
    assert load(path, trust=True).classes == 5


def test_functions_hidden_in_a_file_are_named_and_not_run(bayes, tmp_path):
    canary = tmp_path / "ran"
    estimator = make_pipeline(FunctionTransformer(functools.partial(os.mkdir, str(canary))), bayes)
    path = dump(estimator, tmp_path / "m.skops")
    with pytest.raises(ArtefactError, match=r"functools.partial, (posix|nt).mkdir") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize(("module", "function"), [("builtins", "eval"), ("os", "system"), ("subprocess", "Popen")])
@pytest.mark.parametrize("loader", ["FunctionNode", "TypeNode"])
def test_functions_written_into_a_file_by_hand(bayes, tmp_path, module, function, loader):
    def change(members):
        text = members["schema.json"].decode()
        schema = json.loads(text)
        steps = schema["content"]["content"]["steps"]["content"]
        steps[0]["content"][1]["content"]["content"]["func"].update(
            __module__=module, __class__=function, __loader__=loader
        )
        members["schema.json"] = json.dumps(schema).encode()

    sound = dump(make_pipeline(FunctionTransformer(np.log1p), bayes), tmp_path / "sound.skops")
    with pytest.raises(ArtefactError, match=rf"not known to be harmless: {module}\.{function}"):
        load(rebuilt(sound, tmp_path / "hostile.skops", change))


def test_a_pickled_array_is_not_read_even_with_trust(bayes, tmp_path):
    canary = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    stream = io.BytesIO()
    np.save(stream, np.array([Payload()], dtype=object), allow_pickle=True)

    def change(members):
        for one in members:
            if one.endswith(".npy"):
                members[one] = stream.getvalue()

    path = rebuilt(dump(bayes, tmp_path / "sound.skops"), tmp_path / "hostile.skops", change)
    for trust in (False, True):
        with pytest.raises(ArtefactError, match=r"is damaged or no skops file: ValueError"):
            load(path, trust=trust)
    assert not canary.exists()


DAMAGE = {
    "no schema": (lambda members: members.pop("schema.json"), "it has no schema.json"),
    "no JSON": (lambda members: members.update({"schema.json": b"{"}), "is damaged or no skops file"),
    "deep JSON": (lambda members: members.update({"schema.json": b"[" * 100_000}), "is damaged or no skops file"),
    "other JSON": (lambda members: members.update({"schema.json": b"[]"}), "is damaged or no skops file"),
    "no arrays": (lambda members: [members.pop(one) for one in list(members) if one.endswith(".npy")], "is damaged"),
    "leads out": (lambda members: members.update({"../outside": b"x"}), "leads out of the archive"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_end_in_one_line(bayes, tmp_path, kind):
    change, message = DAMAGE[kind]
    path = rebuilt(dump(bayes, tmp_path / "sound.skops"), tmp_path / "damaged.skops", change)
    with pytest.raises(ArtefactError, match=message) as caught:
        load(path, trust=True)
    assert "damaged.skops" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_another_kind(bayes, tmp_path):
    raw = dump(bayes, tmp_path / "m.skops").read_bytes()
    (tmp_path / "m.skops").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ArtefactError, match="is truncated or no zip archive"):
        load(tmp_path / "m.skops")
    with pytest.raises(ArtefactError, match=r"cannot be read: No such file"):
        load(tmp_path / "absent.skops")
    dump({"a": 1}, tmp_path / "d.skops")
    with pytest.raises(ArtefactError, match="holds a dict, no scikit-learn estimator"):
        load(tmp_path / "d.skops")


def test_a_file_that_unpacks_to_far_more_than_its_size(tmp_path):
    path = tmp_path / "bomb.skops"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("schema.json", "w") as member:
        for _ in range(100):
            member.write(bytes(1 << 20))
    with pytest.raises(ArtefactError, match="unpacks to 104,857,600"):
        load(path)


def test_without_skops_the_extra_is_named(bayes, tmp_path, monkeypatch):
    path = dump(bayes, tmp_path / "m.skops")
    monkeypatch.setitem(sys.modules, "skops.io", None)
    monkeypatch.setitem(sys.modules, "skops", None)
    with pytest.raises(MissingExtraError, match=r"the estimator .* needs .* pip install 'locard\[sklearn\]'"):
        load(path)


# The identity of objects, by itself.


def test_identity_sees_values_types_and_structure():
    a, b = np.arange(6.0), np.arange(6.0)
    assert digest_object([a, a]) == digest_object([a, b])
    assert digest_object({"x": 1, "y": 2}) == digest_object({"y": 2, "x": 1})
    assert digest_object(a) == digest_object(a[::-1].copy()[::-1])
    values = [1, 1.0, True, "1", b"1", None, (1,), [1], {1}, {1: 1}, np.float64(1), np.int64(1), a, a.reshape(2, 3),
              a.astype(np.float32), np.array(["a"], dtype=object), np.exp, np.log, len, int, float]  # fmt: skip
    assert len({digest_object(value) for value in values}) == len(values)


def test_identity_of_functions():
    def scaled(by):
        return lambda x: x * by

    assert digest_object(scaled(2)) == digest_object(scaled(2))
    assert digest_object(scaled(2)) != digest_object(scaled(3))
    assert digest_object(lambda x: x + 1) != digest_object(lambda x: x + 2)


def test_identity_ends_where_objects_hold_each_other():
    def ring(value):
        one = {"value": value}
        one["self"] = one
        return one

    assert digest_object(ring(1)) == digest_object(ring(1)) != digest_object(ring(2))


def test_identity_leaves_out_memory_between_fields():
    kind = np.dtype([("a", "u1"), ("b", "f8")], align=True)
    one, two = np.zeros(3, kind), np.frombuffer(b"\xff" * 3 * kind.itemsize, kind).copy()
    two["a"], two["b"] = 0, 0
    assert one.tobytes() != two.tobytes()
    assert digest_object(one) == digest_object(two)


def test_identity_leaves_out_sources_of_chance():
    one, two = np.random.RandomState(1), np.random.RandomState(2)
    assert digest_object(one) == digest_object(two)
    assert digest_object(one) != digest_object(np.random.default_rng(1))


def test_what_cannot_be_taken_apart_is_named():
    with pytest.raises(ParameterError, match="a generator in it cannot be identified"):
        digest_object([i for i in range(3)] + [(i for i in range(3))])
