"""Populations of models with their family tree: trained, stolen, recorded, resumed."""

from __future__ import annotations

from locard.zoo.population import Built, Job, Original, Theft, train_many

__all__ = ["Built", "Job", "Original", "Theft", "train_many"]
