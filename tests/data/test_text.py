"""Text lines."""

import pytest

from locard.data import read
from locard.errors import ArtefactError
from locard.records import Domain


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "lines.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(path)

    return write


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_one_text_a_line(write, ending):
    data = write(ending.join(["ein Satz", "", "noch einer, mit Seite\f und Zeile\u2028", "  ", ""]))
    assert data.inputs.tolist() == ["ein Satz", "noch einer, mit Seite\f und Zeile\u2028"]
    assert data.labels is None
    assert data.domain == Domain(kind="text", shape=(), dtype="str")
    assert data.domain.check(data.inputs).dtype == object


def test_byte_order_mark_is_no_text(write):
    assert write(b"\xef\xbb\xbfone\ntwo").inputs.tolist() == ["one", "two"]


def test_labels_behind_a_tab(write):
    data = write("good\t1\nbad\t0\nfair\t1\n")
    assert data.inputs.tolist() == ["good", "bad", "fair"]
    assert data.labels.tolist() == [1, 0, 1]
    assert data.classes == ()
    named = write("good\tpositive\nbad\tnegative\nfair\t positive \n")
    assert named.labels.tolist() == [1, 0, 1]
    assert named.classes == ("negative", "positive")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\t1\n\nb\n", "line 3: 0 tabs; expected one before the label in every line"),
        ("a\tb\t1\n", "line 1: 2 tabs"),
        ("a\t1\nb\t \n", "row 2: the label is empty"),
        ("a\t1\nb\t-1\n", "row 2: -1 is no label"),
        (b"abc\xff", "is no UTF-8 at byte 3; save it as UTF-8"),
        ("\n \n", "holds no data"),
    ],
)
def test_what_is_refused(write, content, message):
    with pytest.raises(ArtefactError, match=message):
        write(content)


def test_missing_and_huge(tmp_path):
    with pytest.raises(ArtefactError, match="cannot be read: No such file"):
        read(tmp_path / "none.txt")
    with (tmp_path / "huge.txt").open("wb") as stream:
        stream.truncate((256 << 20) + 1)
    with pytest.raises(ArtefactError, match="268,435,457 bytes; at most 268,435,456 are read"):
        read(tmp_path / "huge.txt")
