"""Power: how many known thefts would have been flagged."""

from __future__ import annotations

from collections.abc import Sequence

from locard.errors import check_number
from locard.evidence.conformal import stratified
from locard.records import Power, Reference


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval for a share of k in n.

    Args:
        k: successes, 0 to n.
        n: trials, at least 1.
        level: coverage, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].
    """
    from scipy.special import betaincinv

    check_number("n", n, low=1)
    check_number("k", k, low=0, high=n)
    check_number("level", level, above=0, below=1)
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def power(derived: Sequence[Reference], references: Sequence[Reference], alpha: float) -> tuple[Power, ...] | None:
    """Share of known derived models with p <= alpha, for each kind of theft.

    Args:
        derived: derived models; `stratum` is the kind of theft.
        references: the null.
        alpha: the level.

    Returns:
        One row a kind, sorted by kind; None where either list is empty.
    """
    if not derived or not references:
        return None
    rows: list[Power] = []
    for kind in sorted({model.stratum for model in derived}):
        values = [stratified(references, model.score, "").p_value for model in derived if model.stratum == kind]
        flagged = sum(p is not None and p <= alpha for p in values)
        low, high = clopper_pearson(flagged, len(values))
        rows.append(Power(kind=kind, flagged=flagged, n=len(values), low=low, high=high))
    return tuple(rows)
