"""References and masks; the oracles of Zest's card are in tests/oracles."""

import sys

import numpy as np
import pytest

from locard.data import read
from locard.errors import MissingExtraError, ParameterError
from locard.models import restrict
from locard.queries.segments import Segments, masked
from locard.records import Access, Data, Domain
from locard.seeds import derive
from locard.testing import toy_data, toy_model


def draw(data, *, n=None, default=640, seed=0, masks=64, **params):
    victim = restrict(toy_model(0), Access.LABELS)
    return Segments(masks=masks, **params).draw(victim, data, n=n, default=default, seed=seed, population=None)


def photograph(n=3, size=40, channels=3):
    """Four flat quarters of different colours, a little noisy."""
    source = np.random.default_rng(0)
    quarters = np.kron(source.random((n, channels, 2, 2)), np.ones((1, 1, size // 2, size // 2)))
    domain = Domain(kind="image", shape=(channels, size, size), bounds=(0.0, 1.0), quantum=1 / 255)
    images = np.clip(quarters + source.normal(0, 0.01, quarters.shape), 0, 1).astype(np.float32)
    return Data(inputs=images, labels=None, domain=domain, name="quarters")


def test_the_first_mask_keeps_all_and_the_others_half():
    masks = np.unpackbits(draw(toy_data(), masks=500, default=5000, pieces=16).extras["masks"], axis=2)
    assert masks[:, 0].all()
    assert masks[:, 1:].mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(masks[:, 1:].size))


def test_bits_of_no_segment_are_0():
    drawn = draw(toy_data(), pieces=11)
    masks = np.unpackbits(drawn.extras["masks"], axis=2)
    assert masks.shape[2] == 16
    assert masks[:, 0].sum(axis=1).tolist() == [11] * len(drawn.inputs)
    assert not masks[:, :, 11:].any()


@pytest.mark.parametrize("pieces", [2, 8, 20])
def test_small_images_fall_into_as_many_pieces_as_are_asked_for(pieces):
    for data in (toy_data(), read("digits")):
        segments = draw(data, pieces=pieces).extras["segments"]
        for image in segments:
            assert np.array_equal(np.unique(image), np.arange(image.max() + 1))
            assert image.max() + 1 == pieces


def test_where_quickshift_finds_enough_its_own_segments_are_kept(monkeypatch):
    from skimage.segmentation import quickshift

    # The paper's cut is longer than any link in so small an image.
    monkeypatch.setattr("locard.queries.segments.CUT", 1.5)
    drawn = draw(photograph(), pieces=2, seed=3)
    for index, (image, segments) in enumerate(zip(drawn.inputs, drawn.extras["segments"][:, 0], strict=True)):
        ties = derive(3, f"segments/ties/{index}") % 2**31
        pixels = image.transpose(1, 2, 0).astype(float)
        theirs = quickshift(pixels, kernel_size=4, ratio=0.2, max_dist=1.5, rng=ties)  # pyright: ignore[reportArgumentType]
        assert theirs.max() >= 8
        # The numbers may differ; which pixels lie together may not.
        pairs = np.unique(np.stack([theirs.ravel(), segments.ravel()]), axis=1)
        assert pairs.shape[1] == theirs.max() + 1 == segments.max() + 1


def test_images_without_three_channels_are_cut_as_grey():
    grey = photograph(channels=1)
    colour = Data(inputs=np.repeat(grey.inputs, 3, axis=1), labels=None, name="grey in colour",
                  domain=Domain(kind="image", shape=(3, 40, 40), bounds=(0.0, 1.0), quantum=1 / 255))  # fmt: skip
    assert np.array_equal(draw(grey).extras["segments"], draw(colour).extras["segments"])
    assert draw(photograph(channels=4)).extras["segments"].shape == (3, 1, 40, 40)


def test_a_masked_pixel_gets_the_mean_of_its_channel():
    data = photograph()
    drawn = draw(data)
    mean = data.domain.deliver(data.inputs.mean(axis=(0, 2, 3), dtype=np.float64))
    count = int(drawn.extras["segments"][1].max()) + 1
    kept = np.ones((2, count), bool)
    kept[1, 2] = False
    whole, holed = masked(drawn, 1, kept)
    hole = drawn.extras["segments"][1, 0] == 2
    assert np.array_equal(whole, drawn.inputs[1])
    assert np.array_equal(holed[:, ~hole], drawn.inputs[1][:, ~hole])
    assert holed[:, hole] == pytest.approx(np.repeat(mean[:, None], hole.sum(), axis=1), abs=1e-6)
    assert np.array_equal(holed, data.domain.deliver(holed))


def test_each_column_of_a_table_is_a_segment():
    domain = Domain(kind="tabular", shape=(3,), dtype="int64")
    data = Data(inputs=np.array([[1, 10, 100], [2, 20, 205]]), labels=None, domain=domain, name="whole numbers")
    drawn = draw(data, masks=4)
    assert drawn.extras["fill"].dtype == np.int64
    assert drawn.extras["fill"].tolist() == [2, 15, 152]
    kept = np.array([[True, False, True]])
    assert masked(drawn, 0, kept).tolist() == [[drawn.inputs[0][0], 15, drawn.inputs[0][2]]]


def test_references_are_as_many_as_the_queries_pay_for():
    assert len(draw(toy_data(), n=192).inputs) == 3
    assert len(draw(toy_data(), default=700).inputs) == 10
    assert len(draw(toy_data(), default=10).inputs) == 1
    assert len(draw(toy_data(20), default=6400).inputs) == 20


def test_queries_that_are_no_multiple_of_the_masks_are_refused():
    with pytest.raises(
        ParameterError, match=r"asked 64 times, so --queries must be a multiple of 64; got 100: .*masks="
    ):
        draw(toy_data(), n=100)


def test_too_few_references_are_refused():
    with pytest.raises(
        ParameterError, match="30 references of two segments or more are needed, the data hold 20; give"
    ):
        draw(toy_data(20), n=64 * 30)
    single = Data(inputs=np.array(["word"], dtype=object), labels=None, name="words",
                  domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="1 references of two segments or more are needed, the data hold 0"):
        draw(single)


def test_tokens_are_refused():
    data = Data(inputs=np.zeros((5, 7), np.int64), labels=None, name="token numbers",
                domain=Domain(kind="tokens", shape=(7,), dtype="int64"))  # fmt: skip
    with pytest.raises(ParameterError, match="token numbers holds tokens, and no token stands for a masked one"):
        draw(data)


def test_more_segments_than_can_be_told_apart_are_refused():
    data = Data(inputs=np.zeros((3, 5000), np.float32), labels=None, name="a wide table",
                domain=Domain(kind="tabular", shape=(5000,)))  # fmt: skip
    with pytest.raises(ParameterError, match="a wide table has 5000 segments; at most 4096"):
        draw(data)


def test_without_scikit_image_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MissingExtraError, match=r"superpixels needs the package 'skimage'.*locard\[images\]"):
        draw(toy_data())
