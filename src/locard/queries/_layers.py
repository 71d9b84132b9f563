"""Layers of a model by name, and their neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from locard.errors import ParameterError, unknown
from locard.queries._ensemble import ensemble

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView


def hidden(layers: Mapping[str, tuple[int, ...]], name: str, source: str) -> str:
    """The layer of that name, or the last hidden one: the last but one that runs.

    Args:
        layers: what `ModuleView.layers` gives.
        name: a layer, or "" for the last hidden one.
        source: the model, for messages.

    Raises:
        ParameterError: there is no such layer, or no hidden one.
    """
    if name:
        if name not in layers:
            raise unknown(f"layer of {source}:", name, layers)
        return name
    if len(layers) < 2:
        raise ParameterError(f"{source} has no hidden layer: its layers are {', '.join(layers) or 'none'}")
    return list(layers)[-2]


def neurons(activations: np.ndarray) -> np.ndarray:
    """One number for each neuron of a layer: a channel's mean over its places.

    Args:
        activations: (n, neurons, ...), channels first.

    Returns:
        (n, neurons) float32.
    """
    if activations.ndim < 3:
        return activations.reshape(len(activations), -1).astype(np.float32)
    return activations.reshape(*activations.shape[:2], -1).mean(axis=2, dtype=np.float64).astype(np.float32)


@contextmanager
def watched(victim: ModuleView, name: str, *, what: str) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """The neurons of a layer as a function of the inputs, through which gradients flow.

    Args:
        victim: whose layer.
        name: of a layer, as `ModuleView.layers` lists it.
        what: what is made with it, for messages.

    Yields:
        A function of (n, *shape) inputs to (n, neurons), on the device of the inputs; see `neurons`. The victim is in
        evaluation mode meanwhile.
    """
    from locard.models._torch import Normalised

    seen: list[torch.Tensor] = []
    whole = victim.module()
    part = (whole.module if isinstance(whole, Normalised) else whole).get_submodule(name)
    # A copy: the next layer may work in place. Of a layer that runs several times the first run counts.
    hook = part.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.clone()) if not seen else None)

    try:
        with ensemble((victim,), like=victim, what=what) as one:

            def activations(x: torch.Tensor) -> torch.Tensor:
                seen.clear()
                one.member(0, x)
                rows = seen[0].to(x.device)
                return rows.flatten(2).mean(dim=2) if rows.ndim > 2 else rows.reshape(len(rows), -1)

            yield activations
    finally:
        hook.remove()
