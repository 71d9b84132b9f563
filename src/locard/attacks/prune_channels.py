"""Structured pruning: whole channels of small L1 norm are cut out of a network, with some training afterwards [1].

A channel goes with all that belongs to it: the weights that write it, its bias, its entries of batch norms, and the
weights that read it. What layers write to one residual stream is one set of channels, ranked by the sum of the L1 norms
of all weights that write it ([1] ranks by the shortcut's alone); each set loses the same share. The copy is a smaller
network of no named architecture.

Which channels belong together is read off the graph that `torch.export` makes of the module. A set stays whole where it
is the network's output, or where it meets an operation that is not known to keep channels apart, such as a grouped
convolution, a layer norm, attention or a concatenation; the copy's notes say which sets did. Where a module's own code
names the sizes that it had, nothing can be cut out of it: what belongs to the channels is set to 0 and held there, so
that the copy answers as the cut network would, and the notes say so.

Counts as a theft within 5 points of accuracy.

[1] Li, Kadav, Durdanovic, Samet, Graf. Pruning Filters for Efficient ConvNets. ICLR 2017. The text was not at hand;
written from what is commonly known of it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from locard.attacks._channels import OUTPUT, Stream, streams
from locard.attacks._pruning import Pruned, Pruning, zero
from locard.attacks.base import attacks, bare
from locard.errors import ParameterError
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.attacks._pruning import Masks
    from locard.records import Domain

    Kept = list[tuple[Stream, torch.Tensor]]


@attacks.register("prune-channels")
@dataclass(frozen=True, slots=True, kw_only=True)
class PruneChannels(Pruning):
    """Cut whole channels out.

    Args:
        fraction: share of each set's channels, the smallest by L1 norm, in [0, 1); one channel always stays.
        recovery: epochs of training afterwards on the thief's labelled data.
        lr: highest learning rate of the recovery.
        batch: inputs in one step of the recovery.
        cut: False for channels set to 0, so that the copy keeps its architecture and can be written as a folder.
    """

    name: ClassVar[str] = "prune-channels"

    fraction: float = 0.3
    recovery: int = 10
    cut: bool = True

    def _prune(self, module: torch.nn.Module, victim: Any) -> Pruned:
        network = bare(module)
        found = streams(network, victim.domain)
        if all(stream.whole is not None for stream in found):
            met = "; ".join(f"{one.layers} meets {one.whole}" for one in found) or "it has no layer of weights"
            raise ParameterError(f"no channels of {type(network).__name__} may be pruned: {met}")
        kept = [(stream, strongest(network, stream, self.fraction)) for stream in found if stream.whole is None]
        # Once each, for a layer that is used twice writes two sets.
        whole = dict.fromkeys(f"{one.layers} (meets {one.whole})" for one in found if one.whole not in (None, OUTPUT))
        notes = (f"left whole: {'; '.join(whole)}",) if whole else ()
        if all(len(rows) == stream.width for stream, rows in kept):
            return Pruned([], notes=notes)
        keep = masks(network, kept)
        zero(keep)
        if self.cut:
            # Tried on another copy, for a module's own code may name the sizes that it had.
            trial = copy.deepcopy(network)
            shrink(trial, kept)
            if alike(trial, network, victim.domain):
                shrink(network, kept)
                return Pruned([], cut=True, notes=notes)
            said = f"{type(network).__name__} names its own sizes, so channels were set to 0 and not cut out"
            notes = (*notes, said)
        return Pruned(keep, notes=notes)


def strongest(network: torch.nn.Module, stream: Stream, fraction: float) -> torch.Tensor:
    """The channels of a stream that stay, rising: those of largest L1 norm, summed over all weights that write it."""
    import torch

    tensors = network.state_dict()
    sizes = [tensors[one.tensor].abs().movedim(one.axis, 0).flatten(1).sum(dim=1) for one in stream.writers]
    norms = torch.stack(sizes).sum(dim=0)
    lost = min(round(fraction * stream.width), stream.width - 1)
    return norms.argsort(stable=True)[lost:].sort().values


def entries(rows: torch.Tensor, block: int) -> torch.Tensor:
    """The entries that channels take along an axis where each is a block of neighbours."""
    import torch

    return (rows.unsqueeze(1) * block + torch.arange(block)).flatten()


def masks(network: torch.nn.Module, kept: Kept) -> Masks:
    """For each parameter of the streams, 1 where all its channels stay and 0 elsewhere."""
    import torch

    own, found = dict(network.named_parameters()), {}
    for stream, rows in kept:
        for part in stream.parts:
            if part.tensor in own:
                mask = found.setdefault(part.tensor, torch.ones_like(own[part.tensor]))
                stay = torch.zeros(mask.shape[part.axis])
                stay[entries(rows, part.block)] = 1
                mask *= stay.reshape(-1, *[1] * (mask.ndim - part.axis - 1))
    return [(own[name], mask) for name, mask in found.items()]


def shrink(network: torch.nn.Module, kept: Kept) -> None:
    """Cut all other channels out of a network, in place."""
    import torch

    for stream, rows in kept:
        for part in stream.parts:
            path, _, leaf = part.tensor.rpartition(".")
            layer = network.get_submodule(path)
            old = getattr(layer, leaf)
            new = old.detach().index_select(part.axis, entries(rows, part.block))
            if old.ndim == 4 and old.is_contiguous(memory_format=torch.channels_last):
                new = new.contiguous(memory_format=torch.channels_last)
            trained = isinstance(old, torch.nn.Parameter)
            setattr(layer, leaf, torch.nn.Parameter(new, requires_grad=old.requires_grad) if trained else new)
            resize(layer, len(rows) * part.block)


def resize(layer: torch.nn.Module, width: int) -> None:
    """Have a layer state the sizes that its weights have; `width` is the one that was cut last."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if layer.groups > 1:
            layer.groups = len(layer.weight)
        layer.out_channels, layer.in_channels = len(layer.weight), layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        layer.num_features = width


def alike(one: torch.nn.Module, other: torch.nn.Module, domain: Domain) -> bool:
    """Whether two networks answer the same, or nearly, and both answer."""
    import torch

    shape = (4, *domain.shape)
    x = torch.from_numpy(generator(0, "prune-channels/alike").random(shape)).to(getattr(torch, domain.dtype))
    with torch.no_grad():
        theirs = other(x)
        try:
            ours = one(x)
        # The module is its owner's code, which may meet a size that it does not expect in any way.
        except Exception:
            return False
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
