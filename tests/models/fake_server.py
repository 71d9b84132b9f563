"""A small server of the Open Inference Protocol v2: honest, unless a test gives it trouble.

It shares no code with the client, so that the two hold each other to the protocol.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

CLASSES, SHAPE = 5, (1, 4, 4)
WIRE = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1"}
_WEIGHTS = np.random.Generator(np.random.PCG64(7)).normal(0, 1, (16, CLASSES))


def logits(x: np.ndarray) -> np.ndarray:
    return (x.reshape(len(x), -1).astype(np.float64) @ _WEIGHTS[: x[0].size]).astype(np.float32)


def probabilities(x: np.ndarray) -> np.ndarray:
    scores = np.exp(logits(x) - logits(x).max(axis=1, keepdims=True))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def labels(x: np.ndarray) -> np.ndarray:
    return logits(x).argmax(axis=1).astype(np.int64)


@dataclass
class Output:
    """One output: what it computes and how it is declared."""

    compute: Callable[[np.ndarray], np.ndarray] = probabilities
    datatype: str = "FP32"
    shape: tuple[int, ...] = (-1, CLASSES)


@dataclass
class FakeServer:
    """Serves while it is entered. `trouble(call)` says True where it has dealt with an inference itself."""

    name: str = "net"
    inputs: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=lambda: {"x": ("FP32", (-1, *SHAPE))})
    outputs: dict[str, Output] = field(default_factory=lambda: {"scores": Output()})
    trouble: Callable[[Call], bool] | None = None
    metadata_trouble: Callable[[Call], bool] | None = None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    received: list[np.ndarray] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> FakeServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def server(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.server}/v2/models/{self.name}"

    @property
    def inferences(self) -> int:
        return sum(method == "POST" for method, _, _ in self.requests)

    def secure(self, context: Any) -> str:
        """Speak TLS from now on; the model's URL."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        return self.url.replace("http://127.0.0.1", "https://localhost")


def digest(row: Any) -> str:
    """Names one input."""
    return hashlib.sha256(row.encode() if isinstance(row, str) else np.ascontiguousarray(row).tobytes()).hexdigest()


@dataclass
class Call:
    """One request, in the hands of a trouble."""

    handler: _Handler
    number: int
    body: bytes = b""

    @property
    def fake(self) -> FakeServer:
        return self.handler.fake

    def reply(self, status: int = 200, body: Any = b"", **headers: str) -> bool:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        head = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        return self.raw(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body, close=False)

    def raw(self, data: bytes, *, close: bool = True) -> bool:
        self.handler.close_connection = close
        try:
            self.handler.wfile.write(data)
        except OSError:  # the client has gone
            self.handler.close_connection = True
        return True

    def hang(self) -> bool:
        """Never answer."""
        self.handler.close_connection = True
        self.fake.closing.wait(60)
        return True

    def drip(self, head: bytes, tail: bytes, pause: float = 0.03) -> bool:
        """Send the head, then a byte at a time for ever."""
        self.raw(head)
        while not self.fake.closing.wait(pause):
            try:
                self.handler.wfile.write(tail)
            except OSError:
                break
        return True

    def answer(self, compute: Callable[[np.ndarray], np.ndarray] | None = None, pause: float = 0.0) -> bool:
        """Answer as an honest server does, perhaps with another function, perhaps late."""
        time.sleep(pause)
        self.handler.answer(self, compute)
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        with self.fake.lock:
            self.fake.requests.append(("GET", self.path, dict(self.headers)))
            call = Call(self, len(self.fake.requests) - self.fake.inferences)
        if self.fake.metadata_trouble is not None and self.fake.metadata_trouble(call):
            return
        if self.path.split("?")[0].split("/versions/")[0] != f"/v2/models/{self.fake.name}":
            call.reply(404, {"error": f"Model {self.path} not found"})
            return
        tensors = [{"name": n, "datatype": d, "shape": list(s)} for n, (d, s) in self.fake.inputs.items()]
        outputs = [{"name": n, "datatype": o.datatype, "shape": list(o.shape)} for n, o in self.fake.outputs.items()]
        call.reply(200, {"name": self.fake.name, "platform": "fake", "inputs": tensors, "outputs": outputs})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.fake.lock:
            self.fake.requests.append(("POST", self.path, dict(self.headers)))
            call = Call(self, self.fake.inferences, body)
        if self.fake.trouble is None or not self.fake.trouble(call):
            self.answer(call)

    def answer(self, call: Call, compute: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        length = int(self.headers.get("Inference-Header-Content-Length", len(call.body)))
        document, raw = json.loads(call.body[:length]), call.body[length:]
        (tensor,) = document["inputs"]
        datatype, shape = (
            self.fake.inputs[tensor["name"]] if self.fake.inputs else (tensor["datatype"], tensor["shape"])
        )
        fits = len(shape) == len(tensor["shape"]) and all(
            a in (-1, b) for a, b in zip(shape, tensor["shape"], strict=True)
        )
        if tensor["datatype"] != datatype or not fits:
            call.reply(400, {"error": f"expected {datatype} {list(shape)}, got {tensor['datatype']} {tensor['shape']}"})
            return
        x = _decode(tensor, raw)
        asked = [entry["name"] for entry in document.get("outputs", [])] or list(self.fake.outputs)
        entries, tail = [], b""
        for name in asked:
            output = self.fake.outputs[name]
            values = np.asarray((compute or output.compute)(x), WIRE[output.datatype])
            values = values.reshape(len(values), *output.shape[1:]) if output.shape[1:] == (1,) else values
            entry: dict[str, Any] = {"name": name, "datatype": output.datatype, "shape": list(values.shape)}
            if "Inference-Header-Content-Length" in self.headers:
                entry["parameters"] = {"binary_data_size": values.nbytes}
                tail += values.tobytes()
            else:
                entry["data"] = values.ravel().tolist()
            entries.append(entry)
        head = json.dumps({"model_name": self.fake.name, "outputs": entries}).encode()
        headers = {"Inference_Header_Content_Length": str(len(head))} if tail else {}
        with self.fake.lock:
            self.fake.received.append(x)
            self.fake.answered.update(digest(row) for row in x)
        call.reply(200, head + tail, **headers)


def _decode(tensor: dict[str, Any], raw: bytes) -> np.ndarray:
    if "data" not in tensor:
        assert tensor["parameters"]["binary_data_size"] == len(raw)
    if tensor["datatype"] == "BYTES":
        texts = list(tensor["data"]) if "data" in tensor else []
        while raw:
            size = int.from_bytes(raw[:4], "little")
            texts.append(raw[4 : 4 + size].decode())
            raw = raw[4 + size :]
        return np.array(texts, dtype=object)
    wire = WIRE[tensor["datatype"]]
    values = np.array(tensor["data"], wire) if "data" in tensor else np.frombuffer(raw, wire)
    return values.reshape(tensor["shape"])
