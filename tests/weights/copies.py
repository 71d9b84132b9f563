"""Copies that compute the same function, made from a layout: if it is wrong, the answers change."""

from __future__ import annotations

import numpy as np
import torch

from locard.weights.layouts import HeadPart, Layout, Part

State = dict[str, torch.Tensor]


def moved(state: State, layout: Layout, *, seed: int = 0, scale: bool = False) -> tuple[State, dict[str, np.ndarray]]:
    """Every block's units in another order; also which unit of the old state each new one was.

    Args:
        state: of a network.
        layout: of it.
        seed: of the orders.
        scale: whether ReLU units are scaled by powers of two as well.
    """
    state = {name: one.clone() for name, one in state.items()}
    source = np.random.default_rng(seed)
    orders = {}
    for block in layout.blocks:
        if block.kind == "heads":
            _heads(state, block, source)
            continue
        if block.name == "stream":
            continue
        orders[block.name] = order = source.permutation(block.units)
        factor = 2.0 ** source.integers(-2, 3, block.units) if scale else np.ones(block.units)
        biases = set()
        for part in block.ins:
            assert isinstance(part, Part)
            _take(state, part.tensor, part.axis, part.first, order, factor)
            bias = part.tensor.removesuffix("weight") + "bias"
            if bias in state and bias not in biases and part.norm is None:
                _take(state, bias, 0, part.first, order, factor)
            if part.norm is not None and part.norm not in biases:
                for name in ("weight", "bias", "running_mean", "running_var"):
                    _take(state, f"{part.norm}.{name}", 0, 0, order, np.ones(block.units))
                biases.add(part.norm)
            biases.add(bias)
        for part in block.outs:
            assert isinstance(part, Part)
            _take(state, part.tensor, part.axis, part.first, order, 1 / factor)
    return state, orders


def _take(state, name, axis, first, order, factor):
    tensor, n = state[name], len(order)
    each = 1 if axis == 0 else tensor.shape[axis] // n
    inside = (order[:, None] * each + np.arange(each)).ravel() + first
    whole = np.arange(tensor.shape[axis])
    whole[first : first + n * each] = inside
    shape = [1] * tensor.ndim
    shape[axis] = -1
    along = np.ones(tensor.shape[axis])
    along[first : first + n * each] = np.repeat(factor, each)
    state[name] = tensor.index_select(axis, torch.from_numpy(whole)) * torch.from_numpy(along).reshape(shape).to(tensor)


def _heads(state, block, source):
    queries, keys, outputs, values = *block.ins, *block.outs
    groups = source.permutation(keys.heads)
    shared = queries.heads // keys.heads
    inner = np.array([source.permutation(shared) for _ in groups])
    heads = (groups[:, None] * shared + inner).ravel()
    done = set()
    for part, order in ((queries, heads), (keys, groups), (values, groups), (outputs, heads)):
        _head(state, part, order, part.tensor, part.axis)
        bias = part.tensor.removesuffix("weight") + "bias"
        if part is not outputs and bias in state:
            _head(state, part, order, bias, 0)
            done.add(bias)


def _head(state, part: HeadPart, order, name, axis):
    places = part.start + part.step * np.arange(part.heads)[:, None] + np.arange(part.size)
    whole = np.arange(state[name].shape[axis])
    whole[places.ravel()] = places[order].ravel()
    state[name] = state[name].index_select(axis, torch.from_numpy(whole))


def rotated(state: State, *, seed: int = 0) -> State:
    """A Llama whose stream is turned by a random orthogonal matrix, its norms' gains folded into what reads them."""
    state = {name: one.double() for name, one in state.items()}
    width = state["model.norm.weight"].shape[0]
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    for name in list(state):
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            gain = state[name.split("self_attn")[0] + "input_layernorm.weight"]
            state[name] = state[name] * gain @ turn
        elif name.endswith(("gate_proj.weight", "up_proj.weight")):
            gain = state[name.split("mlp")[0] + "post_attention_layernorm.weight"]
            state[name] = state[name] * gain @ turn
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            state[name] = turn.T @ state[name]
    state["lm_head.weight"] = state["lm_head.weight"] * state["model.norm.weight"] @ turn
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"] @ turn
    for name in state:
        if "norm" in name:
            state[name] = torch.ones_like(state[name])
    return {name: one.float() for name, one in state.items()}
