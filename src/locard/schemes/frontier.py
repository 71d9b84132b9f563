"""Adversarial frontier stitching: its key as a fingerprint, and its test [1].

The method is a watermark: the owner fine-tunes the victim until it answers a key of true and false adversaries with the
classes of the inputs they were made from. Here the victim is taken as it is. Unmarked, it gets every true adversary
wrong and every false one right; marked, it gets all right. In both cases a copy answers as it does, so the score is the
share of key points answered as the victim answers them, and reference models give the p-value.

The paper's own test counts the points m answered with another class than the original one, and calls a model marked if
m is at most `theta`: were each point answered rightly with probability 1/2, so few would be wrong with probability
below 0.05. That null is the *unmarked victim's*: an independent model, to which few true adversaries transfer, gets
most points right and is flagged. `theta` and `wrong` are here so that this can be seen; they decide nothing.

[1] Le Merrer, Pérez, Trédan. Adversarial Frontier Stitching for Remote Neural Network Watermarking. Neural Computing
and Applications 32, 2020, sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import comb
from typing import ClassVar

import numpy as np

from locard.errors import ArtefactError, check_number
from locard.fingerprint import Fingerprint
from locard.queries import Sampler
from locard.queries.frontier import Frontier
from locard.representations import Representation
from locard.representations.labels import Labels
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme


@schemes.register("frontier")
@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierStitching(QueryScheme):
    """Agreement on true and false adversaries. Cost: one label query each, 100 by default.

    Args:
        radius: of the FGSM step, as a share of the domain's range.
    """

    summary: ClassVar[str] = "agreement on true and false adversaries, the key of frontier stitching"
    citation: ClassVar[Citation | None] = Citation(
        key="lemerrer2020frontier",
        authors="Erwan {Le Merrer} and Patrick Pérez and Gilles Trédan",
        title="Adversarial Frontier Stitching for Remote Neural Network Watermarking",
        venue="Neural Computing and Applications",
        year=2020,
        eprint="1711.01894",
        doi="10.1007/s00521-019-04434-z",
        journal=True,
    )

    radius: float = 0.1

    def __post_init__(self) -> None:
        """Check the range."""
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """True and false adversaries."""
        return Frontier(radius=self.radius)

    @property
    def representation(self) -> Representation:
        """Labels."""
        return Labels()

    @property
    def metric(self) -> str:
        """Share of labels that differ."""
        return "hamming"


def wrong(fingerprint: Fingerprint, record: Fingerprint) -> int:
    """The paper's m: how many key points a model answers with another class than the original one.

    Raises:
        ArtefactError: the fingerprint has no key, or the record no labels.
    """
    classes, labels = fingerprint.queries.get("classes"), record.record.get("labels")
    if classes is None or labels is None or classes.shape != labels.shape:
        raise ArtefactError("counting wrong answers needs a frontier key and a record of labels, one for each point")
    return int(np.count_nonzero(classes != labels))


def theta(size: int, level: float = 0.05) -> int:
    """The largest m that the paper's test calls marked: the most z with P(Bin(size, 1/2) <= z) < level.

    Args:
        size: points of the key.
        level: of the paper's test, in (0, 1).

    Returns:
        -1 where not even 0 is so improbable.
    """
    check_number("size", size, low=1)
    check_number("level", level, above=0, below=1)
    # In whole numbers, so that a tail that equals the level counts as no smaller.
    bound = Fraction(level) * 2**size
    return sum(tail < bound for tail in accumulate(comb(size, z) for z in range(size + 1))) - 1
