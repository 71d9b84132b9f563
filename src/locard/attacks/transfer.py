"""Transfer learning: the stolen network is given a fresh last layer and another task, the thief's own [1].

The thief's labels say the task; their classes need not be the victim's, nor as many. Where the victim was of a named
architecture, the copy is of the same one with other `classes`, else it can be written as a `.pt2` or `.onnx` file.

On another task the victim's answers mean nothing, so a copy is held against what the thief could have had without it:
a fifth of the thief's data is set aside, a network of the same form with fresh weights is trained on the rest by the
same recipe, all of its layers, and the copy counts as a theft from 95 % of that network's accuracy on the fifth, but
where few data leave both untrained not below two standard errors above the share of the most frequent class. (The usual
rule takes the same transfer from an independently trained model, which a thief need not have.) The copy itself is
trained on the same four fifths; the notes give both accuracies. The yardstick's training is in the attack's
seconds, and not in its epochs.

[1] Yosinski, Clune, Bengio, Lipson. How Transferable Are Features in Deep Neural Networks? NeurIPS 2014. The text was
not at hand; epochs and the rule of 95 % are common practice.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.attacks._head import head
from locard.attacks._training import Training
from locard.attacks.base import Copy, attacks
from locard.errors import ParameterError
from locard.models import restrict
from locard.models.fitting import fit, reproducible
from locard.models.torch_module import TorchModel
from locard.records import Access, Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    from torch import nn

    from locard.models import ModuleView
    from locard.models.session import Progress

_ASIDE = 5


@attacks.register("transfer")
@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Training):
    """Train a fresh last layer, or all layers, on another task.

    Args:
        layers: "all", or "last": the fresh layer alone.
        epochs: passes over four fifths of the thief's data.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    name: ClassVar[str] = "transfer"
    margin: ClassVar[float] = 0.05
    new_task: ClassVar[bool] = True
    one_class: ClassVar[bool] = True

    layers: str = "all"
    epochs: int = 20

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.layers not in ("all", "last"):
            raise ParameterError(f"layers must be 'all' or 'last'; got {self.layers!r}")
        Training.__post_init__(self)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        classes = classes_of(data)
        rows = generator(seed, "transfer/aside").permutation(len(data))
        aside, rest = data.take(rows[: len(data) // _ASIDE]), data.take(rows[len(data) // _ASIDE :])
        module = copy.deepcopy(victim.module())
        last = fresh_head(module, victim.classes or 0, classes, seed=derive(seed, "transfer/head"))
        yardstick = afresh(copy.deepcopy(module), seed=derive(seed, "transfer/yardstick"))
        chosen = None if self.layers == "all" else list(last.parameters())

        def learn(network: nn.Module, parameters: list[nn.Parameter] | None, before: int) -> float:
            assert rest.labels is not None  # noqa: S101

            def told(done: int, wanted: int) -> None:
                if progress is not None:
                    progress(before + done, 2 * wanted)

            fit(network, rest.inputs, rest.labels, recipe=self.recipe, seed=seed, parameters=parameters,
                progress=told)  # fmt: skip
            answers = restrict(TorchModel(network, domain=data.domain), Access.LABELS).labels(aside.inputs)
            return float(np.mean(answers == aside.labels))

        reached, usual = learn(module, chosen, 0), learn(yardstick, None, self.epochs)
        floor = max((1 - self.margin) * usual, luck(np.asarray(aside.labels)))
        note = (f"on {len(aside):,} inputs set aside it is right on {reached:.1%}, the same network trained from fresh "
                f"weights on {usual:.1%}; it counts as a theft from {floor:.1%}")  # fmt: skip
        return Copy(module=module, arguments={"classes": classes}, epochs=self.epochs, floor=floor, notes=(note,))


def luck(labels: np.ndarray) -> float:
    """What always answering the most frequent class would reach on (n,) labels, and two standard errors; at most 1."""
    share = np.bincount(labels).max() / len(labels)
    return min(float(share + 2 * np.sqrt(share * (1 - share) / len(labels))), 1.0)


def classes_of(data: Data) -> int:
    """How many classes the thief's task has: as many as are named, else as the labels count.

    Raises:
        ParameterError: fewer than two, a label that is none of them, or too few inputs to set some aside.
    """
    assert data.labels is not None  # noqa: S101 - `derive` has checked
    low, high = int(data.labels.min()), int(data.labels.max())
    classes = len(data.classes) or high + 1
    if low < 0 or high >= classes or classes < 2:
        raise ParameterError(
            f"transfer needs labels from 0 to classes - 1, of two classes or more; {data.name} has labels {low} to "
            f"{high} of {classes}"
        )
    if len(data) < _ASIDE:
        raise ParameterError(f"transfer sets a fifth of the data aside; {data.name} has {len(data)} inputs in all")
    return classes


def fresh_head(module: nn.Module, before: int, classes: int, *, seed: int) -> nn.Linear:
    """Put a fresh last layer in the place of the old one.

    Args:
        module: a network, changed in place.
        before: classes of its old last layer.
        classes: of the fresh one.
        seed: of its weights.

    Returns:
        The fresh layer.

    Raises:
        ParameterError: the old one is no dense layer.
    """
    from torch import nn

    name, old = head(module, before)
    if not name:
        raise ParameterError(f"the whole network is one layer, {old}; nothing would be left of it")
    with reproducible(seed):
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    above, _, own = name.rpartition(".")
    setattr(module.get_submodule(above), own, new.to(old.weight))
    return new


def afresh(module: nn.Module, *, seed: int) -> nn.Module:
    """Give a network fresh weights in place.

    Each layer draws its own as it did when it was made; tensors of parts that cannot are drawn from the normal
    distribution with their own mean and standard deviation.
    """
    import torch

    with reproducible(seed), torch.no_grad():
        for part in module.modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
                continue
            for tensor in part.parameters(recurse=False):
                tensor.normal_(float(tensor.mean()), float(tensor.std(correction=0)))
    return module
