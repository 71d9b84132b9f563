"""Hidden units as the victim's answers show them: a bend along a hyperplane, the same wherever it is crossed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from locard.attacks._relu_lines import Space

Ask = Callable[[np.ndarray], np.ndarray]
# Queries in one call to the victim.
_CALL = 4096
_CANDIDATES = 2048
ENOUGH = 3
# Standard errors that pass as rounding, of which some are looked at in millions.
CAUTION = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Units that are known: together they answer sum_i weights_i relu(normals_i x + offsets_i).

    Which side of its hyperplane a unit is active on does not show where it bends, since
    c relu(z) = c relu(-z) + c z: here one side is taken, and what is linear is left to the rest.

    Args:
        normals: (h, d) of length 1.
        offsets: (h,).
        weights: (h, outputs).
        errors: (h,) standard error of an entry of weights_i normals_i.
        rounds: (h,) how often it was attempted to measure the unit where it can be measured best; `ENOUGH` when done.
    """

    normals: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    errors: np.ndarray
    rounds: np.ndarray

    @classmethod
    def none(cls, size: int, outputs: int) -> Units:
        """No unit."""
        return cls(normals=np.empty((0, size)), offsets=np.empty(0), weights=np.empty((0, outputs)),
                   errors=np.empty(0), rounds=np.empty(0, int))  # fmt: skip

    def __len__(self) -> int:
        """How many."""
        return len(self.offsets)

    def __add__(self, other: Units) -> Units:
        """Both."""
        return Units(**{k: np.concatenate([getattr(self, k), getattr(other, k)]) for k in Units.__slots__})

    def take(self, rows: np.ndarray) -> Units:
        """Those."""
        return Units(**{name: getattr(self, name)[rows] for name in Units.__slots__})

    def before(self, x: np.ndarray) -> np.ndarray:
        """(n, h) what goes into the ReLU."""
        return x @ self.normals.T + self.offsets

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, outputs)."""
        return np.maximum(self.before(x), 0) @ self.weights

    def match(self, others: Units, at: np.ndarray) -> np.ndarray:
        """(m,) which known unit bends along the same hyperplane as each of m others at the points `at`, or -1."""
        if len(self) == 0:
            return np.full(len(others), -1)
        cosines = others.normals @ self.normals.T
        nearest = np.abs(cosines).argmax(axis=1)
        rows = np.arange(len(others))
        sign = np.sign(cosines[rows, nearest])
        apart = np.linalg.norm(others.normals - sign[:, None] * self.normals[nearest], axis=1)
        # What a normal may be off by: errors in each of d entries, over the bend's size.
        allowed = 1e-7 + 10 * np.sqrt(at.shape[1]) * others.errors / np.linalg.norm(others.weights, axis=1)
        off = np.abs(self.before(at)[rows, nearest])
        return np.where((apart <= allowed) & (off <= allowed * (1 + np.linalg.norm(at, axis=1))), nearest, -1)


def gradients(
    ask: Ask, space: Space, x: np.ndarray, steps: np.ndarray, source: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers (m, outputs), forward differences (m, outputs, d), and by how much these fail to predict an answer (m,).

    The answer to a point off all axes shows whether a step along one of them crossed a hyperplane.

    Args:
        ask: (n, d) points to (n, outputs) answers.
        space: says which way to step.
        x: (m, d) points.
        steps: (m,) how far.
        source: of the points off the axes.

    Cost: m (d + 2) queries.
    """
    axes = np.arange(space.size)
    asked = np.repeat(x[:, None], space.size + 2, axis=1)
    asked[:, axes + 1, axes] += space.steps(x, steps)
    asked[:, -1] = space.aside(x, steps, source)
    asked = space.grid(asked)
    taken, run = asked[:, axes + 1, axes] - x, asked[:, -1] - x
    answers = ask(asked.reshape(-1, space.size)).reshape(len(x), space.size + 2, -1)
    slopes = ((answers[:, 1:-1] - answers[:, :1]) / taken[:, :, None]).transpose(0, 2, 1)
    off = answers[:, -1] - answers[:, 0] - np.einsum("mcd,md->mc", slopes, run)
    return answers[:, 0], slopes, np.abs(off).max(axis=1)


def blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Some rows at a time, so few that one gradient each is no more than a call's worth of queries."""
    step = max(1, _CALL // (size + 2))
    yield from (rows[start : start + step] for start in range(0, len(rows), step))


def from_jumps(jumps: np.ndarray, ways: np.ndarray, errors: np.ndarray) -> tuple[Units, np.ndarray]:
    """Units from what the gradient changes by where their hyperplanes are crossed, and whether each is one unit's.

    Args:
        jumps: (m, outputs, d) gradient behind less gradient before; of one unit c n^T.
        ways: (m, d) directions that were crossed in; the normals are taken along them.
        errors: (m,) standard error of an entry.

    Returns:
        Units whose offsets are 0; and (m,) whether a jump is of rank one and known to a few hundredths.
    """
    _, sizes, right = np.linalg.svd(jumps, full_matrices=False)
    normals = right[:, 0] * np.where((right[:, 0] * ways).sum(axis=1) < 0, -1.0, 1.0)[:, None]
    weights = np.einsum("mcd,md->mc", jumps, normals)
    noise = errors * np.sqrt(jumps.shape[2])
    sound = noise < 0.03 * sizes[:, 0]
    if sizes.shape[1] > 1:
        sound &= sizes[:, 1] <= 10 * noise + 1e-9 * sizes[:, 0]
    m = len(jumps)
    return Units(normals=normals, offsets=np.zeros(m), weights=weights, errors=errors,
                 rounds=np.zeros(m, int)), sound  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossings:
    """Where a unit is best measured: a point of its hyperplane as far as may be from all others.

    Args:
        x: (m, d) points of the hyperplanes.
        ways: (m, d) directions across.
        steps: (m,) how far one may step along an axis, on both sides.
        offs: (m,) how far to go along `ways` before.
    """

    x: np.ndarray
    ways: np.ndarray
    steps: np.ndarray
    offs: np.ndarray

    def take(self, rows: np.ndarray) -> Crossings:
        """Those."""
        return Crossings(x=self.x[rows], ways=self.ways[rows], steps=self.steps[rows], offs=self.offs[rows])


def crossings(units: Units, chosen: np.ndarray, space: Space, source: np.random.Generator) -> Crossings:
    """The best crossing of each chosen unit among those of random lines, which costs no query; step 0 where none is.

    From x + a s v, a = 1.5 max_j|n_j| / |n v|, a step s along any axis stays on the unit's own side. It crosses no
    other hyperplane k if |n_k x + b_k| > s (a |n_k v| + max_j|n_kj|), and of all lines the one is taken that allows the
    longest step, weighed by how large the numbers are there.
    """
    first, ways, _ = space.lines(source, _CANDIDATES)
    start, pace, largest = units.before(first), ways @ units.normals.T, np.abs(units.normals).max(axis=1)
    found = Crossings(x=np.zeros((len(chosen), space.size)), ways=np.zeros((len(chosen), space.size)),
                      steps=np.zeros(len(chosen)), offs=np.zeros(len(chosen)))  # fmt: skip
    for row, i in enumerate(chosen):
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -start[:, i] / pace[:, i]
            a = 1.5 * largest[i] / np.abs(pace[:, i])
            room = np.abs(start + t[:, None] * pace) / (a[:, None] * np.abs(pace) + largest)
            room[:, i] = np.inf
            # Where it failed before, a hyperplane that is not known yet may have been near.
            step = np.minimum(0.9 * room.min(axis=1), space.widest) / 4.0 ** units.rounds[i]
            if space.bounds is not None:
                step = np.minimum(step, np.minimum(t, 1 - t) / a)
                worth = step
            else:
                worth = step / np.maximum(1, np.abs(t))
        best = int(np.argmax(np.where(np.isfinite(worth), worth, -np.inf)))
        if np.isfinite(worth[best]) and worth[best] > 0:
            found.x[row], found.ways[row] = first[best] + t[best] * ways[best], ways[best]
            found.steps[row], found.offs[row] = step[best], step[best] * a[best]
    return found


def measure(
    ask: Ask,
    space: Space,
    units: Units,
    at: Crossings,
    noise: Callable[[np.ndarray], np.ndarray],
    source: np.random.Generator,
) -> tuple[Units, np.ndarray]:
    """Units from the affine maps on both sides of a crossing each: c n and c b are their difference.

    Args:
        ask: the victim.
        space: as above.
        units: (m,) what is known of them.
        at: (m,) crossings.
        noise: (n, d) points to (n,) standard errors of an answer.
        source: see `gradients`.

    Returns:
        The units, and (m,) whether each measurement is sound: both maps predict an answer nearby, the bend is one
        unit's, and that unit is the known one.

    Cost: 2 d + 4 queries a unit.
    """
    m, way = len(units), np.concatenate([-at.ways, at.ways])
    offs, steps, centre = np.tile(at.offs, 2), np.tile(at.steps, 2), np.tile(at.x, (2, 1))
    x = space.grid(centre + offs[:, None] * way)
    values, slopes, off = gradients(ask, space, x, steps, source)
    errors, straight = noise(x) * np.sqrt(2) / steps, off <= CAUTION * noise(x)
    new, sound = from_jumps(slopes[m:] - slopes[:m], at.ways, np.sqrt(errors[:m] ** 2 + errors[m:] ** 2))
    here = values - np.einsum("mcd,md->mc", slopes, x - centre)
    height = (here[m:] - here[:m]) / np.linalg.norm(new.weights, axis=1, keepdims=True)
    level = (height * new.weights).sum(axis=1) / np.linalg.norm(new.weights, axis=1)
    new = Units(normals=new.normals, offsets=level - (new.normals * at.x).sum(axis=1), weights=new.weights,
                errors=new.errors, rounds=np.full(m, ENOUGH))  # fmt: skip
    same = np.abs((new.normals * units.normals).sum(axis=1)) > 1 - 1e-4
    return new, straight[:m] & straight[m:] & sound & same
