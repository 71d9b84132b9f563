"""The fingerprint: what an owner keeps of a model, as one safetensors file that is data and never code.

File format, schema 1. Suffix `.locard`, the safetensors container, one metadata entry `locard` that holds a JSON
header, and tensors in three groups: `queries/NAME` (what is asked), `record/NAME` (what the model answered, reduced by
the scheme) and `check/NAME` (labelled inputs on which reference models show their accuracy). Strings are stored as
UTF-8 bytes (`NAME@utf8`) with their ends (`NAME@ends`). The header carries two SHA-256 digests: `content`, over
everything but the calibration, and `calibration`. Same inputs, seed, versions and thread count give the same bytes.
"""

# JSON from files comes in untyped; each field is checked by hand.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from locard.errors import ArtefactError, LocardError
from locard.records import Calibration, Claim, Domain, Lineage, Reference, digest_arrays

SCHEMA = 1
SUFFIX = ".locard"
MAX_BYTES = 2 << 30
MAX_HEADER = 64 << 20
_GROUPS = ("queries", "record", "check")
_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "uint8", "bool")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fingerprint:
    """A model's record on a set of queries, with all that is needed to ask another model the same.

    Args:
        scheme: registered name, or a composed form "sampler+representation+distance".
        params: every parameter of the scheme that changes the value.
        claim: what a match supports.
        seed: seed of the extraction.
        cost: queries that one `respond` asks of a suspect.
        domain: what the queries are.
        classes: number of classes of the model, or None.
        model: digest of the model whose record this is.
        lineage: what is known of that model's making.
        accuracy: its share of right answers on the check inputs, or None.
        data: digest of the data the queries were drawn from.
        data_name: its name, for people.
        victim_access: rungs needed to extract.
        suspect_access: rungs needed to respond.
        versions: of the libraries that made it.
        population: digests of the models that helped to choose the queries, which may be judged nowhere.
        queries: arrays by name.
        record: arrays by name.
        check: "inputs" and "labels", or empty.
        calibration: null scores and power, or None.
    """

    scheme: str
    params: dict[str, Any]
    claim: Claim
    seed: int
    cost: int
    domain: Domain
    classes: int | None
    model: str
    lineage: Lineage
    victim_access: str
    suspect_access: str
    versions: dict[str, str]
    queries: dict[str, np.ndarray]
    record: dict[str, np.ndarray]
    population: tuple[str, ...] = ()
    accuracy: float | None = None
    data: str | None = None
    data_name: str | None = None
    check: dict[str, np.ndarray] = field(default_factory=dict)
    calibration: Calibration | None = None
    # Taken once: it hashes every query, and each verdict names it.
    _content: str | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def content(self) -> str:
        """SHA-256 over everything but the calibration: what a commitment covers."""
        if self._content is None:
            total = hashlib.sha256(_canonical(self._header()))
            for name, array in sorted(self.tensors().items()):
                total.update(f"{name}:{digest_arrays(array)}".encode())
            object.__setattr__(self, "_content", total.hexdigest())
        return cast("str", self._content)

    @property
    def calibration_digest(self) -> str | None:
        """SHA-256 over the calibration, or None."""
        if self.calibration is None:
            return None
        return hashlib.sha256(_canonical(_calibration_to_json(self.calibration))).hexdigest()

    def with_calibration(self, calibration: Calibration | None) -> Fingerprint:
        """The same fingerprint, calibrated anew; `content` does not change."""
        return replace(self, calibration=calibration)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        from safetensors.numpy import save

        header = self._header()
        header["calibration"] = None if self.calibration is None else _calibration_to_json(self.calibration)
        header["digests"] = {"content": self.content, "calibration": self.calibration_digest}
        return save(self.tensors(), metadata={"locard": _canonical(header).decode()})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all, readable by its owner alone.

        Raises:
            ArtefactError: the folder is missing or may not be written.
        """
        target = Path(path)
        try:
            descriptor, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(self.to_bytes())
                Path(part).replace(target)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ArtefactError(f"cannot write the fingerprint {str(target)!r}: {error.strerror or error}") from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Fingerprint:
        """Read a file, a stranger's too: sizes are checked before anything is allocated, nothing is executed.

        Args:
            path: the file.
            max_bytes: larger files are refused unread.

        Raises:
            ArtefactError: no such file, too large, truncated, damaged, or a field that is wrong, which is named.
        """
        return read(Path(path), max_bytes)

    def _header(self) -> dict[str, Any]:
        header: dict[str, Any] = {
            "schema": SCHEMA,
            "scheme": self.scheme,
            "params": self.params,
            "claim": self.claim,
            "seed": self.seed,
            "cost": self.cost,
            "domain": self.domain.to_json(),
            "classes": self.classes,
            "model": self.model,
            "lineage": self.lineage.to_json(),
            "accuracy": self.accuracy,
            "data": self.data,
            "data_name": self.data_name,
            "victim_access": self.victim_access,
            "suspect_access": self.suspect_access,
            "versions": self.versions,
        }
        # Only where there is one, so that files from before it keep their digests.
        return header | ({"population": list(self.population)} if self.population else {})

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays as the file holds them, by "group/name"."""
        tensors: dict[str, np.ndarray] = {}
        for group, arrays in zip(_GROUPS, (self.queries, self.record, self.check), strict=True):
            for name, array in arrays.items():
                if array.dtype.kind in "OU":
                    encoded = [str(item).encode() for item in array.ravel()]
                    tensors[f"{group}/{name}@utf8"] = np.frombuffer(b"".join(encoded), np.uint8)
                    tensors[f"{group}/{name}@ends"] = np.cumsum([len(item) for item in encoded], dtype=np.int64)
                else:
                    tensors[f"{group}/{name}"] = np.ascontiguousarray(array)
        return tensors


def read(path: Path, max_bytes: int) -> Fingerprint:
    """See `Fingerprint.load`."""
    from safetensors import SafetensorError, safe_open

    where = f"the fingerprint {str(path)!r}"
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ArtefactError(f"{where} is not a file")
        if size > max_bytes:
            raise ArtefactError(f"{where} has {size:,} bytes; at most {max_bytes:,} are read")
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise ArtefactError(f"{where} is truncated or no fingerprint: its header is longer than the file")
        if length > MAX_HEADER:
            raise ArtefactError(f"{where} has a header of {length:,} bytes; at most {MAX_HEADER:,} are read")
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get("locard")
            if text is None:
                raise ArtefactError(f"{where} is a safetensors file but no fingerprint: it has no 'locard' header")
            header = json.loads(text, parse_constant=_refuse_constant)
            # Refuses what JSON reads but cannot write again: 1e999, lone surrogates, nesting without end.
            _canonical(header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    # AttributeError: safetensors knows number formats of 8 bits and less that NumPy does not.
    except (SafetensorError, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{where} is damaged or no fingerprint: {error}") from error
    try:
        return _parse(header, tensors)
    except LocardError as error:
        raise ArtefactError(f"{where} is damaged or altered: {error}") from error


def _parse(header: Any, tensors: dict[str, np.ndarray]) -> Fingerprint:
    if not isinstance(header, dict):
        raise ArtefactError("the header must be a JSON object")
    schema = header.get("schema")
    if type(schema) is not int or schema < 1:
        raise ArtefactError(f"schema must be a positive integer; got {schema!r}")
    if schema > SCHEMA:
        raise ArtefactError(f"schema {schema} is newer than this Locard reads ({SCHEMA}); install a newer Locard")
    kinds: dict[str, tuple[type, ...]] = {
        "schema": (int,), "scheme": (str,), "params": (dict,), "claim": (str,), "seed": (int,), "cost": (int,),
        "domain": (dict,), "classes": (int, type(None)), "model": (str,), "lineage": (dict,),
        "accuracy": (float, int, type(None)), "data": (str, type(None)), "data_name": (str, type(None)),
        "victim_access": (str,), "suspect_access": (str,), "versions": (dict,), "digests": (dict,),
        "calibration": (dict, type(None)), "population": (list,),
    }  # fmt: skip
    header = {"population": [], **header}
    for name in header:
        if name not in kinds:
            raise ArtefactError(f"unknown field {name!r}")
    for name, kind in kinds.items():
        if name not in header:
            raise ArtefactError(f"field {name!r} is missing")
        if not isinstance(header[name], kind) or isinstance(header[name], bool):
            raise ArtefactError(f"field {name!r} must be {' or '.join(k.__name__ for k in kind)}")
    if header["claim"] not in get_args(Claim):
        raise ArtefactError(f"field 'claim' must be one of {', '.join(get_args(Claim))}; got {header['claim']!r}")
    if header["seed"] < 0 or header["cost"] < 0:
        raise ArtefactError("fields 'seed' and 'cost' must be >= 0")
    if header["classes"] is not None and header["classes"] < 1:
        raise ArtefactError(f"field 'classes' must be >= 1 or null; got {header['classes']}")
    if header["accuracy"] is not None and not 0 <= header["accuracy"] <= 1:
        raise ArtefactError("field 'accuracy' must lie in [0, 1] or be null")
    groups = _group(tensors)
    _check_rows(groups["check"])
    fields: dict[str, Any] = {name: header[name] for name in kinds if name not in ("schema", "digests", "calibration")}
    fields["population"] = _digests(header["population"])
    fields["domain"] = Domain.from_json(header["domain"])
    fields["lineage"] = Lineage.from_json(header["lineage"])
    calibration = None if header["calibration"] is None else _calibration_from_json(header["calibration"])
    fields |= groups
    fingerprint = Fingerprint(**fields, calibration=calibration)
    # What the digest does not cover must not be there: ends without a text, one name in two forms.
    for name in sorted(tensors.keys() - fingerprint.tensors().keys()):
        raise ArtefactError(f"unexpected tensor {name!r}")
    for name, found in (("content", fingerprint.content), ("calibration", fingerprint.calibration_digest)):
        if header["digests"].get(name) != found:
            raise ArtefactError(f"the {name} digest does not match what the file holds")
    return fingerprint


def _group(tensors: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _GROUPS}
    for name, array in tensors.items():
        group, _, key = name.partition("/")
        if group not in groups or not key:
            raise ArtefactError(f"unexpected tensor {name!r}")
        if array.dtype.name not in _DTYPES:
            raise ArtefactError(f"tensor {name!r} has dtype {array.dtype}; allowed: {', '.join(_DTYPES)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArtefactError(f"tensor {name!r} holds NaN or infinity")
        if key.endswith("@utf8"):
            key = key.removesuffix("@utf8")
            groups[group][key] = _strings(name, array, tensors.get(f"{group}/{key}@ends"))
        elif not key.endswith("@ends"):
            groups[group][key] = array
    return groups


def _digests(value: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(digest, str) for digest in value) or value != sorted(set(value)):
        raise ArtefactError("field 'population' must be a list of digests, sorted, each once")
    return tuple(value)


def _check_rows(check: dict[str, np.ndarray]) -> None:
    if not check:
        return
    inputs, labels = check.get("inputs"), check.get("labels")
    if len(check) != 2 or inputs is None or labels is None:
        raise ArtefactError(f"group 'check' must hold 'inputs' and 'labels' or nothing; got {', '.join(sorted(check))}")
    if labels.dtype.kind not in "iu" or inputs.shape[:1] != labels.shape or labels.size == 0:
        raise ArtefactError(
            f"tensor 'check/labels' must hold a whole number for each input of 'check/inputs'; got {labels.dtype} "
            f"{labels.shape} for inputs {inputs.shape}"
        )


def _strings(name: str, data: np.ndarray, ends: np.ndarray | None) -> np.ndarray:
    unfit = ArtefactError(f"tensor {name!r} and its ends do not fit together")
    if ends is None or ends.dtype != np.int64 or ends.ndim != 1 or data.dtype != np.uint8 or data.ndim != 1:
        raise unfit
    if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != len(data):
        raise unfit
    raw, marks = data.tobytes(), [0, *ends.tolist()]
    try:
        items = [raw[start:end].decode() for start, end in pairwise(marks)]
    except UnicodeDecodeError:
        raise ArtefactError(f"tensor {name!r} is no UTF-8") from None
    return np.array(items, dtype=object)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    return {
        "references": [asdict(model) for model in calibration.references],
        "derived": [asdict(model) for model in calibration.derived],
        "agreement": None if calibration.agreement is None else list(calibration.agreement),
    }


def _calibration_from_json(value: dict[str, Any]) -> Calibration:
    if set(value) != {"references", "derived", "agreement"}:
        raise ArtefactError("field 'calibration' must hold references, derived and agreement")
    agreement = value["agreement"]
    if agreement is not None and not (
        isinstance(agreement, list) and all(isinstance(item, float) and 0 <= item <= 1 for item in agreement)
    ):
        raise ArtefactError("field 'calibration.agreement' must be a list of numbers in [0, 1], or null")
    return Calibration(
        references=_references(value["references"], "references"),
        derived=_references(value["derived"], "derived"),
        agreement=None if agreement is None else tuple(agreement),
    )


def _references(rows: Any, where: str) -> tuple[Reference, ...]:
    if not isinstance(rows, list):
        raise ArtefactError(f"field 'calibration.{where}' must be a list")
    models = []
    for row in rows:
        if not isinstance(row, dict) or set(row) != {"name", "digest", "stratum", "score", "accuracy"}:
            raise ArtefactError(f"a row of 'calibration.{where}' must hold name, digest, stratum, score and accuracy")
        texts = all(isinstance(row[key], str) for key in ("name", "digest", "stratum"))
        numbers = isinstance(row["score"], float) and isinstance(row["accuracy"], float | None)
        if not texts or not numbers:
            raise ArtefactError(f"a row of 'calibration.{where}' has a field of the wrong type")
        models.append(Reference(**row))
    if len({model.digest for model in models}) < len(models):
        raise ArtefactError(f"'calibration.{where}' names the same model twice; each counts once")
    return tuple(models)
