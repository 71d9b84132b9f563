"""The search for hidden units: lines that what is known does not explain are searched until none is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from locard.attacks._relu_lines import Space, Stretches, stretches
from locard.attacks._relu_units import CAUTION, ENOUGH, Ask, Units, blocks, crossings, from_jumps, gradients, measure
from locard.errors import BudgetError, ParameterError
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models.session import Progress

# Of each line, that are asked before the search.
POINTS = 3
_TRIES = 2
_FORGIVEN = 3
_FRUITLESS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search gave.

    Args:
        units: all that were found.
        x: (n, d) points of all lines, asked before the search.
        f: (n, outputs) their answers.
        scale: (n,) standard error of an answer there.
        bent: lines that bend where no unit was found.
        lines: all lines.
        spent: what the view said when its budget ended, or None.
    """

    units: Units
    x: np.ndarray
    f: np.ndarray
    scale: np.ndarray
    bent: int
    lines: int
    spent: str | None


class Search:
    """One search.

    Args:
        ask: (n, d) points to (n, outputs) answers.
        space: where to look.
        lines: how many lines are to be explained.
        refine: whether each unit is measured once more where it can be measured best.
        seed: of lines.
    """

    def __init__(self, ask: Ask, space: Space, *, lines: int, refine: bool, seed: int) -> None:
        self._ask, self._space, self._refines = ask, space, refine
        self._source = generator(seed, "relu/lines")
        self._forgotten = 0
        self._sigma = self._measure_noise()
        first, ways, t = space.lines(self._source, lines)
        self._first, self._ways, self._t = first, ways, t
        self._x = space.grid(first[:, None] + t[:, :, None] * ways[:, None]).reshape(-1, space.size)
        self._f = ask(self._x)
        self.units = Units.none(space.size, self._f.shape[1])

    def run(self, progress: Progress | None) -> Found:
        """Search until each line is explained, given up, or the budget is spent.

        Raises:
            ParameterError: the victim is no network of one hidden ReLU layer.
        """
        tries, lines, spent, fruitless = np.zeros(len(self._t), int), len(self._t), None, 0
        try:
            while True:
                bent = self._bent()
                if progress is not None:
                    progress(lines - int(bent.sum()), lines)
                open_lines = np.flatnonzero(bent & (tries < _TRIES))
                unrefined = (self.units.rounds < ENOUGH) & self._refines
                if len(open_lines) and fruitless < _FRUITLESS:
                    line, before = open_lines[tries[open_lines].argmin()], len(self.units)
                    tries[line] += 1
                    self._search(int(line))
                    fruitless = 0 if len(self.units) != before else fruitless + 1
                elif unrefined.any():
                    self._refine(unrefined)
                    # What was too faint beside the errors of others may show now.
                    tries[:], fruitless = 0, 0
                else:
                    break
        except BudgetError as error:
            spent = str(error)
        return Found(units=self.units, x=self._x, f=self._f, scale=self.noise(self._x), bent=int(self._bent().sum()),
                     lines=lines, spent=spent)  # fmt: skip

    def noise(self, x: np.ndarray) -> np.ndarray:
        """(n,) standard error of an answer by rounding, which grows with the numbers that are added up."""
        if self._space.bounds is not None:
            return np.full(len(x), self._sigma)
        return self._sigma * np.maximum(1, np.linalg.norm(x, axis=1) / np.sqrt(self._space.size))

    def _measure_noise(self) -> float:
        """Standard error of an answer at an ordinary point, by second differences where hardly anything bends."""
        x = self._space.points(self._source, 64)
        way = self._space.steps(x, np.full(64, 1e-3 * self._space.unit))
        way *= self._source.uniform(0.5, 1, way.shape)
        f = np.stack([self._ask(self._space.grid(x + k * way)) for k in range(3)])
        # A second difference has sqrt(6) of the error of an answer, and half of its absolute values lie below 0.67.
        found = np.median(np.abs(f[0] - 2 * f[1] + f[2])) / (0.67 * np.sqrt(6))
        return max(float(found), float(np.finfo(self._space.dtype).eps * np.abs(f).max()) / 8)

    def _residual(self, x: np.ndarray) -> np.ndarray:
        x = self._space.grid(x)
        return self._ask(x) - self.units(x)

    def _residual_noise(self, x: np.ndarray) -> np.ndarray:
        """(n,) standard error of an answer less what is known, whose own errors grow with the input."""
        return np.hypot(self.noise(x), np.linalg.norm(self.units.errors) * np.linalg.norm(x, axis=1))

    def _bent(self) -> np.ndarray:
        """(lines,) whether the three points of a line that were asked lie on no straight one, less what is known."""
        rest = (self._f - self.units(self._x)).reshape(*self._t.shape, -1)
        share = (self._t[:, 1] - self._t[:, 0]) / (self._t[:, 2] - self._t[:, 0])
        off = np.abs(rest[:, 1] - rest[:, 0] - (rest[:, 2] - rest[:, 0]) * share[:, None]).max(axis=1)
        return off > CAUTION * self._residual_noise(self._x).reshape(self._t.shape).max(axis=1)

    def _search(self, line: int) -> None:
        """Find where one line bends, and the units that bend it."""
        u, v = self._first[line], self._ways[line]

        def at(t: np.ndarray) -> np.ndarray:
            return u + t[:, None] * v

        found = stretches(lambda t: self._residual(at(t)), self._space.along(self._t[line]),
                          lambda t: CAUTION * self._residual_noise(at(t)))  # fmt: skip
        if found.joined.any():
            self._add(found, u, v)

    def _add(self, found: Stretches, u: np.ndarray, v: np.ndarray) -> None:
        """The units at the joints of straight stretches, by the gradients in these."""
        touched = np.concatenate([found.joined, [False]]) | np.concatenate([[False], found.joined])
        slopes = np.zeros((len(found.t), found.f.shape[2], self._space.size))
        errors, aside = np.full(len(found.t), np.inf), np.zeros(len(found.t))
        x = self._space.grid(u + found.t.mean(axis=1)[:, None] * v)
        gap = np.diff(found.t)[:, 0]
        steps = np.minimum(gap * np.sqrt((v**2).mean()) / 16, self._space.widest)
        finest = 256 * np.finfo(self._space.dtype).eps * np.maximum(1e-3 * self._space.unit, np.abs(x).max(axis=1))
        todo = np.flatnonzero(touched & (steps > finest))
        spent = None
        for _ in range(4):
            try:
                for rows in blocks(todo, self._space.size):
                    _, slopes[rows], aside[rows] = gradients(self._residual, self._space, x[rows], steps[rows],
                                                             self._source)  # fmt: skip
                    errors[rows] = self.noise(x[rows]) * np.sqrt(2) / steps[rows]
            except BudgetError as error:
                spent = error
            off = np.abs(slopes @ v - found.slopes).max(axis=1)
            # A step along some axis crossed a hyperplane that this line does not.
            share = np.hypot(errors, np.linalg.norm(self.units.errors)) * np.linalg.norm(v)
            failed = off > CAUTION * (share + self._residual_noise(x) / gap)
            failed |= aside > CAUTION * self.noise(x)
            todo = np.flatnonzero(failed)
            errors[todo] = np.inf
            steps[todo] /= 4
            if spent is not None or len(todo) == 0:
                break
        self._join(found, u, v, x, slopes, errors)
        if spent is not None:
            raise spent

    def _join(
        self, found: Stretches, u: np.ndarray, v: np.ndarray, x: np.ndarray, slopes: np.ndarray, errors: np.ndarray
    ) -> None:
        """The units at joints on both sides of which the gradient is known, at the points x."""
        pairs = np.flatnonzero(found.joined & np.isfinite(errors[:-1]) & np.isfinite(errors[1:]))
        if len(pairs) == 0:
            return
        there = u + found.bends()[pairs][:, None] * v
        # Errors of known units cancel, but of those that are active on one side only.
        active = self.units.before(x) > 0
        known = (active[pairs] != active[pairs + 1]) @ self.units.errors**2
        new, sound = from_jumps(slopes[pairs + 1] - slopes[pairs], np.tile(v, (len(pairs), 1)),
                                np.sqrt(errors[pairs] ** 2 + errors[pairs + 1] ** 2 + known))  # fmt: skip
        sound &= np.isfinite(there).all(axis=1)
        new, there = new.take(sound), there[sound]
        known = self.units.match(new, there)
        self._forget_contradicted(new, known)
        new.offsets[:] = -(new.normals * there).sum(axis=1)
        self.units += new.take(known < 0)
        if len(self.units) > len(self._t):
            raise ParameterError(
                f"more hidden units were found than lines were to be explained, {len(self._t):,}: the victim is no "
                "network of one hidden ReLU layer, or a wider one; then give more lines"
            )

    def _forget_contradicted(self, new: Units, known: np.ndarray) -> None:
        """Forget a known unit that bends otherwise here: it was two units that bent a line nearly at one place.

        Raises:
            ParameterError: that is so of many, as behind a second hidden layer.
        """
        again = known >= 0
        left = np.linalg.norm(new.weights[again], axis=1)
        wrong = np.unique(known[again][left > 0.01 * np.linalg.norm(self.units.weights[known[again]], axis=1)])
        self._forgotten += len(wrong)
        if self._forgotten > _FORGIVEN + len(self.units) / 16:
            raise ParameterError(
                "the victim's answers bend by another amount at each place of one hyperplane: it has more than one "
                "hidden layer, or is no ReLU network"
            )
        self.units = self.units.take(np.setdiff1d(np.arange(len(self.units)), wrong))

    def _refine(self, which: np.ndarray) -> None:
        """Measure units where that is best, if it is better than before."""
        chosen = np.flatnonzero(which)
        at = crossings(self.units, chosen, self._space, self._source)
        better = 2 * self.noise(at.x) < at.steps * self.units.errors[chosen]
        self.units.rounds[chosen] = np.where(better, self.units.rounds[chosen] + 1, ENOUGH)
        # Each takes two gradients.
        for part in blocks(np.flatnonzero(better), 2 * self._space.size):
            new, sound = measure(self._ask, self._space, self.units.take(chosen[part]), at.take(part), self.noise,
                                 self._source)  # fmt: skip
            for name in Units.__slots__:
                getattr(self.units, name)[chosen[part[sound]]] = getattr(new, name)[sound]
