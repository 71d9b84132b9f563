"""Lines through a victim's inputs, and the straight stretches of its answers along one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from locard.errors import ParameterError

_CELLS = 64
# More unresolved cells than this: bends so dense are those of a smooth function, not of hidden units.
_MOST = 8192
_ROUNDS = 80
# Cells of this width, on lines whose t are of the order of 1, are halved no more: rounding of the inputs shows.
_FINEST = 1e-11
# How many times its own length a cell speaks for.
_LONGEST = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Where the thief looks.

    Args:
        size: numbers in one input.
        bounds: of each, or None; then inputs are looked at on the scale of a standard normal.
        reach: where there are no bounds, how far lines go out, in lengths of a standard normal input.
        dtype: NumPy name of the inputs.
    """

    size: int
    bounds: tuple[float, float] | None
    reach: float
    dtype: str

    def points(self, source: np.random.Generator, n: int) -> np.ndarray:
        """(n, size): standard normal; within bounds, corners and points with a beta distribution of their own each.

        A hyperplane that cuts off a corner is met by few other points: grey, bright or dark all over, or spread evenly.
        """
        if self.bounds is None:
            return self.grid(source.normal(size=(n, self.size)))
        low, high = self.bounds
        shapes = np.exp(1.5 * source.normal(size=(2, n, 1)))
        share = source.beta(*shapes, size=(n, self.size))
        corner = source.random((n, self.size)) < source.random((n, 1))
        return self.grid(low + (high - low) * np.where(source.random((n, 1)) < 0.5, share, corner))

    def lines(self, source: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lines x = u + t v: u and v (n, size), and three t of each, (n, 3): its ends, and one between them."""
        first, second = self.points(source, n), self.points(source, n)
        if self.bounds is None:
            ends = np.full(n, self.reach)
            return first, second, np.stack([-ends, source.normal(size=n), ends], axis=1)
        return first, second - first, np.stack([np.zeros(n), source.uniform(0.3, 0.7, n), np.ones(n)], axis=1)

    def along(self, ends: np.ndarray) -> np.ndarray:
        """Values of t to begin with; without bounds they are denser where inputs are usual."""
        if self.bounds is not None:
            return np.linspace(ends[0], ends[-1], _CELLS + 1)
        bow = np.log(2 * self.reach + 1)
        return self.reach * np.sinh(bow * np.linspace(-1, 1, _CELLS + 1)) / np.sinh(bow)

    def steps(self, x: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Steps along each axis, (n, size), that stay within the bounds."""
        steps = np.repeat(size[:, None], self.size, axis=1)
        return steps if self.bounds is None else np.where(x > sum(self.bounds) / 2, -steps, steps)

    def aside(self, x: np.ndarray, size: np.ndarray, source: np.random.Generator) -> np.ndarray:
        """Points (n, size) a little off each, along all axes at once, up to `size` (n,) away and within the bounds."""
        step = size[:, None] / np.sqrt(self.size) * source.uniform(0.5, 1, x.shape)
        step *= source.choice([-1.0, 1.0], x.shape)
        if self.bounds is not None:
            step = np.where((x + step < self.bounds[0]) | (x + step > self.bounds[1]), -step, step)
        return self.grid(x + step)

    @property
    def widest(self) -> float:
        """The longest step along one axis: without bounds, as long as an ordinary input."""
        return float(np.sqrt(self.size)) if self.bounds is None else (self.bounds[1] - self.bounds[0]) / 2

    @property
    def unit(self) -> float:
        """An ordinary size of one number."""
        return 1.0 if self.bounds is None else (self.bounds[1] - self.bounds[0]) / 2

    def grid(self, x: np.ndarray) -> np.ndarray:
        """Points as the victim gets them, so that differences are taken between those it was asked."""
        x = x if self.bounds is None else np.clip(x, *self.bounds)
        return x.astype(self.dtype, copy=False).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Straight stretches of one line, in order.

    Args:
        t: (m, 2) where each begins and ends.
        f: (m, 2, outputs) the answers there.
        joined: (m - 1,) whether one bend, and no other, lies between a stretch and the next.
    """

    t: np.ndarray
    f: np.ndarray
    joined: np.ndarray

    @property
    def slopes(self) -> np.ndarray:
        """(m, outputs)."""
        return (self.f[:, 1] - self.f[:, 0]) / np.diff(self.t)

    def bends(self) -> np.ndarray:
        """(m - 1,) where neighbouring stretches, drawn out, meet, by the output whose slope changes most."""
        return _meet(self.t[:-1, 1], self.f[:-1, 1], self.slopes[:-1], self.t[1:, 0], self.f[1:, 0], self.slopes[1:])[0]


def stretches(
    ask: Callable[[np.ndarray], np.ndarray], t: np.ndarray, noise: Callable[[np.ndarray], np.ndarray]
) -> Stretches:
    """Search a line: between two straight cells it is asked where these, drawn out, meet, and else halved.

    A point is straight if the chord of its neighbours passes it within the noise, and a cell if one of its ends is.

    Args:
        ask: (n,) values of t to (n, outputs) answers.
        t: (n,) where to begin, ascending.
        noise: (n,) values of t to (n,) differences that may be rounding.

    Raises:
        ParameterError: the answers bend everywhere.
    """
    f = ask(t)
    for _ in range(_ROUNDS):
        clean, bent = _judge(t, f, noise(t))
        runs = _runs(t, f, noise(t), clean)
        new = runs.next(t, clean)
        if len(new) == 0:
            break
        if len(new) > _MOST:
            raise ParameterError(
                f"the victim's answers bend more than {_MOST:,} times on one line: it is no network of one hidden ReLU "
                "layer whose scores are answered unrounded"
            )
        t, f = np.concatenate([t, new]), np.concatenate([f, ask(new)])
        order = np.argsort(t, kind="stable")
        t, f = t[order], f[order]
    clean, bent = _judge(t, f, noise(t))
    runs = _runs(t, f, noise(t), clean)
    cuts = np.flatnonzero(np.concatenate([[True], bent[1:-1] | (clean[1:] != clean[:-1]), [True]]))
    first, last = cuts[:-1], cuts[1:]
    good = clean[first] & np.array([_is_straight(t[a : b + 1], f[a : b + 1], noise(t[a : b + 1]))
                                    for a, b in zip(first, last, strict=True)])  # fmt: skip
    first, last = first[good], last[good]
    # A bend is a point where two stretches touch, or the narrow run between them.
    over = dict(zip(runs.first[runs.settled].tolist(), runs.last[runs.settled].tolist(), strict=True))
    joined = np.array([over.get(int(a), a) == b for a, b in zip(last[:-1], first[1:], strict=True)], bool)
    return Stretches(t=np.stack([t[first], t[last]], axis=1), f=np.stack([f[first], f[last]], axis=1), joined=joined)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Runs of cells that are not straight.

    Args:
        first: (k,) the points where they begin.
        last: (k,) the points where they end.
        meet: (k,) where the straight cells before and behind, drawn out, meet, if within the run; else NaN.
        near: (k,) how near to that place answers tell one line from the other.
        settled: (k,) whether the run is so narrow that it holds that one bend.
    """

    first: np.ndarray
    last: np.ndarray
    meet: np.ndarray
    near: np.ndarray
    settled: np.ndarray

    def next(self, t: np.ndarray, clean: np.ndarray) -> np.ndarray:
        """Where to ask next.

        Where the lines meet, the answer is the predicted one also if two bends in opposite ways lie on one side of it.
        So it is asked close by on both sides, where each line predicts another answer.
        """
        nearest = np.searchsorted(t, self.meet).clip(1, len(t) - 1)
        away = np.minimum(np.abs(self.meet - t[nearest]), np.abs(self.meet - t[nearest - 1]))
        drawn = ~self.settled & (away > 2 * self.near)
        run, cells = np.repeat(np.arange(len(self.first)), self.last - self.first), np.flatnonzero(~clean)
        wide = (t[cells + 1] - t[cells]) > _FINEST * np.maximum(1, np.abs(t[cells]))
        halved = cells[wide & ~(drawn | self.settled)[run]]
        meet, near = self.meet[drawn], self.near[drawn]
        return np.concatenate([meet - near, meet + near, (t[halved] + t[halved + 1]) / 2])


def _runs(t: np.ndarray, f: np.ndarray, noise: np.ndarray, clean: np.ndarray) -> _Runs:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~clean, [False]]).astype(int)))
    first, last = edges[::2], edges[1::2]
    left, right = np.maximum(first - 1, 0), np.minimum(last + 1, len(t) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        before, behind = t[first] - t[left], t[right] - t[last]
        slope, then = (f[first] - f[left]) / before[:, None], (f[right] - f[last]) / behind[:, None]
        meet, change = _meet(t[first], f[first], slope, t[last], f[last], then)
        inside = (left < first) & (right > last) & (meet > t[first]) & (meet < t[last])
        # Drawn out over more than their own length, lines become uncertain.
        drawn = 1 + np.maximum((meet - t[first]) / before, (t[last] - meet) / behind)
        near = 4 * np.maximum(noise[first], noise[last]) * drawn / change
        narrow = t[last] - t[first] <= 8 * near
    near = np.where(inside & ~narrow, near, np.inf)
    return _Runs(first=first, last=last, meet=np.where(inside, meet, np.nan), near=near,
                 settled=inside & narrow & (drawn <= 2))  # fmt: skip


def _meet(
    t: np.ndarray, f: np.ndarray, slope: np.ndarray, later: np.ndarray, then: np.ndarray, change: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where lines through (t, f) and (later, then) meet, and how far their slopes differ, by the output most bent."""
    apart = slope - change
    rows, k = np.arange(len(t)), np.abs(np.nan_to_num(apart)).argmax(axis=1)
    apart, rise = apart[rows, k], (then - f)[rows, k] - change[rows, k] * (later - t)
    with np.errstate(invalid="ignore", divide="ignore"):
        return t + rise / apart, np.abs(apart)


def _judge(t: np.ndarray, f: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cells are straight, and at which points two straight cells meet in a bend."""
    before, behind = np.diff(t)[:-1], np.diff(t)[1:]
    off = np.abs(f[1:-1] - f[:-2] - (f[2:] - f[:-2]) * (before / (before + behind))[:, None]).max(axis=1)
    straight = off <= noise[1:-1]
    clean = np.zeros(len(t) - 1, bool)
    # A short cell, drawn out, says little of a long one.
    clean[:-1] |= straight & (behind >= before / _LONGEST)
    clean[1:] |= straight & (before >= behind / _LONGEST)
    return clean, np.concatenate([[False], ~straight & clean[:-1] & clean[1:], [False]])


def _is_straight(t: np.ndarray, f: np.ndarray, noise: np.ndarray) -> bool:
    """Whether a whole stretch is: slow drift passes each point's own test."""
    chord = f[0] + (f[-1] - f[0]) * ((t - t[0]) / (t[-1] - t[0]))[:, None]
    return bool((np.abs(f - chord).max(axis=1) <= 2 * noise).all())
