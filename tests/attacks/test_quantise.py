"""Quantisation against its definition."""

import math

import numpy as np
import pytest
import torch
from tests.attacks.derived import WEIGHTS, answers, arrays, changed, derive

from locard.attacks import build
from locard.attacks.quantise import normal_levels, rounded
from locard.errors import ParameterError
from locard.models.torch_module import TorchModel

EXACT = {"shift", "scale"}


def rows_of(victim, stolen):
    """Each weight as a matrix, before and after."""
    before, after = arrays(victim.module()), arrays(stolen.module)
    for name in WEIGHTS:
        yield [a[name].reshape(len(a[name]), -1).astype(np.float64) for a in (before, after)]


def groups_of(rows, size):
    """Each group of neighbours in each row, the last perhaps shorter."""
    return [row[at : at + size] for row in rows for at in range(0, rows.shape[1], size)]


@pytest.mark.parametrize("format", ["fp16", "bf16", "int16", "int8", "int4", "nf4"])
def test_weights_are_float32_numbers_and_the_normalisation_stays(victim, format):
    stolen = derive("quantise", victim, format=format)
    assert all(array.dtype == np.float32 for array in arrays(stolen.module).values())
    touched = changed(stolen, victim)
    # 0.3 is no half-precision number, and the normalisation is the adapter's.
    assert touched <= (set(arrays(victim.module())) - EXACT if format in ("fp16", "bf16") else set(WEIGHTS))
    assert set(WEIGHTS) <= touched


@pytest.mark.parametrize(("format", "largest"), [("int16", 32767), ("int8", 127)])
def test_integers_round_each_channel_to_its_own_grid(victim, format, largest):
    for rows, got in rows_of(victim, derive("quantise", victim, format=format)):
        scale = np.abs(rows).max(axis=1, keepdims=True) / largest
        # float32 holds w / scale to one part in 2^24, which a step of int16 feels, and may round to the next one.
        assert (np.abs(got - np.rint(rows / scale) * scale) <= scale * (1e-3 if largest == 127 else 1.001)).all()
        assert (np.abs(got - rows) <= scale * 0.51).all()
        assert np.abs(got / scale - np.rint(got / scale)).max() < 0.01
        assert all(len(np.unique(row)) <= 2 * largest + 1 for row in got)


def test_int8_with_one_scale_a_tensor(victim):
    for rows, got in rows_of(victim, derive("quantise", victim, per_tensor=True)):
        scale = np.abs(rows).max() / 127
        assert np.abs(got - np.rint(rows / scale) * scale).max() < 1e-6
        assert len(np.unique(got)) <= 255


def test_16_bits_reproduce_the_victims_predictions(victim, parts):
    x = parts["held out"].inputs
    wanted = answers(victim.module(), x).argmax(1)
    for format in ("fp16", "int16"):
        assert np.array_equal(answers(derive("quantise", victim, format=format).module, x).argmax(1), wanted)


@pytest.mark.parametrize("group", [0, 1, 5, 7, 1000])
def test_int4_rounds_each_group_to_its_own_grid(victim, group):
    for rows, got in rows_of(victim, derive("quantise", victim, format="int4", group=group)):
        pairs = zip(groups_of(rows, group or 128), groups_of(got, group or 128), strict=True)
        for weights, levels in pairs:
            scale = np.abs(weights).max() / 7
            assert np.abs(levels - np.rint(weights / scale) * scale).max() < 1e-6
            assert np.abs(levels - weights).max() <= scale / 2 + 1e-7
            assert len(np.unique(levels)) <= 15


def test_a_group_does_not_reach_into_the_next_output():
    weight = torch.tensor([[7.0, 1.4], [0.7, 0.14]])
    assert torch.allclose(rounded(weight, "int4"), torch.tensor([[7.0, 1.0], [0.7, 0.1]]))
    assert torch.allclose(rounded(weight, "int4", group=1), weight)


def quantile(p):
    """The normal distribution's quantile by bisection."""
    low, high = 0.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + math.erf(middle / math.sqrt(2))) / 2 < p else (low, middle)
    return low


def test_nf4s_levels_are_quantiles_of_the_normal_distribution():
    outermost = 1 - (1 / 30 + 1 / 32) / 2
    upper = [quantile(0.5 + (outermost - 0.5) * k / 8) for k in range(1, 9)]
    lower = [quantile(0.5 + (outermost - 0.5) * k / 7) for k in range(1, 8)]
    expected = [-q / lower[-1] for q in reversed(lower)] + [0.0] + [q / upper[-1] for q in upper]
    assert np.abs(normal_levels() - expected).max() < 1e-12
    assert normal_levels()[[0, 7, 15]].tolist() == [-1, 0, 1]


@pytest.mark.parametrize("group", [0, 7])
def test_nf4_takes_the_nearest_level_of_each_group(victim, group):
    for rows, got in rows_of(victim, derive("quantise", victim, format="nf4", group=group)):
        pairs = zip(groups_of(rows, group or 64), groups_of(got, group or 64), strict=True)
        for weights, found in pairs:
            levels = normal_levels() * np.abs(weights).max()
            nearest = levels[np.abs(weights[:, None] - levels).argmin(axis=1)]
            assert np.abs(found - nearest).max() < 1e-6
            assert len(np.unique(found)) <= 16


@pytest.mark.parametrize("format", ["int16", "int8", "int4", "nf4"])
def test_a_row_of_zeros_stays(format):
    assert torch.equal(rounded(torch.zeros(2, 3), format), torch.zeros(2, 3))


@pytest.mark.parametrize(("format", "largest"), [("int8", 127), ("int4", 7)])
def test_integers_are_exact_on_their_own_grid(format, largest):
    grid = torch.arange(-largest, largest + 1).float().reshape(1, -1) / 64
    assert torch.allclose(rounded(grid, format), grid, atol=1e-7)


def test_fp16_is_numpys_half_precision(victim):
    before, after = arrays(victim.module()), arrays(derive("quantise", victim, format="fp16").module)
    for name in before.keys() - EXACT:
        assert np.array_equal(after[name], before[name].astype(np.float16).astype(np.float32))


def test_bf16_keeps_the_upper_half_of_the_bits(victim):
    before, after = arrays(victim.module()), arrays(derive("quantise", victim, format="bf16").module)
    for name in before.keys() - EXACT:
        bits = before[name].copy().view(np.uint32)
        # To the nearest, half to even.
        upper = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        assert np.array_equal(after[name], upper.view(np.float32))


def test_what_half_precision_cannot_hold_is_refused(parts):
    layer = torch.nn.Linear(64, 10)
    layer.weight.data[0, 0] = 1e5
    model = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), layer), domain=parts["thief"].domain)
    with pytest.raises(ParameterError, match=r"1\.weight goes beyond what fp16 can hold; take --param format=int8"):
        derive("quantise", model, format="fp16")
    assert np.isfinite(arrays(derive("quantise", model, format="bf16").module)["1.weight"]).all()


def test_4_bits_may_lose_more():
    for format in ("fp16", "bf16", "int16", "int8", "int4", "nf4"):
        assert build("quantise", {"format": format}).margin == (0.03 if "4" in format else 0.01)
