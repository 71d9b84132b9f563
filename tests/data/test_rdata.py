"""R's files: tables come back as they were written, and a file that lies is told from a sound one."""

import gzip
import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.r_files import (
    PACK,
    chunk,
    factor,
    frame,
    header,
    index,
    pairs,
    rda,
    rdb,
    reals,
    strings,
    symbol,
    vector,
    whole,
    wholes,
    word,
)

from locard.data import _rdata
from locard.data._rdata import read_rda, read_rdb
from locard.errors import ArtefactError

TABLE = {
    "letter": factor(["b", "a", "b"], ["a", "b"]),
    "x": reals(0.5, -2.0, 1e300),
    "n": wholes(1, -7, 2**31 - 1),
    "text": strings("one", "", "naïve ☃"),
}


def check(table):
    assert list(table) == ["letter", "x", "n", "text"]
    assert table["letter"] == ["b", "a", "b"]
    assert table["text"] == ["one", "", "naïve ☃"]
    assert table["x"].tolist() == [0.5, -2.0, 1e300]
    assert table["n"].tolist() == [1, -7, 2**31 - 1]
    assert table["x"].dtype == np.float64
    assert table["n"].dtype == np.int32


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("pack", PACK)
def test_a_table_of_an_rda(tmp_path, pack, version):
    path = tmp_path / "a.rda"
    path.write_bytes(rda({"other": frame({"x": reals(1.0)}), "table": frame(TABLE)}, pack, version))
    check(read_rda(path, "table"))
    assert list(read_rda(path, "other")["x"]) == [1.0]


@pytest.mark.parametrize("pack", ["lzma", "bzip2", "zlib"])
def test_a_table_of_a_database(tmp_path, pack):
    rdb(tmp_path, {"other": frame({"x": reals(1.0)}), "table": frame(TABLE)}, pack)
    check(read_rdb(tmp_path / "Rdata.rdx", "table"))
    assert list(read_rdb(tmp_path / "Rdata.rdx", "other")["x"]) == [1.0]


def test_a_name_said_before_is_referred_to(tmp_path):
    """R writes a symbol once; the second column's `levels` is the number of the first's."""
    second = (
        whole(13 | 0x200) + whole(1) + whole(1)
        + whole(2 | 0x400) + whole(0xFF | 2 << 8) + strings("z") + whole(254)
    )  # fmt: skip
    first = factor(["a"], ["a"])
    path = tmp_path / "a.rda"
    path.write_bytes(rda({"table": frame({"one": first, "two": second})}, "none"))
    assert read_rda(path, "table") == {"one": ["a"], "two": ["z"]}


def test_latin_words(tmp_path):
    path = tmp_path / "a.rda"
    latin = whole(16) + whole(1) + word("é", gp=1 << 2, code="latin-1")
    path.write_bytes(rda({"table": frame({"text": latin})}))
    assert read_rda(path, "table") == {"text": ["é"]}


def value(raw):
    """A file whose table has one column of these bytes."""
    return rda({"table": frame({"x": raw})}, "none")


ENDLESS = b"".join(whole(19) + whole(1) for _ in range(40)) + whole(254)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file of R data in the portable form"),
        (b"RDA2\nA\n2\n", "is no file of R data in the portable form"),
        (b"RDX2\nB\n" + bytes(40), "is no file of R data in the portable form"),
        (PACK["xz"](rda({"table": frame(TABLE)}, "none"))[:-30], "is (truncated|damaged)"),
        (rda({"table": frame(TABLE)}, "none")[:-30], "is truncated"),
        (b"\x1f\x8b" + bytes(40), "is damaged"),
        (b"\xfd7zXZ\0" + bytes(40), "is damaged"),
        (b"RDX2\n" + header(2).replace(whole(2), whole(4), 1) + whole(254), "the version 4 of R's format; 2 and 3"),
        (rda({"other": frame(TABLE)}), "holds no table 'table'"),
        (rda({"table": vector(19, reals(1.0), 1, pairs(names=wholes(7)))}), "holds no list with names"),
        (rda({"table": reals(1.0)}), "holds no list with names where one was expected"),
        (value(whole(4) + whole(0)), "holds R's type 4, which is none of a plain table's"),
        (value(whole(238)), "holds R's type 238, which is none of a plain table's"),
        (value(whole(14) + whole(2**31 - 1)), "says that 2,147,483,647 items follow where"),
        (value(whole(14) + whole(-1)), "says that -1 items follow where"),
        (value(whole(16) + whole(1) + whole(13)), "holds R's type 13 where a string was expected"),
        (value(whole(16) + whole(1) + whole(9) + whole(-1)), r"holds a string that is missing \(NA\)"),
        (value(whole(16) + whole(1) + word("é", code="latin-1")), "holds a string that is no UTF-8"),
        (value(whole(0xFF | 99 << 8)), "refers to a name 99 that it does not have"),
        (value(ENDLESS), "is nested more than 32 deep"),
        (value(whole(254)), "has a column 'x' of no plain values"),
        (value(vector(19, reals(1.0), 1)), "has a column 'x' of no plain values"),
        (value(wholes(2, attributes=pairs(levels=strings("a")))), "a column 'x' with a category that has no name"),
        (value(wholes(0, attributes=pairs(levels=strings("a")))), "a column 'x' with a category that has no name"),
        (value(wholes(1, attributes=reals(1.0))), "holds attributes that are no pairs"),
        (value(wholes(1, attributes=whole(2) + reals(1.0) + whole(254))), "holds a value without a name"),
        (value(wholes(1, attributes=whole(2 | 0x400) + symbol("a") + whole(254) + whole(13))), "that does not end"),
        (rda({"table": frame({"x": reals(1.0), "y": reals(1.0, 2.0)})}), "whose columns differ in length"),
    ],
)
def test_a_file_that_lies(tmp_path, content, message):
    path = tmp_path / "a.rda"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=rf"a\.rda' .*{message}.*install it again"):
        read_rda(path, "table")


@pytest.mark.parametrize("pack", ["gzip", "bzip2", "xz"])
def test_unpacking_stops_at_the_bound(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(_rdata, "MOST_UNPACKED", 1000)
    path = tmp_path / "a.rda"
    path.write_bytes(PACK[pack](bytes(100_000)))
    with pytest.raises(ArtefactError, match="unpacks to more than 1,000 bytes"):
        read_rda(path, "table")


def test_an_unpacker_that_asks_for_much_memory_is_refused(tmp_path):
    path = tmp_path / "a.rda"
    path.write_bytes(lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]))
    with pytest.raises(ArtefactError, match=r"is damaged: .*[Mm]emory"):
        read_rda(path, "table")


def test_missing_files(tmp_path):
    with pytest.raises(ArtefactError, match=r"a\.rda' cannot be read: No such file"):
        read_rda(tmp_path / "a.rda", "table")
    with pytest.raises(ArtefactError, match=r"Rdata\.rdx' cannot be read: No such file"):
        read_rdb(tmp_path / "Rdata.rdx", "table")
    rdb(tmp_path, {"table": frame(TABLE)})
    (tmp_path / "Rdata.rdb").unlink()
    with pytest.raises(ArtefactError, match=r"Rdata\.rdb' cannot be read: No such file"):
        read_rdb(tmp_path / "Rdata.rdx", "table")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((10**6, 50), r"Rdata\.rdb' ends before 'table', which its index places at 1,000,000, 50 bytes long"),
        ((0, 10**6), r"Rdata\.rdb' ends before 'table', which its index places at 0, 1,000,000"),
        ((-1, 50), r"Rdata\.rdb' ends before 'table'"),
        ((0, -1), r"Rdata\.rdb' ends before 'table'"),
        ((0, 3), r"Rdata\.rdb' ends before 'table'"),
        ((0,), r"Rdata\.rdx' does not say where 'table' lies"),
        ((0, 60), r"Rdata\.rdb' is truncated"),
    ],
)
def test_an_index_that_lies(tmp_path, place, message):
    rdb(tmp_path, {"table": frame(TABLE)})
    index(tmp_path, {"table": place})
    with pytest.raises(ArtefactError, match=message):
        read_rdb(tmp_path / "Rdata.rdx", "table")


def test_a_database_without_the_table(tmp_path):
    rdb(tmp_path, {"other": frame(TABLE)})
    with pytest.raises(ArtefactError, match=r"Rdata\.rdx' holds no table 'table'"):
        read_rdb(tmp_path / "Rdata.rdx", "table")
    (tmp_path / "Rdata.rdx").write_bytes(gzip.compress(header() + reals(1.0)))
    with pytest.raises(ArtefactError, match=r"Rdata\.rdx' holds no list with names"):
        read_rdb(tmp_path / "Rdata.rdx", "table")


@pytest.mark.parametrize(("change", "message"), [(1, "holds a table of"), (-1, "unpacks to more than")])
def test_a_chunk_says_its_size(tmp_path, change, message):
    raw = header() + frame(TABLE)
    piece = whole(len(raw) + change) + chunk(raw)[4:]
    (tmp_path / "Rdata.rdb").write_bytes(piece)
    index(tmp_path, {"table": (0, len(piece))})
    with pytest.raises(ArtefactError, match=message):
        read_rdb(tmp_path / "Rdata.rdx", "table")


@given(st.data())
def test_a_changed_byte_is_read_or_refused(tmp_path_factory, data):
    """Nothing but a table or one clear error comes of any byte."""
    raw = bytearray(rda({"table": frame(TABLE)}, "none"))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("r") / "a.rda"
    path.write_bytes(raw)
    try:
        table = read_rda(path, "table")
    except ArtefactError:
        return
    assert all(len(column) == 3 for column in table.values())
