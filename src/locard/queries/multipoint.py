"""Points where several classes meet, and around each a probe in the sector of every one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number
from locard.queries._adversarial import dealt
from locard.queries.base import Population, Queries, movable, reach, samplers
from locard.queries.boundary import GAPS, median_gap
from locard.records import Access, Data, Domain
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.models import GradientView

# Logits that differ by less than this share of the median gap have met: what answers in single precision can tell.
MET = 1e-4
# A step must take away this share of what it promises (Armijo); one cut below LEAST of its length has failed.
PROMISED, LEAST = 1e-4, 1e-4
# How often entries that a step would take out of the box are pinned to its wall and the rest solved again.
PASSES = 5
# Added to the diagonal of the small systems, as a share of their trace.
RIDGE = 1e-12


@samplers.register("multipoint")
@dataclass(frozen=True, slots=True, kw_only=True)
class Multipoint:
    """Probes around points where m classes meet; our own design.

    A multipoint of the set S of m classes is an x with equal logits f_c(x) for all c in S, and every other logit lower
    by `lead` or more. From an input x0 of the data, with S the m largest logits there, Gauss-Newton steps of least
    length lead to one. J are the gradients by x of the differences f_c - f_c1, c in S, and of every other logit that is
    too large, g their residuals; the step is -Jᵀ (J Jᵀ)⁻¹ g. An entry that the step would take out of the domain's
    bounds stays at its wall, and the others make up for it. A step that does not lower |g| is halved, for each point on
    its own. Where a network is piecewise linear the step is exact within a piece, so that a handful of steps do.

    Around x, for each i in S, the shortest v_i within the bounds by which class i leads the others of S by the margin t
    to first order: where no bound is met that is v_i = pinv(J_c) t (e_i - 1/m), J_c being the centred gradients. The m
    probes x + v_i are asked as delivered; a multipoint whose delivered probes do not have the m labels in order, its
    word, is dropped. t is `margin` times the victim's median gap between its largest and second largest logit.

    Args:
        classes: m, how many meet.
        margin: t in units of the median gap. At 0.1 light fine-tuning breaks most words, and they tell tampering rather
            than ownership; the larger t, the more of them independent models share.
        lead: how far below all other classes must stay, in units of the median gap.
        steps: the most Gauss-Newton steps; a seed that has not arrived by then is dropped.

    n, the number of queries, must be a multiple of m. The queries carry `units` (n,) int64, which multipoint a probe
    belongs to; `classes` (units, m) int64; `points` (units, *shape), the multipoints themselves, not rounded;
    `sigma_min` (units,) float64, the smallest singular value of J_c but for the 0 that centring makes, in logits for a
    whole `reach` of the data: where the model changes by d logits the point moves by at most |d| / sigma_min; and
    `depth` (1,) float64, t.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    classes: int = 3
    margin: float = 0.6
    lead: float = 0.05
    steps: int = 30

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("classes", self.classes, low=2)
        check_number("margin", self.margin, above=0)
        check_number("lead", self.lead, low=0)
        check_number("steps", self.steps, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: for each multipoint about 10 answers and (m - 1) * 8 gradients of the victim, and 1,000 answers for its
        median gap.

        Raises:
            ParameterError: n is no multiple of m, the victim has fewer classes, or too few multipoints are found.
        """
        movable(data, "multipoints")
        m, domain = self.classes, data.domain
        if n is not None and n % m:
            raise ParameterError(
                f"each multipoint has {m} probes, so --queries must be a multiple of {m}; got {n}: ask another number, "
                "or set another number of classes (--param classes=...)"
            )
        if victim.classes is None or victim.classes < m:
            raise ParameterError(
                f"{m} classes are to meet, and {victim.source} has {victim.classes or 'none'}: set fewer "
                "(--param classes=...)"
            )
        order, span = generator(seed, "multipoint/seeds").permutation(len(data)), reach(data)
        gap = median_gap(victim, domain.deliver(data.inputs[order[:GAPS]]))
        wanted = max(1, default // m) if n is None else n // m
        parts, found, start = [], 0, 0
        while found < wanted and start < len(data):
            rows = order[start : start + (wanted - found) * 5 // 4 + 8]
            start += len(rows)
            parts.append(self._around(victim, domain.deliver(data.inputs[rows]), gap, span, domain))
            found += len(parts[-1]["classes"])
        if found < (min(wanted, 10) if n is None else wanted):
            raise ParameterError(
                f"{min(wanted, 10) if n is None else wanted} multipoints are needed; {found} of {start} inputs of "
                f"{data.name} led to one whose {m} probes have their classes: give more data, ask fewer --queries, or "
                f"set a smaller margin ({self.margin:g}), lead ({self.lead:g}) or number of classes"
            )
        kept = {name: np.concatenate([part[name] for part in parts])[:wanted] for name in parts[0]}
        probes = kept.pop("probes")
        return Queries(
            inputs=probes.reshape(-1, *domain.shape),
            extras={"units": np.repeat(np.arange(len(probes)), m), "depth": np.array([self.margin * gap]), **kept},
        )

    def _around(
        self, victim: GradientView, seeds: np.ndarray, gap: float, span: float | np.ndarray, domain: Domain
    ) -> dict[str, np.ndarray]:
        """The multipoints that some seeds lead to and whose words hold, in their order; none may."""
        points, sets, arrived = meet(victim, seeds, classes=self.classes, lead=self.lead * gap,
                                     tolerance=MET * gap, steps=self.steps, span=span, domain=domain)  # fmt: skip
        points, sets = points[arrived], sets[arrived]
        if len(points) == 0:
            none = np.empty((0, self.classes, *domain.shape), domain.dtype)
            return {"probes": none, "points": points, "classes": sets, "sigma_min": np.empty(0)}
        slopes = differences(victim, points, sets)
        probes = domain.deliver(sectors(points, slopes, self.margin * gap, span=span, domain=domain))
        labels = victim.labels(probes.reshape(-1, *domain.shape)).reshape(sets.shape)
        whole = (labels == sets).all(axis=1)
        return {"probes": probes[whole], "points": points[whole], "classes": sets[whole],
                "sigma_min": stiffness(slopes[whole], span)}  # fmt: skip


def meet(
    victim: GradientView,
    seeds: np.ndarray,
    *,
    classes: int,
    lead: float,
    tolerance: float,
    steps: int,
    span: float | np.ndarray,
    domain: Domain,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move all seeds together to where their largest logits are equal; one that has arrived is asked no more.

    Args:
        victim: whom to ask.
        seeds: (n, *shape) inputs.
        classes: m, how many logits.
        lead: how far below them all others must stay, in logits.
        tolerance: largest difference that counts as none, in logits.
        steps: the most steps.
        span: `reach` of the data; a step is the shortest in shares of it.
        domain: what inputs are; points stay in its bounds, but are not rounded.

    Returns:
        (n, *shape) points, (n, m) int64 classes by falling logit at the seed, and (n,) bool, whether each arrived.
    """
    logits = np.asarray(victim.logits(seeds))
    sets = np.argsort(-logits, axis=1, kind="stable")[:, :classes]
    x, residuals = seeds.copy(), unmet(logits, sets, lead)
    lost = np.zeros(len(seeds), bool)
    for _ in range(steps):
        active = np.flatnonzero((np.abs(residuals).max(axis=1) > tolerance) & ~lost)
        if len(active) == 0:
            break
        slopes, gaps = _jacobian(victim, x[active], sets[active], residuals[active])
        step = shortest(slopes * _flat(span, domain), gaps, *_walls(x[active], span, domain))
        share = 1.0
        while len(active) and share >= LEAST:
            moved = _moved(x[active], share * step, span, domain)
            now = unmet(np.asarray(victim.logits(moved)), sets[active], lead)
            before, after = (np.linalg.norm(r, axis=1) for r in (residuals[active], now))
            nearer = after <= (1 - PROMISED * share) * before
            x[active[nearer]], residuals[active[nearer]] = moved[nearer], now[nearer]
            active, step, share = active[~nearer], step[~nearer], share / 2
        lost[active] = True
    return x, sets, np.abs(residuals).max(axis=1) <= tolerance


def unmet(logits: np.ndarray, sets: np.ndarray, lead: float) -> np.ndarray:
    """How far each class is from where it should be at a multipoint.

    Args:
        logits: (n, classes).
        sets: (n, m) integers, the classes that meet.
        lead: how far below their mean all others must stay.

    Returns:
        (n, classes) float64: f_c - f_c1 for a class that meets, else how much too large its logit is, or 0.
    """
    logits = logits.astype(np.float64)
    chosen = np.take_along_axis(logits, sets, axis=1)
    result = np.maximum(logits - chosen.mean(axis=1, keepdims=True) + lead, 0)
    np.put_along_axis(result, sets, chosen - chosen[:, :1], axis=1)
    return result


def differences(victim: GradientView, x: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """The gradients of f_c - f_c1: (n, m - 1, entries) float64, for (n, m) classes. Cost: m - 1 gradients an input."""
    return _jacobian(victim, x, sets, np.zeros((len(x), victim.classes or int(sets.max()) + 1)))[0]


def sectors(
    points: np.ndarray, slopes: np.ndarray, depth: float, *, span: float | np.ndarray, domain: Domain
) -> np.ndarray:
    """The probes x + v_i of `Multipoint`, before they are delivered.

    Args:
        points: (n, *shape) multipoints.
        slopes: (n, m - 1, entries) as `differences` gives them.
        depth: t, in logits.
        span: `reach` of the data.
        domain: what inputs are.

    Returns:
        (n, m, *shape), probe i in the sector of the i-th class.
    """
    scaled, walls = slopes * _flat(span, domain), _walls(points, span, domain)
    probes = []
    for i in range(slopes.shape[1] + 1):
        # Of the differences f_c - f_c1 that of class i grows by t; where i is the first class, all fall by t.
        lack = np.full(slopes.shape[1], depth) if i == 0 else -depth * (np.arange(1, slopes.shape[1] + 1) == i)
        step = shortest(scaled, np.broadcast_to(lack, slopes.shape[:2]), *walls)
        probes.append(_moved(points, step, span, domain))
    return np.stack(probes, axis=1)


def stiffness(slopes: np.ndarray, span: float | np.ndarray = 1.0) -> np.ndarray:
    """The smallest singular value of the centred gradients, but for the 0 that centring makes.

    Args:
        slopes: (n, m - 1, entries) as `differences` gives them.
        span: `reach` of the data, whose shares inputs are counted in.

    Returns:
        (n,) float64.
    """
    scaled = slopes * np.broadcast_to(np.ravel(span), slopes.shape[2:])
    gram = np.pad(scaled @ scaled.transpose(0, 2, 1), ((0, 0), (1, 0), (1, 0)))
    gram = gram - gram.mean(axis=1, keepdims=True)
    gram = gram - gram.mean(axis=2, keepdims=True)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, 1], 0))


def shortest(slopes: np.ndarray, residuals: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The shortest d in a box with J d = -g, of each point: (n, entries) float64.

    Entries that would leave the box are pinned to its wall and the rest is solved again, `PASSES` times; what still
    leaves is cut. In a box that allows no such step, or hardly one, d stays inside and J d = -g does not hold. Without
    walls d = -pinv(J) g.

    Args:
        slopes: (n, rows, entries), J; rows of nothing do no harm.
        residuals: (n, rows), g.
        low: (n, entries), the box around d; holds 0.
        high: likewise.
    """
    free, step = np.ones(low.shape), np.zeros(low.shape)
    pending = np.arange(len(slopes))
    for _ in range(PASSES):
        j, open_, pinned = slopes[pending], free[pending], step[pending] * (1 - free[pending])
        gram = (j * open_[:, None]) @ j.transpose(0, 2, 1)
        trace = np.trace(gram, axis1=1, axis2=2)
        gram += np.where(trace > 0, RIDGE * trace, 1)[:, None, None] * np.eye(gram.shape[1])
        lack = residuals[pending, :, None] + j @ pinned[:, :, None]
        found = pinned - open_ * (j.transpose(0, 2, 1) @ np.linalg.solve(gram, lack))[:, :, 0]
        step[pending] = np.clip(found, low[pending], high[pending])
        out = step[pending] != found
        free[pending] = open_ * ~out
        pending = pending[out.any(axis=1)]
        if len(pending) == 0:
            break
    return step


def _jacobian(
    victim: GradientView, x: np.ndarray, sets: np.ndarray, residuals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of all residuals that count, (n, rows, entries), and these, (n, rows), filled up with zeros.

    Those of the m - 1 differences count always and come first, the others where they are above 0. All are asked in one
    batch, each as an input with a loss of its own, so that a point asks for no more than it needs.
    """
    n, m = sets.shape
    counts = residuals > 0
    np.put_along_axis(counts, sets, np.zeros(sets.shape, bool), axis=1)
    owner, other = np.nonzero(counts)
    point = np.concatenate([np.repeat(np.arange(n), m - 1), owner])
    row = np.concatenate([np.tile(np.arange(m - 1), n), m - 2 + np.cumsum(counts, axis=1)[owner, other]])
    cls = np.concatenate([sets[:, 1:].ravel(), other])
    weights = np.zeros((len(point), residuals.shape[1]), x.dtype)
    weights[np.arange(n * (m - 1)), sets[:, :1].repeat(m - 1)] = -1
    weights[np.arange(n * (m - 1), len(point))[:, None], sets[owner]] = -1 / m
    weights[np.arange(len(point)), cls] = 1
    _, gradients = victim.input_gradient(x[point], dealt(_weighed, weights))
    slopes = np.zeros((n, int(row.max()) + 1, gradients[0].size))
    slopes[point, row] = gradients.reshape(len(point), -1)
    gaps = np.zeros(slopes.shape[:2])
    gaps[point, row] = residuals[point, cls]
    return slopes, gaps


def _weighed(logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (logits * weights).sum(dim=1)


def _flat(span: float | np.ndarray, domain: Domain) -> np.ndarray:
    return np.broadcast_to(np.asarray(span, np.float64), domain.shape).ravel()


def _walls(x: np.ndarray, span: float | np.ndarray, domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """How far each entry may go down and up, (n, entries) in shares of the span."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    if domain.bounds is None:
        return np.full(flat.shape, -np.inf), np.full(flat.shape, np.inf)
    low, high = ((bound - flat) / _flat(span, domain) for bound in domain.bounds)
    return np.minimum(low, 0), np.maximum(high, 0)


def _moved(x: np.ndarray, step: np.ndarray, span: float | np.ndarray, domain: Domain) -> np.ndarray:
    """(n, *shape) points, each entry moved by that share of the span and kept in the bounds."""
    moved = x + step.reshape(x.shape) * span
    return (moved if domain.bounds is None else np.clip(moved, *domain.bounds)).astype(x.dtype)
