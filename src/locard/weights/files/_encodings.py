"""How numbers are written in files, and how they become float32.

Floats that NumPy has not (bfloat16 and the two of eight bits) are read as whole numbers and looked up or shifted;
GGUF's quantised blocks are in `_quants`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """One way to write numbers.

    Args:
        name: as messages say it.
        stored: the dtype of one stored item; a block of bytes where several numbers share a scale.
        block: numbers in one item.
        decode: from (..., items) of `stored` to (..., items * block) float32.
    """

    name: str
    stored: np.dtype[np.generic]
    block: int
    decode: Callable[[np.ndarray], np.ndarray]


def _plain(array: np.ndarray) -> np.ndarray:
    # What is too large for float32 becomes infinite, which a test of the values then refuses by name.
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32)


def _bfloat16(array: np.ndarray) -> np.ndarray:
    return (array.astype(np.uint32) << 16).view(np.float32)


def _looked_up(table: Callable[[], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: table()[array]


def _float8(exponent: int, *, infinite: bool) -> np.ndarray:
    """(256,) float32: the values of a byte with a sign, so many bits of exponent, and a mantissa.

    Args:
        exponent: its bits; the bias is 2 ** (exponent - 1) - 1.
        infinite: whether the highest exponent means infinity and NaN, as IEEE 754 has it; else only the byte whose
            other bits are all ones is NaN.
    """
    mantissa = 7 - exponent
    bits = np.arange(256)
    power, fraction = (bits >> mantissa) & ((1 << exponent) - 1), (bits & ((1 << mantissa) - 1)) / (1 << mantissa)
    bias = (1 << (exponent - 1)) - 1
    value = np.where(power == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (power - bias))
    if infinite:
        top = power == (1 << exponent) - 1
        value = np.where(top, np.where(fraction == 0, np.inf, np.nan), value)
    else:
        value = np.where((bits & 127) == 127, np.nan, value)
    return np.where(bits >= 128, -value, value).astype(np.float32)


@cache
def _e4m3() -> np.ndarray:
    return _float8(4, infinite=False)


@cache
def _e5m2() -> np.ndarray:
    return _float8(5, infinite=True)


def _simple(name: str, stored: str, decode: Callable[[np.ndarray], np.ndarray] = _plain) -> Encoding:
    return Encoding(name=name, stored=np.dtype(stored), block=1, decode=decode)


# By safetensors' names, which the other readers translate theirs to.
ENCODINGS = {
    one.name: one
    for one in (
        _simple("F64", "<f8"),
        _simple("F32", "<f4"),
        _simple("F16", "<f2"),
        _simple("BF16", "<u2", _bfloat16),
        _simple("F8_E4M3", "u1", _looked_up(_e4m3)),
        _simple("F8_E5M2", "u1", _looked_up(_e5m2)),
        _simple("I64", "<i8"),
        _simple("I32", "<i4"),
        _simple("I16", "<i2"),
        _simple("I8", "i1"),
        _simple("U64", "<u8"),
        _simple("U32", "<u4"),
        _simple("U16", "<u2"),
        _simple("U8", "u1"),
        _simple("BOOL", "u1"),
    )
}
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
