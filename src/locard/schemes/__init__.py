"""Fingerprinting schemes, one short file each, found by name or composed as "sampler+representation+distance"."""

from __future__ import annotations

from locard.schemes.base import Scheme, build, parameters, schemes
from locard.schemes.query import QueryScheme

__all__ = ["QueryScheme", "Scheme", "build", "parameters", "schemes"]
