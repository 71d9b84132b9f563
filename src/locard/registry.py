"""Names to classes: our own files are found by scanning a room, other packages' through entry points.

`LOCARD_PLUGINS=none` in the environment leaves other packages out.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
import warnings
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from locard.errors import ParameterError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(Generic[T]):
    """The implementations of one kind of thing, by name.

    Args:
        kind: what they are, in the singular, for messages ("scheme").
        package: the room whose modules register themselves when imported; names that start with "_" are left alone.
        group: the entry-point group of other packages, or None.
    """

    def __init__(self, kind: str, package: str, group: str | None = None) -> None:
        self._kind, self._package, self._group = kind, package, group
        self._table: dict[str, type[T]] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that enters a class under `name`; a name taken twice is an error."""

        def enter(cls: C) -> C:
            taken = self._table.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ParameterError(
                    f"{self._kind} name {name!r} is taken twice: by {taken.__module__} and by {cls.__module__}"
                )
            self._table[name] = cast("type[T]", cls)
            return cls

        return enter

    def names(self) -> list[str]:
        """All names, sorted."""
        self._scan()
        return sorted(self._table)

    def get(self, name: str) -> type[T]:
        """The class registered as `name`; an unknown name is a `ParameterError` with the nearest ones."""
        self._scan()
        try:
            return self._table[name]
        except KeyError:
            raise unknown(self._kind, name, self._table) from None

    def __contains__(self, name: object) -> bool:
        """Whether `name` is registered."""
        self._scan()
        return name in self._table

    def _scan(self) -> None:
        if self._complete:
            return
        self._complete = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self._package}.{module.name}")
        if self._group is not None and os.environ.get("LOCARD_PLUGINS") != "none":
            for entry in entry_points(group=self._group):
                self._load_plugin(entry)

    def _load_plugin(self, entry: Any) -> None:
        # A stranger's broken package must not take Locard down with it, whatever it raises.
        try:
            self.register(entry.name)(entry.load())
        except Exception as error:
            origin = entry.dist.name if entry.dist is not None else entry.value
            warnings.warn(f"the {self._kind} {entry.name!r} of {origin} cannot be used: {error}", stacklevel=2)


def construct(cls: type[Any], params: dict[str, Any], what: str) -> Any:
    """An instance of a frozen dataclass, its parameters checked against the fields; text is read as a field's type.

    Args:
        cls: its fields are of type bool, int, float or str, each with a default.
        params: fields to set.
        what: it is, for messages ("scheme 'akh'").

    Raises:
        ParameterError: an unknown field, or a value of the wrong type.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    values = {}
    for key, value in params.items():
        if key not in known:
            raise unknown(f"parameter of {what}:", key, known)
        default = known[key].default
        values[key] = _typed(f"{what}: parameter {key!r}", value, default)
    return cls(**values)


def _typed(what: str, value: Any, default: Any) -> Any:
    kind = cast("type[Any]", type(default))
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no"):
        return value.lower() in ("true", "1", "yes")
    try:
        if isinstance(value, str) and kind in (int, float):
            return kind(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        raise ParameterError(f"{what} must be {kind.__name__}; got {value!r}") from None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ParameterError(f"{what} must be {kind.__name__}; got {value!r}")
    return value
