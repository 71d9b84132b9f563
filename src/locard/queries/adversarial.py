"""Pairs of an input and an adversarial partner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number, unknown
from locard.queries._adversarial import deepfool, fgsm, pgd, radius_of
from locard.queries._carlini_wagner import carlini_wagner
from locard.queries.base import Population, Queries, movable, reach, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import GradientView

_SEEDS = ("random", "negative", "right")
# Steps of each method where the caller names no number: foolbox's, the paper's, and `carlini_wagner`'s own.
STEPS = {"fgsm": 1, "pgd": 40, "deepfool": 50, "carlini-wagner": 100}
# A DeepFool point that the 8-bit grid pulls back is pushed on, each time twice as far beyond the boundary.
PUSHES = 6
# Seeds that are tried together at the least, when only a few partners are missing.
LEAST = 8


@samplers.register("adversarial")
@dataclass(frozen=True, slots=True, kw_only=True)
class Adversarial:
    """Inputs and, for each, a partner moved away from the class that the victim gives it (QuRD's samplers [1]).

    QuRD's Adversarial is the default; its NegativeAdversarial has `seeds="negative"`. Partners are as they will be
    delivered (8-bit). FGSM and PGD give every seed a partner, whether its label changes or not, as QuRD keeps them all.
    DeepFool and Carlini-Wagner look for the nearest point with another label; a seed for which the delivered point has
    none is dropped, and the next takes its place. PGD's share, its 40 steps and its random start are those of foolbox,
    which QuRD runs.

    Args:
        seeds: "random" inputs, "negative" ones that the victim gets wrong, or "right" ones that it does not.
        method: "fgsm", "pgd", "deepfool" or "carlini-wagner".
        eps: largest change of an entry by FGSM and PGD, as a share of `reach`, but no less than a quantum.
            Rounding to the grid may add half a quantum.
        step: of PGD, as a share of eps.
        steps: the most steps of PGD, of DeepFool and of each of Carlini-Wagner's nine searches; 0 for the method's own
            number (`STEPS`).
        overshoot: how far beyond the boundary DeepFool goes, as a share of the way to it.
        confidence: by how many logits Carlini-Wagner's points leave their class.

    n must be even: the first n / 2 inputs are the seeds, the rest their partners in the same order. The queries carry
    `pairs` (n / 2, 2) int64, the rows of each seed and its partner, and `units` (n,) int64, the pair of each input.

    [1] Godinot, Le Merrer, Penzo, Taïani, Trédan. Queries, Representation & Detection: The Next 100 Model
    Fingerprinting Schemes. AAAI 2025; the settings follow the authors' released code.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    seeds: str = "random"
    method: str = "pgd"
    eps: float = 0.03
    step: float = 1 / 30
    steps: int = 0
    overshoot: float = 0.02
    confidence: float = 0.0

    def __post_init__(self) -> None:
        """Check the names and ranges."""
        if self.seeds not in _SEEDS:
            raise unknown("seeds", self.seeds, _SEEDS)
        if self.method not in STEPS:
            raise unknown("method", self.method, STEPS)
        check_number("eps", self.eps, above=0)
        check_number("step", self.step, above=0)
        check_number("steps", self.steps, low=0)
        check_number("overshoot", self.overshoot, low=0)
        check_number("confidence", self.confidence, low=0)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost of one pair: 1 gradient of the victim with FGSM, 40 with PGD, some 40 with DeepFool (ten classes) and some
        500 with Carlini-Wagner; and one answer for each input of the data, if its mistakes must be found.

        Raises:
            ParameterError: n is odd, the inputs cannot be moved, or too few seeds of the kind have a partner.
        """
        movable(data, "adversarial partners")
        if n is not None and n % 2:
            raise ParameterError(f"adversarial queries come in pairs, so --queries must be even; got {n}")
        rows = generator(seed, "adversarial/seeds").permutation(self._rows(victim, data))
        source = generator(seed, "adversarial/starts")
        if self.method in ("fgsm", "pgd"):
            what, way_out = f"{self.seeds} seeds", "give more data or ask fewer --queries"
            rows = take(
                rows, n=None if n is None else n // 2, default=default // 2, least=1, what=what, way_out=way_out
            )
            seeds = data.domain.deliver(data.inputs[rows])
            return paired(seeds, self._partners(victim, data, seeds, source)[0])
        wanted = (default if n is None else n) // 2
        seeds, partners, start, found = [data.inputs[:0]], [data.inputs[:0]], 0, 0
        while found < wanted and start < len(rows):
            batch = data.domain.deliver(data.inputs[rows[start : start + max(wanted - found, LEAST)]])
            start += len(batch)
            points, crossed = self._partners(victim, data, batch, source)
            seeds.append(batch[crossed])
            partners.append(points[crossed])
            found += int(crossed.sum())
        if found < (1 if n is None else wanted):
            raise ParameterError(
                f"{wanted if n is not None else 1} pairs are needed; {found} of {len(rows)} {self.seeds} seeds of "
                f"{data.name} have a partner of another label: give more data, ask fewer --queries or allow more steps"
            )
        return paired(np.concatenate(seeds)[:wanted], np.concatenate(partners)[:wanted])

    def _rows(self, victim: GradientView, data: Data) -> np.ndarray:
        if self.seeds == "random":
            return np.arange(len(data))
        if data.labels is None:
            raise ParameterError(
                f"{self.seeds} seeds are found by true labels, and {data.name} has none; give labelled data, or "
                "seeds=random"
            )
        right = victim.labels(data.domain.deliver(data.inputs)) == data.labels
        return np.flatnonzero(right if self.seeds == "right" else ~right)

    def _partners(
        self, victim: GradientView, data: Data, x: np.ndarray, source: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, *shape) partners as delivered, and (n,) bool, whether the victim gives them another label."""
        own, steps = victim.labels(x), self.steps or STEPS[self.method]
        radius = radius_of(data, self.eps)
        if self.method == "fgsm":
            points = fgsm(victim, x, own, radius=radius, domain=data.domain)
        elif self.method == "pgd":
            points = pgd(victim, x, own, radius=radius, step=self.step * radius, steps=steps, domain=data.domain,
                         source=source)  # fmt: skip
        elif self.method == "deepfool":
            crossing = deepfool(victim, x, steps=steps, overshoot=self.overshoot, domain=data.domain)
            points = data.domain.deliver((x + (1 + self.overshoot) * crossing.step).astype(x.dtype))
            for push in range(1, PUSHES + 1):
                back = np.flatnonzero(crossing.crossed & (victim.labels(points) == own))
                if len(back) == 0:
                    break
                further = 1 + max(self.overshoot, 0.01) * 2**push
                points[back] = data.domain.deliver((x[back] + further * crossing.step[back]).astype(x.dtype))
        else:
            points = carlini_wagner(victim, x, own, scale=reach(data), domain=data.domain,
                                    confidence=self.confidence, steps=steps).points  # fmt: skip
        return points, victim.labels(points) != own


def paired(seeds: np.ndarray, partners: np.ndarray) -> Queries:
    """Seeds followed by their partners, with `pairs` and `units` as `Adversarial` has them."""
    rows = np.arange(len(seeds))
    return Queries(
        inputs=np.concatenate([seeds, partners]),
        extras={"pairs": np.stack([rows, rows + len(rows)], axis=1), "units": np.concatenate([rows, rows])},
    )
