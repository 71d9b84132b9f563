"""Calibration: what a score is worth, learnt from models whose making is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from locard.engine.extract import accuracy_on, printable
from locard.engine.respond import Battery, check_askable, score_of
from locard.errors import CalibrationError, LocardError
from locard.evidence.preflight import doubles
from locard.fingerprint import Fingerprint
from locard.models import Model, adapters, description, load
from locard.models.session import Progress
from locard.records import Calibration, Lineage, Reference
from locard.schemes import build

# Folders of folders, as populations are kept; not a whole disk.
DEPTH = 3

Models = Iterable[Any] | Mapping[str, Iterable[Any]]


def calibrate(
    fingerprint: Fingerprint,
    *,
    references: Models,
    derived: Models = (),
    trust: bool = False,
    progress: Progress | None = None,
) -> Fingerprint:
    """Give a fingerprint its null, and its power where derived models are at hand.

    Args:
        fingerprint: what to calibrate; an earlier calibration is replaced.
        references: models made independently of the victim, or a mapping from stratum to models ("disjoint",
            "same-data", "same-architecture", "foreign-theft"). Without a stratum it follows from the lineage in a model
            folder; where that is silent it is "unstated". Folders of models stand for all models in them.
        derived: models known to be derived from the victim, or a mapping from kind of theft to models.
        trust: allow model files whose reading can run code.
        progress: called with (models done, models in all).

    Returns:
        The same fingerprint with a calibration.

    Raises:
        CalibrationError: no reference, the same model twice, the victim itself, a derived model among the references,
            or a model that helped to choose the queries.
    """
    return calibrate_all([fingerprint], references=references, derived=derived, trust=trust, progress=progress)[0]


def calibrate_all(
    fingerprints: Sequence[Fingerprint],
    *,
    references: Models,
    derived: Models = (),
    trust: bool = False,
    progress: Progress | None = None,
    skipped: dict[str, str] | None = None,
) -> list[Fingerprint]:
    """Calibrate several fingerprints of one victim against the same models, each model loaded and asked once.

    Args:
        fingerprints: of one victim.
        references: see `calibrate`.
        derived: see `calibrate`.
        trust: see `calibrate`.
        progress: see `calibrate`.
        skipped: gets the schemes that cannot be asked of one of the models, with the reason, and these are left out;
            None makes them an error.
    """
    if not fingerprints:
        return []
    prints = list(fingerprints)
    nulls, thefts = list(_listed(references)), list(_listed(derived))
    if not nulls:
        raise CalibrationError("calibration needs at least one reference model made independently of the victim")
    rows: list[list[_Row]] = []
    for done, (kind, source) in enumerate(nulls + thefts, start=1):
        model = load(source, like=prints[0].domain, trust=trust)
        if skipped is not None:
            unfit = _unfit(prints, model)
            skipped |= {prints[index].scheme: reason for index, reason in unfit.items()}
            kept = [index for index in range(len(prints)) if index not in unfit]
            prints, rows = [prints[i] for i in kept], [[row[i] for i in kept] for row in rows]
            if not prints:
                return []
        rows.append(_score(prints, model, kind, innocent=done <= len(nulls)))
        if progress is not None:
            progress(done, len(nulls) + len(thefts))
    twice = doubles([row[0].reference.digest for row in rows])
    if twice:
        names = [row[0].reference.name for row in rows if row[0].reference.digest == twice[0]]
        raise CalibrationError(f"the same model is given {len(names)} times ({', '.join(names)}); each counts once")
    stolen = {row[0].reference.digest: row[0].reference.name for row in rows[len(nulls) :]}
    for row in rows[: len(nulls)]:
        if row[0].parent in stolen:
            raise CalibrationError(
                f"{row[0].reference.name} is made from {stolen[row[0].parent]}, which is derived from the victim; give "
                "it as --derived"
            )
    calibrated = []
    for index, fingerprint in enumerate(prints):
        own = [row[index] for row in rows]
        agreements = [row.agreement for row in own[: len(nulls)]]
        mean = None
        if all(agreement is not None for agreement in agreements):
            mean = tuple(float(share) for share in np.mean(np.stack(agreements), axis=0))  # pyright: ignore[reportArgumentType, reportCallIssue]
        calibrated.append(fingerprint.with_calibration(Calibration(
            references=tuple(row.reference for row in own[: len(nulls)]),
            derived=tuple(row.reference for row in own[len(nulls) :]),
            agreement=mean,
        )))  # fmt: skip
    return calibrated


def stratum(victim: Fingerprint, model: Lineage) -> str:
    """The stratum that a reference's lineage puts it in, relative to the victim's."""
    if model.parent is not None or model.derived_by is not None:
        return "foreign-theft"
    if None in (victim.lineage.data, model.data):
        return "unstated"
    if victim.lineage.data != model.data:
        return "disjoint"
    alike = victim.lineage.architecture is not None and victim.lineage.architecture == model.architecture
    return "same-architecture" if alike else "same-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    reference: Reference
    parent: str | None
    agreement: np.ndarray | None


def _unfit(fingerprints: Sequence[Fingerprint], model: Model) -> dict[int, str]:
    """The places of those that cannot be asked of a reference, each with the reason."""
    found: dict[int, str] = {}
    for index, fingerprint in enumerate(fingerprints):
        try:
            check_askable(fingerprint, build(fingerprint.scheme, fingerprint.params), model)
        except LocardError as error:
            found[index] = str(error)
    return found


def _score(fingerprints: Sequence[Fingerprint], model: Model, kind: str | None, *, innocent: bool) -> list[_Row]:
    if innocent and model.digest == fingerprints[0].model:
        raise CalibrationError(f"{model.source} is the victim itself; references must be made without it")
    if innocent and model.lineage.parent == fingerprints[0].model:
        raise CalibrationError(
            f"{model.source} is derived from the victim ({model.lineage.derived_by}); give it as --derived"
        )
    chosen = [fingerprint.scheme for fingerprint in fingerprints if model.digest in fingerprint.population]
    if chosen:
        raise CalibrationError(
            f"{model.source} helped to choose the queries of {', '.join(chosen)} (--population), and what selects "
            "may not calibrate as well: give others"
        )
    known = fingerprints[0].lineage.data
    trained = [fp.scheme for fp in fingerprints if fp.claim == "trained-on"]
    if innocent and trained and known is not None and model.lineage.data == known:
        raise CalibrationError(
            f"{model.source} was trained on the victim's data, so of {', '.join(trained)}, whose claim is trained-on, "
            "it is no innocent: give references trained on other data"
        )
    if kind is None:
        kind = stratum(fingerprints[0], model.lineage) if innocent else model.lineage.derived_by or "unstated"
    battery = Battery(fingerprints, model)
    rows = []
    for fingerprint, scheme, (record, _) in zip(fingerprints, battery.schemes, battery.records(), strict=True):
        rows.append(_Row(
            reference=Reference(
                name=_name(model),
                digest=model.digest,
                stratum=kind,
                score=score_of(fingerprint, record, scheme),
                accuracy=accuracy_on(model, fingerprint.check),
            ),
            parent=model.lineage.parent,
            agreement=scheme.agreement(fingerprint, record),
        ))  # fmt: skip
    return rows


def _listed(models: Models) -> Iterable[tuple[str | None, Any]]:
    groups = models.items() if isinstance(models, Mapping) else [(None, models)]
    for kind, sources in groups:
        if isinstance(sources, str) or hasattr(sources, "__fspath__") or not isinstance(sources, Iterable):
            sources = [sources]
        for source in sources:
            for model in found(source):
                yield kind, model


def found(source: Any) -> list[Any]:
    """A model; a folder that is none stands for the models in it, in the order of their names.

    Raises:
        CalibrationError: the folder holds no model.
    """
    if not (isinstance(source, str) or hasattr(source, "__fspath__")):
        return [source]
    path = Path(source)
    if not path.is_dir() or any(adapters.get(name).recognises(source) for name in adapters.names()):
        return [source]
    try:
        models = _inside(path, DEPTH)
    except OSError as error:
        raise CalibrationError(f"the folder {str(path)!r} cannot be read: {error.strerror or error}") from error
    if not models:
        raise CalibrationError(f"no model in the folder {str(path)!r}")
    return models


def _inside(folder: Path, depth: int) -> list[str]:
    models: list[str] = []
    described: set[str] = set()
    for child in sorted(folder.iterdir()):
        if any(adapters.get(name).recognises(str(child)) for name in adapters.names()):
            models.append(str(child))
            if child.suffix == description.SUFFIX:
                described.add(description.read(child)[0])
        elif depth and child.is_dir() and not child.is_symlink():
            models += _inside(child, depth - 1)
    # A description stands for the file it names, which would else count twice.
    return [model for model in models if model not in described]


def _name(model: Model) -> str:
    # The last part only: a fingerprint must not carry the paths of its maker's machine.
    return printable(Path(model.source).name or model.source)
