"""The contract of a scheme: two acts and a number."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from locard.fingerprint import Fingerprint
from locard.queries import Population
from locard.records import Access, Claim, Data
from locard.registry import Registry, construct


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """Where a scheme comes from.

    Args:
        key: BibTeX key.
        authors: "Given Family and Given Family"; a family of two words in braces.
        title: of the paper.
        venue: journal or conference.
        year: of publication.
        eprint: arXiv number, or None.
        doi: or None.
        journal: whether the venue is a journal.
    """

    key: str
    authors: str
    title: str
    venue: str
    year: int
    eprint: str | None = None
    doi: str | None = None
    journal: bool = False

    @property
    def bibtex(self) -> str:
        """A BibTeX entry."""
        fields = {"author": self.authors, "title": f"{{{self.title}}}",
                  "journal" if self.journal else "booktitle": self.venue, "year": str(self.year)}  # fmt: skip
        if self.doi is not None:
            fields["doi"] = self.doi
        if self.eprint is not None:
            fields |= {"eprint": self.eprint, "archiveprefix": "arXiv"}
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
        return f"@{'article' if self.journal else 'inproceedings'}{{{self.key},\n{lines}}}"

    @property
    def short(self) -> str:
        """As in "Cao et al. 2021"."""
        names = self.authors.split(" and ")
        family = [name.rpartition("{")[2].rstrip("}") if "{" in name else name.split()[-1] for name in names]
        who = family[0] if len(family) == 1 else " & ".join(family) if len(family) == 2 else f"{family[0]} et al."
        return f"{who} {self.year}"


# Where AKH and the composed forms come from.
QURD = Citation(
    key="godinot2025qurd",
    authors="Augustin Godinot and Erwan {Le Merrer} and Camilla Penzo and François Taïani and Gilles Trédan",
    title="Queries, Representation & Detection: The Next 100 Model Fingerprinting Schemes",
    venue="AAAI",
    year=2025,
    eprint="2412.13021",
)


@runtime_checkable
class Scheme(Protocol):
    """A frozen dataclass whose fields are the parameters that change the value.

    Attributes:
        claim: what a match supports.
        citation: the paper, or None where there is none.
        summary: one line on the idea.
    """

    claim: ClassVar[Claim]
    citation: ClassVar[Citation | None]
    summary: ClassVar[str]

    @property
    def victim_access(self) -> Access:
        """The grant that `extract` needs."""
        ...

    @property
    def suspect_access(self) -> Access:
        """The grant that `respond` needs."""
        ...

    @property
    def statistic(self) -> str:
        """Name of the similarity."""
        ...

    @property
    def default_queries(self) -> int:
        """Queries to a suspect when the caller names no number."""
        ...

    @property
    def needs_labels(self) -> bool:
        """Whether `extract` needs labelled data."""
        ...

    @property
    def needs_population(self) -> bool:
        """Whether `extract` needs other models."""
        ...

    def extract(
        self, name: str, victim: Any, data: Data, *, population: Population | None, queries: int | None, seed: int
    ) -> Fingerprint:
        """The victim's fingerprint.

        Args:
            name: what the scheme was asked for as.
            victim: a view at `victim_access`.
            data: inputs to draw queries from.
            population: other models, where the scheme needs them.
            queries: the number of queries to a suspect, or None for the scheme's own.
            seed: of every random choice.
        """
        ...

    def check_suspect(self, fingerprint: Fingerprint, suspect: Any) -> None:
        """Refuse a suspect, model or view, whose record could not be compared; `respond` does so too. Asks nothing.

        Raises:
            ParameterError: it says why.
        """
        ...

    def respond(self, fingerprint: Fingerprint, suspect: Any) -> Fingerprint:
        """The suspect's record on the same queries, through a view at `suspect_access`."""
        ...

    def inputs(self, fingerprint: Fingerprint) -> np.ndarray | None:
        """All inputs that `respond` will ask, or None when they are made piece by piece."""
        ...

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Higher = more alike; greatest for a model with itself."""
        ...

    def agreement(self, fp1: Fingerprint, fp2: Fingerprint) -> np.ndarray | None:
        """(n,) bool, whether the two give the same answer to each query; None where answers are no discrete ones."""
        ...


schemes: Registry[Scheme] = Registry("scheme", "locard.schemes", "locard.schemes")


def build(name: str, params: dict[str, Any] | None = None) -> Scheme:
    """The scheme of that name with those parameters.

    Args:
        name: a registered name, or "sampler+representation+distance".
        params: fields to set; in a composed form a part's field is "part.field". Text is read as the field's type.

    Raises:
        ParameterError: unknown name, unknown parameter, or a value of the wrong type or range.
    """
    if "+" in name:
        from locard.schemes._composed import compose

        return compose(name, params or {})
    return construct(schemes.get(name), params or {}, f"scheme {name!r}")


def parameters(scheme: Any) -> dict[str, Any]:
    """Every parameter of a scheme by name, as plain JSON values."""
    if hasattr(scheme, "parameters"):
        return scheme.parameters()
    return {f.name: getattr(scheme, f.name) for f in dataclasses.fields(scheme)}
