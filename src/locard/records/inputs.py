"""What inputs are, and data made of them."""

# JSON from files comes in untyped; each field is checked by hand.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from locard.errors import ParameterError

Kind = Literal["image", "tabular", "text", "tokens"]
_DTYPES = ("float32", "float64", "int64", "int32", "uint8", "str")


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What inputs a model takes, before any normalisation of its own.

    Args:
        kind: "image" (n, c, h, w), "tabular" (n, columns), "text" (n,) strings, or "tokens" (n, length) integers.
        shape: shape of one input; () for text.
        dtype: NumPy name of the inputs ("float32", "int64", "str").
        bounds: smallest and largest value allowed, or None.
        quantum: grid step of the values as they are delivered (1/255 for 8-bit images), or None.
        columns: names of the columns of a table, or ().
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: str = "float32"
    bounds: tuple[float, float] | None = None
    quantum: float | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Bring numbers to plain ones, as a fingerprint holds them, and refuse a dtype that it could not hold."""
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "columns", tuple(self.columns))
        if self.bounds is not None:
            object.__setattr__(self, "bounds", (float(self.bounds[0]), float(self.bounds[1])))
        if self.quantum is not None:
            object.__setattr__(self, "quantum", float(self.quantum))
        if self.dtype not in _DTYPES:
            raise ParameterError(f"domain.dtype must be one of {', '.join(_DTYPES)}; got {self.dtype!r}")

    def check(self, x: Any) -> np.ndarray:
        """The inputs as a C-contiguous array of this domain.

        Args:
            x: a batch, (n, *shape); real numbers are cast to the dtype.

        Returns:
            (n, *shape) array of `dtype`.

        Raises:
            ParameterError: wrong shape, no numbers, NaN or infinite, or outside the bounds.
        """
        if self.kind == "text":
            # As objects: NumPy's own strings lose NUL characters at their ends.
            return self._check_text(x if isinstance(x, np.ndarray) else np.array(list(x), dtype=object))
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise ParameterError(f"inputs must be numbers, {self.text}; got dtype {array.dtype}")
        if array.ndim != len(self.shape) + 1 or array.shape[1:] != self.shape:
            raise ParameterError(f"inputs must have shape (n, {', '.join(map(str, self.shape))}); got {array.shape}")
        given, array = array, self._cast(array)
        if array.size == 0:
            return array
        if array.dtype.kind in "iu" and array is not given and not np.array_equal(array, given):
            raise ParameterError(f"inputs must be whole numbers that {self.dtype} holds, {self.text}; got others")
        low, high = array.min(), array.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = int(np.count_nonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1)))
            raise ParameterError(f"inputs must be finite; {bad} of {len(array)} hold NaN or infinity")
        if self.bounds is not None:
            # One quantum-free ulp of slack: float32 arithmetic on the bound itself must pass.
            slack = 1e-6 * max(1.0, abs(self.bounds[0]), abs(self.bounds[1]))
            if low < self.bounds[0] - slack or high > self.bounds[1] + slack:
                raise ParameterError(
                    f"inputs must lie in [{self.bounds[0]:g}, {self.bounds[1]:g}], un-normalised as the domain says; "
                    f"got values from {low:g} to {high:g}"
                )
        return array

    def _cast(self, array: np.ndarray) -> np.ndarray:
        # What does not fit is told by the checks that follow, in words.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(array, dtype=self.dtype)

    def _check_text(self, array: np.ndarray) -> np.ndarray:
        if array.ndim != 1 or (array.dtype.kind != "U" and not all(isinstance(item, str) for item in array)):
            raise ParameterError(f"inputs must be a list of strings; got dtype {array.dtype}, shape {array.shape}")
        return array.astype(object)

    def deliver(self, x: np.ndarray) -> np.ndarray:
        """The inputs as a suspect will get them: clipped to the bounds and rounded to the quantum."""
        if self.kind == "text" or (self.bounds is None and self.quantum is None):
            return x
        low, high = self.bounds if self.bounds is not None else (-np.inf, np.inf)
        y = np.clip(x, low, high).astype(self.dtype, copy=False)
        if self.quantum is not None and y.dtype.kind == "f":
            # In place: a whole data set passes through here, and temporaries would double its memory.
            origin = low if np.isfinite(low) else 0.0
            y -= origin
            y /= self.quantum
            np.rint(y, out=y)
            y *= self.quantum
            y += origin
            np.clip(y, low, high, out=y)
        return np.ascontiguousarray(y)

    def apart(self, other: Domain) -> Literal["form", "bounds"] | None:
        """What keeps inputs of one from being those of the other: kind or shape, bounds that both have; or None."""
        if (self.kind, self.shape) != (other.kind, other.shape):
            return "form"
        return "bounds" if None not in (self.bounds, other.bounds) and self.bounds != other.bounds else None

    @property
    def text(self) -> str:
        """In words: "image (1, 28, 28) float32 in [0, 1]"."""
        words = [self.kind, str(tuple(self.shape))] if self.shape else [self.kind]
        words.append(self.dtype)
        if self.bounds is not None:
            words.append(f"in [{self.bounds[0]:g}, {self.bounds[1]:g}]")
        return " ".join(words)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "shape": list(self.shape), "columns": list(self.columns),
                "bounds": None if self.bounds is None else list(self.bounds)}  # fmt: skip

    @classmethod
    def from_json(cls, value: Any) -> Domain:
        """Read what `to_json` wrote; a wrong field is a `ParameterError` that names it."""
        if not isinstance(value, dict):
            raise ParameterError(f"domain must be a JSON object; got {type(value).__name__}")
        value = cast("dict[str, Any]", value)
        wrong = sorted(set(value) - {"kind", "shape", "dtype", "bounds", "quantum", "columns"})
        if wrong:
            raise ParameterError(f"domain has an unknown field {wrong[0]!r}")
        kind, shape, bounds, quantum = (value.get(k) for k in ("kind", "shape", "bounds", "quantum"))
        dtype, columns = value.get("dtype", "float32"), value.get("columns", [])
        if kind not in ("image", "tabular", "text", "tokens"):
            raise ParameterError(f"domain.kind must be image, tabular, text or tokens; got {kind!r}")
        if not isinstance(shape, list) or not all(type(n) is int and 0 < n < 2**31 for n in shape) or len(shape) > 8:
            raise ParameterError(f"domain.shape must be a list of positive integers; got {shape!r}")
        if dtype not in _DTYPES:
            raise ParameterError(f"domain.dtype must be one of {', '.join(_DTYPES)}; got {dtype!r}")
        if (kind == "text") != (dtype == "str") or (kind == "text") == bool(shape):
            raise ParameterError(
                f"domain: texts have dtype str and shape [], all else has numbers and a shape; got {kind}, {dtype}, "
                f"{shape!r}"
            )
        if bounds is not None and not (
            isinstance(bounds, list) and len(bounds) == 2 and all(_finite(b) for b in bounds) and bounds[0] < bounds[1]
        ):
            raise ParameterError(f"domain.bounds must be two numbers, low < high, or null; got {bounds!r}")
        if quantum is not None and not (_finite(quantum) and quantum > 0):
            raise ParameterError(f"domain.quantum must be a positive number or null; got {quantum!r}")
        if not isinstance(columns, list) or not all(isinstance(c, str) for c in columns):
            raise ParameterError(f"domain.columns must be a list of strings; got {columns!r}")
        return cls(kind=kind, shape=tuple(shape), dtype=dtype, quantum=quantum, columns=tuple(columns),
                   bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])))  # fmt: skip


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Inputs, perhaps with true labels.

    Args:
        inputs: (n, *domain.shape), as the domain says.
        labels: (n,) int64 class indices, or None.
        domain: what the inputs are.
        name: where they come from, for people ("digits:test").
        classes: names of the classes, or ().
        groups: (n,) whole numbers, or None; inputs of one number are of one thing (two drawings of it, say), and a
            split keeps them together.
    """

    inputs: np.ndarray
    labels: np.ndarray | None
    domain: Domain
    name: str
    classes: tuple[str, ...] = ()
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self.inputs)

    @property
    def digest(self) -> str:
        """SHA-256 of inputs and labels, in hex."""
        labels = () if self.labels is None else (self.labels,)
        return digest_arrays(self.inputs, *labels)

    def taken_by(self, domain: Domain, source: str) -> Data:
        """The data as a model takes them; the domain becomes the narrower of the two.

        Args:
            domain: the model's.
            source: the model's name, for people.

        Raises:
            ParameterError: the data are of another kind, shape or range.
        """
        ours = self.domain
        apart = ours.apart(domain)
        if apart == "form":
            raise ParameterError(f"{source} takes {domain.text}; {self.name} holds {ours.text}")
        if apart == "bounds":
            raise ParameterError(
                f"{source} takes inputs in {list(domain.bounds or ())}, {self.name} lies in {list(ours.bounds or ())}; "
                "give data as the model takes them, before its own normalisation"
            )
        narrower = replace(domain, bounds=domain.bounds or ours.bounds, quantum=domain.quantum or ours.quantum,
                           columns=domain.columns or ours.columns)  # fmt: skip
        return replace(self, inputs=narrower.check(self.inputs), domain=narrower)

    def check_labels(self, classes: int | None, source: str) -> None:
        """Refuse labels, where there are any, that are none of a model's classes.

        Args:
            classes: how many, or None where they are not known.
            source: the model's name, for people.

        Raises:
            ParameterError: a label is no class index, or above the classes.
        """
        labels = self.labels
        if labels is None:
            return
        if labels.shape != (len(self),) or labels.dtype.kind not in "iub" or (labels < 0).any():
            raise ParameterError(
                f"{self.name} must have one class index, a whole number from 0, for each of its {len(self)} inputs; "
                f"got labels {labels.dtype} {labels.shape}"
            )
        if classes is not None and len(self) and int(labels.max()) >= classes:
            raise ParameterError(f"{self.name} has label {int(labels.max())}; {source} has {classes} classes")

    def take(self, rows: np.ndarray, name: str | None = None) -> Data:
        """The given rows, in that order."""
        labels = None if self.labels is None else self.labels[rows]
        groups = None if self.groups is None else self.groups[rows]
        return Data(inputs=self.inputs[rows], labels=labels, domain=self.domain, name=name or self.name,
                    classes=self.classes, groups=groups)  # fmt: skip


def digest_arrays(*arrays: np.ndarray) -> str:
    """SHA-256 in hex over dtype, shape and bytes of each array; strings are hashed as UTF-8."""
    total = hashlib.sha256()
    for array in arrays:
        if array.dtype.kind in "OU":
            total.update(f"str{array.shape}".encode())
            for item in array.ravel():
                total.update(len(encoded := str(item).encode()).to_bytes(8, "little") + encoded)
        else:
            total.update(f"{array.dtype.str}{array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
