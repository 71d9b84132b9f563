"""Frozen dataclasses from what a TOML file holds, each value checked against the field's annotation."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar, cast

from locard.errors import LocardError, ParameterError, unknown

T = TypeVar("T")

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def read(kind: type[T], value: Any, where: str) -> T:
    """An instance of a dataclass.

    Args:
        kind: its fields are of type str, int, float, bool, Any, a `Literal`, another such dataclass, a tuple of any
            length or a dictionary by name of these, or one of these or None.
        value: a table of the file.
        where: it stands, for messages.

    Raises:
        ParameterError: no table, a field that is unknown or missing, or a value of the wrong type or out of range.
    """
    if not isinstance(value, dict):
        raise ParameterError(f"{where} must be a table; got {value!r}")
    table = cast("dict[str, Any]", value)
    fields = {field.name: field for field in dataclasses.fields(cast("Any", kind))}
    for key in table:
        if key not in fields:
            raise unknown(f"field of {where}:", key, fields)
    for key, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and key not in table:
            raise ParameterError(f"{where} lacks {key!r}")
    hints = typing.get_type_hints(kind)
    values = {key: _value(hints[key], one, f"{where}: {key}") for key, one in table.items()}
    try:
        return kind(**values)
    except LocardError as error:
        raise ParameterError(f"{where}: {error}") from error


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _value(next(one for one in inner if one is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in inner:
            raise ParameterError(f"{where} must be one of {', '.join(map(repr, inner))}; got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ParameterError(f"{where} must be a list; got {value!r}")
        return tuple(_value(inner[0], one, f"{where}[{number}]") for number, one in enumerate(cast("Any", value)))
    if origin is dict:
        if not isinstance(value, dict):
            raise ParameterError(f"{where} must be a table; got {value!r}")
        return {
            _value(inner[0], key, f"each name in {where}"): _value(inner[1], one, f"{where}.{key}")
            for key, one in cast("Any", value).items()
        }
    if dataclasses.is_dataclass(kind):
        return read(cast("type[Any]", kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParameterError(f"{where} must be {_WORDS[kind]}; got {value!r}")
    return value
