"""Normal forms of attention heads from their tensors: what no change of a head's inner coordinates can hide.

A head's scores know the product of its queries and keys, its answer the product of its values and output weights. Plain
heads may be turned by any invertible matrix; with rotary positions (RoPE) each pair of coordinates only by a complex
number [1]; where several queries share a key (grouped queries) they are turned together.

[1] Zhang, Zheng, Chen, Li. Beyond the Permutation Symmetry of Transformers. ICML 2025.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from locard.errors import ParameterError

Pairs = Literal["half", "interleaved"]


def canonical_factors(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two factors of one product, equally long along common axes, the longest first.

    Args:
        left: (rank, a): queries, or the output weights transposed; queries of several heads that share a key side by
            side, (rank, heads * a).
        right: (rank, b): keys, or values.

    Returns:
        Factors of the same product `left.T @ right`, of the same shapes; each axis' longest entry in `left` is
        positive. The product is never formed: its core is (rank, rank).
    """
    (qa, ra), (qb, rb) = np.linalg.qr(left.T), np.linalg.qr(right.T)
    u, values, v = np.linalg.svd(ra @ rb.T, full_matrices=False)
    rank = int((values > 1e-12 * values[0]).sum())
    root = np.sqrt(values[:rank])[:, None]
    ours, theirs = np.zeros_like(left), np.zeros_like(right)
    ours[:rank], theirs[:rank] = root * (qa @ u[:, :rank]).T, root * (qb @ v[:rank].T).T
    at = np.argmax(np.abs(ours) > (1 - 1e-6) * np.abs(ours).max(axis=1, keepdims=True), axis=1)
    signs = np.where(ours[np.arange(len(ours)), at] < 0, -1.0, 1.0)[:, None]
    return ours * signs, theirs * signs


def canonical_rotary(query: np.ndarray, key: np.ndarray, *, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys under rotary positions: each pair of both equally long, its longest query entry real, positive.

    Args:
        query: (width of the head, a); queries that share the key side by side, (width of the head, heads * a).
        key: (width of the head, b).
        pairs: which coordinates turn together: "half", k with k + width / 2, or "interleaved", 2 k with 2 k + 1.

    Raises:
        ParameterError: the width is odd.
    """
    q, k = _complex(query, pairs), _complex(key, pairs)
    lengths = np.linalg.norm(q, axis=1), np.linalg.norm(k, axis=1)
    balance = np.sqrt(np.divide(lengths[1], lengths[0], out=np.ones_like(lengths[0]), where=lengths[0] > 0))
    at = np.argmax(np.abs(q) > (1 - 1e-6) * np.abs(q).max(axis=1, keepdims=True), axis=1)
    longest = q[np.arange(len(q)), at]
    phase = np.where(np.abs(longest) > 0, np.conj(longest) / np.maximum(np.abs(longest), 1e-300), 1)
    c = np.where(balance > 0, balance, 1) * phase
    # A product of q with the conjugate of k stays where k is divided by the conjugate of c.
    return _real(q * c[:, None], pairs), _real(k / np.conj(c)[:, None], pairs)


def rotary_products(query: np.ndarray, key: np.ndarray, *, pairs: Pairs) -> np.ndarray:
    """(width of the head / 2, a, b) complex: for each pair, what no complex number between queries and keys changes.

    Args:
        query: see `canonical_rotary`.
        key: see there.
        pairs: see there.
    """
    q, k = _complex(query, pairs), _complex(key, pairs)
    return q[:, :, None] * np.conj(k)[:, None, :]


def _complex(rows: np.ndarray, pairs: Pairs) -> np.ndarray:
    if len(rows) % 2:
        raise ParameterError(f"rotary positions turn pairs of coordinates; this head has {len(rows)}, an odd number")
    half = len(rows) // 2
    one, other = (rows[:half], rows[half:]) if pairs == "half" else (rows[::2], rows[1::2])
    return one + 1j * other


def _real(rows: np.ndarray, pairs: Pairs) -> np.ndarray:
    if pairs == "half":
        return np.concatenate([np.real(rows), np.imag(rows)])
    return np.stack([np.real(rows), np.imag(rows)], axis=1).reshape(2 * len(rows), -1)
