"""Symmetries of norms, streams, logits, vocabularies and experts, tensor by tensor.

These change the weights and not the answers, and no graph tells where they hold: the caller names the tensors. Each
function gives the normal form of one row; two copies that differ along the row give the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from locard.errors import ParameterError

State = dict[str, np.ndarray]


def fold_batch_norm(
    state: Mapping[str, np.ndarray], weights: Sequence[tuple[str, int]], front: str, *, epsilon: float
) -> State:
    """A batch norm in evaluation mode that passes its inputs on plus a shift: the rest goes into the weights before it.

    Args:
        state: tensors by name; left as it is.
        weights: the tensors that make the norm's inputs, biases among them, and their axes.
        front: the norm's name with its last dot: `front + "running_var"` is its variance.
        epsilon: that the norm adds to its variance.

    Returns:
        A state whose norm has gains 1, means 0 and variances 1 - epsilon.
    """
    after = dict(state)
    gain, shift, mean, variance = (front + part for part in ("weight", "bias", "running_mean", "running_var"))
    factor = after[gain] / np.sqrt(after[variance] + epsilon)
    for name, axis in weights:
        after[name] = after[name] * np.expand_dims(factor, tuple(range(1, after[name].ndim - axis)))
    after[shift] = after[shift] - after[mean] * factor
    after[gain], after[mean] = np.ones_like(after[gain]), np.zeros_like(after[mean])
    after[variance] = np.full_like(after[variance], 1 - epsilon)
    return after


def fold_gain(state: Mapping[str, np.ndarray], gain: str, readers: Sequence[str], *, shift: str | None = None) -> State:
    """The gain of a layer norm or RMSNorm, and its shift, in the weights that read it.

    Args:
        state: tensors by name; left as it is.
        gain: (width,).
        readers: names of all (out, width) matrices that read the norm's answer.
        shift: (width,), or None where the norm has none; it goes into the readers' biases, `X.bias` beside `X.weight`.

    Raises:
        ParameterError: a reader has no bias for the shift.
    """
    after = dict(state)
    for name in readers:
        bias = f"{name.removesuffix('weight')}bias"
        if shift is not None:
            if bias not in after:
                raise ParameterError(f"the shift {shift!r} needs a bias beside {name!r} to go to; there is none")
            after[bias] = after[bias] + after[name] @ after[shift]
        after[name] = after[name] * after[gain]
    after[gain] = np.ones_like(after[gain])
    if shift is not None:
        after[shift] = np.zeros_like(after[shift])
    return after


def centre_writers(state: Mapping[str, np.ndarray], writers: Mapping[str, int]) -> State:
    """Without what a layer norm's centring removes: the mean over the stream of all that is written into it.

    Args:
        state: tensors by name; left as it is.
        writers: the stream's axis in each tensor that writes into it, biases and embeddings among them. Only for
            streams that layer norms alone read.
    """
    after = dict(state)
    for name, axis in writers.items():
        after[name] = after[name] - after[name].mean(axis=axis, keepdims=True)
    return after


def rotate_stream(
    state: Mapping[str, np.ndarray], rotation: np.ndarray, *, embeddings: Sequence[str], writers: Sequence[str],
    readers: Sequence[str],
) -> State:  # fmt: skip
    """Turn the stream of a network whose RMSNorms have gains of 1; the answers stay [1].

    Args:
        state: tensors by name; left as it is.
        rotation: (width, width), orthogonal.
        embeddings: (any, width), biases of the stream as (width,).
        writers: (width, in).
        readers: (out, width).

    [1] Ashkboos, Croci, Gennari do Nascimento, Hoefler, Hensman. SliceGPT. ICLR 2024.
    """
    after = dict(state)
    for name in (*embeddings, *readers):
        after[name] = after[name] @ rotation
    for name in writers:
        after[name] = rotation.T @ after[name]
    return after


def canonical_stream(
    state: Mapping[str, np.ndarray], *, embeddings: Sequence[str], writers: Sequence[str], readers: Sequence[str],
    anchor: str,
) -> State:  # fmt: skip
    """The stream in the principal axes of its anchor, the longest first; see `rotate_stream`.

    Args:
        state: tensors by name, gains folded; left as it is.
        embeddings: see `rotate_stream`.
        writers: see there.
        readers: see there.
        anchor: an embedding or reader whose rows nothing else moves, of full rank.

    Raises:
        ParameterError: the anchor does not tell all axes apart.
    """
    _, lengths, axes = np.linalg.svd(np.asarray(state[anchor], np.float64), full_matrices=True)
    width = len(axes)
    if len(lengths) < width or (np.diff(lengths) > -1e-9 * lengths[0]).any() or lengths[-1] < 1e-9 * lengths[0]:
        raise ParameterError(
            f"the rotation of a stream is settled by {width} different singular values; {anchor!r} has not as many. "
            "Name an embedding or reader with more rows"
        )
    turned = rotate_stream(state, axes.T, embeddings=embeddings, writers=writers, readers=readers)
    signs = _first_signs(turned[anchor].T)
    return rotate_stream(turned, np.diag(signs), embeddings=embeddings, writers=writers, readers=readers)


def centre_logits(weight: np.ndarray, bias: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits of mean 0 over the classes, which is all that a softmax sees.

    Args:
        weight: (classes, width) of the last layer.
        bias: (classes,), or None.
    """
    return weight - weight.mean(axis=0), None if bias is None else bias - bias.mean()


def by_token(
    matrices: Sequence[np.ndarray], tokens: Sequence[str], keep: Sequence[str] | None = None
) -> tuple[list[np.ndarray], list[str]]:
    """Rows of embeddings in the order of their tokens' strings.

    Args:
        matrices: each (vocabulary, width): embedding, last layer.
        tokens: the string of each row.
        keep: strings of the other model's vocabulary; rows of strings that are not among them are left out.

    Returns:
        The matrices, and the strings of their rows.

    Raises:
        ParameterError: a string occurs twice, or there is not one for each row.
    """
    if len(set(tokens)) != len(tokens) or any(len(one) != len(tokens) for one in matrices):
        raise ParameterError(
            f"each row of an embedding needs a token of its own; got {len(tokens)} tokens, {len(set(tokens))} of them "
            f"different, for {[len(one) for one in matrices]} rows"
        )
    kept = None if keep is None else set(keep)
    order = sorted((row for row, one in enumerate(tokens) if kept is None or one in kept), key=lambda row: tokens[row])
    return [one[order] for one in matrices], [tokens[row] for row in order]


def canonical_experts(
    router: np.ndarray, experts: Sequence[Mapping[str, np.ndarray]]
) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Experts in the order of their router rows, each gated layer in normal form.

    Args:
        router: (experts, width).
        experts: each with "gate" and "up", (hidden, width), and "down", (width, hidden).
    """
    order = np.lexsort(np.round(router.T[::-1], 9))
    return router[order], [canonical_gated(experts[one]) for one in order]


def canonical_gated(layer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A gated layer, down @ (act(gate @ x) * (up @ x)): rows of `up` of length 1, their first entry positive, in order.

    Args:
        layer: "gate" and "up", (hidden, width), and "down", (width, hidden). Any number but 0 may pass between a row of
            `up` and its column of `down`; the gate's rows are what puts the units in order.
    """
    length = np.linalg.norm(layer["up"], axis=1)
    scale = _first_signs(layer["up"]) / np.where(length > 0, length, 1)
    order = np.lexsort(np.round(layer["gate"].T[::-1], 9))
    return {"gate": layer["gate"][order], "up": (layer["up"] * scale[:, None])[order],
            "down": (layer["down"] / scale)[:, order]}  # fmt: skip


def _first_signs(rows: np.ndarray) -> np.ndarray:
    """For each row the sign of its longest entry, of equals the first."""
    at = np.argmax(np.abs(rows) > (1 - 1e-6) * np.abs(rows).max(axis=1, keepdims=True), axis=1)
    return np.where(rows[np.arange(len(rows)), at] < 0, -1.0, 1.0)
