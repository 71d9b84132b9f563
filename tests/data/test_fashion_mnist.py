"""The idx reader on the real files, and on files made here that lie."""

import gzip
import os
import struct

import numpy as np
import pytest

from locard.data import read
from locard.data.fashion_mnist import CLASSES, FOLDER, VARIABLE
from locard.errors import ArtefactError, ParameterError

real = pytest.mark.skipif(not FOLDER.is_dir() and not os.environ.get("CI"), reason="Fashion-MNIST: make system")


def idx(array, magic=None, sizes=None):
    sizes = array.shape if sizes is None else sizes
    head = struct.pack(f">{1 + len(sizes)}I", 0x0800 + array.ndim if magic is None else magic, *sizes)
    # Without a time stamp, so that two test workers name their cases alike.
    return gzip.compress(head + array.tobytes(), 1, mtime=0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Seven training and three test images, with pixels and labels that tell which is which."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    for prefix, n, first in (("train", 7, 0), ("t10k", 3, 100)):
        images = np.broadcast_to(np.arange(first, first + n, dtype=np.uint8)[:, None, None], (n, 28, 28)).copy()
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(n, dtype=np.uint8)))
    return tmp_path


@real
def test_the_real_set_is_whole(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    data = read("fashion-mnist")
    assert data.inputs.shape == (70_000, 1, 28, 28)
    assert data.inputs.dtype == np.float32
    assert data.labels is not None
    assert np.bincount(data.labels).tolist() == [7000] * 10
    assert data.domain.check(data.inputs) is data.inputs
    test = read("fashion-mnist:test")
    assert np.array_equal(test.inputs, data.inputs[60_000:])
    # The first test image is an ankle boot.
    assert test.labels is not None
    assert CLASSES[test.labels[0]] == "Ankle boot"
    np.testing.assert_allclose(test.domain.deliver(test.inputs[:100]), test.inputs[:100], atol=1e-7)


def test_parts_follow_each_other(folder):
    whole, train, test = read("fashion-mnist"), read("fashion-mnist:train"), read("fashion-mnist:test")
    assert len(train) == 7
    assert len(test) == 3
    assert np.array_equal(whole.inputs, np.concatenate([train.inputs, test.inputs]))
    assert whole.labels is not None
    assert whole.labels.tolist() == [*range(7), *range(3)]
    assert whole.labels.dtype == np.int64
    assert np.array_equal(test.inputs[:, 0, 3, 5], np.array([100, 101, 102], np.float32) / np.float32(255))
    assert test.name == "fashion-mnist:test"
    assert whole.classes[9] == "Ankle boot"


@pytest.mark.parametrize("name", ["fashion-mnist:valid", "fashion-mnist:"])
def test_unknown_part(folder, name):
    with pytest.raises(ParameterError, match="fashion-mnist has the parts train and test; got"):
        read(name)


def test_missing_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "no"))
    with pytest.raises(
        ArtefactError, match=r"apt-get install dataset-fashion-mnist.*make system.*LOCARD_FASHION_MNIST"
    ):
        read("fashion-mnist")


def test_missing_file(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ArtefactError, match=r"t10k-labels-idx1-ubyte\.gz' cannot be read: No such file"):
        read("fashion-mnist:test")
    assert len(read("fashion-mnist:train")) == 7


ZEROS = np.zeros((3, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip at all", "is no gzip file, or a damaged one"),
        (idx(ZEROS)[:-20], "is truncated"),
        (gzip.compress(b"\0\0\x08\x03", mtime=0), "is truncated"),
        (idx(ZEROS, magic=0x0801), r"magic number 0x0801, sizes \[28, 28\]; expected 0x0803, \[28, 28\]"),
        (idx(ZEROS, sizes=(3, 27, 28)), r"sizes \[27, 28\]; expected"),
        (idx(ZEROS, sizes=(2**32 - 1, 28, 28)), "says it holds 4,294,967,295 items; its size fits 3"),
        (idx(ZEROS, sizes=(2, 28, 28)), "says it holds 2 items; its size fits 3"),
        (idx(ZEROS[:0]), "says it holds 0 items"),
        (idx(np.zeros((60_001, 28, 28), np.uint8)), "unpacks to more than 47,040,016 bytes, the size of 60,000 items"),
    ],
)
def test_a_file_that_lies(folder, content, message):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ArtefactError, match=message):
        read("fashion-mnist")


def test_a_bomb_is_not_unpacked(folder):
    """128 MiB of zeros in 128 KiB: unpacking stops at the size of the largest part."""
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(1 << 27), 9))
    with pytest.raises(ArtefactError, match="unpacks to more than 60,008 bytes"):
        read("fashion-mnist:test")


def test_checksum_is_checked(folder):
    content = bytearray(idx(ZEROS))
    content[-8] ^= 1
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ArtefactError, match="incorrect data check"):
        read("fashion-mnist:test")


def test_labels_must_fit(folder):
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(idx(np.array([1, 2], np.uint8)))
    with pytest.raises(ArtefactError, match="3 t10k images and 2 labels"):
        read("fashion-mnist:test")
    path.write_bytes(idx(np.array([1, 2, 10], np.uint8)))
    with pytest.raises(ArtefactError, match="the t10k label 10; expected 0 to 9"):
        read("fashion-mnist:test")


def test_a_huge_file_is_not_read(folder):
    with (folder / "t10k-images-idx3-ubyte.gz").open("r+b") as stream:
        stream.truncate((64 << 20) + 1)
    with pytest.raises(ArtefactError, match="67,108,865 bytes; at most 67,108,864 are read"):
        read("fashion-mnist:test")
