"""Disguise: the victim's own weights, moved along its symmetries until they look like nobody's.

Units, channels and heads change places, units are scaled and their signs flipped where another tensor takes it back,
and the inside of attention heads is turned by orthogonal matrices: the copy computes the same function, and its
tensors, compared index by index, tell nothing of where they came from [1, 2]. Which tensors move together is read off
the graph (`locard.weights`), so any network of known operations is served; what has no symmetry stays as it was, and a
note says so.

A random permutation of a few filters often leaves a cosine above 0.1, so a random element of each group is improved by
exchanging units and flipping signs until no tensor's index-aligned cosine with the victim's exceeds 0.05, weight
matrices first. In trials on digits that brought every matrix below 0.1 from eight units a layer on (sixteen in the
stream of a transformer), and most with four. What no element can help is a tensor whose entries have one sign that must
stay: a batch norm's variances, the shifts behind it where training left them all negative. For a vector v of one sign
and any w of that sign, |cos(v, w)| = sum_i |v_i| |w_i| / (||v|| ||w||) >= min_i |v_i| / ||v||, whatever made w, because
sum_i |w_i| >= ||w||. What is left is less than a stranger has: in residual networks trained on digits, every such
vector of the copy was less like the victim's than that of a network trained independently (0.12 to 0.82 against 0.75 to
0.99 at eight channels, 0.17 to 0.61 against 0.72 to 0.97 at the usual width).

Of the usual list, what changes the architecture is left out: folded batch norms, inserted units, and the rotation of a
stream behind RMSNorm, whose gains would have to become ones. Counts as a theft where it answers as the victim does, but
for rounding.

[1] Ainsworth, Hayase, Srinivasa. Git Re-Basin: Merging Models modulo Permutation Symmetries. ICLR 2023.
[2] Zhang, Zheng, Chen, Li. Beyond the Permutation Symmetry of Transformers. ICML 2025.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.attacks._alone import Alone
from locard.attacks.base import Copy, attacks, bare
from locard.errors import ParameterError, check_number
from locard.records import Data
from locard.seeds import generator
from locard.weights import Group, Overlap, Scaling, apply, cosine, factors_of, find, is_matrix

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress

State = dict[str, np.ndarray]

# A tensor counts as unlike below ALIKE; the search goes on to TARGET, because moving one group moves the next one's.
ALIKE, TARGET = 0.1, 0.05
_TURNS = 2
# The inner products of wider groups take too much memory, and chance alone leaves their cosines at 0.03.
_WIDEST = 1024
_SCALES = ("continuous", "powers-of-two", "none")


@attacks.register("disguise")
@dataclass(frozen=True, slots=True, kw_only=True)
class Disguise(Alone):
    """Permute, scale, flip and turn what a network's symmetries leave free; the copy answers as the victim does.

    Args:
        permute: whether units, channels and heads change places; none keeps its own.
        scales: "continuous", "powers-of-two" or "none". With powers of two, and neither permutation nor rotation, the
            answers are the victim's bit for bit; what a batch norm adds its epsilon to is then not scaled.
        spread: scales are log-uniform in [1 / spread, spread].
        flip: whether signs are flipped.
        rotate: whether orthogonal matrices act where any matrix may.
        steps: of the search in each group.
    """

    name: ClassVar[str] = "disguise"
    margin: ClassVar[float] = 0.001
    fidelity: ClassVar[float] = 0.999
    one_class: ClassVar[bool] = True

    permute: bool = True
    scales: str = "continuous"
    spread: float = 4.0
    flip: bool = True
    rotate: bool = True
    steps: int = 2000

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.scales not in _SCALES:
            raise ParameterError(f"scales must be one of {', '.join(map(repr, _SCALES))}; got {self.scales!r}")
        check_number("spread", self.spread, low=1, high=1024)
        check_number("steps", self.steps, low=0, whole=True)
        if not (self.permute or self.flip or self.rotate) and self.scales == "none":
            raise ParameterError("disguise changes nothing without permute, scales, flip and rotate; allow one of them")

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        import torch

        module = copy.deepcopy(victim.module())
        groups = find(module, victim.domain)
        if not groups:
            raise ParameterError(
                f"{victim.source} has no units that may be permuted or scaled, as far as its graph tells; there is "
                "nothing to disguise"
            )
        tensors = {name: one for name, one in module.state_dict().items() if isinstance(one, torch.Tensor)}
        before = {name: _array(one) for name, one in tensors.items()}
        after = self._moved(before, groups, generator(seed, "disguise"), progress)
        front = "" if bare(module) is module else "module."
        notes = _notes(before, after, groups, front)
        for name, tensor in tensors.items():
            if after[name] is not before[name]:
                tensor.copy_(torch.from_numpy(after[name]))
        return Copy(module=module, notes=notes)

    def _moved(
        self, before: State, groups: Sequence[Group], source: np.random.Generator, progress: Progress | None
    ) -> State:
        after = before
        for turn in range(_TURNS):
            for number, group in enumerate(groups):
                # What two groups share may have become alike again when the second was moved.
                if turn == 0 or any(abs(cosine(before[t], after[t])) > ALIKE for t in _matrices(before, group.tensors)):
                    after = self._move(before, after, group, source, scaled=turn == 0)
                if progress is not None:
                    progress(turn * len(groups) + number + 1, _TURNS * len(groups))
        return after

    def _move(self, before: State, after: State, group: Group, source: np.random.Generator, *, scaled: bool) -> State:
        """One group moved by a random element, improved."""
        order = np.tile(np.arange(group.size), (group.copies, 1))
        if self.permute:
            for row in order:
                # One cycle through all units leaves none in its place.
                cycle = source.permutation(group.size)
                row[cycle] = np.roll(cycle, 1)
        scales = [self._scales(group, scaling, source, scaled=scaled) for scaling in group.scalings]
        if self.rotate and group.linear:
            turns = np.linalg.qr(source.normal(size=(group.copies, group.size, group.size)))[0]
            after = apply(after, group, matrix=turns)
        if group.size <= _WIDEST:
            self._improve(Overlap(group, before, after), group, order, scales, source)
        _keep_positive(after, group, order, scales)
        return apply(after, group, permutation=order if self.permute else None, scales=scales)

    def _scales(
        self, group: Group, scaling: Scaling, source: np.random.Generator, *, scaled: bool
    ) -> np.ndarray | None:
        shape, exact = (group.copies, group.size), self.scales == "powers-of-two"
        if scaling.kind == "sign":
            return source.choice([-1.0, 1.0], shape) if self.flip else None
        rounded = any(place.offset and power for place, power in zip(group.places, scaling.powers, strict=True))
        if not scaled or self.scales == "none" or (exact and rounded):
            return None
        exponents = source.uniform(-1, 1, shape) * np.log2(self.spread)
        return 2.0 ** (np.rint(exponents) if exact else exponents)

    def _improve(
        self, overlap: Overlap, group: Group, order: np.ndarray, scales: list[np.ndarray | None],
        source: np.random.Generator,
    ) -> None:  # fmt: skip
        """Exchange two units or flip one sign, in place, wherever that lowers the likeness."""
        signs = [(one, group.scalings[k].powers) for k, one in enumerate(scales)
                 if one is not None and group.scalings[k].kind == "sign"]  # fmt: skip
        if not overlap.places or not (self.permute or signs):
            return
        factors = factors_of(group, scales)[overlap.places]
        odd = [np.array([powers[k] % 2 == 1 for k in overlap.places]) for _, powers in signs]
        # Weight matrices come first.
        worth = np.where(overlap.matrices, 100.0, 1.0)

        def likeness() -> float:
            return float(worth @ np.maximum(np.abs(overlap.cosines(order, factors)) - TARGET, 0) ** 2)

        def turn(kind: int, row: int, i: int, j: int) -> None:
            if kind == len(signs):
                order[row, [i, j]] = order[row, [j, i]]
            else:
                factors[odd[kind], row, i] *= -1
                signs[kind][0][row, i] *= -1

        best = likeness()
        for _ in range(self.steps):
            if best == 0:
                return
            kind = int(source.integers(len(signs) + self.permute))
            if self.permute and source.random() < 0.5:
                kind = len(signs)
            row, i, j = int(source.integers(group.copies)), *(int(k) for k in source.integers(group.size, size=2))
            if kind == len(signs) and (order[row, i] == j or order[row, j] == i):
                continue
            turn(kind, row, i, j)
            now = likeness()
            if now < best:
                best = now
            else:
                turn(kind, row, i, j)


def _keep_positive(state: State, group: Group, order: np.ndarray, scales: list[np.ndarray | None]) -> None:
    """Bound scales, in place, that would make a variance near 0 negative: it is scaled together with its epsilon."""
    for k, (scaling, scale) in enumerate(zip(group.scalings, scales, strict=True)):
        for place, power in zip(group.places, scaling.powers, strict=True):
            if scale is not None and place.offset and power:
                blocks = np.maximum(state[place.tensor], 0).astype(np.float64).reshape(-1, group.size)
                blocks = blocks if len(blocks) == group.copies else blocks.min(axis=0, keepdims=True)
                least = place.offset / (np.take_along_axis(blocks, order, axis=1) + place.offset)
                scales[k] = scale = (np.maximum if power > 0 else np.minimum)(scale, least ** (1 / power))


def _array(tensor: torch.Tensor) -> np.ndarray:
    import torch

    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _matrices(state: State, names: Sequence[str]) -> list[str]:
    return [name for name in names if is_matrix(state[name])]


def _notes(before: State, after: State, groups: Sequence[Group], front: str) -> tuple[str, ...]:
    """What of the victim can still be seen; `front` is cut off the tensors' names."""
    moved = list(dict.fromkeys(name for group in groups for name in group.tensors))
    left = [name for name in _matrices(before, list(before)) if name not in moved]
    alike = {name: abs(cosine(before[name], after[name])) for name in moved}
    alike = {name: one for name, one in alike.items() if one > ALIKE}
    parts = {
        "weights that no symmetry moves": left,
        f"weights whose cosine with the victim's is still above {ALIKE:g}": _matrices(before, list(alike)),
        f"vectors (biases, gains, statistics) whose cosine is still above {ALIKE:g}":
            [name for name in alike if not is_matrix(before[name])],
    }  # fmt: skip
    return tuple(f"{what}: {_listed([name.removeprefix(front) for name in names])}"
                 for what, names in parts.items() if names)  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
