"""What can be said of a network's weights without running it: their symmetries as data, and one form for all copies."""

from __future__ import annotations

from locard.weights.canonical import Canonical, canonical
from locard.weights.overlap import Overlap, cosine, is_matrix
from locard.weights.symmetries import Group, Place, Scaling, apply, factors_of, find

__all__ = ["Canonical", "Group", "Overlap", "Place", "Scaling", "apply", "canonical", "cosine", "factors_of", "find",
           "is_matrix"]  # fmt: skip
