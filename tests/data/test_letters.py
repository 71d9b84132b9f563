"""Letters: the real table where it is installed, and tables made here."""

import numpy as np
import pytest
from tests.data.r_files import factor, frame, rda, reals, strings

from locard.data import _places, read
from locard.data.letters import COLUMNS, LABEL
from locard.errors import ArtefactError, ParameterError

PLACE = _places.R_LIBRARY.relative_to("/") / "mlbench" / "data"
real = pytest.mark.skipif(not (_places.home() / PLACE).is_dir(), reason="the data of mlbench: make data")


def table(words, **changed):
    """One row a word; the numbers of row i are i, i + 1, ... modulo 16."""
    columns = {name: reals(*((row + column) % 16 for row in range(len(words)))) for column, name in enumerate(COLUMNS)}
    return frame({LABEL: factor(words, sorted(set(words))), **columns, **changed})


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv(_places.VARIABLE, str(tmp_path))
    path = tmp_path / PLACE / "LetterRecognition.rda"
    path.parent.mkdir(parents=True)
    path.write_bytes(rda({"LetterRecognition": table(list("TIDNGSBAJM"))}))
    return path


@real
def test_the_real_table_is_whole():
    data = read("letters")
    assert data.inputs.shape == (20_000, 16)
    assert data.labels is not None
    # The published counts of A to D, and the first row of the published file, a T.
    assert np.bincount(data.labels)[:4].tolist() == [789, 766, 736, 805]
    assert data.inputs[0].tolist() == [2, 8, 3, 5, 1, 8, 13, 0, 6, 6, 10, 8, 0, 8, 0, 8]
    assert data.classes[data.labels[0]] == "T"
    assert data.domain.check(data.inputs) is data.inputs
    assert np.array_equal(data.domain.deliver(data.inputs), data.inputs)
    assert len(read("letters:train")) == 16_000


def test_rows_labels_and_parts(path):
    data, train, test = read("letters"), read("letters:train"), read("letters:test")
    assert "".join(data.classes[label] for label in data.labels) == "TIDNGSBAJM"
    assert data.inputs.dtype == np.float32
    assert data.inputs[9].tolist() == [(9 + column) % 16 for column in range(16)]
    assert len(train) == 8
    assert np.array_equal(np.concatenate([train.inputs, test.inputs]), data.inputs)
    assert [data.classes[label] for label in (*train.labels, *test.labels)] == list("TIDNGSBAJM")
    assert test.name == "letters:test"


@pytest.mark.parametrize("name", ["letters:valid", "letters:"])
def test_unknown_part(path, name):
    with pytest.raises(ParameterError, match="letters has the parts train and test; got"):
        read(name)


def test_a_missing_package_says_how_to_get_it_without_r(tmp_path, monkeypatch):
    monkeypatch.setenv(_places.VARIABLE, str(tmp_path))
    monkeypatch.setattr(_places, "R_LIBRARY", tmp_path / "r")
    with pytest.raises(
        ArtefactError,
        match=r"letters needs .*`apt-get download r-cran-mlbench && dpkg -x r-cran-mlbench_\*\.deb .*no R.*make data.*"
        r"LOCARD_DATA",
    ):
        read("letters")


def test_where_r_is_installed_its_library_serves(path, tmp_path, monkeypatch):
    monkeypatch.setattr(_places, "R_LIBRARY", path.parent.parent.parent)
    monkeypatch.setenv(_places.VARIABLE, str(tmp_path / "no"))
    assert len(read("letters")) == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (frame({LABEL: factor(["A"], ["A"])}), "has the columns lettr; expected lettr and 16 numbers"),
        (table(["A", "AB"]), "the column lettr must hold letters from A to Z"),
        (table(["A"], lettr=reals(1.0)), "the column lettr must hold letters from A to Z"),
        (table(["A"], width=strings("x")), "has words in a column that must hold numbers"),
        (table(["A"], width=reals(16.0)), "holds other numbers than 0 to 15"),
        (table(["A"], width=reals(0.5)), "holds other numbers than 0 to 15"),
        (table(["A"], width=reals(float("nan"))), "holds other numbers than 0 to 15"),
    ],
)
def test_another_table(path, content, message):
    path.write_bytes(rda({"LetterRecognition": content}))
    with pytest.raises(ArtefactError, match=message):
        read("letters")
