"""Reviews: the real texts where they are installed, and tables made here."""

import numpy as np
import pytest
from tests.data.r_files import factor, frame, rdb, reals, strings

from locard.data import _places, read
from locard.errors import ArtefactError, ParameterError

PLACE = _places.R_LIBRARY.relative_to("/") / "modeldata" / "data"
real = pytest.mark.skipif(not (_places.home() / PLACE).is_dir(), reason="the data of modeldata: make data")


def table(*rows):
    words, verdicts = zip(*rows, strict=True)
    return frame({"product": strings(*"ab"[: len(rows)]), "review": strings(*words),
                  "score": factor(verdicts, sorted(set(verdicts)))})  # fmt: skip


TRAIN = table(("so good", "great"), ("not for me", "other"))
TEST = table(("naïve, but fine", "great"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(_places.VARIABLE, str(tmp_path))
    rdb(tmp_path / PLACE, {"unused": frame({"x": reals(1.0)}), "training_data": TRAIN, "testing_data": TEST})
    return tmp_path / PLACE


@real
def test_the_real_texts_are_whole():
    train, test = read("reviews:train"), read("reviews:test")
    assert train.labels is not None
    assert test.labels is not None
    assert np.bincount(train.labels).tolist() == [2600, 1400]
    assert np.bincount(test.labels).tolist() == [658, 342]
    assert train.inputs[0].startswith("this stuff is  not stuffing")
    assert train.classes[train.labels[0]] == "other"
    assert train.domain.check(train.inputs).shape == (4000,)


def test_texts_labels_and_parts(folder):
    data = read("reviews")
    assert data.inputs.tolist() == ["so good", "not for me", "naïve, but fine"]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0]
    assert data.classes == ("great", "other")
    assert data.domain.kind == "text"
    assert read("reviews:train").inputs.tolist() == ["so good", "not for me"]
    assert read("reviews:test").inputs.tolist() == ["naïve, but fine"]
    assert read("reviews:test").name == "reviews:test"


@pytest.mark.parametrize("name", ["reviews:valid", "reviews:"])
def test_unknown_part(folder, name):
    with pytest.raises(ParameterError, match="reviews has the parts train and test; got"):
        read(name)


def test_a_missing_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(_places.VARIABLE, str(tmp_path))
    monkeypatch.setattr(_places, "R_LIBRARY", tmp_path / "r")
    with pytest.raises(
        ArtefactError, match=r"reviews needs .*`apt-get download r-cran-modeldata && dpkg -x .*LOCARD_D"
    ):
        read("reviews")


@pytest.mark.parametrize("wrong", [
    frame({"review": strings("a")}),
    frame({"review": reals(1.0), "score": strings("great")}),
    frame({"review": strings("a"), "score": strings("bad")}),
    frame({"review": strings("a"), "score": reals(1.0)}),
])  # fmt: skip
def test_another_table(folder, wrong):
    rdb(folder, {"training_data": wrong, "testing_data": TEST})
    with pytest.raises(ArtefactError, match="the table training_data must have texts in a column review, and great or"):
        read("reviews")
    assert len(read("reviews:test")) == 1
