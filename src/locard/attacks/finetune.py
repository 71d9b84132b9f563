"""Fine-tuning: the stolen weights are trained on with the thief's own labelled data [1].

FTLL trains the last layer alone, FTAL all layers; RTLL and RTAL do the same after the last layer was drawn anew. Counts
as a theft within 3 points of accuracy, with a fresh last layer within 5.

The four names are [1]'s, whose text was not at hand; learning rate and epochs are ours.

[1] Adi, Baum, Cisse, Pinkas, Keshet. Turning Your Weakness Into a Strength. USENIX Security 2018, section 5.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._training import Training
from locard.attacks.base import Copy, attacks
from locard.errors import ParameterError
from locard.models.fitting import fit, reproducible
from locard.records import Data
from locard.seeds import derive

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress


@attacks.register("finetune")
@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune(Training):
    """Train the stolen weights on.

    Args:
        layers: "all", or "last": the last module with parameters of its own, in the order of the model's definition.
        head: "kept", or "fresh": that last module begins as its own `reset_parameters` draws it, from the seed.
        epochs: passes over the thief's data.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    name: ClassVar[str] = "finetune"

    layers: str = "all"
    head: str = "kept"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.layers not in ("all", "last"):
            raise ParameterError(f"layers must be 'all' or 'last'; got {self.layers!r}")
        if self.head not in ("kept", "fresh"):
            raise ParameterError(f"head must be 'kept' or 'fresh'; got {self.head!r}")
        Training.__post_init__(self)

    @property
    def margin(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """3 points of accuracy, 5 with a fresh last layer."""
        return 0.05 if self.head == "fresh" else 0.03

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        assert data.labels is not None  # noqa: S101
        module = copy.deepcopy(victim.module())
        if self.head == "fresh":
            redraw(last_layer(module), seed=derive(seed, "finetune/head"))
        chosen = None if self.layers == "all" else list(last_layer(module).parameters(recurse=False))
        fit(module, data.inputs, data.labels, recipe=self.recipe, seed=seed, parameters=chosen, progress=progress)
        return Copy(module=module, epochs=self.epochs)


def last_layer(module: torch.nn.Module) -> torch.nn.Module:
    """The last submodule, in the order of definition, with parameters of its own.

    Raises:
        ParameterError: there is none.
    """
    layers = [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None]
    if not layers:
        raise ParameterError(f"{type(module).__name__} has no parameters to train")
    return layers[-1]


def redraw(layer: torch.nn.Module, *, seed: int) -> None:
    """Give a layer the weights that it would begin with.

    Raises:
        ParameterError: it has no `reset_parameters`, as where a model was read from a file that holds no layers.
    """
    reset = getattr(layer, "reset_parameters", None)
    if reset is None:
        raise ParameterError(
            f"head='fresh' needs a last layer that can draw its own weights; {type(layer).__name__} has no "
            "reset_parameters. Take --param head=kept, or a model folder"
        )
    with reproducible(seed):
        reset()
