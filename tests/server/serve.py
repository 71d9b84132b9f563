"""Serve a small NumPy network by the Open Inference Protocol v2, with MLServer.

Runs in its own environment (`requirements.txt` beside this file), because MLServer's pins are not ours:

    python serve.py PORT WEIGHTS.npz [--name NAME] [--version VERSION] [--log FILE]

`WEIGHTS.npz` holds `w0, b0, w1, b1, ...`, with `w: (in, out)` and `b: (out,)`, and optionally `input_shape`, the shape
of one input; ReLU stands between the layers. The model offers `logits`, `probabilities` and `label`. Every inference
adds one JSON line to `FILE`, before it is answered: the request's id, the number of rows and the SHA-256 of each row,
so that a test can count what a client really asked.
"""

import argparse
import asyncio
import hashlib
import json
from pathlib import Path

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, RequestOutput

HOST = "127.0.0.1"
INPUT = "x"


class Network(MLModel):
    """A multi-layer perceptron read from an `.npz` file."""

    async def load(self) -> bool:
        """Read the weights and declare the tensors."""
        uri = Path(self.settings.parameters.uri)
        with np.load(uri) as stored:
            depth = sum(name.startswith("w") for name in stored.files)
            self._layers = [(stored[f"w{i}"], stored[f"b{i}"]) for i in range(depth)]
            features, classes = self._layers[0][0].shape[0], self._layers[-1][0].shape[1]
            self._shape = [int(n) for n in stored["input_shape"]] if "input_shape" in stored else [features]
        self._log = self.settings.parameters.model_dump().get("log")
        self.inputs = [MetadataTensor(name=INPUT, datatype="FP32", shape=[-1, *self._shape])]
        self.outputs = [
            MetadataTensor(name="logits", datatype="FP32", shape=[-1, classes]),
            MetadataTensor(name="probabilities", datatype="FP32", shape=[-1, classes]),
            MetadataTensor(name="label", datatype="INT64", shape=[-1, 1]),
        ]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer the outputs that were asked for, or all of them."""
        x = self._decode(payload)
        self._record(payload, x)
        logits = x.reshape(len(x), -1)
        for i, (weight, bias) in enumerate(self._layers):
            logits = (np.maximum(logits, 0) if i else logits) @ weight + bias
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        answers = {
            "logits": logits.astype(np.float32),
            "probabilities": (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32),
            "label": logits.argmax(axis=1, keepdims=True).astype(np.int64),
        }
        asked = [output.name for output in payload.outputs or [RequestOutput(name=name) for name in answers]]
        unknown = [name for name in asked if name not in answers]
        if unknown:
            raise InferenceError(f"no output named {unknown[0]!r}; this model has {sorted(answers)}")
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(name, answers[name]) for name in asked],
        )

    def _decode(self, payload: InferenceRequest) -> np.ndarray:
        if [tensor.name for tensor in payload.inputs] != [INPUT]:
            raise InferenceError(f"expected one input named {INPUT!r}")
        x = NumpyCodec.decode_input(payload.inputs[0])
        if list(x.shape[1:]) != self._shape or payload.inputs[0].datatype != "FP32":
            raise InferenceError(f"expected FP32 of shape {[-1, *self._shape]}, got {list(x.shape)}")
        return x

    def _record(self, payload: InferenceRequest, x: np.ndarray) -> None:
        if self._log is None:
            return
        rows = [hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest() for row in x]
        with Path(self._log).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"id": payload.id, "rows": len(rows), "digests": rows}) + "\n")


def main() -> None:
    """Serve until the process is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--name", default="network")
    parser.add_argument("--version", default="1")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    if not arguments.weights.is_file():
        parser.error(f"no file {arguments.weights}")  # MLServer would exit with 0 over a model that does not load
    settings = Settings(
        debug=False,
        host=HOST,
        http_port=arguments.port,
        grpc_port=0,  # gRPC cannot be switched off; port 0 takes a free one and so never collides
        metrics_endpoint=None,
        parallel_workers=0,
    )
    model = ModelSettings(
        name=arguments.name,
        implementation=Network,
        parameters=ModelParameters(
            uri=str(arguments.weights),
            version=arguments.version,
            log=str(arguments.log) if arguments.log else None,
        ),
    )
    asyncio.run(MLServer(settings).start([model]))


if __name__ == "__main__":
    main()
