"""Tensors that no training made: equal in any two models of a kind, they say nothing of where one comes from.

A tensor counts as one by its name, where the name is that of a mask, a counter or a table of frequencies in a known
library, or because it equals a closed form: a Fourier basis under a window, sines and cosines of positions, a mask of
few values, one value throughout. That two models share a tensor to the byte while its neighbours differ is no proof of
either.
"""

from __future__ import annotations

import re

import numpy as np

_NAMES = re.compile(
    r"(^|\.)(inv_freq|original_inv_freq|position_ids|masked_bias|num_batches_tracked|rope_freqs|causal_mask|"
    r"attn\.bias|attention\.bias|forward_basis_buffer|forward_basis|inverse_basis|mel_basis|window)(\.weight)?(#\d+)?$"
)
LOOKED_AT = 1 << 22
"""A closed form is looked for in tensors up to this many numbers; larger tables of positions or waves are not met."""

# Rounding of a table that was made in float16 and kept in float32.
_CLOSE = 2e-3
_FEW = 2


def named_constant(name: str) -> str | None:
    """The reason why a tensor of that name is set aside, or None."""
    found = _NAMES.search(name)
    return f"its name ({found[2]}) is that of a fixed table" if found else None


def constant(name: str, array: np.ndarray) -> str | None:
    """Why a tensor is none that training made, or None where it may be.

    Args:
        name: of the tensor.
        array: its numbers, float32.
    """
    reason = named_constant(name)
    if reason is not None:
        return reason
    table = array.reshape(array.shape[0], -1) if array.ndim > 1 else array.reshape(1, -1)
    if table.size <= 1 or not np.isfinite(table).all():
        return None
    values = np.unique(table.ravel()[:4096])
    if len(values) <= _FEW and len(np.unique(table)) <= _FEW:
        return f"it holds {len(values)} value{'s' if len(values) > 1 else ''} only: a mask or a start"
    if _fourier(table):
        return "it is a Fourier basis under a window"
    if _positions(table):
        return "it holds sines and cosines of positions"
    return None


def _fourier(table: np.ndarray) -> bool:
    """Whether rows are window(t) * cos(2 pi k t / n) for k = 0, 1, ..., then the same with sines, of any sign."""
    rows, length = table.shape
    bands = rows // 2
    if rows % 2 or bands != length // 2 + 1 or length < 8:
        return False
    angle = 2 * np.pi * np.outer(np.arange(bands), np.arange(length)) / length
    window = table[0]
    size = np.abs(window).max()
    if size == 0:
        return False
    waves = np.concatenate([np.cos(angle) * window, np.sin(angle) * window])
    return bool(np.minimum(np.abs(table - waves), np.abs(table + waves)).max() <= _CLOSE * size)


def _positions(table: np.ndarray) -> bool:
    """Whether each column is a sine or cosine of the row's number, at a frequency of its own, as in 2017."""
    rows, columns = table.shape
    if rows < 8 or columns < 4 or columns % 2 or np.abs(table).max() > 1 + _CLOSE:
        return False
    at = np.arange(min(rows, 256))
    half = columns // 2
    rates = {
        "shared": 10000.0 ** (-2 * np.arange(half) / columns),
        "tensor2tensor": 10000.0 ** (-np.arange(half) / max(half - 1, 1)),
    }
    part = table[: len(at)]
    for rate in rates.values():
        for start in (0, 1, 2):
            angle = np.outer(at + start, rate)
            sine, cosine = np.sin(angle), np.cos(angle)
            for first, second in ((sine, cosine), (cosine, sine)):
                mixed = np.empty((len(at), columns))
                mixed[:, ::2], mixed[:, 1::2] = first, second
                for wanted in (mixed, np.concatenate([first, second], axis=1)):
                    if np.abs(part - wanted).max() <= _CLOSE:
                        return True
    return False
