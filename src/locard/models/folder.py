"""Our own model folder: `model.safetensors` beside `model.json`, data throughout, the same bytes for the same model.

`model.json` holds the architecture's name and arguments, the domain, the normalisation, and what is known of the
model's making. The weights must be those of the architecture, name by name and shape by shape, of float64 where the
domain is; that is checked before memory for any of them is taken, so a folder may come from a stranger.
"""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import ArtefactError, LocardError, ParameterError, need, unknown
from locard.models._options import batch_rows, refuse_unknown
from locard.models.architectures import build
from locard.models.architectures._arguments import LARGEST_INPUT
from locard.models.base import Adapter, Model, adapters
from locard.models.torch_module import TorchModel
from locard.records import Domain, Lineage

if TYPE_CHECKING:
    from torch import nn

SCHEMA = 1
WEIGHTS, CARD = "model.safetensors", "model.json"
MAX_CARD = 1 << 20
_FIELDS = ("locard_model", "architecture", "arguments", "domain", "mean", "std", "classes", "lineage", "accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What `model.json` says.

    Args:
        architecture: name of the architecture.
        arguments: its arguments, plain JSON values.
        domain: what the inputs are, before `mean` and `std`.
        mean: per channel, subtracted from the inputs; None for 0.
        std: per channel, divides the inputs; None for 1.
        classes: names of the classes, or ().
        lineage: what is known of the model's making.
        accuracy: share of right answers on its maker's test data, in [0, 1], or None.

    Raises:
        ParameterError: a field is wrong; the message names it.
    """

    architecture: str
    arguments: dict[str, Any]
    domain: Domain
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()
    lineage: Lineage = field(default_factory=Lineage)
    accuracy: float | None = None

    def __post_init__(self) -> None:
        """Check the fields that no other type checks."""
        if not isinstance(self.architecture, str):
            raise ParameterError(f"architecture must be a name; got {self.architecture!r}")
        if not isinstance(self.arguments, dict) or not all(isinstance(key, str) for key in self.arguments):
            raise ParameterError(f"arguments must be a JSON object; got {self.arguments!r}")
        texts = self.domain.kind == "text"
        if texts != (self.domain.dtype == "str") or texts == bool(self.domain.shape):
            raise ParameterError(f"domain must be of numbers with a shape, or of texts; got {self.domain.text}")
        if texts and (self.mean is not None or self.std is not None):
            raise ParameterError("mean and std must be null where the inputs are texts")
        if math.prod(self.domain.shape) > LARGEST_INPUT:
            raise ParameterError(f"domain.shape must hold at most {LARGEST_INPUT:,} numbers; got {self.domain.text}")
        channels = 1 if texts else self.domain.shape[0]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) not in (1, channels) or not all(map(_is_finite, values))):
                raise ParameterError(f"{name} must be 1 or {channels} finite numbers, or null; got {list(values)!r}")
        if self.std is not None and min(self.std) <= 0:
            raise ParameterError(f"std must be positive; got {list(self.std)!r}")
        if not all(isinstance(one, str) for one in self.classes):
            raise ParameterError(f"classes must be a list of names; got {list(self.classes)!r}")
        if self.accuracy is not None and not (_is_finite(self.accuracy) and 0 <= self.accuracy <= 1):
            raise ParameterError(f"accuracy must lie in [0, 1] or be null; got {self.accuracy!r}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, in the order of the file."""
        return {
            "locard_model": SCHEMA,
            "architecture": self.architecture,
            "arguments": self.arguments,
            "domain": self.domain.to_json(),
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "classes": list(self.classes),
            "lineage": self.lineage.to_json(),
            "accuracy": self.accuracy,
        }

    @classmethod
    def from_json(cls, value: Any) -> Card:
        """Read what `to_json` wrote; a wrong field is a `ParameterError` that names it."""
        if not isinstance(value, dict):
            raise ParameterError(f"it must hold a JSON object; got {type(value).__name__}")
        schema = value.get("locard_model")
        if type(schema) is not int or schema < 1:
            raise ParameterError(f"locard_model must be a positive whole number; got {schema!r}")
        if schema > SCHEMA:
            raise ParameterError(f"schema {schema} is newer than this Locard reads ({SCHEMA}); install a newer Locard")
        for name in value:
            if name not in _FIELDS:
                raise unknown("field", name, _FIELDS)
        missing = [name for name in _FIELDS if name not in value]
        if missing:
            raise ParameterError(f"the field {missing[0]!r} is missing")
        for name in ("mean", "std", "classes"):
            if not isinstance(value[name], list) and not (value[name] is None and name != "classes"):
                raise ParameterError(f"{name} must be a list; got {value[name]!r}")
        return cls(
            architecture=value["architecture"],
            arguments=value["arguments"],
            domain=Domain.from_json(value["domain"]),
            mean=None if value["mean"] is None else tuple(value["mean"]),
            std=None if value["std"] is None else tuple(value["std"]),
            classes=tuple(value["classes"]),
            lineage=Lineage.from_json(value["lineage"]),
            accuracy=value["accuracy"],
        )


def save(
    path: str | os.PathLike[str],
    module: nn.Module,
    *,
    architecture: str,
    arguments: dict[str, Any],
    domain: Domain,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] = (),
    lineage: Lineage | None = None,
    accuracy: float | None = None,
) -> Path:
    """Write a model folder; each of its files is written whole or not at all.

    Args:
        path: the folder, made if it is not there; a model already in it is replaced.
        module: has the parameters and buffers of that architecture; left as it is.
        architecture: a name of `architectures`.
        arguments: what it was built from, plain JSON values.
        domain: what the inputs are, before `mean` and `std`.
        mean: per channel, subtracted from the inputs; None for 0.
        std: per channel, divides the inputs; None for 1.
        classes: names of the classes, or ().
        lineage: what is known of the model's making; the architecture's name is filled in where it is not said.
        accuracy: share of right answers on test data, in [0, 1], or None.

    Returns:
        The folder.

    Raises:
        ParameterError: a field is wrong, or the module is none of that architecture.
        ArtefactError: the folder may not be written.
    """
    safetensors = need("safetensors.torch", extra="torch", why="writing a model folder")
    from locard.models._torch import check_takes

    lineage = lineage or Lineage()
    if lineage.architecture is None:
        lineage = replace(lineage, architecture=architecture)
    card = Card(
        architecture=architecture,
        arguments=_plain(arguments),
        domain=domain,
        mean=None if mean is None else tuple(float(one) for one in mean),
        std=None if std is None else tuple(float(one) for one in std),
        classes=tuple(classes),
        lineage=lineage,
        accuracy=None if accuracy is None else float(accuracy),
    )
    # Copies, because tensors that share memory have no place in the file.
    state = {name: one.detach().cpu().clone().contiguous() for name, one in module.state_dict().items()}
    skeleton = _skeleton(card)
    check_takes(skeleton, domain)
    wrong = _difference(skeleton, {name: (tuple(one.shape), one.dtype) for name, one in state.items()})
    if wrong:
        raise ParameterError(f"the module is no {architecture} with these arguments: {wrong}")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
            (Path(part) / WEIGHTS).write_bytes(safetensors.save(state))
            (Path(part) / CARD).write_text(json.dumps(card.to_json(), indent=2, allow_nan=False) + "\n", "utf-8")
            # Without its card the folder is no model, so a crash from here on leaves no mixture of two.
            (folder / CARD).unlink(missing_ok=True)
            for name in (WEIGHTS, CARD):
                (Path(part) / name).replace(folder / name)
    except OSError as error:
        raise ArtefactError(f"cannot write the model folder {str(folder)!r}: {error.strerror or error}") from error
    return folder


def read_card(path: str | os.PathLike[str]) -> Card:
    """What a model folder says of its model: its making, accuracy, classes; no torch is needed.

    Raises:
        ArtefactError: no such file, too large, no JSON, or a field that is wrong, which is named.
    """
    where = f"the model folder {os.fspath(path)!r}"
    try:
        raw = _start(Path(path) / CARD)
        if len(raw) > MAX_CARD:
            raise ArtefactError(f"{where} has a {CARD} of more than {MAX_CARD:,} bytes")
        return Card.from_json(json.loads(raw, parse_constant=_refuse_constant))
    except OSError as error:
        raise ArtefactError(f"{where}: {CARD} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{where}: {CARD} is no JSON: {error}") from error
    except ParameterError as error:
        raise ArtefactError(f"{where}: {CARD} is wrong: {error}") from error


@adapters.register("folder")
class FolderAdapter(Adapter):
    """A folder with our `model.json`."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """Whether it is a folder whose `model.json` speaks of a Locard model, sound or not."""
        if not isinstance(source, str | os.PathLike):
            return False
        try:
            return b'"locard_model"' in _start(Path(os.fspath(source)) / CARD)
        except (OSError, ValueError):
            return False

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Read it; the folder says all there is to say but the `batch_size`."""
        refuse_unknown(options, ("batch_size",), of="a model folder, which says the rest itself,")
        return read(source, batch_size=batch_rows(options["batch_size"]) if options else None)


def read(path: str | os.PathLike[str], *, batch_size: int | None = None) -> TorchModel:
    """A model folder as a model with gradients and weights, on the CPU.

    Args:
        path: the folder.
        batch_size: inputs in one forward pass; None for the usual number, see `TorchModel`.

    Raises:
        MissingExtraError: torch is not installed.
        ArtefactError: a file is missing or damaged, a field is wrong, or the weights are not the architecture's.
    """
    if batch_size is not None:
        batch_size = batch_rows(batch_size)
    card, where = read_card(path), f"the model folder {os.fspath(path)!r}"
    need("torch", extra="torch", why=where)
    from safetensors import SafetensorError, safe_open

    weights = Path(path) / WEIGHTS
    if weights.exists() and not weights.is_file():
        raise ArtefactError(f"{where}: {WEIGHTS} is not a file")
    try:
        module = _skeleton(card)
        with safe_open(weights, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (tuple(one.get_shape()), _DTYPES.get(one.get_dtype())) for name, one in parts.items()}
            wrong = _difference(module, {name: (shape, _torch(dtype)) for name, (shape, dtype) in found.items()})
            if wrong:
                raise ArtefactError(f"{WEIGHTS} does not fit {CARD}: {wrong}")
            module.load_state_dict({name: file.get_tensor(name) for name in parts}, assign=True)
        model = TorchModel(
            module.eval(), domain=card.domain, mean=card.mean, std=card.std, source=os.fspath(path),
            lineage=card.lineage, batch_size=batch_size,
        )  # fmt: skip
    except OSError as error:
        raise ArtefactError(f"{where}: {WEIGHTS} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ArtefactError(f"{where}: {WEIGHTS} is damaged: {error}") from error
    except LocardError as error:
        raise ArtefactError(f"{where}: {error}") from error
    if card.classes and len(card.classes) != model.classes:
        raise ArtefactError(f"{where} names {len(card.classes)} classes; the model answers {model.classes}")
    return model


_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}


def _skeleton(card: Card) -> nn.Module:
    """The architecture without memory for its weights, which are float64 where the inputs are."""
    torch = need("torch", extra="torch", why=f"the architecture {card.architecture!r}")
    with torch.device("meta"):
        module = build(card.architecture, **card.arguments)
    return module.double() if card.domain.dtype == "float64" else module


def _difference(module: nn.Module, found: dict[str, tuple[tuple[int, ...], Any]]) -> str:
    """What keeps these shapes and dtypes from being the module's state, or ""."""
    wanted = {name: (tuple(one.shape), one.dtype) for name, one in module.state_dict().items()}
    for name in sorted(wanted.keys() ^ found.keys()):
        return f"the tensor {name!r} is {'missing' if name in wanted else 'none of the architecture'}"
    for name, (shape, dtype) in wanted.items():
        if found[name] != (shape, dtype):
            return f"the tensor {name!r} must be {dtype} {shape}; got {found[name][1]} {found[name][0]}"
    return ""


def _torch(name: str | None) -> Any:
    import torch

    return None if name is None else getattr(torch, name)


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(arguments, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"arguments must be plain JSON values; got {arguments!r}: {error}") from error


def _start(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", os.fspath(path))
    with path.open("rb") as stream:
        return stream.read(MAX_CARD + 1)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
