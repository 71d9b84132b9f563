"""The identity of a Python object by what it is made of, the same in every process and after a trip through a file.

An object is taken apart as pickling would take it apart, and nothing is run to put it together again.
"""

from __future__ import annotations

import copyreg
import hashlib
import types
from typing import Any

import numpy as np

from locard.errors import ParameterError

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range)
# Written by scikit-learn into every state: which release wrote it, not what it computes.
_PASSING = ("_sklearn_version",)
# Where chance came from in fitting; the state moves with every draw, and files do not keep all of it.
_CHANCE = (np.random.RandomState, np.random.Generator, np.random.BitGenerator, np.random.SeedSequence)


def digest_object(value: Any) -> str:
    """SHA-256 in hex over types, attributes, containers and arrays, however they share memory.

    Args:
        value: anything that could be pickled; functions count by name, those without one by their code.

    Raises:
        ParameterError: a part of it that cannot be taken apart.
    """
    return _Walk().visit(value).hex()


class _Walk:
    """One pass; each object is taken apart once, so that shared parts cost nothing and cycles end."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._open: dict[int, int] = {}

    def visit(self, value: Any) -> bytes:
        """Digest of one object."""
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return _hash("plain", repr((type(value).__name__, value)).encode())
        key = id(value)
        if key in self._known:
            return self._known[key][1]
        if key in self._open:
            return _hash("cycle", str(len(self._open) - self._open[key]).encode())
        self._open[key] = len(self._open)
        digest = self._take_apart(value)
        del self._open[key]
        # The object is kept too: a freed one's id may be given to another.
        self._known[key] = value, digest
        return digest

    def _take_apart(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray) and type(value) in (np.ndarray, np.memmap):
            return self._array(value)
        if isinstance(value, np.generic):
            return _hash("scalar", value.dtype.str.encode(), value.tobytes())
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return _hash(type(value).__name__, *map(self.visit, value))
        if isinstance(value, dict) and type(value) is dict:
            return self._mapping(value)
        if isinstance(value, set | frozenset):
            return _hash("set", *sorted(map(self.visit, value)))
        if isinstance(value, _CHANCE):
            return _hash("chance", _name(type(value)))
        if isinstance(value, type | types.BuiltinFunctionType | np.ufunc):
            return _hash("name", _name(value))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, np.dtype):
            return _hash("dtype", str(np.lib.format.dtype_to_descr(value)).encode())
        return self._reduced(value)

    def _array(self, array: np.ndarray) -> bytes:
        head = f"{array.dtype.str}{array.shape}".encode()
        if array.dtype.hasobject:
            return _hash("objects", head, *map(self.visit, array.ravel().tolist()))
        if array.dtype.names is not None:
            # Field by field: what lies between the fields of a record is whatever memory held before.
            return _hash("records", head, *(_hash(n, self._array(array[n])) for n in array.dtype.names))
        return _hash("array", head, np.ascontiguousarray(array).tobytes())

    def _mapping(self, value: dict[Any, Any]) -> bytes:
        items = (self.visit(key) + self.visit(item) for key, item in value.items() if key not in _PASSING)
        return _hash("dict", *sorted(items))

    def _function(self, value: types.FunctionType) -> bytes:
        if "<" not in value.__qualname__:
            return _hash("name", _name(value))
        code = value.__code__
        inner = [one.co_code if isinstance(one, types.CodeType) else repr(one).encode() for one in code.co_consts]
        cells = [self.visit(cell.cell_contents) for cell in value.__closure__ or ()]
        return _hash("code", code.co_code, repr(code.co_names).encode(), *inner, *cells, self.visit(value.__defaults__))

    def _reduced(self, value: Any) -> bytes:
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            parts: Any = reducer(value) if reducer is not None else value.__reduce_ex__(4)
        # An object's own code decides what it raises here; the meaning is always the same.
        except Exception as error:
            raise ParameterError(f"a {type(value).__name__} in it cannot be identified: {error}") from error
        if isinstance(parts, str):
            return _hash("global", parts.encode())
        make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        return _hash(
            "object",
            _name(type(value)),
            self.visit(make),
            self.visit(arguments),
            self.visit(state),
            self.visit(None if items is None else list(items)),
            self.visit(None if pairs is None else dict(pairs)),
        )


def _name(value: Any) -> bytes:
    owner = getattr(value, "__self__", None)
    module = value.__module__ if not isinstance(owner, types.ModuleType) else owner.__name__
    return f"{module}.{getattr(value, '__qualname__', value.__name__)}".encode()


def _hash(kind: str, *parts: bytes) -> bytes:
    total = hashlib.sha256(kind.encode())
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.digest()
