"""Populations of models with their family tree: trained, stolen, recorded, resumed."""

from __future__ import annotations

from locard.zoo.members import Member
from locard.zoo.population import Built, Job, Original, Theft, train_many
from locard.zoo.recipe import Recipe, parse, read_recipe, shipped
from locard.zoo.roles import Population, Suspect, populate
from locard.zoo.zoo import Pair, Zoo, build_zoo, open_zoo

__all__ = [
    "Built",
    "Job",
    "Member",
    "Original",
    "Pair",
    "Population",
    "Recipe",
    "Suspect",
    "Theft",
    "Zoo",
    "build_zoo",
    "open_zoo",
    "parse",
    "populate",
    "read_recipe",
    "shipped",
    "train_many",
]
