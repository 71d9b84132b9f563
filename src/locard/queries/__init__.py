"""Query samplers: where to ask. One sampler a file, found by name."""

from __future__ import annotations

from locard.queries.base import Population, Queries, Sampler, samplers

__all__ = ["Population", "Queries", "Sampler", "samplers"]
