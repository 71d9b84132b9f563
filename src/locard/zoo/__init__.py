"""Populations of models with their family tree: trained, stolen, recorded, resumed."""

from __future__ import annotations

from locard.zoo.population import Built, Job, Original, Theft, train_many
from locard.zoo.roles import Member, Population, Suspect, populate

__all__ = ["Built", "Job", "Member", "Original", "Population", "Suspect", "Theft", "populate", "train_many"]
