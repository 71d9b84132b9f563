"""What can be said of a network's weights without running it: their symmetries, as data."""

from __future__ import annotations

from locard.weights.overlap import Overlap, cosine, is_matrix
from locard.weights.symmetries import Group, Place, Scaling, apply, factors_of, find

__all__ = ["Group", "Overlap", "Place", "Scaling", "apply", "cosine", "factors_of", "find", "is_matrix"]
