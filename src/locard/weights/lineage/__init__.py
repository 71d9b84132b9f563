"""The lineage test on weights: do two models share an origin, unit by unit?

`pair(a, b)` compares two sets of tensors block by block and gives `Findings`: an exact p-value for units that stand in
their old places, and for units that were moved the share that two sets of tensors match to the same partner. What the
latter is worth only other models can tell; the room that judges adds them.
"""

from __future__ import annotations

from locard.weights.lineage.blocks import Sampling
from locard.weights.lineage.pair import pair

__all__ = ["Sampling", "pair"]
