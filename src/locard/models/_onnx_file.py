"""An .onnx file opened by onnxruntime: what it holds, checked, and what it says about itself."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import ArtefactError, ParameterError
from locard.models._onnx_wire import external_files, operator_of
from locard.records import Domain, Lineage

if TYPE_CHECKING:
    import onnxruntime

MAX_BYTES = 2 << 30
"""A protocol buffer has fewer; larger models keep their tensors in files beside it."""

MAX_INPUT = 1 << 28
"""Numbers in one input."""

_SILENT = 4
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What Locard's export writes into a file's metadata, as `locard.domain` and so on, each a JSON value.

    Args:
        domain: what the inputs are, before `mean` and `std`; None where the file does not say.
        outputs: "logits" or another word of that option; None where the file does not say.
        mean: per channel, subtracted from the inputs; None for 0.
        std: per channel, divides the inputs; None for 1.
        lineage: what is known of the model's making.
    """

    domain: Domain | None = None
    outputs: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    lineage: Lineage = field(default_factory=Lineage)

    def to_metadata(self) -> dict[str, str]:
        """As the entries of a file; what is None is left out."""
        values = {
            "domain": None if self.domain is None else self.domain.to_json(),
            "outputs": self.outputs,
            "mean": self.mean,
            "std": self.std,
            "lineage": self.lineage.to_json(),
        }
        return {f"locard.{key}": json.dumps(value) for key, value in values.items() if value is not None}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Note:
        """Read what `to_metadata` wrote; other entries are passed over.

        Raises:
            ArtefactError: an entry is not what it should be; it is named.
        """
        values: dict[str, Any] = {}
        for key in ("domain", "outputs", "mean", "std", "lineage"):
            try:
                value = json.loads(metadata.get(f"locard.{key}", "null"))
                if value is not None:
                    values[key] = _parsed(key, value)
            except (ValueError, RecursionError, ParameterError) as error:
                raise ArtefactError(
                    f"its metadata entry 'locard.{key}' is wrong: {error}; export the model again"
                ) from error
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """The graph's input.

    Args:
        name: as the graph has it.
        dtype: of its numbers.
        batch: the batch size that the graph was exported for, or None where it is free.
        sizes: of the other axes; None where free.
    """

    name: str
    dtype: np.dtype[Any]
    batch: int | None
    sizes: tuple[int | None, ...]

    @property
    def text(self) -> str:
        """In words: "float32 (n, 3, ?, ?)"."""
        sizes = [
            "n" if self.batch is None else str(self.batch),
            *("?" if size is None else str(size) for size in self.sizes),
        ]
        return f"{self.dtype} ({', '.join(sizes)})"

    def channels_last(self, domain: Domain) -> bool | None:
        """Whether images of this domain go in as (h, w, c); None where its inputs do not fit the graph.

        Raises:
            ArtefactError: an input would be larger than any real one.
        """
        if math.prod(domain.shape) > MAX_INPUT:
            raise ArtefactError(
                f"one input would hold {math.prod(domain.shape):,} numbers; at most {MAX_INPUT:,} are taken"
            )
        floats = domain.dtype.startswith("float")
        if domain.kind == "text" or (floats and self.dtype.kind == "i"):
            return None
        if floats and self.dtype.kind == "u" and domain.bounds != (0.0, 1.0):
            return None
        if _agree(domain.shape, self.sizes):
            return False
        turned = (*domain.shape[1:], *domain.shape[:1])
        return True if domain.kind == "image" and len(turned) == 3 and _agree(turned, self.sizes) else None

    def domain(self) -> Domain:
        """The domain as far as the graph tells it: shape and type, no bounds, but [0, 1] for images of bytes.

        Raises:
            ParameterError: the graph leaves open what an input is.
        """
        known = tuple(size for size in self.sizes if size is not None)
        if len(known) < len(self.sizes) or self.dtype.kind == "i" or len(known) not in (1, 3):
            raise ParameterError(
                f"its input {self.name!r} is {self.text}, which does not say what an input is; give domain=Domain(...)"
            )
        if len(known) == 1:
            return Domain(kind="tabular", shape=known, dtype="float64" if self.dtype == np.float64 else "float32")
        shape = (known[2], *known[:2]) if known[0] not in _CHANNELS and known[2] in _CHANNELS else known
        if self.dtype == np.uint8:
            return Domain(kind="image", shape=shape, bounds=(0.0, 1.0), quantum=1 / 255)
        return Domain(kind="image", shape=shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file that onnxruntime has taken.

    Args:
        session: runs it, on the CPU.
        operators: what computes each output.
        digest: SHA-256 of the file, and of the files that hold its tensors if there are any.
        port: its one input.
        note: what it says about itself.
    """

    session: onnxruntime.InferenceSession
    operators: dict[str, str]
    digest: str
    port: Port
    note: Note


def open_file(path: Path, *, threads: int) -> Opened:
    """Read, check and load a file.

    Nothing in it is run but ONNX operators: a graph cannot bring machine code with it, since onnxruntime takes
    libraries of operators from its caller only.

    Args:
        path: the file.
        threads: that onnxruntime may use for one operator.

    Raises:
        ArtefactError: missing, too large, damaged, with tensors in files outside its folder, or with operators that
            onnxruntime does not have.
    """
    content, outside = _read(path)
    digest = _digest(content, [path.parent / name for name in outside])
    session = _session(path if outside else content, threads)
    # Names come out of the file as they are, and may be no UTF-8.
    with _as_damage():
        inputs, metadata = session.get_inputs(), session.get_modelmeta().custom_metadata_map
        operators = {entry.name: operator_of(content, entry.name) for entry in session.get_outputs()}
        port = _port(inputs)
    note = Note.from_metadata(metadata)
    return Opened(session=session, operators=operators, digest=digest, port=port, note=note)


def reason(error: Exception) -> str:
    """What onnxruntime says, in one line, without its own preamble and places in its source."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", "", text)
    text = re.sub(r"^Load model .*? failed:\s*", "", text)
    return re.sub(r"\S*onnxruntime\S*/\S+:\d+ ", "", text)[:300]


def _read(path: Path) -> tuple[bytes, list[str]]:
    """The file's bytes, and the names of the files beside it that hold tensors."""
    try:
        if not path.is_file():
            raise ArtefactError("there is no such file" if not path.exists() else "it is not a file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ArtefactError(
                f"it has {size:,} bytes; at most {MAX_BYTES:,} are read: keep its tensors in a file beside it"
            )
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"it cannot be read: {error.strerror or error}") from error
    if not content:
        raise ArtefactError("it is empty; download or export it again")
    with _as_damage():
        outside = external_files(content)
    home = path.parent.resolve()
    for name in outside:
        target = home / name
        if "\0" in name or not target.resolve().is_relative_to(home):
            raise ArtefactError(f"it keeps tensors in {name!r}, outside its own folder; save the model in one file")
        if not target.is_file():
            raise ArtefactError(f"it keeps tensors in {name!r}, which is not beside it; put that file back")
    return content, outside


@contextmanager
def _as_damage() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ArtefactError(f"it is no ONNX file, or a damaged one: {error}; download or export it again") from error


def _digest(content: bytes, outside: list[Path]) -> str:
    digest = hashlib.sha256(content)
    for path in outside:
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise ArtefactError(f"its tensors in {path.name!r} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.use_deterministic_compute = True
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), sess_options=options, providers=["CPUExecutionProvider"]
        )
    # Its errors share no class but Exception.
    except Exception as error:
        raise ArtefactError(f"onnxruntime does not take it: {reason(error)}") from error


def run_options() -> onnxruntime.RunOptions:
    """Options that keep onnxruntime from writing its errors to standard error; they are raised as well."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = _SILENT
    return options


def _port(entries: Sequence[Any]) -> Port:
    if len(entries) != 1:
        names = ", ".join(repr(entry.name) for entry in entries) or "none"
        raise ArtefactError(
            f"it has {len(entries)} inputs ({names}); expected one: export it with the others as constants"
        )
    (entry,) = entries
    if entry.type not in _DTYPES:
        raise ArtefactError(f"its input {entry.name!r} is a {entry.type}; expected one of {', '.join(_DTYPES)}")
    axes = [size if type(size) is int and size > 0 else None for size in entry.shape]
    if not axes:
        raise ArtefactError(f"its input {entry.name!r} is a single number; expected a batch (n, ...)")
    return Port(name=entry.name, dtype=np.dtype(_DTYPES[entry.type]), batch=axes[0], sizes=tuple(axes[1:]))


def _agree(shape: tuple[int, ...], sizes: tuple[int | None, ...]) -> bool:
    return len(shape) == len(sizes) and all(size in (None, own) for own, size in zip(shape, sizes, strict=True))


def _parsed(key: str, value: Any) -> Any:
    if key == "domain":
        return Domain.from_json(value)
    if key == "lineage":
        return Lineage.from_json(value)
    if key == "outputs":
        if not isinstance(value, str):
            raise ParameterError(f"expected a word; got {value!r}")
        return value
    if not isinstance(value, list) or not all(type(item) in (int, float) for item in value):
        raise ParameterError(f"expected a list of numbers; got {value!r}")
    return tuple(map(float, value))
