"""An ensemble: the stolen network hides among networks that the thief trained on his own data.

The members' mean probability is answered, or, with `combine="one"`, that of one member, chosen for each input by a
secret smooth field: a server that drew a member for each query anew would answer the same query twice in two ways, and
only by chance another one than here. Counts as a theft within a point of accuracy: an ensemble should lose none, but
the thief's networks see fewer data than the victim saw, and two accuracies differ by chance.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from locard.attacks._training import Training
from locard.attacks.base import Copy, Network, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import build, fit
from locard.records import Data
from locard.seeds import derive

if TYPE_CHECKING:
    from locard.models import ModuleView
    from locard.models.session import Progress


@attacks.register("ensemble")
@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble(Training):
    """Answer together with networks of the thief's own.

    Args:
        members: how many he trains beside the stolen one.
        combine: "mean" probability, or "one" member an input.
        length: "one": distance over which the field changes, as a share of the usual distance between two inputs,
            in [0.001, 1000].
        architecture: of his own, a name of `models.architectures`.
        width: of them, where the architecture has one; 0 for the architecture's own.
        epochs: passes over his data, for each.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    name: ClassVar[str] = "ensemble"
    margin: ClassVar[float] = 0.01
    network: ClassVar[Network] = "unnamed"

    members: int = 1
    combine: str = "mean"
    length: float = 0.25
    architecture: str = "cnn"
    width: int = 0
    epochs: int = 10
    lr: float = 5e-3
    batch: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("members", self.members, low=1, whole=True)
        if self.combine not in ("mean", "one"):
            raise ParameterError(f"combine must be 'mean' or 'one'; got {self.combine!r}")
        check_number("length", self.length, low=1e-3, high=1e3)
        check_number("width", self.width, low=0, whole=True)
        Training.__post_init__(self)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        from locard.attacks._wrappers import Crowd, check_inputs, keyed

        assert data is not None  # noqa: S101 - `derive` has checked
        assert data.labels is not None  # noqa: S101
        check_inputs(victim, self.name)
        arguments: dict[str, Any] = {"shape": list(victim.domain.shape), "classes": victim.classes}
        if self.width:
            arguments["width"] = self.width
        members = [copy.deepcopy(victim.module())]
        for i in range(self.members):
            own = derive(seed, f"ensemble/{i}")

            def report(done: int, wanted: int, before: int = i) -> None:
                if progress is not None:
                    progress(before * wanted + done, self.members * wanted)

            module = build(self.architecture, arguments, seed=own)
            members.append(fit(module, data.inputs, data.labels, recipe=self.recipe, seed=own, progress=report))
        field = None
        if self.combine == "one":
            field = keyed(data.inputs, len(members), share=self.length, seed=seed, name="ensemble")
        return Copy(module=Crowd(members, field), epochs=self.members * self.epochs)
