"""fp = extract(model): what the owner keeps."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from locard.data import read
from locard.errors import AccessError, ParameterError, check_number
from locard.evidence.preflight import doubles
from locard.fingerprint import Fingerprint
from locard.models import Model, Session, load, view
from locard.models.session import Progress
from locard.queries import Population
from locard.records import Access, Data
from locard.schemes import Scheme, build, parameters
from locard.seeds import generator

CHECK_ROWS = 200
CHECK_BYTES = 2 << 20


def extract(
    model: Any,
    *,
    scheme: str = "akh",
    data: Data | str | os.PathLike[str],
    queries: int | None = None,
    seed: int = 0,
    params: dict[str, Any] | None = None,
    population: Population | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> Fingerprint:
    """Take a model's fingerprint.

    Args:
        model: a `Model`, or anything that `load` reads.
        scheme: a registered name, or "sampler+representation+distance".
        data: inputs to draw queries from, seen by no model in training; `Data`, or anything that `data.read` reads.
        queries: the number of queries to a suspect; None for the scheme's own.
        seed: of every random choice.
        params: the scheme's parameters by name.
        population: other models, for the schemes that choose queries with their help.
        trust: allow model files whose reading can run code.
        progress: called with (done, wanted).

    Returns:
        The fingerprint, not yet calibrated. Same inputs, seed, versions and thread count: same bytes.

    Raises:
        AccessError: the model gives less than the scheme needs.
        ParameterError: unknown scheme or parameter, data that do not fit the model or lack what the scheme needs.
        ArtefactError: a file that cannot be read.
    """
    if queries is not None:
        check_number("queries", queries, low=1)
    built = build(scheme, params)
    owned = data if isinstance(data, Data) else read(data)
    victim = load(model, like=owned.domain, trust=trust)
    owned = owned.taken_by(victim.domain, victim.source)
    owned.check_labels(victim.classes, victim.source)
    if built.victim_access not in victim.grants.implied:
        raise AccessError(
            f"{scheme} needs {built.victim_access.text} of the victim; {victim.source} gives {victim.grants.text}. "
            f"{way_out(built, victim)}"
        )
    if built.needs_labels and owned.labels is None:
        raise ParameterError(f"{scheme} needs data with true labels; {owned.name} has none")
    if built.needs_population and population is None:
        raise ParameterError(f"{scheme} chooses its queries with other models: give a population (--population)")
    if population is not None:
        _check_population(victim, population)
    session = Session(victim, built.victim_access, progress=progress)
    handed = view(session, built.victim_access)
    fingerprint = built.extract(scheme, handed, owned, population=population, queries=queries, seed=seed)
    check, accuracy = _check(victim, owned, seed)
    if population is not None:
        # Whether the scheme looked at them or not: some do where a population is given and do not need one.
        others = (*population.derived, *population.independent)
        fingerprint = replace(fingerprint, population=tuple(sorted(model.digest for model in others)))
    return replace(fingerprint, data=owned.digest, data_name=printable(owned.name), check=check, accuracy=accuracy)


def way_out(scheme: Scheme, model: Model) -> str:
    """What to do where a model gives less than a scheme needs."""
    answers = (model.native.name or "").lower()
    if "answers" in parameters(scheme) and model.native is not Access.LABELS:
        return f"Set --param answers={answers} where the scheme takes them, or see `locard schemes` for others"
    return "See `locard schemes` for those that need less"


def _check_population(victim: Model, population: Population) -> None:
    """Refuse a population in which a model counts twice or is the victim."""
    models = (*population.derived, *population.independent)
    if any(model.digest == victim.digest for model in models):
        raise ParameterError(f"{victim.source} is among the models of its own population: give others")
    for digest in doubles([model.digest for model in models]):
        names = ", ".join(model.source for model in models if model.digest == digest)
        raise ParameterError(f"the population holds the same model twice ({names}); each must be there once")


def printable(name: str) -> str:
    """A file's name as a fingerprint can hold it: bytes that are no UTF-8 are written out."""
    return name.encode(errors="backslashreplace").decode()


def accuracy_on(model: Model, check: dict[str, np.ndarray]) -> float | None:
    """Share of right answers on a fingerprint's check inputs; None without inputs or without labels."""
    if not check or Access.LABELS not in model.grants.implied:
        return None
    labels = view(Session(model, Access.LABELS), Access.LABELS).labels(check["inputs"])
    return float(np.mean(labels == check["labels"]))


def _check(victim: Model, data: Data, seed: int) -> tuple[dict[str, np.ndarray], float | None]:
    if data.labels is None or Access.LABELS not in victim.grants.implied:
        return {}, None
    size = 100 if data.domain.kind == "text" else data.inputs[:1].nbytes
    rows = generator(seed, "check").permutation(len(data))[: max(1, min(CHECK_ROWS, CHECK_BYTES // max(size, 1)))]
    check = {"inputs": data.inputs[rows], "labels": data.labels[rows].astype(np.int64)}
    return check, accuracy_on(victim, check)
