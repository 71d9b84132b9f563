"""Time of 512 answers against the inputs in one forward pass: what `NETWORK_BATCH` is chosen by."""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import locard
from locard.models import Model, load, onnx
from locard.models.fitting import build
from locard.models.torch_module import TorchModel
from locard.records import Domain

SIZES, INPUTS = (8, 16, 32, 64, 128, 256, 512), 512
NETWORKS = [
    ("mlp", (1, 28, 28), {}),
    ("cnn", (1, 28, 28), {"width": 16}),
    ("cnn", (3, 32, 32), {"width": 64}),
    ("resnet", (1, 28, 28), {"width": 16}),
    ("resnet", (3, 32, 32), {"width": 64}),
]


def main() -> None:
    """Print one table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--repeats", type=int, default=10)
    repeats = options.parse_args().repeats
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, torch "
          f"{torch.__version__}, one thread, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, locard "
          f"{locard.__version__}; milliseconds, the median of {repeats}")  # fmt: skip
    print(f"{'network':34}" + "".join(f"{size:>8}" for size in SIZES))
    for name, shape, width in NETWORKS:
        domain = Domain(kind="image", shape=shape, bounds=(0.0, 1.0))
        module = build(name, {"shape": shape, "classes": 10, **width}, seed=0).eval()
        inputs = np.random.default_rng(0).random((INPUTS, *shape), dtype=np.float32)
        title = f"{name} {'x'.join(map(str, shape))} {width.get('width', '')}".strip()
        with TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            onnx.export(TorchModel(module, domain=domain), path)
            models = {"torch": [TorchModel(module, domain=domain, batch_size=size) for size in SIZES],
                      "onnx": [load(path, batch_size=size) for size in SIZES]}  # fmt: skip
            for runtime, sized in models.items():
                times = [milliseconds(model, inputs, repeats) for model in sized]
                print(f"{f'{title}, {runtime}':34}" + "".join(f"{spent:8.1f}" for spent in times), flush=True)


def milliseconds(model: Model, inputs: np.ndarray, repeats: int) -> float:
    """The median time of all answers."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        for _part in model.stream(inputs):
            pass
        spent.append(time.process_time() - start)
    return 1000 * float(np.median(spent))


if __name__ == "__main__":
    main()
