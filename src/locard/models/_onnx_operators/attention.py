"""Scaled dot-product attention, as torch's exporter writes it from opset 23 on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from locard.models._onnx_operators.table import Node, Run, UnsupportedVariantError, operator


@operator("Attention")
def _attention(node: Node) -> Run:
    causal, scale = bool(node.get("is_causal", 0)), node.get("scale", None)
    query_heads, key_heads = node.get("q_num_heads", None), node.get("kv_num_heads", None)
    node.refuse(softcap=0.0)
    if any(node.has(index) for index in range(4, 7)) or any(node.wants(index) for index in range(1, 4)):
        raise UnsupportedVariantError("a key-value cache or more outputs than one")

    def heads(x: Tensor, count: int) -> Tensor:
        return x.unflatten(-1, (count, -1)).transpose(1, 2)

    def run(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        joined = query.dim() == 3
        if joined:
            query, key, value = heads(query, query_heads), heads(key, key_heads), heads(value, key_heads)
        if causal and mask is not None:
            below = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
            mask = mask & below if mask.dtype == torch.bool else mask.masked_fill(~below, float("-inf"))
        y = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=causal and mask is None,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return y.transpose(1, 2).flatten(2) if joined else y

    return run
