"""How numbers and strangers' names are written: no more digits than the data bear, nothing that acts on its reader."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from locard.records import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Where the suspect stands among n references.

    Args:
        above: references that score at least as high, so that p = (above + 1) / (n + 1).
        n: references.
    """

    above: int
    n: int

    @classmethod
    def of(cls, p: float, n: int) -> Rank:
        """The rank that a p-value among n references stands for."""
        return cls(above=round(p * (n + 1)) - 1, n=n)

    @property
    def text(self) -> str:
        """As in "1 of 41"."""
        return f"{self.above + 1} of {self.n + 1}"

    @property
    def odds(self) -> str:
        """As in "1 in 41"."""
        return f"{self.above + 1} in {self.n + 1}"


def ranks(evidence: Evidence) -> dict[str, Rank]:
    """The suspect's rank in each stratum; empty where the null is no set of references."""
    if evidence.null.kind != "reference":
        return {}
    return {stratum: Rank.of(evidence.p_values[stratum], n) for stratum, n in evidence.null.strata.items()}


def significant(x: float, digits: int = 2) -> str:
    """A number at so many significant digits, without trailing zeros."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    if abs(x) < 1e-4:
        return f"{x:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    text = f"{x:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(x: float, alpha: float | None = None) -> str:
    """A share as a percentage of two digits, more where they show on which side of alpha it lies; only 1 is "100%"."""
    text = significant(100 * x) if alpha is None else p_number(100 * x, 100 * alpha)
    return "over 99%" if x < 1 and float(text) >= 100 else f"{text}%"


def p_number(p: float, alpha: float) -> str:
    """A p-value at two digits, or as many more as show on which side of alpha it lies."""
    for digits in range(2, 9):
        text = significant(p, digits)
        if (float(text) <= alpha) == (p <= alpha):
            return text
    return repr(p)


def decimals(scores: Iterable[float]) -> int:
    """Digits after the point that tell these scores apart: two digits of their spread, three at least."""
    values = [score for score in scores if math.isfinite(score)]
    spread = max(values, default=0.0) - min(values, default=0.0)
    return 3 if spread <= 0 or not math.isfinite(spread) else min(9, max(3, 1 - math.floor(math.log10(spread))))


def plural(n: int, one: str, many: str | None = None) -> str:
    """As in "1 model", "2 models", "1,797 models"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listing(words: Iterable[str]) -> str:
    """As in "a, b and c"."""
    items = list(words)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1] if items else ""


def plain(text: str) -> str:
    """Text from outside, with what is not to be seen (escape codes, direction marks, surrogates) written out."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and "..." where it is longer than `length`."""
    return text if len(text) <= length else text[: length - 3] + "..."
