"""A `.toml` file that says of a model what the model's own file or URL cannot.

model = "suspect.onnx"            # a path from here, or an http(s) URL
outputs = "probabilities"         # or "logits", "labels", "values"
mean = [0.5]
std = [0.25]
batch_size = 64

[domain]
kind = "image"
shape = [1, 28, 28]
bounds = [0, 1]
quantum = 0.00392156862745098

[options]                         # the adapter's own; of an endpoint, say
name = "classifier"
token_env = "LOCARD_TOKEN"
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from locard.errors import ArtefactError, ParameterError, unknown
from locard.models._options import path_with_suffix
from locard.models.base import Adapter, Model, adapters
from locard.records import Domain

SUFFIX = ".toml"
MAX_BYTES = 1 << 20
# A description may come from a stranger, and says to whom a secret of its reader's is sent; these are meant for Locard.
TOKENS = "LOCARD_"
_KEYS = ("model", "outputs", "domain", "mean", "std", "batch_size", "options")
_DOMAIN_KEYS = ("kind", "shape", "dtype", "bounds", "quantum", "columns")


@adapters.register("description")
class DescriptionAdapter(Adapter):
    """A `.toml` file beside a model."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """Whether it is a path that ends in .toml."""
        return path_with_suffix(source, SUFFIX)

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Read the model that it describes; what the caller says goes before what the file says."""
        from locard.models import load

        target, described = read(source, trust=trust)
        return load(target, like=like, trust=trust, **{**described, **options})


def read(path: str | os.PathLike[str], *, trust: bool = False) -> tuple[str, dict[str, Any]]:
    """What a description says.

    Args:
        path: the file.
        trust: let it send any variable of the environment as a token, not only those that begin with "LOCARD_".

    Returns:
        The model's path or URL, and the options to load it with.

    Raises:
        ArtefactError: the file is missing, too large or no TOML; a key is unknown or has a wrong value; or the model is
            a description itself.
    """
    where = f"the description {os.fspath(path)!r}"
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ArtefactError(f"{where} is not a file")
        with Path(path).open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ArtefactError(f"{where} has more than {MAX_BYTES:,} bytes")
        said = tomllib.loads(text.decode())
        return _target(said, Path(path).parent), _options(said, trust)
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{where} is no TOML: {error}") from error
    except ParameterError as error:
        raise ArtefactError(f"{where}: {error}") from error


def _target(said: dict[str, Any], folder: Path) -> str:
    for key in said:
        if key not in _KEYS:
            raise unknown("key", key, _KEYS)
    model = said.get("model")
    if not isinstance(model, str) or not model or "\0" in model:
        raise ParameterError(f"model must be a path or URL; got {model!r}")
    if path_with_suffix(model, SUFFIX):
        raise ParameterError(f"model is a description itself, {model!r}; name the model's own file")
    scheme, mark, _ = model.partition("://")
    if not mark:
        return str(folder / model)
    if scheme.lower() not in ("http", "https"):
        raise ParameterError(f"model must be a path or an http(s) URL; got {model!r}")
    return model


def _options(said: dict[str, Any], trust: bool) -> dict[str, Any]:
    options = said.get("options", {})
    if not isinstance(options, dict):
        raise ParameterError(f"options must be a table; got {options!r}")
    for name in options:
        if name in _KEYS:
            raise ParameterError(f"{name} has its place at the top of the file, not under [options]")
        if name in ("source", "like", "trust"):
            raise ParameterError(f"{name} is no option that a file can set; say it where you load the file")
    token = options.get("token_env")
    if token is not None and not trust and not str(token).startswith(TOKENS):
        raise ParameterError(
            f"it asks to send your environment's {token!r} to the model's host, which only variables that begin with "
            f"{TOKENS} are for; rename yours, or pass --trust (trust=True) if you wrote this file"
        )
    read = {name: said[name] for name in ("outputs", "batch_size") if name in said}
    _expect(said, "outputs", str, "a word")
    _expect(said, "batch_size", int, "a whole number")
    if read.get("batch_size", 1) < 1:
        raise ParameterError(f"batch_size must be at least 1; got {read['batch_size']!r}")
    for name in ("mean", "std"):
        if name in said:
            read[name] = _numbers(name, said[name])
    if "domain" in said:
        read["domain"] = _domain(said["domain"])
    return {**read, **options}


def _expect(said: dict[str, Any], name: str, kind: type, text: str) -> None:
    if name in said and type(said[name]) is not kind:
        raise ParameterError(f"{name} must be {text}; got {said[name]!r}")


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(type(one) in (int, float) for one in values):
        raise ParameterError(f"{name} must be a list of numbers, one or one a channel; got {value!r}")
    return tuple(float(one) for one in values)


def _domain(value: Any) -> Domain:
    if not isinstance(value, dict):
        raise ParameterError(f"domain must be a table; got {value!r}")
    for key in value:
        if key not in _DOMAIN_KEYS:
            raise unknown("key of [domain]", key, _DOMAIN_KEYS)
    if value.get("kind") == "text":
        return Domain.from_json({"shape": [], "dtype": "str", **value})
    return Domain.from_json(value)
