"""Functionally equivalent extraction of a network of one hidden ReLU layer, from its answers alone [1], [2].

O(x) = A1 relu(A0 x + B0) + B1 bends along a hyperplane for each hidden unit and is linear elsewhere. One line
through all inputs crosses every hyperplane. It is searched by bisection with closed-form intersections [1]; on both
sides of a bend the gradient is taken by differences, and since it changes by c_i n_i there, that gives the unit's
weights up to a factor, with their signs, and its bias. What is known is then subtracted, so that another line costs
three queries unless it still bends; lines are searched until none does. Each unit is measured once more where steps may
be longest, the sides that units are active on follow from what is left (see `_relu_layers`), and the last layer is
solved by least squares.

Where we differ from [1] and [2], which are recalled, since their texts were not at hand: they measure second
differences at each critical point, which give magnitudes, and once more along e_j + e_k for relative signs, on random
lines until every unit was met. Ours takes d + 2 queries a unit to find it and 2 (d + 2) to refine it; one of each d + 2
lies off all axes, and shows whether a step along one of them crossed another hyperplane. They check the answer where
two straight pieces, drawn out, would meet; that answer is right too if two bends in opposite ways lie on one side of
the place, so we ask close to it on both sides.

Units that are the same up to a factor are found once. A unit that is never active, or always, where the lines go cannot
be told from none, or from a linear part: it is not found, and there the copy is exact without it. Answers must be
unrounded. How exact the copy is follows from their precision; a victim whose `Domain` is of float64 answers in float64,
and float32 suffices for small networks only.

[1] Carlini, Jagielski, Mironov. Cryptanalytic Extraction of Neural Network Models. CRYPTO 2020.
[2] Jagielski, Carlini, Berthelot, Kurakin, Papernot. High Accuracy and High Fidelity Extraction of Neural Networks.
USENIX Security 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.attacks._relu_layers import Layers, layers
from locard.attacks._relu_lines import Space
from locard.attacks._relu_search import POINTS, Found, Search
from locard.attacks.base import Attack, Copy, Network, attacks
from locard.errors import BudgetError, ParameterError, check_number
from locard.models.fitting import build
from locard.records import Access, Data
from locard.seeds import derive

if TYPE_CHECKING:
    import torch

    from locard.models import LogitView
    from locard.models.session import Progress

# The share of the answers' spread that a copy may be off by: more, and it is of no network of this kind.
_UNEXPLAINED = 1e-2
# One line in so many is kept out of the last layer's fit, to judge the copy by.
_ASIDE = 8
# One gradient takes this number of inputs of this size, all at once.
_LARGEST = 4096


@attacks.register("relu")
@dataclass(frozen=True, slots=True, kw_only=True)
class Relu(Attack):
    """Solve for a one-hidden-layer ReLU network exactly, from its answers.

    Args:
        answers: "logits", or "probabilities": their logarithms less the mean over classes are such a network too.
        lines: through the inputs, that the copy must explain; at least as many are taken as an input has numbers.
        reach: where the domain has no bounds, how far lines go, in lengths of a standard normal input.
        refine: whether each unit is measured twice, the second time where that is most exact.
    """

    name: ClassVar[str] = "relu"
    margin: ClassVar[float] = 0.001
    fidelity: ClassVar[float] = 0.999
    one_class: ClassVar[bool] = True
    less: ClassVar[dict[str, Any]] = {"answers": "probabilities"}
    network: ClassVar[Network] = "own"

    answers: str = "logits"
    lines: int = 1024
    reach: float = 1000.0
    refine: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.answers not in ("logits", "probabilities"):
            raise ParameterError(f"answers must be 'logits' or 'probabilities'; got {self.answers!r}")
        check_number("lines", self.lines, low=16, whole=True)
        check_number("reach", self.reach, low=1, high=1e6)

    @property
    def needs(self) -> Access:
        """Logits or probabilities."""
        return Access.LOGITS if self.answers == "logits" else Access.PROBABILITIES

    @property
    def needs_data(self) -> bool:
        """It makes its own inputs."""
        return False

    def _steal(self, victim: LogitView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        domain = victim.domain
        if domain.kind not in ("image", "tabular") or not domain.dtype.startswith("float"):
            raise ParameterError(f"relu asks real numbers; {victim.source} takes {domain.text}")
        size = math.prod(domain.shape)
        if size > _LARGEST:
            raise ParameterError(
                f"relu asks for gradients by differences along each axis, of inputs of at most {_LARGEST:,} numbers; "
                f"{victim.source} takes {domain.text}"
            )
        space = Space(size=size, bounds=domain.bounds, reach=self.reach, dtype=domain.dtype)
        search = Search(self._ask(victim), space, lines=max(self.lines, size), refine=self.refine, seed=seed)
        found = search.run(progress)
        if len(found.units) == 0:
            if found.spent is not None:
                raise BudgetError(f"no hidden unit was found before the end: {found.spent}")
            how = f"bend on {found.bent} of {found.lines} lines, but not as" if found.bent else "never bend as"
            raise ParameterError(
                f"the answers of {victim.source} {how} hidden ReLU units do: there is none to solve for"
            )
        aside = np.arange(len(found.x)) // POINTS % _ASIDE == 0
        made = layers(replace(found, x=found.x[~aside], f=found.f[~aside], scale=found.scale[~aside]), space)
        notes = _notes(found, aside, made, quantum=domain.quantum)
        arguments = {"shape": list(domain.shape), "classes": len(made.after), "hidden": [len(made.before)]}
        module = build("mlp", arguments, seed=derive(seed, "relu/copy"))
        return Copy(module=_filled(module, made, domain.dtype), architecture="mlp", arguments=arguments, notes=notes)

    def _ask(self, victim: LogitView) -> Callable[[np.ndarray], np.ndarray]:
        """(n, d) float64 to (n, outputs) float64 answers that are linear between bends."""
        shape = victim.domain.shape

        def logits(x: np.ndarray) -> np.ndarray:
            return victim.logits(x.reshape(-1, *shape)).astype(np.float64)

        def ratios(x: np.ndarray) -> np.ndarray:
            answers = victim.probabilities(x.reshape(-1, *shape)).astype(np.float64)
            if answers.min() <= 0:
                raise ParameterError(
                    f"{victim.source} answers a probability of 0, which has no logarithm: it is rounded, cut, or asked "
                    "too far out; give a smaller --param reach, or have logits granted"
                )
            logs = np.log(answers)
            return logs - logs.mean(axis=1, keepdims=True)

        return logits if self.answers == "logits" else ratios


def _filled(module: torch.nn.Module, made: Layers, dtype: str) -> torch.nn.Module:
    """The module with those layers as its weights."""
    import torch

    module.to(getattr(torch, dtype))
    arrays = (made.first, made.before, made.second, made.after)
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return module


def _notes(found: Found, aside: np.ndarray, made: Layers, *, quantum: float | None) -> tuple[str, ...]:
    """What the user should know of a copy.

    Args:
        found: what the search gave.
        aside: (n,) bool, which of its points the copy was not fitted to.
        made: the copy's layers.
        quantum: of the victim's domain.

    Raises:
        ParameterError: what was found does not explain the answers.
    """
    # The ends of a line lie farther out than any input.
    middle = slice(1, None, POINTS)
    errors = np.abs(made(found.x[middle]) - found.f[middle]).max(axis=1)
    off, fresh, spread = errors.max(), errors[aside[middle]], float(found.f[middle].std())
    if found.spent is None and off > _UNEXPLAINED * spread:
        raise ParameterError(
            f"the {len(found.units)} hidden units found leave {found.bent} of {found.lines} lines unexplained, and "
            f"answers off by up to {off:.1g} where their spread is {spread:.1g}: the victim is no network of one "
            "hidden ReLU layer, or answers too coarsely; one that computes in float64 needs a domain of float64"
        )
    notes = [f"{len(found.units)} hidden units; on {len(fresh):,} inputs that it was not fitted to, the copy is off by "
             f"at most {fresh.max():.1e}"]  # fmt: skip
    if found.spent is not None:
        notes.append(f"the search ended early, with {found.bent:,} of {found.lines:,} lines unexplained: {found.spent}")
    elif found.bent:
        notes.append(f"{found.bent:,} of {found.lines:,} lines bend where no unit could be measured")
    if made.spares:
        notes.append(
            f"{made.spares} hidden units of the copy's own carry a linear part that no signs of those found give"
        )
    if quantum is not None:
        notes.append(f"inputs were asked between the steps of {quantum:.3g} that the victim's domain has")
    return tuple(notes)
