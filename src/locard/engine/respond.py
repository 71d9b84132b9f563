"""One pass over a model for one fingerprint or many."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from locard.errors import AccessError, ArtefactError, LocardError, ParameterError
from locard.fingerprint import Fingerprint
from locard.models import Model, Session, load, view
from locard.models.session import Progress
from locard.records import LADDER, Access, Cost
from locard.schemes import Scheme, build


def respond(fingerprint: Fingerprint, suspect: Any, *, trust: bool = False) -> Fingerprint:
    """A suspect's record on the queries of a fingerprint, itself a fingerprint.

    Args:
        fingerprint: what to ask.
        suspect: a `Model`, or anything that `load` reads.
        trust: allow model files whose reading can run code.

    Cost: `fingerprint.cost` queries.
    """
    model = load(suspect, like=fingerprint.domain, trust=trust)
    return Battery([fingerprint], model).records()[0][0]


class Battery:
    """Several fingerprints asked of one model, each distinct query once.

    Args:
        fingerprints: what to ask.
        model: whom.
        access: the most that is granted, or None for all that the model gives.
        budget: the most queries that may be sent, or None.
        journal: path of the journal file, or None.
        progress: called with (answered, wanted).

    Raises:
        AccessError: a scheme needs more than was granted.
        ParameterError: the model takes other inputs.
    """

    def __init__(
        self,
        fingerprints: Sequence[Fingerprint],
        model: Model,
        *,
        access: Access | None = None,
        budget: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.fingerprints, self.model, self.granted = list(fingerprints), model, access
        self.schemes: list[Scheme] = [build(fp.scheme, fp.params) for fp in self.fingerprints]
        needed = Access(0)
        for fp, scheme in zip(self.fingerprints, self.schemes, strict=True):
            check_askable(fp, scheme, model, access)
            inputs = scheme.inputs(fp)
            if inputs is not None and len(inputs) != fp.cost:
                raise _lies(fp, len(inputs))
            needed |= scheme.suspect_access
        self.session = Session(model, needed, budget=budget, journal=journal, progress=progress)

    def records(self) -> list[tuple[Fingerprint, Cost]]:
        """The model's record for each fingerprint, and what each cost, in order.

        What a resumed session asked again to see that the model is still the same counts for the first.

        Raises:
            LocardError: the model cannot be asked one of them.
        """
        found: list[tuple[Fingerprint, Cost]] = []
        for record, cost in self.attempts():
            if isinstance(record, LocardError):
                raise record
            found.append((record, cost))
        return found

    def attempts(self) -> Iterator[tuple[Fingerprint | LocardError, Cost]]:
        """As `records`, one after the other, with the error in the place of a record that cannot be had."""
        sentinels = self.session.asked
        together = self._ask_together()
        together[0] += sentinels
        for index, (fp, scheme) in enumerate(zip(self.fingerprints, self.schemes, strict=True)):
            before = self.session.cost
            try:
                record = scheme.respond(fp, view(self.session, scheme.suspect_access))
            except LocardError as error:
                record = error
            after, first = self.session.cost, together[index]
            repeated = after.from_journal - before.from_journal - (first - sentinels if index == 0 else first)
            if after.asked - before.asked + first + repeated > fp.cost + (sentinels if index == 0 else 0):
                # Where inputs are made piece by piece their number is only known now.
                record = _lies(fp, after.asked - before.asked + first + repeated)
            yield record, Cost(asked=after.asked - before.asked + first, from_journal=repeated)

    def _ask_together(self) -> list[int]:
        """Ask at once all queries that are known beforehand: full batches, and full use of an endpoint's concurrency.

        Returns:
            How many queries each scheme was the first to need; they count as asked by it.
        """
        together = [0] * len(self.schemes)
        rung = (self.session.access.implied & (LADDER[0] | LADDER[1] | LADDER[2] | Access.VALUES)).top
        if len(self.schemes) < 2 or rung is None:
            return together
        batch, seen = [], set()
        for index, (fp, scheme) in enumerate(zip(self.fingerprints, self.schemes, strict=True)):
            inputs = scheme.inputs(fp)
            if inputs is None:
                continue
            inputs = self.model.domain.check(inputs)
            new = set(self.session.journal.missing(self.session.journal.keys(inputs))) - seen
            together[index] = len(new)
            seen |= new
            batch.append(inputs)
        if seen:
            counted = self.session.from_journal
            self.session.answer(np.concatenate(batch), rung)
            self.session.from_journal = counted
        return together


def _lies(fingerprint: Fingerprint, queries: int) -> ArtefactError:
    return ArtefactError(
        f"the fingerprint of {fingerprint.scheme} says that it asks {fingerprint.cost:,} queries, and its queries are "
        f"{queries:,}: take it anew"
    )


def score_of(fingerprint: Fingerprint, record: Fingerprint, scheme: Scheme) -> float:
    """Similarity of a record to a fingerprint.

    Raises:
        ArtefactError: it is no finite number, which only a damaged or hostile file gives.
    """
    score = scheme.similarity(fingerprint, record)
    if not np.isfinite(score):
        raise ArtefactError(
            f"the score of {fingerprint.scheme} is {score}: the fingerprint or the record holds numbers out of range; "
            "take the fingerprint anew"
        )
    return score


def check_askable(fingerprint: Fingerprint, scheme: Scheme, model: Model, granted: Access | None = None) -> None:
    """Refuse a model that cannot be asked a fingerprint's queries, or whose record could not be compared. Asks nothing.

    Raises:
        AccessError: the scheme needs more than was granted or the model gives.
        ParameterError: the model takes other inputs, or answers what the scheme cannot compare.
    """
    check_access(fingerprint.scheme, scheme.suspect_access, model, granted)
    _check_domain(fingerprint, model)
    scheme.check_suspect(fingerprint, model)


def check_access(name: str, needed: Access, model: Model, granted: Access | None) -> None:
    """Refuse a scheme that needs more of a suspect than was granted or than the suspect gives.

    Raises:
        AccessError: it names the scheme, what it needs and what it has.
    """
    if granted is not None and needed not in granted.implied:
        raise AccessError(f"{name} needs {needed.text} of the suspect; {granted.text} was granted (--access)")
    if needed not in model.grants.implied:
        raise AccessError(f"{name} needs {needed.text} of the suspect; {model.source} gives {model.grants.text}")


def _check_domain(fingerprint: Fingerprint, model: Model) -> None:
    ours, theirs = fingerprint.domain, model.domain
    apart = ours.apart(theirs)
    if apart == "form":
        raise ParameterError(
            f"{model.source} takes {theirs.text}; the fingerprint asks {ours.text}: these two models cannot be "
            "compared by their answers"
        )
    if apart == "bounds":
        raise ParameterError(
            f"{model.source} takes inputs in {list(theirs.bounds or ())}, the fingerprint asks in "
            f"{list(ours.bounds or ())}: load the model so that it takes inputs as the fingerprint asks them"
        )
