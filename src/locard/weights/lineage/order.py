"""The test of the order (T1): do units that stand at the same place look alike?

If two models were made from independent starts, the units of one could as well stand in any other order: training
treats all alike, so given the other model every order has the same probability, whatever data the two share. The sum of
the cosines of units at the same place is therefore compared with what random orders give. That is exact for any number
of draws [1]. The mean and variance over all orders are known in closed form [2], and the normal tail they suggest goes
where no number of draws does; it is asymptotic, so it is reported beside and decides nothing.

[1] Phipson & Smyth. Permutation p-values should never be zero. SAGMB 9(1), 2010. [2] Hoeffding. A combinatorial central
limit theorem. Annals of Mathematical Statistics 22(4), 1951, eq. 9 to 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from locard.seeds import generator

DRAWS = 9999
# With fewer units the normal tail is no guide.
FEWEST = 16
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the order of all blocks together says.

    Args:
        p_value: exact; in [1 / (draws + 1), 1].
        floor: the smallest it could have been.
        log10_p: of the closed form over all blocks, asymptotic; None where all blocks are too small for it.
        block: of the block with the largest z, the name; "" without blocks.
    """

    p_value: float
    floor: float
    log10_p: float | None
    block: str


def moments(cosines: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the sum along a random order.

    Args:
        cosines: (n, n), n >= 2.

    Returns:
        Of sum_i cosines[i, order[i]] over all orders, exact.
    """
    table = cosines.astype(np.float64)
    n = len(table)
    rows, columns, mean = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True), table.mean()
    centred = table - rows - columns + mean
    return float(n * mean), float((centred**2).sum() / (n - 1))


def z_value(cosines: np.ndarray) -> float:
    """How many deviations the sum along the given order lies above its mean; 0 where all orders give the same."""
    if len(cosines) < 2:
        return 0.0
    mean, variance = moments(cosines)
    # What rounding leaves of a constant table is no spread.
    if variance <= 1e-12 * float((cosines.astype(np.float64) ** 2).sum()):
        return 0.0
    return float((np.trace(cosines, dtype=np.float64) - mean) / np.sqrt(variance))


def draws(cosines: np.ndarray, *, rounds: int, seed: int, name: str) -> np.ndarray:
    """Sums along random orders, (rounds,) float64."""
    n = len(cosines)
    source = generator(seed, f"matched-unit/order/{name}")
    table = cosines.astype(np.float64)
    rows, found = np.arange(n), np.empty(rounds)
    step = max(1, _CHUNK // max(n, 1))
    for start in range(0, rounds, step):
        orders = source.permuted(np.tile(rows, (min(step, rounds - start), 1)), axis=1)
        found[start : start + step] = table[rows, orders].sum(axis=1)
    return found


def p_by_draws(observed: float, drawn: np.ndarray) -> float:
    """(1 + #{draw >= observed}) / (1 + draws); what differs by rounding only counts as equal."""
    slack = 1e-9 * max(1.0, abs(observed))
    return float((1 + np.count_nonzero(drawn >= observed - slack)) / (1 + len(drawn)))


def log10_tail(z: float) -> float:
    """log10 of the probability that a normal deviate exceeds z."""
    from scipy.special import log_ndtr

    return float(log_ndtr(-z) / np.log(10))


class OrderTest:
    """Gathers blocks one after the other, and judges them together.

    Blocks of equal size are added up, each divided by its deviation, and one random order moves all of them: orders
    are free in each block under the null, so equal ones are too. A copy that shares one block only is looked for
    beside: the block with the largest z is tested alone, and its p multiplied by the number of blocks. Both then share
    the error, by Bonferroni.

    Args:
        rounds: random orders.
        seed: of the orders.
    """

    def __init__(self, *, rounds: int = DRAWS, seed: int = 0) -> None:
        self._rounds, self._seed = rounds, seed
        self._sums: dict[int, np.ndarray] = {}
        self._best: tuple[float, str, np.ndarray | None] = (-np.inf, "", None)
        self._zs: list[float] = []
        self._blocks = 0

    def add(self, name: str, cosines: np.ndarray) -> float:
        """Take a block's cosines, (n, n), units at the same place on the diagonal; its z."""
        z = z_value(cosines)
        if len(cosines) < 2 or z == 0.0:
            return z
        self._blocks += 1
        scaled = cosines / np.sqrt(moments(cosines)[1])
        n = len(cosines)
        self._sums[n] = self._sums.get(n, 0) + scaled
        if n >= FEWEST:
            self._zs.append(z)
        if z > self._best[0]:
            self._best = (z, name, scaled)
        return z

    def result(self) -> Order:
        """The p-value of all blocks together; 1 without any."""
        if not self._blocks:
            return Order(p_value=1.0, floor=1.0, log10_p=None, block="")
        total, drawn = 0.0, np.zeros(self._rounds)
        for n, table in sorted(self._sums.items()):
            total += float(np.trace(table, dtype=np.float64))
            drawn += draws(table, rounds=self._rounds, seed=self._seed, name=f"all/{n}")
        values = [p_by_draws(total, drawn)]
        _, name, best = self._best
        if self._blocks > 1 and best is not None:
            alone = draws(best, rounds=self._rounds, seed=self._seed, name=f"one/{name}")
            values.append(self._blocks * p_by_draws(float(np.trace(best, dtype=np.float64)), alone))
        floor = 1 / (self._rounds + 1)
        log10_p = log10_tail(sum(self._zs) / np.sqrt(len(self._zs))) if self._zs else None
        return Order(p_value=min(1.0, len(values) * min(values)), floor=min(1.0, len(values) * floor),
                     log10_p=log10_p, block=name)  # fmt: skip


def block_log10(zs: Sequence[float]) -> list[float]:
    """log10 of each block's tail by the closed form."""
    return [log10_tail(z) for z in zs]
