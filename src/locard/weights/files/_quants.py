"""GGUF's quantised blocks: numbers of a few bits that share a scale.

The layouts are those that llama.cpp's ggml writes. In the first kind a block of 32 numbers has one scale d (float16)
and perhaps an offset m; in the second ("K") a block of 256 has scales of its own for each 16 or 32 numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from locard.weights.files._encodings import Encoding


def _half(block: np.ndarray, at: int) -> np.ndarray:
    """(..., 1) float32: the float16 that begins at this byte of each block."""
    return np.ascontiguousarray(block[..., at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(block: np.ndarray) -> np.ndarray:
    """(..., 2 * bytes): the low halves of the bytes, then the high ones."""
    return np.concatenate([block & 15, block >> 4], axis=-1)


def _fifth(block: np.ndarray) -> np.ndarray:
    """(..., 32): a bit for each number, from 4 bytes, lowest first, as 0 or 16."""
    return np.unpackbits(block, axis=-1, bitorder="little") << 4


def _q4_0(block: np.ndarray) -> np.ndarray:
    return _half(block, 0) * (_nibbles(block[..., 2:]).astype(np.float32) - 8)


def _q4_1(block: np.ndarray) -> np.ndarray:
    return _half(block, 0) * _nibbles(block[..., 4:]) + _half(block, 2)


def _q5_0(block: np.ndarray) -> np.ndarray:
    return _half(block, 0) * ((_nibbles(block[..., 6:]) | _fifth(block[..., 2:6])).astype(np.float32) - 16)


def _q5_1(block: np.ndarray) -> np.ndarray:
    return _half(block, 0) * (_nibbles(block[..., 8:]) | _fifth(block[..., 4:8])) + _half(block, 2)


def _q8_0(block: np.ndarray) -> np.ndarray:
    return _half(block, 0) * block[..., 2:].view(np.int8)


def _sixes(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight scales and eight offsets of six bits each, from 12 bytes: (..., 8, 1) twice."""
    low, mid, high = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scale = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=-1)
    offset = np.concatenate([mid & 63, (high >> 4) | ((mid >> 6) << 4)], axis=-1)
    return scale[..., None].astype(np.float32), offset[..., None].astype(np.float32)


def _runs(packed: np.ndarray) -> np.ndarray:
    """(..., 8, 32): four runs of 32 bytes, each the low halves of 32 numbers and the high ones of the next 32."""
    runs = packed.reshape(*packed.shape[:-1], 4, 1, 32)
    return np.concatenate([runs & 15, runs >> 4], axis=-2).reshape(*packed.shape[:-1], 8, 32)


def _q4_k(block: np.ndarray) -> np.ndarray:
    scale, offset = _sixes(block[..., 4:16])
    d, least = _half(block, 0)[..., None], _half(block, 2)[..., None]
    return (d * scale * _runs(block[..., 16:]) - least * offset).reshape(*block.shape[:-1], 256)


def _q5_k(block: np.ndarray) -> np.ndarray:
    scale, offset = _sixes(block[..., 4:16])
    d, least = _half(block, 0)[..., None], _half(block, 2)[..., None]
    # Bit j of byte i is the fifth bit of number i of group j.
    fifth = (block[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    numbers = _runs(block[..., 48:]) | (fifth << 4)
    return (d * scale * numbers - least * offset).reshape(*block.shape[:-1], 256)


def _q6_k(block: np.ndarray) -> np.ndarray:
    head = block.shape[:-1]
    low, high = block[..., :128].reshape(*head, 2, 2, 32), block[..., 128:192].reshape(*head, 2, 1, 32)
    # Of each half: 64 bytes hold the low four bits of 128 numbers, 32 bytes the high two of the same.
    four = np.concatenate([low & 15, low >> 4], axis=-2)
    two = (high >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    numbers = (four | (two << 4)).astype(np.float32) - 32
    scale = block[..., 192:208].view(np.int8).astype(np.float32)
    return (_half(block, 208)[..., None] * scale[..., None] * numbers.reshape(*head, 16, 16)).reshape(*head, 256)


def _blocks(name: str, nbytes: int, block: int, decode: Callable[[np.ndarray], np.ndarray]) -> Encoding:
    def whole(items: np.ndarray) -> np.ndarray:
        # NumPy calls a block of bytes void, and multiplies no such thing.
        data = np.ascontiguousarray(items).view(np.uint8).reshape(*items.shape, nbytes)
        # A damaged file may hold a scale that is infinite or no number; the test of the values refuses it by name.
        with np.errstate(over="ignore", invalid="ignore"):
            return decode(data).reshape(*items.shape[:-1], items.shape[-1] * block).astype(np.float32, copy=False)

    return Encoding(name=name, stored=np.dtype(f"V{nbytes}"), block=block, decode=whole)


QUANTS = {
    one.name: one
    for one in (
        _blocks("Q4_0", 18, 32, _q4_0),
        _blocks("Q4_1", 20, 32, _q4_1),
        _blocks("Q5_0", 22, 32, _q5_0),
        _blocks("Q5_1", 24, 32, _q5_1),
        _blocks("Q8_0", 34, 32, _q8_0),
        _blocks("Q4_K", 144, 256, _q4_k),
        _blocks("Q5_K", 176, 256, _q5_k),
        _blocks("Q6_K", 210, 256, _q6_k),
    )
}
