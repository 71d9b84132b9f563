"""Query schemes: a sampler, a representation and a distance are a whole scheme."""

from __future__ import annotations

import abc
import platform
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

import locard
from locard.distances import distance
from locard.errors import ArtefactError, ParameterError
from locard.fingerprint import Fingerprint
from locard.queries import Population, Queries, Sampler
from locard.records import Access, Claim, Data
from locard.representations import Representation
from locard.schemes.base import Citation, parameters
from locard.seeds import derive

# Distances that pair classes off themselves.
RENAMED = ("aligned-cosine", "mutual-information")


class QueryScheme(abc.ABC):
    """Abstract: a scheme names its parts, and the acts follow from them."""

    __slots__ = ()

    claim: ClassVar[Claim] = "derived"
    citation: ClassVar[Citation | None] = None
    summary: ClassVar[str] = ""

    @property
    @abc.abstractmethod
    def sampler(self) -> Sampler:
        """Where to ask."""

    @property
    @abc.abstractmethod
    def representation(self) -> Representation:
        """What to record."""

    @property
    @abc.abstractmethod
    def metric(self) -> str:
        """Name of the distance between two records."""

    @property
    def default_queries(self) -> int:
        """Queries when the caller names no number."""
        return 100

    @property
    def victim_access(self) -> Access:
        """The higher of what the sampler and the representation need.

        Raises:
            ParameterError: one needs class scores and the other values, which no model gives at once.
        """
        needs = (self.sampler.victim_access | self.representation.access).implied
        if Access.VALUES in needs and Access.LABELS in needs:
            raise ParameterError(
                "where answers are values there are no classes, and these queries are chosen by them: take others "
                "(sac: variant=m, normal or jc), or other answers"
            )
        return Access.MODULE if Access.MODULE in needs else needs.top or Access.WEIGHTS

    @property
    def suspect_access(self) -> Access:
        """What the representation needs."""
        return self.representation.access

    @property
    def statistic(self) -> str:
        """1 - distance."""
        return f"1 - {self.metric}"

    @property
    def needs_labels(self) -> bool:
        """What the sampler needs."""
        return self.sampler.needs_labels

    @property
    def needs_population(self) -> bool:
        """What the sampler needs."""
        return self.sampler.needs_population

    def extract(
        self, name: str, victim: Any, data: Data, *, population: Population | None, queries: int | None, seed: int
    ) -> Fingerprint:
        """See `Scheme.extract`."""
        drawn = self.sampler.draw(
            victim,
            data,
            n=queries,
            default=self.default_queries,
            seed=derive(seed, "sampler"),
            population=population,
        )
        return self._fingerprint(name, victim, data, drawn, seed)

    def _fingerprint(self, name: str, victim: Any, data: Data, drawn: Queries, seed: int) -> Fingerprint:
        """The victim's record on the queries, with all that must be known to ask them again."""
        return Fingerprint(
            scheme=name,
            params=parameters(self),
            claim=self.claim,
            seed=int(seed),
            cost=self.representation.cost(drawn),
            domain=data.domain,
            classes=victim.classes,
            model=victim.digest,
            lineage=victim.lineage,
            victim_access=self.victim_access.text,
            suspect_access=self.suspect_access.text,
            versions=versions(),
            queries=drawn.to_arrays(),
            record=self.representation.record(victim, drawn),
        )

    def check_suspect(self, fingerprint: Fingerprint, suspect: Any) -> None:
        """See `Scheme.check_suspect`.

        Raises:
            ParameterError: records are compared class by class, and the suspect has another number of classes.
        """
        ours, theirs = fingerprint.classes, suspect.classes
        if (
            self.representation.by_class
            and self.metric not in RENAMED
            and None not in (ours, theirs)
            and ours != theirs
        ):
            raise ParameterError(
                f"{fingerprint.scheme} compares answers class by class: the victim has {ours} of them, "
                f"{suspect.source} has {theirs}. Use a scheme that does not: sac, modeldiff, zest with align=true"
            )

    def respond(self, fingerprint: Fingerprint, suspect: Any) -> Fingerprint:
        """See `Scheme.respond`."""
        self.check_suspect(fingerprint, suspect)
        record = self.representation.record(suspect, Queries.from_arrays(fingerprint.queries))
        return replace(
            fingerprint,
            model=suspect.digest,
            classes=suspect.classes,
            lineage=suspect.lineage,
            record=record,
            accuracy=None,
            check={},
            calibration=None,
        )

    def inputs(self, fingerprint: Fingerprint) -> np.ndarray | None:
        """See `Scheme.inputs`."""
        return self.representation.inputs(Queries.from_arrays(fingerprint.queries))

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """1 - distance, mean over the record's arrays."""
        names = sorted(fp1.record)
        if not names or names != sorted(fp2.record):
            raise ArtefactError(f"two records must hold the same arrays; got {names} and {sorted(fp2.record)}")
        measure = distance(self.metric)
        return 1.0 - float(np.mean([measure(fp1.record[name], fp2.record[name]) for name in names]))

    def agreement(self, fp1: Fingerprint, fp2: Fingerprint) -> np.ndarray | None:
        """See `Scheme.agreement`."""
        a, b = fp1.record.get("labels"), fp2.record.get("labels")
        if a is None or b is None:
            return None
        if a.shape != b.shape:
            raise ParameterError(f"two records must have one shape; got {a.shape} and {b.shape}")
        return a == b


def versions() -> dict[str, str]:
    """Versions of what a fingerprint's value depends on."""
    return {"locard": locard.__version__, "numpy": np.__version__, "python": platform.python_version()}
