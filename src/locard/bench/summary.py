"""From records to figures."""

from __future__ import annotations

from collections.abc import Sequence

from locard.bench.figures import Calibration, Family, Interval, Missing, Roc, Standing, Summary
from locard.bench.records import Records
from locard.records import Access

__all__ = ["Calibration", "Family", "Interval", "Missing", "Roc", "Standing", "Summary", "summarise"]


def summarise(
    records: Records,
    *,
    alphas: Sequence[float] = (0.05, 0.01),
    fprs: Sequence[float] = (0.05, 0.01),
    access: Access | str | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Summary:
    """What records say, with its error.

    Args:
        records: the rows.
        alphas: levels of the calibrated test.
        fprs: shares of innocents.
        access: only entries that need no more than this of the suspect; all where None.
        seed: of the resampling.
        resamples: how many.
    """
    raise NotImplementedError
