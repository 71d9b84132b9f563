"""Merging: the weights of two relatives of the victim are put together, tensor by tensor or entry by entry.

Both parents have the victim's architecture and, for the merge to keep the task, an ancestor in common; units are not
aligned first. With `other` the second parent is a model that the thief has. Without, the thief makes what is missing by
fine-tuning the victim on data of its own: one sibling for `average` and `slerp`, whose other parent is the victim; two,
each on a random half of the data, for `ties` and `dare`, which merge differences from a common base. With share s:

* `average` [1]: s A + (1 - s) B, A the victim.
* `slerp`: sin(s W) / sin W A + sin((1 - s) W) / sin W B for each tensor, W the angle between A and B; the average
  where sin W is under 1e-4, which takes in tensors of zeros.
* `ties` [2]: of each difference from the base the largest `keep` of the entries stay, ranked over all tensors together;
  the sign of each entry is that of the differences' sum; entries of that sign are averaged, those that were trimmed or
  have the other sign left out; the result, times `scale`, is added to the base. The share plays no part.
* `dare` [3]: each entry of a difference is dropped with probability `drop`, the others are divided by 1 - drop; the
  average of the differences by share, times `scale`, is added to the base.

The base of `ties` and `dare` is the victim, or `base` where the thief has the common ancestor of victim and `other`;
without it the victim's own difference is nothing, and only the other's is merged in. Buffers of real numbers, such as
the running statistics of batch norm, are averaged by share, whatever the method. Counts as a theft within 3 points of
the victim's accuracy, `ties` and `dare` within 5. The texts of [1] to [3] were not at hand; written from what is
commonly known of them, the defaults too.

[1] Wortsman et al. Model soups. ICML 2022. [2] Yadav, Tam, Choshen, Raffel, Bansal. TIES-Merging: Resolving
Interference When Merging Models. NeurIPS 2023. [3] Yu, Yu, Yu, Huang, Li. Language Models are Super Mario: Absorbing
Abilities from Homologous Models as a Free Lunch. ICML 2024.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._training import Training
from locard.attacks.base import Copy, attacks, bare
from locard.errors import ParameterError, check_number
from locard.models import folder
from locard.models.fitting import fit, reproducible
from locard.records import Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    import torch
    from torch import nn

    from locard.models import ModuleView
    from locard.models.session import Progress

_METHODS = ("average", "slerp", "ties", "dare")
_PARALLEL = 1e-4


@attacks.register("merge")
@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(Training):
    """Put the weights of two relatives together.

    Args:
        method: "average", "slerp", "ties" or "dare".
        other: folder of the other parent; "" for siblings of the thief's own making, which take labelled data.
        base: folder of the ancestor that `ties` and `dare` take differences from; "" for the victim.
        share: of the first parent, in [0, 1]; the victim, or the first of two siblings.
        keep: share of the entries that `ties` keeps of each difference, in (0, 1].
        drop: share of the entries that `dare` drops, in [0, 1).
        scale: what the merged difference of `ties` and `dare` is multiplied by.
        epochs: of a sibling's training; those of two halves are counted once.
        lr: highest learning rate of a sibling's training.
        batch: inputs in one step of it.
    """

    name: ClassVar[str] = "merge"

    method: str = "average"
    other: str = ""
    base: str = ""
    share: float = 0.5
    keep: float = 0.2
    drop: float = 0.9
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.method not in _METHODS:
            raise ParameterError(f"method must be one of {', '.join(_METHODS)}; got {self.method!r}")
        if self.base and not (self.other and self._differences):
            raise ParameterError("base is the ancestor of the victim and other, for ties and dare: give all three")
        check_number("share", self.share, low=0, high=1)
        check_number("keep", self.keep, above=0, high=1)
        check_number("drop", self.drop, low=0, below=1)
        check_number("scale", self.scale, above=0, high=1e6)
        Training.__post_init__(self)

    @property
    def margin(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """3 points of accuracy, 5 where differences are merged."""
        return 0.05 if self._differences else 0.03

    @property
    def needs_data(self) -> bool:
        """To make siblings."""
        return not self.other

    @property
    def needs_labels(self) -> bool:
        """To make siblings."""
        return not self.other

    @property
    def _differences(self) -> bool:
        return self.method in ("ties", "dare")

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        module, notes = copy.deepcopy(victim.module()), ()
        if self.other:
            other, digest = relative(self.other, module)
            parents, notes = (module, other), (f"the other parent is {self.other}, of digest {digest}",)
        else:
            assert data is not None  # noqa: S101 - `derive` has checked
            siblings = self._siblings(module, data, seed, progress)
            parents = (siblings[0], siblings[-1]) if self._differences else (module, siblings[0])
        base = relative(self.base, module)[0] if self.base else module
        with reproducible(seed):
            merged = self._merged([weights(parent) for parent in parents], weights(base), seed)
        # Read before any is written: the victim's copy is a parent, and becomes the child.
        averaged = [average(a, b, self.share) for a, b in zip(*map(statistics, parents), strict=True)]
        for own, value in zip(module.parameters(), merged, strict=True):
            own.data.copy_(value.reshape(own.shape))
        for own, value in zip(statistics(module), averaged, strict=True):
            own.copy_(value)
        return Copy(module=module, epochs=0 if self.other else self.epochs, notes=notes)

    def _siblings(self, module: nn.Module, data: Data, seed: int, progress: Progress | None) -> list[nn.Module]:
        """The victim fine-tuned on all of the thief's data, or on each half."""
        assert data.labels is not None  # noqa: S101
        rows = generator(seed, "merge/halves").permutation(len(data))
        parts = (rows[::2], rows[1::2]) if self._differences else (rows,)
        made: list[nn.Module] = []
        for number, part in enumerate(parts):

            def told(done: int, wanted: int, before: int = number * self.epochs) -> None:
                if progress is not None:
                    progress(before + done, len(parts) * wanted)

            made.append(fit(copy.deepcopy(module), data.inputs[part], data.labels[part], recipe=self.recipe,
                            seed=derive(seed, f"merge/sibling/{number}"), progress=told))  # fmt: skip
        return made

    def _merged(self, parents: list[list[torch.Tensor]], base: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
        import torch

        if not self._differences:
            mix = average if self.method == "average" else slerp
            return [mix(a, b, self.share) for a, b in zip(*parents, strict=True)]
        origin = torch.cat(base)
        differences = torch.stack([torch.cat(parent) - origin for parent in parents])
        if self.method == "ties":
            merged = ties(differences, self.keep)
        else:
            source = torch.Generator().manual_seed(derive(seed, "merge/dropped"))
            first, second = dare(differences, self.drop, source)
            merged = average(first, second, self.share)
        return list((origin + self.scale * merged).split([len(one) for one in base]))


def relative(path: str, like: nn.Module) -> tuple[nn.Module, str]:
    """A model folder's network with its normalisation in front, and its digest.

    Args:
        path: the folder.
        like: the victim's network, which it must match tensor by tensor.

    Raises:
        ArtefactError: there is no sound model folder.
        ParameterError: it is of another shape, or normalises its inputs otherwise.
    """
    model = folder.read(path)
    module = model.module()
    ours, theirs = ({k: tuple(v.shape) for k, v in bare(one).state_dict().items()} for one in (like, module))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise ParameterError(
                f"merging takes two networks of one form; the tensor {name!r} is {ours.get(name, 'missing')} in the "
                f"victim and {theirs.get(name, 'missing')} in {path}"
            )
    # What is not the network's own are the numbers of the normalisation.
    ours, theirs = (
        {k: v for k, v in one.named_buffers(recurse=False) if one is not bare(one)} for one in (like, module)
    )
    if ours.keys() != theirs.keys() or not all(ours[name].equal(theirs[name]) for name in ours):
        raise ParameterError(f"{path} normalises its inputs otherwise than the victim; merging takes the same")
    return module, model.digest


def weights(module: nn.Module) -> list[torch.Tensor]:
    """The parameters, each as one row of float64."""
    return [parameter.detach().double().reshape(-1) for parameter in module.parameters()]


def statistics(module: nn.Module) -> list[torch.Tensor]:
    """The buffers of real numbers, but for the normalisation in front."""
    return [buffer for buffer in bare(module).buffers() if buffer.is_floating_point()]


def average(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """The mean, `share` of it a."""
    return share * a + (1 - share) * b


def slerp(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """The point on the arc from b to a, both one row, that lies `share` of the angle from b."""
    import torch

    angle = torch.arccos(torch.clamp(torch.dot(a, b) / (a.norm() * b.norm()).clamp_min(1e-300), -1, 1))
    if a.norm() == 0 or b.norm() == 0 or torch.sin(angle) < _PARALLEL:
        return average(a, b, share)
    return (torch.sin(share * angle) * a + torch.sin((1 - share) * angle) * b) / torch.sin(angle)


def ties(differences: torch.Tensor, keep: float) -> torch.Tensor:
    """Trim, elect signs, and average what agrees [2].

    Args:
        differences: (models, n) from the base.
        keep: share of the entries of each that stay, the largest by magnitude; equal ones in order, at least one.

    Returns:
        (n,); 0 where all was trimmed, or where the signs balance.
    """
    import torch

    k = max(round(keep * differences.shape[1]), 1)
    largest = torch.argsort(differences.abs(), dim=1, descending=True, stable=True)[:, :k]
    kept = torch.zeros_like(differences).scatter(1, largest, differences.gather(1, largest))
    sign = kept.sum(dim=0).sign()
    agree = (kept.sign() == sign) & (sign != 0)
    return (kept * agree).sum(dim=0) / agree.sum(dim=0).clamp_min(1)


def dare(differences: torch.Tensor, drop: float, source: torch.Generator) -> torch.Tensor:
    """Drop entries at random and rescale the rest, so that each keeps its mean [3].

    Args:
        differences: (models, n) from the base.
        drop: probability of each entry.
        source: of the chance.
    """
    import torch

    kept = torch.rand(differences.shape, generator=source, dtype=torch.float64) >= drop
    return differences * kept / (1 - drop)
