"""What a comparison of two models' weights found, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from locard.records.verdict import Decision, Null, Party, Reference

Extent = Literal["whole", "partial", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFinding:
    """One block of units in both models.

    Args:
        name: such as "3.mlp".
        kind: "units" or "heads".
        units: of the victim's block.
        asked: how many of them were looked at.
        z: deviations by which same places are more alike than in random orders; None where the widths differ.
        log10_p: the normal tail of z, log10; None with too few units for it.
        cosine: median cosine of units at the same place, or None.
        matched: share of units that two sets of tensors match to the same partner; None where only one set is there.
        margin: mean over units of the best cosine less the second best.
        chance: mean agreements that decoys leave likely, or None without decoys.
        log10_modelled: log10 of the probability of so many agreements at that mean, or None.
    """

    name: str
    kind: str
    units: int
    asked: int
    z: float | None
    log10_p: float | None
    cosine: float | None
    matched: float | None
    margin: float
    chance: float | None = None
    log10_modelled: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What two sets of weights have in common.

    Args:
        order_p: exact p-value of the test of the order (T1), over all blocks; 1 where none could be tested.
        order_floor: the smallest it could have been.
        log10_order: log10 of its closed form, asymptotic; None where no block has units enough.
        matched_fraction: share of the units looked at that two sets of tensors match alike (T2), over all blocks that
            have two; None where none has.
        blocks: the blocks of both models.
        missing: blocks of the victim that the suspect has not, or in another shape.
        alignment: how the suspect's stream was brought to the victim's: "none", "permutation", "rotation".
        residual: share of the anchor left unexplained by it, or None.
        constants: tensors set aside, with the reason.
        notes: what could not be told.
    """

    order_p: float
    order_floor: float
    log10_order: float | None
    matched_fraction: float | None
    blocks: tuple[BlockFinding, ...]
    missing: tuple[str, ...] = ()
    alignment: str = "none"
    residual: float | None = None
    constants: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsVerdict:
    """Whether a suspect's weights come from the victim's, with the error rate of saying so.

    Without references the test of the order alone decides, which is exact. With R references the matched fraction is
    tested too, and both share the error: p = 2 min(p of the order, p of the match). No decision says innocent.

    Args:
        decision: "derived" where p <= alpha; "uncalibrated" where units match far more often than decoys say chance
            would let them and no reference says what that is worth; else "no-evidence".
        p_value: what decides.
        p_value_floor: the smallest it could have been.
        alpha: the level.
        null: what it speaks of: "exact" where the order alone decides, else "reference".
        order_p: of the test of the order.
        match_p: of the matched fraction among references, or None without them.
        modelled: log10 of probabilities below what was counted, by name: "order" (normal tail), "match" (Poisson by
            decoys). They go where no count goes, and decide nothing.
        matched_fraction: see `Findings`.
        largest_reference: the largest matched fraction of a reference, or None.
        extent: "whole", "partial" (found in few blocks only), "none".
        shared: names of the blocks found to be shared.
        reasons: sentences that say what decided and what this cannot tell.
        findings: block by block.
        references: the references' matched fractions.
        victim: whose weights are asked for.
        suspect: whose weights are tested.
        seconds: the test took.
    """

    decision: Decision
    p_value: float
    p_value_floor: float
    alpha: float
    null: Null
    order_p: float
    match_p: float | None
    modelled: dict[str, float]
    matched_fraction: float | None
    largest_reference: float | None
    extent: Extent
    shared: tuple[str, ...]
    reasons: tuple[str, ...]
    findings: Findings
    references: tuple[Reference, ...]
    victim: Party
    suspect: Party
    seconds: float

    def __str__(self) -> str:
        """One line: decision, p, matched fraction."""
        matched = "no units to match" if self.matched_fraction is None else f"matched {self.matched_fraction:.0%}"
        return f"{self.decision} ({self.extent}): p = {self.p_value:.3g} (floor {self.p_value_floor:.3g}), {matched}"
