"""Adversarial points of the inputs that the victim is most certain of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number, unknown
from locard.queries._adversarial import fgsm, pgd, radius_of
from locard.queries._carlini_wagner import carlini_wagner
from locard.queries._certain import most_certain
from locard.queries.base import Population, Queries, movable, reach, samplers
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import GradientView

METHODS = ("pgd", "fgsm", "carlini-wagner")
# Values of c that Carlini and Wagner's attack tries, as released; and seeds that are tried together at the least.
SEARCHES, LEAST = 3, 16


@samplers.register("fooling")
@dataclass(frozen=True, slots=True, kw_only=True)
class Fooling:
    """Points that fool the victim, from the inputs it gets right and is most certain of (DeepJudge's black-box tests).

    Inputs are ranked by the sum of the victim's squared probabilities and tried from the top until there are n points
    that, as delivered (8-bit), do not get the true label; the others are dropped [1]. The paper keeps what is left of
    1,000, so that the number of tests varies with the victim; here the caller names it.

    Settings follow the authors' released code: PGD with a random start, 10 steps of 0.03 in a box of radius 0.1, its
    default (0.03 in its example); Carlini-Wagner with confidence 5 and three searches, but the steps of
    `carlini_wagner`, which go as far as its thousand.

    Args:
        method: "pgd", "fgsm" or "carlini-wagner".
        eps: largest change of an entry by FGSM and PGD, as a share of `reach`, but no less than a quantum.
        step: of PGD, as a share of `reach`.
        steps: of PGD.
        confidence: by how many logits Carlini-Wagner's points leave their class.
        seeds: inputs that are tried at the most.

    The queries carry `classes` (n,) int64, their true labels.

    [1] Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song. Copy, Right? A Testing Framework for Copyright Protection of
    Deep Learning Models. IEEE S&P 2022.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = True
    needs_population: ClassVar[bool] = False

    method: str = METHODS[0]
    eps: float = 0.1
    step: float = 0.03
    steps: int = 10
    confidence: float = 5.0
    seeds: int = 1000

    def __post_init__(self) -> None:
        """Check the name and ranges."""
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        check_number("eps", self.eps, above=0)
        check_number("step", self.step, above=0)
        check_number("steps", self.steps, low=1)
        check_number("confidence", self.confidence, low=0)
        check_number("seeds", self.seeds, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: for each seed tried 1 gradient of the victim with FGSM, `steps` with PGD and up to 300 with
        Carlini-Wagner; and one answer for each input of the data.

        Raises:
            ParameterError: inputs cannot be moved, have no labels, or too few points fool the victim.
        """
        movable(data, "points that fool a model")
        if data.labels is None:
            raise ParameterError(f"points fool a model if they miss the true label, and {data.name} has none")
        rows = most_certain(victim, data, most=self.seeds)
        source, wanted = generator(seed, "fooling"), default if n is None else n
        parts, kept, tried = [data.inputs[:0]], [rows[:0]], 0
        while sum(map(len, kept)) < wanted and tried < len(rows):
            batch = rows[tried : tried + max(wanted - sum(map(len, kept)), LEAST)]
            tried += len(batch)
            x, classes = data.domain.deliver(data.inputs[batch]), data.labels[batch]
            points = self._moved(victim, data, x, classes, source)
            fooled = victim.labels(points) != classes
            parts.append(points[fooled])
            kept.append(batch[fooled])
        found = np.concatenate(kept)[:wanted]
        if len(found) < (1 if n is None else n):
            raise ParameterError(
                f"{1 if n is None else n} points that fool {victim.source} are needed; {len(found)} of the {tried} "
                f"inputs of {data.name} that were tried led to one: give more data, ask fewer --queries, or allow a "
                "larger change (--param eps=...)"
            )
        return Queries(inputs=np.concatenate(parts)[:wanted], extras={"classes": data.labels[found].astype(np.int64)})

    def _moved(
        self, victim: GradientView, data: Data, x: np.ndarray, classes: np.ndarray, source: np.random.Generator
    ) -> np.ndarray:
        """(n, *shape) as delivered."""
        if self.method == "carlini-wagner":
            return carlini_wagner(victim, x, classes, scale=reach(data), domain=data.domain,
                                  confidence=self.confidence, searches=SEARCHES).points  # fmt: skip
        radius = radius_of(data, self.eps)
        if self.method == "fgsm":
            return fgsm(victim, x, classes, radius=radius, domain=data.domain)
        return pgd(victim, x, classes, radius=radius, step=self.step * reach(data), steps=self.steps,
                   domain=data.domain, source=source)  # fmt: skip
