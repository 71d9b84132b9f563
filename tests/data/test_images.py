"""Image folders."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from locard.data import read
from locard.data.images import MAX_PIXELS, ImageFolder
from locard.errors import ArtefactError
from locard.records import Domain


def picture(seed, size=(6, 5), channels=3):
    width, height = size
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, array, **options):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Classes b and a; a file that is no image and hidden ones beside."""
    root = tmp_path / "set"
    root.mkdir()
    for name, seed in (("b/2.png", 2), ("b/1.png", 1), ("a/3.png", 3)):
        save(root / name, picture(seed))
    (root / "b" / "notes.csv").write_text("nothing")
    (root / "b" / ".hidden.png").write_text("nothing")
    (root / ".cache").mkdir()
    return root


def test_folders_are_classes_in_sorted_order(folder):
    data = read(folder)
    assert data.classes == ("a", "b")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1]
    assert data.labels.dtype == np.int64
    assert data.domain == Domain(kind="image", shape=(3, 5, 6), bounds=(0.0, 1.0), quantum=1 / 255)
    assert data.inputs.flags.c_contiguous
    expected = np.stack([picture(seed).transpose(2, 0, 1) for seed in (3, 1, 2)]) / np.float32(255)
    assert np.array_equal(data.inputs, expected.astype(np.float32))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    array = picture(0, channels=3)
    save(tmp_path / f"one{suffix}", array, **({"lossless": True} if suffix == ".webp" else {}))
    data = read(tmp_path)
    assert data.labels is None
    assert np.array_equal(np.rint(data.inputs[0] * 255), array.transpose(2, 0, 1))


def test_grey_jpeg(tmp_path):
    save(tmp_path / "one.jpg", np.full((8, 8), 128, np.uint8))
    data = read(tmp_path)
    assert data.domain.shape == (1, 8, 8)
    np.testing.assert_allclose(data.inputs, 128 / 255, atol=2 / 255)


def test_the_first_odd_file_is_named(folder):
    save(folder / "b" / "15.png", picture(0, size=(7, 5)))
    with pytest.raises(
        ArtefactError, match=r"15\.png' is RGB, 7 x 5; 3\.png is RGB, 6 x 5: all must be alike, so resize"
    ):
        read(folder)
    save(folder / "b" / "15.png", picture(0, channels=1))
    with pytest.raises(ArtefactError, match=r"15\.png' is grey, 6 x 5; 3\.png is RGB, 6 x 5"):
        read(folder)
    save(folder / "b" / "15.png", picture(0, channels=4))
    with pytest.raises(ArtefactError, match=r"15\.png' is mode RGBA, 6 x 5"):
        read(folder)


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA", "I;16"])
def test_other_modes(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "one.png")
    with pytest.raises(ArtefactError, match=rf"one\.png' has the mode {mode}; expected grey .* convert the images"):
        read(tmp_path)


def test_mixed_layout(folder):
    save(folder / "flat.png", picture(0))
    with pytest.raises(ArtefactError, match=r"holds images by themselves \(flat\.png\) and sub-folders \(a\)"):
        read(folder)


def test_nested_and_empty_classes(folder):
    (folder / "c").mkdir()
    with pytest.raises(ArtefactError, match=r"c' holds no image \(\.png, .*fill or remove this class's folder"):
        read(folder)
    save(folder / "c" / "1.png", picture(0))
    (folder / "c" / "deeper").mkdir()
    with pytest.raises(ArtefactError, match="deeper' is a folder in a class"):
        read(folder)


def test_moving_pictures(tmp_path):
    frames = [Image.fromarray(picture(seed)) for seed in (1, 2)]
    frames[0].save(tmp_path / "one.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ArtefactError, match=r"one\.png' is a moving picture"):
        read(tmp_path)


def bomb(path, width, height):
    """A PNG that says it is huge; its pixels are zeros and pack well."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [5_000, 11_000, 60_000])
def test_bombs_are_refused_unpacked(tmp_path, side):
    """Below Pillow's own warning, above it, and above its error."""
    assert side * side > MAX_PIXELS
    bomb(tmp_path / "one.png", side, side)
    with pytest.raises(ArtefactError, match="pixels; images of up to 16,777,216 are read"):
        read(tmp_path)


def test_too_many_numbers(folder, monkeypatch):
    monkeypatch.setattr("locard.data._files.MAX_VALUES", 100)
    with pytest.raises(ArtefactError, match="holds 270 numbers; at most 100 are read"):
        read(folder)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_damage(tmp_path, suffix):
    path = save(tmp_path / f"one{suffix}", picture(0, size=(40, 40)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError, match="is no PNG, JPEG, BMP, WEBP image, or a damaged one"):
        read(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ArtefactError, match="is no PNG, JPEG, BMP, WEBP image, or a damaged one"):
        read(tmp_path)


def test_only_the_named_formats_are_decoded(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "one.gif")
    (tmp_path / "one.gif").rename(tmp_path / "one.png")
    with pytest.raises(ArtefactError, match="is no PNG, JPEG, BMP, WEBP image"):
        read(tmp_path)


def test_what_is_an_image_folder(folder, tmp_path):
    assert ImageFolder.recognises(str(folder))
    assert ImageFolder.recognises(str(folder / "a"))
    assert not ImageFolder.recognises(str(tmp_path))
    assert not ImageFolder.recognises(str(folder / "a" / "3.png"))
    (folder / "a" / "config.json").write_text("{}")
    assert not ImageFolder.recognises(str(folder / "a"))
    with pytest.raises(ArtefactError, match="of no known kind"):
        read(tmp_path)
