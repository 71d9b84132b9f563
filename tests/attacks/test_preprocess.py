"""Input processing, each kind against another's implementation or its definition."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from locard.attacks import build
from locard.attacks._fronts import Blur, Crops, Flips, Jpeg, Levels, Median, Shrink
from locard.attacks.preprocess import KINDS
from locard.errors import ParameterError
from locard.models import exported, load, onnx, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain
from locard.seeds import generator


def derive(victim, **params) -> Any:
    attack = build("preprocess", params)
    return attack.derive(restrict(victim, attack.needs))


def through(module, x):
    with torch.inference_mode():
        return module(torch.from_numpy(x)).numpy()


def softmax(scores):
    powers = np.exp(scores.astype(float) - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def pictures(channels, height=21, width=28, n=6):
    """Smooth random images on the 8-bit grid, with an edge in them."""
    rough = generator(channels, "test").random((n, channels, height, width))
    smooth = ndimage.gaussian_filter(rough, (0, 0, 1.5, 1.5)) * 2 - 0.5
    smooth[:, :, height // 3 :, : width // 2] += 0.4
    return (np.rint(np.clip(smooth, 0, 1) * 255) / 255).astype(np.float32)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_levels_are_the_nearest_of_two_to_the_bits(bits):
    x, steps = pictures(3), 2**bits - 1
    got = through(Levels(bits, (0.0, 1.0)), x)
    assert np.abs(got - np.rint(x * steps) / steps).max() < 1e-6
    assert len(np.unique(np.rint(got * steps))) <= 2**bits
    wide = through(Levels(bits, (-1.0, 1.0)), 2 * x - 1)
    assert np.abs(wide - (2 * got - 1)).max() < 1e-6
    if bits == 8:
        assert np.abs(got - x).max() < 1e-6


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3])
def test_blur_is_scipys(sigma):
    x = pictures(3)
    wanted = ndimage.gaussian_filter(
        x, (0, 0, sigma, sigma), mode="nearest", radius=(0, 0, *2 * [int(np.ceil(3 * sigma))])
    )
    assert np.abs(through(Blur(sigma, 3), x) - wanted).max() < 1e-5


@pytest.mark.parametrize("side", [3, 5])
def test_median_is_scipys(side):
    x = pictures(2)
    assert np.array_equal(through(Median(side), x), ndimage.median_filter(x, (1, 1, side, side), mode="nearest"))


def bilinear(old, new):
    """(new, old) weights of bilinear interpolation between pixels' middles."""
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.minimum(places.astype(int), old - 1)
    weights = np.zeros((new, old))
    weights[np.arange(new), low] += 1 - (places - low)
    weights[np.arange(new), np.minimum(low + 1, old - 1)] += places - low
    return weights


def test_resize_goes_down_and_up_between_pixels_middles():
    x = pictures(3)
    down, across = bilinear(21, 16), bilinear(28, 21)
    small = np.einsum("ah,nchw,bw->ncab", down, x, across)
    wanted = np.einsum("ah,nchw,bw->ncab", bilinear(16, 21), small, bilinear(21, 28))
    assert np.abs(through(Shrink(0.75, (3, 21, 28)), x) - wanted).max() < 1e-5
    assert np.abs(through(Shrink(1.0, (3, 21, 28)), x) - x).max() < 1e-6


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 50, 75, 90])
def test_jpeg_is_pillows_but_for_rounding(quality, channels):
    x = pictures(channels)
    bytes_ = np.rint(x * 255).astype(np.uint8)
    wanted = []
    for image in bytes_:
        file = io.BytesIO()
        Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).save(
            file, "JPEG", quality=quality, subsampling=0
        )
        read = np.asarray(Image.open(file))
        wanted.append(read[None] if channels == 1 else read.transpose(2, 0, 1))
    got = through(Jpeg(quality, channels, (0.0, 1.0)), x) * 255
    apart, lost = np.abs(got - np.array(wanted)), np.abs(np.array(wanted).astype(float) - bytes_)
    # libjpeg's transforms are in whole numbers, so that now and then a coefficient tips over to the next step.
    assert apart.mean() < 0.1 * lost.mean() + 0.15
    other = through(Jpeg(quality - 5, channels, (0.0, 1.0)), x) * 255
    assert np.abs(other - np.array(wanted)).mean() > 2 * apart.mean()
    wide = through(Jpeg(quality, channels, (-1.0, 1.0)), 2 * x - 1)
    assert np.abs(wide - (2 * got / 255 - 1)).max() < 1e-5


@pytest.mark.parametrize("kind", ["flip", "crop"])
def test_several_views_are_averaged(victim, parts, kind):
    x = parts["held out"].inputs[:60]
    views = [x, x[..., ::-1].copy()]
    if kind == "crop":
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        views = [padded[:, :, 1 + i : 9 + i, 1 + j : 9 + j] for i, j in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
    wanted = np.mean([softmax(through(victim.module(), view)) for view in views], axis=0)
    got = softmax(through(derive(victim, kind=kind).module, x))
    assert np.abs(got - wanted).max() < 1e-6
    assert np.abs(got - softmax(through(victim.module(), x))).max() > 0.01


@pytest.mark.parametrize("kind", ["bits", "blur", "median", "resize", "jpeg"])
def test_the_victim_sees_the_changed_image(victim, parts, kind):
    x = parts["held out"].inputs[:60]
    module = derive(victim, kind=kind).module
    changed = through(module[0], x)
    assert np.array_equal(through(module, x), through(victim.module(), changed))
    # The 17 grey levels of these digits are not the 16 of four bits.
    assert np.abs(changed - x).max() > 0.01
    assert np.array_equal(through(module, x), through(derive(victim, kind=kind, strength=KINDS[kind][0]).module, x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "blurr"}, "unknown kind 'blurr'; did you mean 'blur'"),
        ({"kind": "bits", "strength": 17}, r"strength of bits must lie in \[1, 16\]"),
        ({"kind": "jpeg", "strength": 75.5}, "strength of jpeg must be a whole number; got 75.5"),
        ({"kind": "median", "strength": 4}, "strength of median must be odd; got 4"),
        ({"kind": "resize", "strength": 2.0}, r"strength of resize must lie in \[0.1, 1\]"),
        ({"kind": "blur", "strength": -1.0}, "strength of blur must lie in"),
        ({"kind": "flip", "strength": 2.0}, r"strength of flip must lie in \[1, 1\]"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("preprocess", wrong)


def toy(shape, **domain):
    size = int(np.prod(shape))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, 3))
    return TorchModel(module, domain=Domain(shape=shape, **domain))


def test_what_is_no_image_with_bounds_is_refused():
    with pytest.raises(ParameterError, match=r"preprocess changes images in float32; .* takes tabular \(4,\)"):
        derive(toy((4,), kind="tabular"))
    with pytest.raises(ParameterError, match=r"bits needs bounds of the images; the domain of .* has none"):
        derive(toy((1, 8, 8), kind="image"))
    with pytest.raises(ParameterError, match=r"jpeg takes grey and colour images; .* takes image \(2, 8, 8\)"):
        derive(toy((2, 8, 8), kind="image", bounds=(0.0, 1.0)), kind="jpeg")


def test_all_kinds_can_be_written_and_read(victim, parts, tmp_path):
    # One after another in one program, because every export takes a second.
    fronts = [Levels(6, (0.0, 1.0)), Blur(0.5, 1), Median(3), Shrink(0.75, (1, 8, 8)), Jpeg(75, 1, (0.0, 1.0))]
    copy = TorchModel(torch.nn.Sequential(*fronts, Flips(Crops(victim.module(), 1))), domain=victim.domain)
    exported.save(copy, tmp_path / "copy.pt2")
    onnx.export(copy, tmp_path / "copy.onnx")
    x = parts["held out"].inputs[:130]
    wanted = restrict(copy, Access.LOGITS).logits(x)
    program, graph = (restrict(load(tmp_path / name, trust=True), Access.LOGITS).logits(x)
                      for name in ("copy.pt2", "copy.onnx"))  # fmt: skip
    assert np.abs(program - wanted).max() < 1e-3
    # A value halfway between two levels may be rounded otherwise by onnxruntime.
    assert (np.abs(graph - wanted).max(axis=1) < 1e-3).mean() > 0.97
