"""`locard inspect`: what a file is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from locard.cli._options import JsonOption, TrustOption, print_json


def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A fingerprint, a model or a data set.")],
    as_json: JsonOption = False,
    trust: TrustOption = False,
) -> None:
    """Say what a fingerprint, a model or a data set is."""
    found = describe(path, trust=trust)
    if as_json:
        print_json(found)
        return
    from locard.reports.numerals import plain

    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {plain(_text(value))}")


def describe(path: str, *, trust: bool) -> dict[str, Any]:
    """What a path holds, as plain JSON values."""
    from locard.data.base import readers
    from locard.fingerprint import SUFFIX, Fingerprint
    from locard.models import load

    if path.endswith(SUFFIX):
        return _fingerprint(Fingerprint.load(path))
    if any(readers.get(kind).recognises(path) for kind in readers.names()):
        from locard.data import read

        return _data(read(path))
    return _model(load(path, trust=trust))


def _fingerprint(fp: Any) -> dict[str, Any]:
    calibration = fp.calibration
    strata: dict[str, int] = {}
    for reference in calibration.references if calibration else ():
        strata[reference.stratum] = strata.get(reference.stratum, 0) + 1
    return {
        "kind": "fingerprint",
        "scheme": fp.scheme,
        "params": fp.params,
        "claim": fp.claim,
        "queries": fp.cost,
        "domain": fp.domain.text,
        "classes": fp.classes,
        "victim": fp.model,
        "victim_access": fp.victim_access,
        "suspect_access": fp.suspect_access,
        "seed": fp.seed,
        "data": fp.data_name,
        "content": fp.content,
        "calibration": fp.calibration_digest,
        "references": strata,
        "derived": len(calibration.derived) if calibration else 0,
        "versions": fp.versions,
    }


def _data(data: Any) -> dict[str, Any]:
    return {
        "kind": "data",
        "name": data.name,
        "n": len(data),
        "domain": data.domain.text,
        "labelled": data.labels is not None,
        "classes": list(data.classes),
        "digest": data.digest,
    }


def _model(model: Any) -> dict[str, Any]:
    return {
        "kind": "model",
        "source": model.source,
        "domain": model.domain.text,
        "classes": model.classes,
        "access": model.grants.text,
        "remote": model.remote,
        "lineage": {key: value for key, value in model.lineage.to_json().items() if value is not None},
        "digest": model.digest,
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
