"""torch modules of our own that adapters put around a stranger's; imported only where torch is at hand."""

from __future__ import annotations

import torch
from torch import nn


class Fitted(nn.Module):
    """A translated ONNX graph that takes inputs as a domain says, in batches of any size.

    Args:
        graph: the module.
        dtype: what the graph takes.
        channels_last: whether it takes images as (h, w, c).
        batch: the batch size that it takes, or None for any.
    """

    def __init__(self, graph: nn.Module, *, dtype: torch.dtype, channels_last: bool, batch: int | None) -> None:
        super().__init__()
        # Not `graph`: a program that torch exports has an attribute of that name, which would hide this one.
        self.inner = graph
        self._dtype, self._channels_last, self._batch = dtype, channels_last, batch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, ...) float32; the last batch is filled up with its last row."""
        x = (x.movedim(1, -1) if self._channels_last else x).to(self._dtype)
        if self._batch is None:
            return self.inner(x).float()
        parts = []
        for chunk in x.split(self._batch):
            fill = chunk[-1:].expand(self._batch - len(chunk), *chunk.shape[1:])
            parts.append(self.inner(torch.cat([chunk, fill]))[: len(chunk)])
        return torch.cat(parts).float()


class Logits(nn.Module):
    """The logits of a module that answers with a record of several things.

    Args:
        inner: takes the inputs under the name `pixel_values`.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.train(inner.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, classes)."""
        return self.inner(pixel_values=x).logits
