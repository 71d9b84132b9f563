"""Fingerprinting schemes, one short file each, found by name or composed as "sampler+representation+distance"."""

from __future__ import annotations

from locard.schemes._grid import Combination, grid
from locard.schemes.base import Scheme, build, parameters, schemes
from locard.schemes.query import QueryScheme

__all__ = ["Combination", "QueryScheme", "Scheme", "build", "grid", "parameters", "schemes"]
