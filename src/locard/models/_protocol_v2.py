"""The Open Inference Protocol v2: what a server says of its tensors, requests, and answers. No network in here.

Requests and answers are JSON [1]; numbers are written so that a float32 comes back exactly. With the binary tensor
extension [2] the values follow the JSON as little-endian bytes, and the header `Inference-Header-Content-Length` says
where.

References:
    [1] KServe, Open Inference Protocol, HTTP/REST: "Model Metadata" and "Inference".
    [2] KServe, Binary Tensor Data Extension.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard, final

import numpy as np

from locard.errors import ParameterError, RemoteModelError, unknown
from locard.records import Domain

DTYPES = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "uint8": "UINT8", "str": "BYTES"}
HEADER_LENGTH = "inference-header-content-length"
TENSORS, AXES = 1000, 16


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input or output of a served model.

    Args:
        name: as the server calls it.
        datatype: of the protocol ("FP32"), or None where the server does not say.
        shape: with the batch axis first and -1 for a free axis, or None where the server does not say.
    """

    name: str
    datatype: str | None = None
    shape: tuple[int, ...] | None = None

    @property
    def text(self) -> str:
        """In words: "'x' FP32 [-1, 784]"."""
        return (
            f"{shown(self.name)} {self.datatype or 'of unknown type'} {list(self.shape) if self.shape else ''}".strip()
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What goes over the wire."""

    method: str
    url: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back, with headers in lower case."""

    body: bytes
    headers: Mapping[str, str]


def shown(value: Any, limit: int = 160) -> str:
    """A server's words as they may stand in a message: one line, printable, short."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = limit
    text = short.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def read_json(body: bytes, who: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RemoteModelError: it is none, or holds NaN or Infinity, which JSON has not.
    """

    def refuse(word: str) -> Any:
        raise RemoteModelError(f"{who} answers {word}, which is no number in JSON; finite numbers are expected")

    try:
        document = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RemoteModelError(
            f"{who} answers no JSON: {shown(body[:40])} ({shown(str(error), 80)}); is this an inference server that "
            "speaks the Open Inference Protocol v2?"
        ) from None
    if not isinstance(document, dict):
        raise RemoteModelError(f"{who} answers a JSON {type(document).__name__}; expected an object")
    return document


def read_tensors(document: Mapping[str, Any], listing: str, who: str) -> tuple[Tensor, ...]:
    """The tensors that a model's metadata lists under "inputs" or "outputs"; none where the field is missing.

    Raises:
        RemoteModelError: the list is not as the protocol says.
    """
    listed = document.get(listing) or []
    if not isinstance(listed, list) or len(listed) > TENSORS:
        raise RemoteModelError(
            f"{who} has metadata whose {listing} are {shown(listed, 60)}; expected a list of tensors"
        )
    tensors = []
    for entry in listed:
        entry = entry if isinstance(entry, dict) else {"": entry}
        name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
        if not _is_word(name) or not _is_word(datatype) or not _is_shape(shape, lowest=-1):
            raise RemoteModelError(
                f"{who} has metadata whose {listing} hold {shown(entry, 80)}; expected a name, a datatype and a shape"
            )
        tensors.append(Tensor(name=name, datatype=datatype, shape=tuple(shape)))
    return tuple(tensors)


def choose(tensors: Sequence[Tensor], wanted: str | None, kind: str, who: str) -> Tensor | None:
    """The one input or output to use; None where the server lists none and none is named.

    Raises:
        ParameterError: there are several and none is named, or none has that name.
    """
    if wanted is None:
        if len(tensors) > 1:
            names = ", ".join(tensor.text for tensor in tensors[:8])
            raise ParameterError(f"{who} has {len(tensors)} {kind}s: {names}; say which with {kind}='name'")
        return tensors[0] if tensors else None
    if not tensors:
        return Tensor(name=wanted)
    for tensor in tensors:
        if tensor.name == wanted:
            return tensor
    raise unknown(f"{kind} of {who}", wanted, [tensor.name for tensor in tensors])


def domain_of(tensor: Tensor, who: str) -> Domain:
    """The domain that an input's declaration tells: an image for three axes, a table for one, text for BYTES.

    Raises:
        ParameterError: it does not tell.
    """
    shape, names = (tensor.shape or ())[1:], {datatype: dtype for dtype, datatype in DATATYPES.items()}
    dtype = "float32" if tensor.datatype == "FP16" else names.get(tensor.datatype or "")
    if dtype == "str" and shape in ((), (1,), (-1,)):
        return Domain(kind="text", shape=(), dtype="str")
    if dtype is None or dtype == "str" or len(shape) not in (1, 3) or any(axis < 1 for axis in shape):
        raise ParameterError(f"{who} takes {tensor.text}, which tells no domain: give domain=Domain(...)")
    bounds = (0.0, 255.0) if dtype == "uint8" else None
    return Domain(kind="image" if len(shape) == 3 else "tabular", shape=shape, dtype=dtype, bounds=bounds)


def check_fit(tensor: Tensor, domain: Domain, who: str) -> None:
    """Refuse an input that cannot carry the domain's inputs.

    Raises:
        ParameterError: wrong shape or datatype, or a batch axis of fixed length.
    """
    both = f"{who} takes {tensor.text}, its first axis the batch; the inputs are {domain.text}"
    if tensor.shape is not None:
        axes = ((), (1,)) if domain.kind == "text" else (domain.shape,)
        if not any(_matches(tensor.shape[1:], shape) for shape in axes) or not tensor.shape:
            raise ParameterError(f"{both}: it cannot be asked these")
        if tensor.shape[0] not in (-1, 1):
            raise ParameterError(f"{both}: a batch axis of {tensor.shape[0]} does not serve; expected -1 (free) or 1")
    if tensor.datatype is None:
        return
    wire, own = DTYPES.get(tensor.datatype), domain.dtype
    fits = own == "str" if tensor.datatype == "BYTES" else wire is not None and own != "str"
    if not fits or (wire is not None and np.dtype(own).kind == "f" and np.dtype(wire).kind != "f"):
        raise ParameterError(f"{both}: {own} cannot be sent as {tensor.datatype}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Turns inputs into requests and replies into answers, for one input and one output of one model.

    Args:
        who: the model, for messages.
        url: where inferences are posted.
        input: the tensor that carries the inputs; its datatype is known.
        output: the tensor asked for, or None where the server lists none: then an answer must hold exactly one.
        binary: whether values travel as bytes.
    """

    who: str
    url: str
    input: Tensor
    output: Tensor | None
    binary: bool

    def request(self, x: np.ndarray) -> Request:
        """One inference over a batch.

        Args:
            x: (n, *shape), checked against the domain.

        Raises:
            ParameterError: a value does not fit the datatype of the endpoint.
        """
        values = self._cast(x)
        text = values.dtype.kind == "O"
        one_column = text and self.input.shape is not None and len(self.input.shape) == 2
        tensor: dict[str, Any] = {
            "name": self.input.name,
            "shape": [len(values), 1] if one_column else list(values.shape),
            "datatype": self.input.datatype,
        }
        raw = b""
        if self.binary:
            raw = _packed(values) if text else values.tobytes()
            tensor["parameters"] = {"binary_data_size": len(raw)}
        else:
            tensor["data"] = values.ravel().tolist()
        body: dict[str, Any] = {"inputs": [tensor]}
        if self.output is not None:
            body["outputs"] = [
                {"name": self.output.name, **({"parameters": {"binary_data": True}} if self.binary else {})}
            ]
        elif self.binary:
            body["parameters"] = {"binary_data_output": True}
        head = json.dumps(body, allow_nan=False).encode()
        headers = {"content-type": "application/octet-stream" if self.binary else "application/json"}
        if self.binary:
            headers[HEADER_LENGTH] = str(len(head))
        return Request(method="POST", url=self.url, body=head + raw, headers=headers)

    def answers(self, reply: Reply, n: int) -> np.ndarray:
        """The answers in a reply to n inputs.

        Returns:
            Numbers, with n as the first axis, in the datatype that the server names.

        Raises:
            RemoteModelError: the reply is not as the protocol says, or for another number of inputs.
        """
        head, raw = self._split(reply)
        document = read_json(head, self.who)
        outputs = document.get("outputs")
        if not isinstance(outputs, list) or not all(isinstance(entry, dict) for entry in outputs):
            said = f"error {shown(document['error'])}" if "error" in document else f"{sorted(document)[:8]}"
            raise RemoteModelError(f"{self.who} answers without outputs: {said}; expected 'outputs', a list of tensors")
        entry, start = self._find(outputs)
        datatype, shape = entry.get("datatype"), entry.get("shape")
        if datatype not in DTYPES:
            raise RemoteModelError(f"{self.who} answers a tensor of datatype {shown(datatype, 40)}; expected numbers")
        if not _is_shape(shape, lowest=0) or not shape or shape[0] != n:
            raise RemoteModelError(
                f"{self.who} answers a tensor of shape {shown(shape, 60)} to {n} inputs; expected [{n}, ...]"
            )
        size = _binary_size(entry)
        values = self._numbers(entry.get("data"), datatype) if size is None else self._bytes(raw, start, size, datatype)
        if values.size != math.prod(shape):
            raise RemoteModelError(
                f"{self.who} answers {values.size} numbers in a tensor of shape {shape}; expected {math.prod(shape)}"
            )
        return values.reshape(shape)

    def _cast(self, x: np.ndarray) -> np.ndarray:
        if self.input.datatype == "BYTES":
            return x
        wire = np.dtype(DTYPES[self.input.datatype or ""])
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(x, dtype=wire)
        # A model of lower precision is asked at its own precision; any other loss would be another question.
        lost = ~np.isfinite(values) if wire.kind == "f" and x.dtype.kind == "f" else values != x
        if lost.any():
            raise ParameterError(
                f"{self.who} takes {self.input.datatype}, which cannot hold {x[lost].ravel()[0]!s}; ask other inputs"
            )
        return values

    def _split(self, reply: Reply) -> tuple[bytes, bytes]:
        length = reply.headers.get(HEADER_LENGTH)
        if length is None:
            return reply.body, b""
        if not (length.isascii() and length.isdigit()) or int(length[:18]) > len(reply.body):
            raise RemoteModelError(
                f"{self.who} answers {len(reply.body)} bytes and says that {shown(length, 40)} of them are JSON"
            )
        return reply.body[: int(length)], reply.body[int(length) :]

    def _find(self, outputs: list[dict[str, Any]]) -> tuple[dict[str, Any], int]:
        """The wanted output and where its bytes begin."""
        start = 0
        for entry in outputs:
            if self.output is None and len(outputs) == 1:
                return entry, start
            if self.output is not None and entry.get("name") == self.output.name:
                return entry, start
            start += _binary_size(entry) or 0
        names = shown([entry.get("name") for entry in outputs])
        if self.output is None:
            raise RemoteModelError(f"{self.who} answers the outputs {names}; say which with output='name'")
        raise RemoteModelError(f"{self.who} answers the outputs {names}; expected {shown(self.output.name)} among them")

    def _numbers(self, data: Any, datatype: str) -> np.ndarray:
        wire = np.dtype(DTYPES[datatype])
        if data == []:
            return np.empty(0, wire)
        try:
            found = np.asarray(data)
        except ValueError:  # ragged
            found = np.asarray(None)
        if found.ndim == 0 or found.dtype.kind not in {"f": "fiu", "b": "b"}.get(wire.kind, "iu"):
            raise RemoteModelError(
                f"{self.who} answers {datatype} data {shown(data, 60)}; expected a list of "
                f"{'numbers' if wire.kind == 'f' else 'true and false' if wire.kind == 'b' else 'whole numbers'}"
            )
        if wire.kind in "iu" and not _holds(wire, found):
            raise RemoteModelError(f"{self.who} answers numbers from {found.min()} to {found.max()} as {datatype}")
        with np.errstate(over="ignore"):
            return found.astype(wire).ravel()

    def _bytes(self, raw: bytes, start: int, size: int, datatype: str) -> np.ndarray:
        wire = np.dtype(DTYPES[datatype])
        part = raw[start : start + size]
        if len(part) != size or size % wire.itemsize:
            raise RemoteModelError(
                f"{self.who} answers {len(part)} of {size} bytes of {datatype}; the answer is cut off"
            )
        return np.frombuffer(part, wire)


def _matches(declared: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(declared) == len(shape) and all(a in (-1, b) for a, b in zip(declared, shape, strict=True))


def _is_shape(shape: Any, *, lowest: int) -> TypeGuard[list[int]]:
    return (
        isinstance(shape, list)
        and len(shape) <= AXES
        and all(type(axis) is int and lowest <= axis < 2**31 for axis in shape)
    )


def _is_word(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 256


def _holds(wire: np.dtype, found: np.ndarray) -> bool:
    limits = np.iinfo(wire)
    return int(found.min()) >= limits.min and int(found.max()) <= limits.max


def _binary_size(entry: Mapping[str, Any]) -> int | None:
    parameters = entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    return size if type(size) is int and size >= 0 else None


def _packed(texts: np.ndarray) -> bytes:
    """Strings as the extension wants them: each after its length in four bytes."""
    encoded = [text.encode() for text in texts]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
