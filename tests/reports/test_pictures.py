from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from locard.records import Calibration, Domain, Exhibit, Reference
from locard.reports.pictures import COLUMNS, LARGEST, columns, data_uri, png, shown

SIDES = st.integers(1, 12)
PIXELS = st.one_of(
    st.tuples(SIDES, SIDES).flatmap(lambda shape: hnp.arrays(np.uint8, shape)),
    st.tuples(SIDES, SIDES).flatmap(lambda shape: hnp.arrays(np.uint8, (*shape, 3))),
)
SOME = Calibration(references=tuple(Reference(name="r", digest=str(i), stratum="s", score=0.0) for i in range(40)))


def one(inputs: np.ndarray, domain: Domain) -> Exhibit:
    return Exhibit(inputs=inputs, victim=("3",), suspect=("3",), share=(0.05,), domain=domain)


def decoded(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@given(PIXELS)
def test_another_program_reads_the_same_pixels(pixels: np.ndarray) -> None:
    image = Image.open(io.BytesIO(png(pixels)))
    image.load()
    assert image.mode == ("L" if pixels.ndim == 2 else "RGB")
    assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(decoded(data_uri(pixels)), pixels)


def test_grey_images_span_the_bounds() -> None:
    domain = Domain(kind="image", shape=(1, 1, 3), bounds=(-1.0, 1.0))
    (query,) = shown(one(np.array([[[[-1.0, 0.0, 1.0]]]], np.float32), domain), SOME)
    assert decoded(query.uri).tolist() == [[0, 128, 255]]
    assert (query.width, query.share, query.same) == (3, "2 of 40", True)


def test_colours_keep_their_channels_and_other_numbers_of_channels_are_averaged() -> None:
    rgb = np.array([1.0, 0.0, 0.5]).reshape(1, 3, 1, 1)
    (query,) = shown(one(rgb, Domain(kind="image", shape=(3, 1, 1), bounds=(0, 1))), SOME)
    assert decoded(query.uri).tolist() == [[[255, 0, 128]]]
    (query,) = shown(one(rgb[:, :2], Domain(kind="image", shape=(2, 1, 1), bounds=(0, 1))), SOME)
    assert decoded(query.uri).tolist() == [[128]]


def test_images_without_bounds_are_stretched_together() -> None:
    inputs = np.array([2.0, 4.0]).reshape(2, 1, 1, 1)
    domain = Domain(kind="image", shape=(1, 1, 1))
    both = Exhibit(inputs=inputs, victim=("a", "b"), suspect=("a", "a"), share=(0.0, 0.0), domain=domain)
    assert [decoded(query.uri).item() for query in shown(both, Calibration())] == [0, 255]
    flat = shown(one(np.full((1, 1, 2, 2), 7.0), Domain(kind="image", shape=(1, 2, 2))), Calibration())
    assert decoded(flat[0].uri).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("shape", [(1, 600, 400), (3, 2000, 10), (1, 257, 256)])
def test_large_images_shrink_to_means(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((1, *shape))
    (query,) = shown(one(inputs, Domain(kind="image", shape=shape, bounds=(0, 1))), SOME)
    pixels = decoded(query.uri)
    assert max(pixels.shape[:2]) <= LARGEST
    assert pixels.mean() / 255 == pytest.approx(inputs.mean(), abs=0.02)


def test_without_references_there_is_no_share() -> None:
    (query,) = shown(one(np.zeros((1, 1, 2, 2)), Domain(kind="image", shape=(1, 2, 2), bounds=(0, 1))), Calibration())
    assert query.share is None


def test_tables() -> None:
    domain = Domain(kind="tabular", shape=(3,), columns=("age", "in\x1bcome", "x"))
    (query,) = shown(one(np.array([[41.0, 1234567.0, 0.000012]]), domain), SOME)
    assert query.cells == ("41", "1.235e+06", "1.2e-05")
    assert columns(domain) == ("age", "in\\x1bcome", "x")
    wide = Domain(kind="tabular", shape=(500,))
    (query,) = shown(one(np.zeros((1, 500)), wide), SOME)
    assert len(query.cells) == len(columns(wide)) == COLUMNS
    assert columns(wide)[0] == "column 1"


def test_text_and_tokens() -> None:
    text = Domain(kind="text", shape=(), dtype="str")
    (query,) = shown(one(np.array(["short\n\u202etext"], dtype=object), text), SOME)
    assert query.text == "short\n\\u202etext"
    (query,) = shown(one(np.array(["a" * 2000], dtype=object), text), SOME)
    assert query.text.endswith("a ... (2,000 characters in all)")
    assert len(query.text) < 700
    tokens = Domain(kind="tokens", shape=(100,), dtype="int64")
    (query,) = shown(one(np.arange(100)[None], tokens), SOME)
    assert query.text.startswith("0 1 2 ")
    assert query.text.endswith("79 ... (100 tokens in all)")
