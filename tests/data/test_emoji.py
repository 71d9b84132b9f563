"""Emoji: the real drawings where they are installed, and a folder of the same layout made here."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from locard.data import _places, read, split
from locard.data.emoji import CLASSES, MAKERS, VERSION
from locard.errors import ArtefactError, ParameterError

real = pytest.mark.skipif(
    not (_places.home() / "node_modules" / "emoji-datasource-twitter").is_dir(),
    reason="the npm packages of emoji: make data",
)
GROUPS = ["Flags", "Symbols", "Objects", "Flags", "Activities", "Symbols"]


def row(number, group, **changed):
    return {"image": f"1f60{number}.png", "category": group, "has_img_google": True, "has_img_twitter": True,
            "skin_variations": {"1F3FB": {"image": "none.png"}}, **changed}  # fmt: skip


def draw(number, maker, seed=0):
    """(64, 64, 4) random colours and transparency that tell which drawing it is."""
    return np.random.default_rng([number, MAKERS.index(maker), seed]).integers(0, 256, (64, 64, 4), np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Six emoji by two makers, one that only Google draws, and a component."""
    monkeypatch.setenv(_places.VARIABLE, str(tmp_path))
    root = tmp_path / "node_modules"
    for maker in MAKERS:
        folder = root / f"emoji-datasource-{maker}" / "img" / maker / "64"
        folder.mkdir(parents=True)
        for number in range(8):
            Image.fromarray(draw(number, maker)).save(folder / f"1f60{number}.png")
    rows = [*(row(number, group) for number, group in reversed(list(enumerate(GROUPS)))),
            row(6, "Flags", has_img_twitter=False), row(7, "Component")]  # fmt: skip
    table(root, rows)
    return root


def table(root, rows):
    (root / "emoji-datasource-google" / "emoji.json").write_text(json.dumps(rows))


def test_make_gets_the_version_that_the_message_names():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert f"NPM_DATA_VERSION = {VERSION}\n" in makefile
    assert f"NPM_DATA = {' '.join(f'emoji-datasource-{maker}' for maker in MAKERS)}\n" in makefile


@real
def test_the_real_drawings_are_whole():
    data = read("emoji")
    assert data.inputs.shape == (3812, 3, 32, 32)
    assert data.labels is not None
    assert np.bincount(data.labels).tolist() == [170, 318, 540, 262, 528, 772, 338, 448, 436]
    assert data.domain.check(data.inputs) is data.inputs
    # All that has no colour of its own is white, in the corners at least.
    assert (data.inputs[:, :, 0, 0] == 1).all(axis=1).mean() > 0.8
    assert len(read("emoji:train")) == 2 * 1524
    assert len(read("emoji:test")) == 2 * 382


def test_drawings_lie_on_white_at_half_their_size(root):
    data = read("emoji")
    assert data.inputs.shape == (12, 3, 32, 32)
    assert data.inputs.dtype == np.float32
    assert [data.classes[label] for label in data.labels] == [group for group in GROUPS for _ in MAKERS]
    for place, (number, maker) in enumerate((number, maker) for number in range(6) for maker in MAKERS):
        whole = draw(number, maker).astype(np.float64)
        share = whole[..., 3:] / 255
        white = whole[..., :3] * share + 255 * (1 - share)
        expected = white.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
        assert np.abs(data.inputs[place] * 255 - expected).max() <= 0.5 + 1e-4
    np.testing.assert_allclose(data.domain.deliver(data.inputs.copy()), data.inputs, atol=1e-7)


@pytest.mark.parametrize("mode", ["P", "LA", "RGB", "L"])
def test_other_ways_to_store_a_drawing(root, mode):
    """The packages hold palettes and grey drawings too."""
    picture = Image.fromarray(draw(0, "google")).convert(mode)
    picture.save(root / "emoji-datasource-google" / "img" / "google" / "64" / "1f600.png")
    same = picture.convert("RGBA")
    data = read("emoji")
    same.save(root / "emoji-datasource-google" / "img" / "google" / "64" / "1f600.png")
    assert np.array_equal(read("emoji").inputs[0], data.inputs[0])


def test_no_emoji_stands_in_two_parts(root):
    train, test = read("emoji:train"), read("emoji:test")
    assert (len(train), len(test)) == (8, 4)
    assert train.groups is not None
    assert test.groups is not None
    assert not set(train.groups) & set(test.groups)
    assert np.bincount(train.groups, minlength=6).tolist() == [0 if g in test.groups else 2 for g in range(6)]
    assert test.name == "emoji:test"
    parts = split(read("emoji"), {"a": 4, "b": 6, "c": 2}, seed=3)
    assert sorted(group for part in parts.values() for group in {*np.array(part.groups)}) == list(range(6))
    with pytest.raises(
        ParameterError, match="part 'a' of 3 inputs cannot be made of whole groups of emoji: 1 are miss"
    ):
        split(read("emoji"), {"a": 3}, seed=0)


@pytest.mark.parametrize("name", ["emoji:valid", "emoji:"])
def test_unknown_part(root, name):
    with pytest.raises(ParameterError, match="emoji has the parts train and test; got"):
        read(name)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_missing_package_says_how_to_get_it(root, maker):
    (root / f"emoji-datasource-{maker}").rename(root / "elsewhere")
    with pytest.raises(
        ArtefactError,
        match=rf"npm install --ignore-scripts --prefix .* emoji-datasource-{maker}@16\.0\.0.*make data.*LOCARD_DATA",
    ):
        read("emoji")


SIX = [row(number, "Flags") for number in range(6)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("no", r"emoji\.json' is no table of emoji"),
        ([{"image": "1f600.png"}], "is no table of emoji: 'category'"),
        (7, "is no table of emoji"),
        ([*SIX, row(7, "Flags", image="../../../secret.png")], r"names the drawing '\.\./\.\./\.\./secret\.png'"),
        ([*SIX, row(7, "Faces")], f"has the category 'Faces'; expected one of {CLASSES[0]}"),
        (SIX[:4], "lists 4 emoji; expected 5 to 20,000, each once"),
        ([*SIX, SIX[0]], "lists 7 emoji; expected 5 to 20,000, each once"),
    ],
)
def test_another_table(root, rows, message):
    table(root, rows)
    with pytest.raises(ArtefactError, match=message):
        read("emoji")


def test_a_damaged_table(root):
    (root / "emoji-datasource-google" / "emoji.json").write_text("[" * 100_000)
    with pytest.raises(ArtefactError, match="is no table of emoji"):
        read("emoji")


def test_other_drawings(root):
    path = root / "emoji-datasource-twitter" / "img" / "twitter" / "64" / "1f601.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError, match=r"1f601\.png' is no PNG image, or a damaged one"):
        read("emoji")
    Image.fromarray(draw(1, "twitter")[:32]).save(path)
    with pytest.raises(ArtefactError, match=r"1f601\.png' has 64 x 32 pixels; expected 64 x 64"):
        read("emoji")
    path.unlink()
    with pytest.raises(ArtefactError, match=r"1f601\.png' cannot be read: No such file"):
        read("emoji")
