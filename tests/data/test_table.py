"""CSV and Parquet say the same."""

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from locard.data import read
from locard.errors import ArtefactError, ParameterError
from locard.records import Domain

KINDS = ["csv", "parquet"]


@pytest.fixture
def write(tmp_path):
    """Columns by name, written as one of the two kinds."""

    def write(kind, columns, fragment=""):
        path = tmp_path / f"data.{kind}"
        if kind == "parquet":
            parquet.write_table(pa.table(columns), path)
        else:
            rows = zip(*columns.values(), strict=True)
            path.write_text("\n".join(",".join(map(str, row)) for row in [columns, *rows]) + "\n")
        return read(f"{path}{fragment}")

    return write


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["label", "y", "target"])
def test_numbers_and_names(write, kind, name):
    data = write(kind, {"b": [1, 2, 3], name: ["u", "v", "u"], "a": [0.5, -1.5, 1e9]})
    assert data.domain == Domain(kind="tabular", shape=(2,), columns=("b", "a"))
    assert data.inputs.tolist() == [[1, 0.5], [2, -1.5], [3, 1e9]]
    assert data.inputs.dtype == np.float32
    assert data.labels.tolist() == [0, 1, 0]
    assert data.classes == ("u", "v")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("numbers", [[2, 0, 7], [2.0, 0.0, 7.0]])
def test_whole_numbers_are_kept(write, kind, numbers):
    data = write(kind, {"a": [1, 2, 3], "label": numbers})
    assert data.labels.tolist() == [2, 0, 7]
    assert data.labels.dtype == np.int64
    assert data.classes == ()


@pytest.mark.parametrize("kind", KINDS)
def test_label_comes_before_y_which_is_then_a_number(write, kind):
    data = write(kind, {"x": [1, 2], "y": [3, 4], "label": [0, 1]})
    assert data.domain.columns == ("x", "y")


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_can_be_named_or_absent(write, kind):
    columns = {"x": [1, 2], "y": [0.5, 4], "species": ["cat", "ape"]}
    data = write(kind, columns, "#label=species")
    assert data.classes == ("ape", "cat")
    assert data.domain.columns == ("x", "y")
    none = write(kind, {"x": [1, 2], "y": [0.5, 4]}, "#label=")
    assert none.labels is None
    assert none.domain.columns == ("x", "y")
    with pytest.raises(ParameterError, match=r"unknown column of .* 'specie'; did you mean 'species'"):
        write(kind, columns, "#label=specie")
    with pytest.raises(ParameterError, match="after '#' comes label=COLUMN, or label= for none; got 'target=species'"):
        write(kind, columns, "#target=species")


@pytest.mark.parametrize("kind", KINDS)
def test_texts(write, kind):
    data = write(kind, {"text": ["so so", "well"], "label": [1, 0]})
    assert data.domain == Domain(kind="text", shape=(), dtype="str")
    assert data.inputs.tolist() == ["so so", "well"]
    assert data.labels.tolist() == [1, 0]
    with pytest.raises(ArtefactError, match="has a column 'text' and also 'id'; a text model takes the text alone"):
        write(kind, {"id": [1, 2], "text": ["so so", "well"], "label": [1, 0]})


def test_quoted_text_spans_lines(tmp_path):
    (tmp_path / "data.csv").write_bytes(b'\xef\xbb\xbftext,label\r\n"a, ""b""\r\nc",1\r\n\r\nd,0\r\n')
    data = read(tmp_path / "data.csv")
    assert data.labels is not None
    assert data.inputs.tolist() == ['a, "b"\r\nc', "d"]
    assert data.labels.tolist() == [1, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2], "c": ["x", "y"]}, "row 1: column 'c' holds .*; expected a number.*#label=c"),
        ({"a": [1, 2], "c": [1, np.nan]}, "row 2: column 'c' holds nan; expected a number"),
        ({"a": [1, 2], "c": [1, -np.inf]}, "row 2: column 'c' holds -inf; expected a number"),
        ({"a": [1, 2], "c": [1, 1e39]}, r"row 2: column 'c' holds 1e\+39, beyond float32; expected a number"),
        ({"a": [1, 2], "y": [0.5, 1]}, "row 1: 0.5 is no label; expected names, or whole numbers from 0 on"),
        ({"a": [1, 2], "y": [0, -1]}, "row 2: -1 is no label"),
        ({"a": [1, 2], "y": [0, 2**31]}, r"row 2: 2.14748e\+09 is no label"),
        ({"label": [1, 2]}, "has no column but the label 'label'"),
        ({"a": np.zeros(0), "label": np.zeros(0)}, "holds no data"),
    ],
)
def test_what_is_refused(write, kind, columns, message):
    with pytest.raises(ArtefactError, match=message):
        write(kind, columns)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected the names of the columns in the first row"),
        ("a;b\n1;2\n", "does not separate its fields by commas; its first row is 'a;b'"),
        ("1,2\n3,4\n", "has numbers in its first row"),
        ("a,a\n1,2\n", "has two columns 'a'; rename one"),
        (",a\n0,2\n", "column 1 is a row index without a name; save the table without it"),
        ("a,b\n1,2\n3\n", "row 2: 1 fields; the first row names 2 columns"),
        ("a,b\n1,2\n3,4,5\n", "row 2: 3 fields"),
        ("a,b\n1,2\n3,\n", "row 2: column 'b' holds nothing; expected a number"),
        ("a,b\n1,2_0\n", "row 1: column 'b' holds '2_0'"),
        ("a,label\n1,x\n2,\n", "row 2: the label is empty"),
        ('a,b\n1,"2\n', "is no CSV file, or a damaged one: unexpected end of data"),
        ("text\n" + "a" * 140_000, "damaged one: field larger than field limit"),
        (b"a,b\n1,\xff\n", "is no UTF-8; save it as UTF-8"),
    ],
)
def test_csv_that_is_refused(tmp_path, content, message):
    (tmp_path / "data.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArtefactError, match=message):
        read(tmp_path / "data.csv")


def test_names_that_look_like_numbers_to_python(tmp_path):
    (tmp_path / "data.csv").write_text("a,label\n1,1_1\n2,1_0\n")
    assert read(tmp_path / "data.csv").classes == ("1_0", "1_1")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, None]}, "row 2: column 'a' is empty; fill it, or leave the row out"),
        ({"a": [1, 2], "label": ["x", None]}, "row 2: column 'label' is empty"),
        ({"text": [1, 2]}, "column 'text' holds int64; expected strings"),
        ({"text": ["a", None]}, "row 2: column 'text' is empty"),
        ({"a": [[1], [2]]}, "column 'a' holds the type list"),
        ({"a": [1, 2], "y": [[1], [2]]}, "label column 'y' holds list.*; expected names or whole numbers"),
        ({"a": [1, 2], "__index_level_0__": [4, 5]}, "column 2 is a row index"),
    ],
)
def test_parquet_that_is_refused(write, columns, message):
    with pytest.raises(ArtefactError, match=message):
        write("parquet", columns)


def test_parquet_types(write):
    words = pa.array(["u", "v", "u"]).dictionary_encode()
    data = write("parquet", {"a": pa.array([True, False, True]), "b": pa.array([1, 2, 3], pa.uint8()), "label": words})
    assert data.inputs.tolist() == [[1, 1], [0, 2], [1, 3]]
    assert data.classes == ("u", "v")
    assert write("parquet", {"a": [1.0, 2.0], "label": [True, False]}).labels.tolist() == [1, 0]


def test_size_limits(write, tmp_path, monkeypatch):
    monkeypatch.setattr("locard.data._files.MAX_VALUES", 5)
    for kind in KINDS:
        with pytest.raises(ArtefactError, match="holds 6 numbers; at most 5 are read"):
            write(kind, {"a": [1, 2], "b": [1, 2], "c": [1, 2]})
    with pytest.raises(ArtefactError, match="cannot be read: No such file"):
        read(tmp_path / "none.csv")


def test_a_hash_in_the_name_of_a_file(tmp_path):
    path = tmp_path / "data#1.csv"
    path.write_text("a,label\n1,0\n")
    assert len(read(path)) == 1
    assert read(f"{path}#label=").domain.columns == ("a", "label")


def sound_bytes():
    stream = io.BytesIO()
    parquet.write_table(pa.table({"a": [0.5, 1.5, 2.5], "label": ["u", "v", "u"]}), stream)
    return stream.getvalue()


SOUND = sound_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(SOUND) - 1), bit=st.integers(0, 7), cut=st.booleans())
@example(at=SOUND.index(b"u"), bit=7, cut=False)
def test_damaged_parquet_is_told_or_harmless(tmp_path, at, bit, cut):
    raw = bytearray(SOUND)
    raw[at] ^= 1 << bit
    (tmp_path / "data.parquet").write_bytes(raw[:at] if cut else raw)
    told = ""
    try:
        data = read(tmp_path / "data.parquet")
        data.domain.check(data.inputs)
    except ArtefactError as error:
        told = str(error)
    assert "\n" not in told


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_every_number_survives(tmp_path, values):
    (tmp_path / "data.csv").write_text("a\n" + "".join(f"{value!r}\n" for value in values))
    assert read(tmp_path / "data.csv").inputs[:, 0].tolist() == values
