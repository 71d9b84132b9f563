"""Representations: what is recorded of a model's answers. One a file, found by name."""

from __future__ import annotations

from locard.representations.base import Record, Representation, representations

__all__ = ["Record", "Representation", "representations"]
