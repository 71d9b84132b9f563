from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locard.errors import ParameterError
from locard.models import restrict
from locard.queries.cutmix import CutMix
from locard.records import Access, Data, Domain
from locard.testing import toy_data, toy_model


def shades(n, height, width, channels=1):
    """Image i is i everywhere, so that a pixel tells which image it comes from."""
    domain = Domain(kind="image", shape=(channels, height, width), bounds=(0.0, 255.0), quantum=1.0)
    images = np.zeros((n, channels, height, width), np.float32) + np.arange(n, dtype=np.float32)[:, None, None, None]
    return Data(inputs=images, labels=None, domain=domain, name="shades")


def draw(data, *, n=None, default=100, seed=0, patch="corner"):
    victim = restrict(toy_model(0), Access.LABELS)
    return CutMix(patch=patch).draw(victim, data, n=n, default=default, seed=seed, population=None).inputs


def patches(images):
    """Of each image the base, the partner, and the rectangle (top, bottom, left, right) that holds the partner."""
    for image in images:
        values, counts = np.unique(image, return_counts=True)
        assert len(values) == 2
        base, partner = values[np.argsort(-counts)]
        assert (image == image[0]).all()
        rows, columns = np.nonzero(image[0] == partner)
        box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert len(rows) == (box[1] - box[0]) * (box[3] - box[2])
        yield base, partner, box


@given(
    seed=st.integers(0, 2**32), height=st.integers(6, 40), width=st.integers(6, 40), channels=st.sampled_from([1, 3])
)
def test_a_query_is_an_image_with_a_small_patch_of_another_near_a_corner(seed, height, width, channels):
    images = draw(shades(12, height, width, channels), seed=seed)
    bases = []
    for base, partner, (top, bottom, left, right) in patches(images):
        assert base != partner
        bases.append(base)
        for low, high, length in ((top, bottom, height), (left, right, width)):
            half = max(int(0.2 * length) // 2, 1)
            assert high - low <= 2 * half
            # Cut off by an edge, or whole with the centre in the outer sixth.
            centre = high - half if low == 0 else low + half
            assert 0 <= centre <= length / 6 or length * 5 / 6 <= centre < length
    assert sorted(bases) == list(range(12))


def test_the_patch_of_a_32_pixel_image_has_the_released_codes_side():
    sides = {box[1] - box[0] for _, _, box in patches(draw(shades(200, 32, 32), n=200))}
    assert max(sides) == 6
    assert min(sides) >= 3


def test_textbook_patches_have_any_size_and_place():
    images = draw(shades(200, 30, 30), n=200, patch="textbook")
    shares = np.array([(image != np.bincount(image.astype(int).ravel()).argmax()).mean() for image in images])
    assert (shares > 0.2).mean() > 0.3
    assert (images[:, 0, 15, 15] != images[:, 0, 0, 0]).mean() > 0.3


def test_queries_are_delivered_and_the_data_left_alone():
    # Off the grid by a quarter of its step.
    data = replace(toy_data(), inputs=toy_data().inputs * np.float32(0.9) + np.float32(0.25 / 255))
    before = data.digest
    images = draw(data)
    assert images.shape == (100, 1, 8, 8)
    assert images.dtype == np.float32
    assert np.array_equal(images, data.domain.deliver(images))
    assert data.digest == before


def test_the_seed_decides():
    data = toy_data()
    assert np.array_equal(draw(data, seed=1), draw(data, seed=1))
    assert not np.array_equal(draw(data, seed=1), draw(data, seed=2))


def test_too_few_images_are_refused():
    with pytest.raises(ParameterError, match="30 images are needed, the data hold 20; give more data or ask fewer"):
        draw(shades(20, 8, 8), n=30)
    with pytest.raises(ParameterError, match="at least two images; shades has 1"):
        draw(shades(1, 8, 8))


def test_what_is_no_image_is_refused():
    data = Data(
        inputs=np.zeros((9, 4), np.float32), labels=None, domain=Domain(kind="tabular", shape=(4,)), name="rows"
    )
    with pytest.raises(
        ParameterError, match=r"pastes patches into images; rows holds tabular .* use the sampler 'random'"
    ):
        draw(data)


def test_an_unknown_patch_is_refused():
    with pytest.raises(ParameterError, match="unknown patch 'corners'; did you mean 'corner'"):
        CutMix(patch="corners")
