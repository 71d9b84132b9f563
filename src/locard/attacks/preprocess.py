"""Input processing at inference: the copy changes each image a little before it looks, as servers often do anyway.

Points placed next to a boundary are moved, most images hardly. What each kind does at what strength:

- `bits`: values rounded to 2 ** strength levels; 4.
- `blur`: a Gaussian of `strength` pixels; 0.5.
- `median`: the median of a square with that odd side; 3.
- `resize`: shrunk to that share of both sides and back; 0.75.
- `jpeg`: the loss of a JPEG file of that quality; 75.
- `flip`: the mean probability over the image and its mirror image; no strength.
- `crop`: the mean probability over the image and the image moved by that many pixels in four directions; 1.

Gaussian noise is the attack `smooth`. All are deterministic; `bits` and `jpeg` stop gradients by the input. `flip`
costs much where left is not right, as with shoes and digits. Counts as a theft within 5 points of accuracy; the kinds
and strengths are common practice, recalled and not looked up.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._alone import Alone
from locard.attacks.base import Copy, Network, attacks
from locard.errors import ParameterError, check_number, unknown
from locard.records import Data

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress
    from locard.records import Domain

# The usual strength of each kind, the least and the most.
KINDS: dict[str, tuple[float, float, float]] = {
    "bits": (4, 1, 16),
    "blur": (0.5, 0.1, 10),
    "median": (3, 3, 9),
    "resize": (0.75, 0.1, 1),
    "jpeg": (75, 1, 100),
    "flip": (1, 1, 1),
    "crop": (1, 1, 16),
}
_WHOLE = ("bits", "median", "jpeg", "flip", "crop")


@attacks.register("preprocess")
@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess(Alone):
    """Change each image a little before looking at it.

    Args:
        kind: "bits", "blur", "median", "resize", "jpeg", "flip" or "crop".
        strength: of that kind; 0 for its usual one.
    """

    name: ClassVar[str] = "preprocess"
    margin: ClassVar[float] = 0.05
    network: ClassVar[Network] = "unnamed"

    kind: str = "bits"
    strength: float = 0.0

    def __post_init__(self) -> None:
        """Check the name and its range."""
        if self.kind not in KINDS:
            raise unknown("kind", self.kind, KINDS)
        usual, low, high = KINDS[self.kind]
        check_number(f"strength of {self.kind}", self.strength or usual, low=low, high=high)
        odd = self.kind == "median" and self.strength and self.strength % 2 != 1
        if odd or (self.kind in _WHOLE and self.strength != int(self.strength)):
            raise ParameterError(
                f"strength of {self.kind} must be {'odd' if odd else 'a whole number'}; got {self.strength!r}"
            )

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        domain = victim.domain
        if domain.kind != "image" or domain.dtype != "float32":
            raise ParameterError(f"preprocess changes images in float32; {victim.source} takes {domain.text}")
        if self.kind in ("bits", "jpeg") and domain.bounds is None:
            raise ParameterError(f"{self.kind} needs bounds of the images; the domain of {victim.source} has none")
        if self.kind == "jpeg" and domain.shape[0] not in (1, 3):
            raise ParameterError(f"jpeg takes grey and colour images; {victim.source} takes {domain.text}")
        return Copy(module=self._around(copy.deepcopy(victim.module()), domain))

    def _around(self, module: torch.nn.Module, domain: Domain) -> torch.nn.Module:
        from torch import nn

        from locard.attacks import _fronts as fronts

        strength = self.strength or KINDS[self.kind][0]
        bounds = domain.bounds or (0.0, 1.0)
        match self.kind:
            case "flip":
                return fronts.Flips(module)
            case "crop":
                return fronts.Crops(module, int(strength))
            case "bits":
                front = fronts.Levels(int(strength), bounds)
            case "blur":
                front = fronts.Blur(strength, domain.shape[0])
            case "median":
                front = fronts.Median(int(strength))
            case "resize":
                front = fronts.Shrink(strength, domain.shape)
            case _:
                front = fronts.Jpeg(int(strength), domain.shape[0], bounds)
        return nn.Sequential(front, module)
