"""Transformers by the names of the common Hugging Face families, of GGUF, and our own.

Llama, Mistral, Qwen, Gemma, Phi, GPT-2, GPT-NeoX, OPT, BERT, RoBERTa, DistilBERT, ViT. A block is what lies behind a
number in the names ("model.layers.3."); what its tensors are is looked up by the rest of the name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from locard.weights.files import Tensors
from locard.weights.layouts.base import STREAM, Block, Facts, HeadPart, Layout, Part
from locard.weights.layouts.constants import LOOKED_AT, constant, named_constant

_NUMBERED = re.compile(r"^(?P<head>(?:.*\.)?(?:layers?|h|blocks?|blk))\.(?P<number>\d+)\.(?P<rest>.+)\.weight$")

_GATED = (
    ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ("ffn_gate", "ffn_up", "ffn_down"),
)
_FUSED_GATE = ("mlp.gate_up_proj", "mlp.down_proj")
# GPT-2 keeps its matrices turned, (in, out).
_PLAIN = (
    ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", False),
    ("mlp.c_fc", "mlp.c_proj", True),
    ("intermediate.dense", "output.dense", False),
    ("mlp.fc1", "mlp.fc2", False),
    ("fc1", "fc2", False),
    ("ffn.lin1", "ffn.lin2", False),
    ("ffn_up", "ffn_down", False),
    ("dense1", "dense2", False),
)
_ATTENTION = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense"),
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    ("attn_q", "attn_k", "attn_v", "attn_output"),
    ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    ("attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense"),
    ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"),
    ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    ("query", "key", "value", "out"),
)
# (fused, out, turned, interleaved head by head)
_FUSED = (
    ("self_attn.qkv_proj", "self_attn.o_proj", False, False),
    ("attention.query_key_value", "attention.dense", False, True),
    ("attn.c_attn", "attn.c_proj", True, False),
    ("attn_qkv", "attn_output", False, False),
)
# Gemma's own norm before the MLP comes first, as its post_attention_layernorm is behind the attention.
_MLP_NORM = ("pre_feedforward_layernorm", "post_attention_layernorm", "ffn_norm", "ln_2", "layernorm_after", "norm2",
             "final_layer_norm")  # fmt: skip
_HEAD_NORM = ("input_layernorm", "attn_norm", "ln_1", "layernorm_before", "norm1", "self_attn_layer_norm")
# In BERT, OPT-350m and NeoX's parallel form norms stand elsewhere; only those in front of a part are folded.
_BEHIND = ("bert", "roberta", "distilbert")
_TOKENS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "token_embd.weight")
_PATCHES = ("patch_embeddings.projection.weight", "pieces.weight")
_HEAD = ("lm_head.weight", "embed_out.weight", "output.weight", "classifier.weight")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "heads")
_GROUPS = ("num_key_value_heads", "num_kv_heads")

# Of one tensor: its name, the heads' axis, how many, the first's start, the step to the next, the size.
_Spot = tuple[str, Literal[0, 1], int, int, int, int]


def recognise(tensors: Tensors, facts: Facts) -> Layout | None:
    """The blocks of a transformer, or None where the names are none of those known."""
    shapes = tensors.shapes
    found: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for name in shapes:
        match = _NUMBERED.match(name)
        if match:
            found[match["head"], int(match["number"])][match["rest"]] = name
    blocks: list[Block] = []
    notes: list[str] = []
    heads, groups = _heads(facts)
    for (_, number), parts in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        made = [
            _mlp(parts, shapes, number, facts),
            *_attention(parts, shapes, number, facts, heads, groups),
        ]
        blocks += [block for block in made if block is not None]
    if not blocks:
        return None
    if heads is None and any(_has_attention(parts) for parts in found.values()):
        notes.append("nothing says how many heads the attention has: its tensors are left out")
    anchor, stream = _stream(shapes)
    constants = {name: reason for name in shapes if (reason := named_constant(name)) is not None}
    constants |= _fixed_positions(tensors)
    if stream and any("positions" in reason for reason in constants.values()):
        # Each coordinate then has a frequency of its own, the same in every model: their order is no chance.
        notes.append(
            "the positions are fixed sines and cosines, which number the stream's coordinates: left out as units"
        )
        stream = []
    # A block of another width (a vision tower beside a language model) is aligned by no stream of this one's.
    width = shapes[anchor.tensor][anchor.axis] if anchor is not None else None
    fitting = [block for block in blocks if width is None or _width(block, shapes) == width]
    if len(fitting) < len(blocks):
        notes.append(f"{len(blocks) - len(fitting)} blocks are of another width than the stream: left out")
    return Layout(family="transformer", blocks=(*stream, *fitting), anchor=anchor, constants=constants,
                  notes=tuple(notes))  # fmt: skip


def _mlp(parts: dict[str, str], shapes: Mapping[str, tuple[int, ...]], number: int, facts: Facts) -> Block | None:
    gain, shift = _gain(parts, _MLP_NORM, facts)
    name = f"{number}.mlp"

    def part(rest: str, axis: Literal[0, 1], *, first: int = 0, signed: bool = False, read: bool = True) -> Part:
        return Part(tensor=parts[rest], axis=axis, across=STREAM, first=first, signed=signed,
                    gain=gain if read else None, shift=shift if read else 0.0)  # fmt: skip

    for gate, up, down in _GATED:
        if {gate, up, down} <= parts.keys():
            return Block(name=name, units=shapes[parts[gate]][0], ins=(part(gate, 0), part(up, 0, signed=True)),
                         outs=(part(down, 1, signed=True, read=False),))  # fmt: skip
    fused, down = _FUSED_GATE
    if {fused, down} <= parts.keys():
        units = shapes[parts[fused]][0] // 2
        return Block(name=name, units=units, ins=(part(fused, 0), part(fused, 0, first=units, signed=True)),
                     outs=(part(down, 1, signed=True, read=False),))  # fmt: skip
    for into, out, turned in _PLAIN:
        if {into, out} <= parts.keys() and len(shapes[parts[into]]) == len(shapes[parts[out]]) == 2:
            units = shapes[parts[into]][1 if turned else 0]
            return Block(name=name, units=units, ins=(part(into, 1 if turned else 0),),
                         outs=(part(out, 0 if turned else 1, read=False),))  # fmt: skip
    return None


def _attention(
    parts: dict[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    number: int,
    facts: Facts,
    heads: int | None,
    groups: int | None,
) -> list[Block]:
    if heads is None:
        return []
    gain, shift = _gain(parts, _HEAD_NORM, facts)

    def block(spots: list[_Spot]) -> list[Block]:
        """The heads of queries, keys, values and outputs: tensor, axis, heads, start, step, size of each."""
        made = []
        for tensor, axis, count, start, step, size in spots:
            long = shapes[tensor][axis] if len(shapes[tensor]) == 2 else 0
            if count < 1 or size < 1 or start + (count - 1) * step + size > long:
                return []
            read = len(made) < 3
            made.append(HeadPart(tensor=tensor, axis=axis, heads=count, start=start, step=step, size=size,
                                 gain=gain if read else None, shift=shift if read else 0.0))  # fmt: skip
        queries, keys, values, outputs = made
        return [Block(name=f"{number}.heads", kind="heads", units=queries.heads, ins=(queries, keys),
                      outs=(outputs, values))]  # fmt: skip

    for names in _ATTENTION:
        if set(names) <= parts.keys():
            q, k, v, o = (parts[name] for name in names)
            size, few = shapes[q][0] // heads, shapes[k][0] // max(shapes[q][0] // heads, 1)
            spots: list[_Spot] = [(q, 0, heads, 0, size, size), (k, 0, few, 0, size, size), (v, 0, few, 0, size, size),
                                  (o, 1, heads, 0, size, size)]  # fmt: skip
            return block(spots)
    for fused, out, turned, woven in _FUSED:
        if {fused, out} <= parts.keys():
            axis: Literal[0, 1] = 1 if turned else 0
            long, few = shapes[parts[fused]][axis], groups or heads
            size = long // (heads + 2 * few)
            step = 3 * size if woven else size
            starts = (0, size, 2 * size) if woven else (0, heads * size, (heads + few) * size)
            if woven and few != heads:
                return []
            inner: list[_Spot] = [
                (parts[fused], axis, n, start, step, size) for n, start in zip((heads, few, few), starts, strict=True)
            ]
            other: Literal[0, 1] = 0 if turned else 1
            last: _Spot = (parts[out], other, heads, 0, size, size)
            return block([*inner, last])
    return []


def _has_attention(parts: dict[str, str]) -> bool:
    return any(set(names) <= parts.keys() for names in _ATTENTION) or any(row[0] in parts for row in _FUSED)


def _stream(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Part | None, list[Block]]:
    """The part that ties the stream to words or pixels, and the stream's coordinates as a block."""
    anchor: Part | None = None
    for name, shape in shapes.items():
        if name.endswith(_TOKENS) and len(shape) == 2:
            anchor = Part(tensor=name, axis=1, across="tokens")
            break
        if name.endswith(_PATCHES) and len(shape) > 1:
            anchor = Part(tensor=name, axis=0, across="inputs")
    if anchor is None:
        return None, []
    outs = [
        Part(tensor=name, axis=1, across="tokens" if anchor.across == "tokens" else "outputs")
        for name, shape in shapes.items()
        if (name.endswith(_HEAD) or name == "dense.weight") and len(shape) == 2 and not name.startswith("blk.")
        and shape[1] == shapes[anchor.tensor][anchor.axis]
    ]  # fmt: skip
    return anchor, [Block(name=STREAM, units=shapes[anchor.tensor][anchor.axis], ins=(anchor,), outs=tuple(outs[:1]))]


def _fixed_positions(tensors: Tensors) -> dict[str, str]:
    """Tables of positions that are sines and cosines, with the reason."""
    found: dict[str, str] = {}
    for name, shape in tensors.shapes.items():
        if "pos" in name and len(shape) == 2 and shape[0] * shape[1] <= LOOKED_AT:
            reason = constant(name, tensors.matrix(name))
            if reason is not None:
                found[name] = reason
    return found


def _width(block: Block, shapes: Mapping[str, tuple[int, ...]]) -> int:
    part = block.ins[0]
    return shapes[part.tensor][1 - part.axis]


def _gain(parts: dict[str, str], names: tuple[str, ...], facts: Facts) -> tuple[str | None, float]:
    """The gains of the norm in front, and what is added to them."""
    kind = str(facts.get("model_type", facts.get("general.architecture", "")))
    if kind in _BEHIND:
        return None, 0.0
    shift = 1.0 if kind.startswith("gemma") and "general.architecture" not in facts else 0.0
    return next((parts[name] for name in names if name in parts), None), shift


def _heads(facts: Facts) -> tuple[int | None, int | None]:
    """Heads of queries, and of keys and values, as a configuration names them."""

    def look(names: tuple[str, ...], suffix: str) -> int | None:
        for name, value in facts.items():
            if (name in names or name.endswith(suffix)) and isinstance(value, int) and 0 < value < 1 << 16:
                return value
        return None

    heads = look(_HEADS, ".attention.head_count")
    return heads, look(_GROUPS, ".attention.head_count_kv") or heads
