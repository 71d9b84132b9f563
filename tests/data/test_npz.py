"""What an .npz means, and that its headers are not believed."""

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from locard.data import read
from locard.data._files import MAX_FILE
from locard.data.npz import Npz
from locard.errors import ArtefactError
from locard.records import Domain


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return read(path)

    return save


def member(shape, dtype="<f4", data=b"", version=(1, 0)):
    """The bytes of an .npy whose header says what it likes."""
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(head)) + head + data


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, content in members.items():
            stream.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 3, 8, 9), (3, 8, 9)),
        ((5, 8, 9, 3), (3, 8, 9)),
        ((5, 8, 9, 1), (1, 8, 9)),
        ((5, 8, 9, 4), (4, 8, 9)),
        ((5, 8, 9), (1, 8, 9)),
        ((5, 3, 9, 3), (3, 9, 3)),
        ((5, 12, 9, 8), (12, 9, 8)),
        ((5, 12, 9, 2), (12, 9, 2)),
    ],
)
def test_the_channel_axis(save, shape, expected):
    x = np.random.default_rng(0).random(shape, np.float32)
    data = save(x=x)
    assert data.domain == Domain(kind="image", shape=expected, bounds=(0.0, 1.0))
    assert data.inputs.shape == (5, *expected)
    assert data.inputs.flags.c_contiguous
    last = len(shape) == 4 and expected != shape[1:]
    pixel = x[2, 4, 1, 0] if last else x[2, 4, 1] if len(shape) == 3 else x[2, 0, 4, 1]
    assert data.inputs[2, 0, 4, 1] == pixel


def test_bytes_are_divided_by_255(save):
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    data = save(x=x, y=np.array([0]))
    assert data.domain == Domain(kind="image", shape=(1, 16, 16), bounds=(0.0, 1.0), quantum=1 / 255)
    assert data.inputs.dtype == np.float32
    assert np.array_equal(data.inputs.ravel(), np.arange(256, dtype=np.float32) / np.float32(255))


@pytest.mark.parametrize("factor", [-1, 2])
def test_other_ranges_have_no_bounds(save, factor):
    data = save(x=np.full((2, 1, 4, 4), factor, np.float64))
    assert data.domain == Domain(kind="image", shape=(1, 4, 4))
    assert data.inputs.dtype == np.float32


def test_a_table(save):
    x = np.arange(12).reshape(4, 3)
    data = save(x=x, y=np.array(["b", "a", "b", "c"]))
    assert data.domain == Domain(kind="tabular", shape=(3,))
    assert np.array_equal(data.inputs, x)
    assert data.labels.tolist() == [1, 0, 1, 2]
    assert data.classes == ("a", "b", "c")


def test_fortran_order(save):
    x = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    assert np.array_equal(save(x=x).inputs, x)


def test_texts(save):
    data = save(x=np.array(["one", "ein längerer Text", ""]), y=np.array([1, 0, 1]))
    assert data.domain == Domain(kind="text", shape=(), dtype="str")
    assert data.inputs.tolist() == ["one", "ein längerer Text", ""]
    assert data.domain.check(data.inputs).tolist() == data.inputs.tolist()


def test_classes_name_the_labels(save):
    data = save(x=np.zeros((2, 3)), y=np.array([1, 0]), classes=np.array(["cat", "dog", "emu"]))
    assert data.classes == ("cat", "dog", "emu")
    named = save(x=np.zeros((2, 3)), y=np.array(["emu", "cat"]), classes=np.array(["cat", "dog", "emu"]))
    assert named.labels.tolist() == [2, 0]
    assert save(x=np.zeros((2, 3)), classes=np.array(["cat"])).labels is None


def test_whole_floats_and_bools_are_labels(save):
    assert save(x=np.zeros((2, 3)), y=np.array([1.0, 0.0])).labels.dtype == np.int64
    assert save(x=np.zeros((2, 3)), y=np.array([True, False])).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(3)}, "has no array 'x'"),
        ({"x": np.zeros((0, 3))}, "holds no data"),
        ({"x": np.zeros((2, 0))}, r"shape \(2, 0\), so an input holds no number"),
        ({"x": np.zeros(3)}, r"x has shape \(3,\); expected images"),
        ({"x": np.zeros((1, 1, 1, 1, 1))}, r"x has shape \(1, 1, 1, 1, 1\)"),
        ({"x": np.zeros((2, 2), complex)}, "x.npy has type complex128; expected numbers or unicode strings"),
        ({"x": np.array([["a"]])}, r"texts must have shape \(n,\); got \(1, 1\)"),
        ({"x": np.array([[0.0], [np.nan], [np.inf]])}, r"row 1 of x holds NaN, infinity .* \(2 such rows\)"),
        ({"x": np.array([[0.0], [1e300]])}, "row 1 of x holds .* more than float32 can hold"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(3)}, "2 inputs and 3 labels"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((2, 1))}, r"y must have shape \(n,\), one label an input; got \(2, 1\)"),
        ({"x": np.zeros((2, 3)), "y": np.array([0, -1])}, "row 2: -1 is no label; expected names, or whole numbers"),
        ({"x": np.zeros((2, 3)), "y": np.array([0.5, 1])}, "row 1: 0.5 is no label"),
        ({"x": np.zeros((2, 3)), "y": np.array([1, np.nan])}, "row 2: nan is no label"),
        (
            {"x": np.zeros((2, 3)), "y": np.array([0, 2]), "classes": np.array(["a", "b"])},
            "y holds label 2, and classes names 2",
        ),
        (
            {"x": np.zeros((2, 3)), "y": np.array(["a", "c"]), "classes": np.array(["a", "b"])},
            "y holds 'c', which classes does not name",
        ),
        ({"x": np.zeros((2, 3)), "classes": np.array(["a", "a"])}, "classes must be distinct strings"),
        ({"x": np.zeros((2, 3)), "classes": np.array([1, 2])}, "classes must be distinct strings"),
    ],
)
def test_what_is_refused(save, arrays, message):
    with pytest.raises(ArtefactError, match=message):
        save(**arrays)


def test_pickles_are_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    np.savez(tmp_path / "trap.npz", x=np.array([[Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(ArtefactError, match=r"x\.npy has type object; .*objects would be pickles"):
        read(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_header_is_not_believed(tmp_path):
    """A terabyte in the header, four bytes behind it."""
    path = archive(tmp_path / "data.npz", x=member((1 << 20, 1 << 18), data=bytes(4)))
    with pytest.raises(
        ArtefactError, match=r"x\.npy says it has shape \(1048576, 262144\) and type float32, which does"
    ):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (member((2, 2), version=(9, 0)), r"has format \(9, 0\); expected plain numbers or strings"),
        (member((2, 2), version=(3, 0)), r"has format \(3, 0\)"),
        (member((2, 2), dtype="|O"), "has type object"),
        (member((2, 2), dtype="no type"), "descr is not a valid dtype"),
        (member((-2, -2), data=bytes(16)), r"says it has shape \(-2, -2\)"),
        (b"no npy", "magic string|EOF"),
        (b"", "EOF"),
    ],
)
def test_damaged_members(tmp_path, content, message):
    with pytest.raises(ArtefactError, match=message):
        read(archive(tmp_path / "data.npz", x=content))


def test_no_archive(tmp_path):
    (tmp_path / "data.npz").write_bytes(b"no zip")
    with pytest.raises(ArtefactError, match=r"is no \.npz file, or a damaged one: File is not a zip file"):
        read(tmp_path / "data.npz")
    with pytest.raises(ArtefactError, match="cannot be read: No such file"):
        read(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ArtefactError, match="is not a file"):
        read(tmp_path / "folder.npz")


def test_a_size_beyond_the_limit_is_refused_unread(tmp_path):
    path = archive(tmp_path / "data.npz", x=member((2, 2), data=bytes(16)))
    raw = bytearray(path.read_bytes())
    # The unpacked size stands in the central directory, 24 bytes behind its signature.
    at = raw.rindex(b"PK\x01\x02") + 24
    raw[at : at + 4] = struct.pack("<I", MAX_FILE + 1)
    path.write_bytes(raw)
    with pytest.raises(ArtefactError, match=r"x\.npy unpacks to 2,147,483,649 bytes; at most 2,147,483,648 are read"):
        read(path)


def test_too_many_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("locard.data._files.MAX_VALUES", 10)
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((4, 3), np.uint8))
    with pytest.raises(ArtefactError, match="holds 12 numbers; at most 10 are read: give a part of the data"):
        read(path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings(tmp_path, packing):
    with zipfile.ZipFile(tmp_path / "data.npz", "w", packing) as stream:
        stream.writestr("x.npy", member((1, 1), data=bytes(4)))
    with pytest.raises(ArtefactError, match=r"x\.npy is packed in a way NumPy does not use; save it with np\.savez"):
        read(tmp_path / "data.npz")


def sound_bytes():
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.arange(60, dtype=np.uint8).reshape(5, 12), y=np.arange(5))
    return stream.getvalue()


SOUND = sound_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(SOUND) - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_told_or_harmless(tmp_path, at, bit, cut):
    raw = bytearray(SOUND)
    raw[at] ^= 1 << bit
    (tmp_path / "data.npz").write_bytes(raw[:at] if cut else raw)
    told = ""
    try:
        data = read(tmp_path / "data.npz")
        data.domain.check(data.inputs)
    except ArtefactError as error:
        told = str(error)
    assert "\n" not in told


def test_recognises_by_suffix():
    assert Npz.recognises("a/b.NPZ")
    assert not Npz.recognises("a/b.npy")


def test_a_name_that_no_file_can_have():
    with pytest.raises(ArtefactError, match="cannot be read: embedded null byte"):
        read("a\0b.npz")


def test_a_zip_newer_than_python(tmp_path):
    path = archive(tmp_path / "data.npz", x=member((1, 2), data=bytes(8)))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 6] = 109
    path.write_bytes(raw)
    with pytest.raises(ArtefactError, match=r"damaged one: zip file version 10\.9"):
        read(path)
