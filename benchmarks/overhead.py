"""What Locard costs over the bare forward passes of the same queries: time and memory of extract and verify.

Both sides run in this process on one thread, one after the other, with the model loaded, several times; the median of
the ratios pair by pair is printed, with the rise of the process's peak memory on each side.

    OMP_NUM_THREADS=1 python benchmarks/overhead.py [--repeats 5] [--json FILE]

Verify must cost at most 1.3 times the passes where these take half a second or more, else at most 50 ms more; the
script exits with 1 where it does not.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import locard
from locard.models import Model, architectures
from locard.models.torch_module import TorchModel
from locard.records import Data, Domain
from locard.schemes import build

DOMAIN = Domain(kind="image", shape=(1, 28, 28), bounds=(0.0, 1.0), quantum=1 / 255)
# scheme, queries to the suspect, parameters, architecture
CASES = [
    ("akh", 100, {}, "cnn"),
    ("random+labels+hamming", 10_000, {}, "cnn"),
    ("sac", 100, {}, "cnn"),
    ("ipguard", 100, {}, "cnn"),
    ("zest", 4_000, {}, "cnn"),
    ("zest", 32_000, {}, "cnn"),
    ("random+labels+hamming", 10_000, {}, "resnet"),
    ("tafa", 300, {}, "cnn"),
    ("modeldiff", 200, {}, "cnn"),
    ("deepfool", 200, {}, "cnn"),
    ("multipoint", 99, {}, "cnn"),
    ("subsample+correlation+l2", 4_000, {"sampler.masks": 100}, "cnn"),
]
RATIO, SLACK_S, LONG_S = 1.3, 0.05, 0.5


def main() -> int:
    """Run all cases."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--json", type=Path)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, torch "
          f"{torch.__version__}, one thread, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}")  # fmt: skip
    print(f"{'scheme':24}{'model':8}{'queries':>8}  {'act':8}{'passes':>10}{'Locard':>10}{'ratio':>7}{'more':>9}"
          f"{'passes MB':>11}{'Locard MB':>11}  bound")  # fmt: skip
    data = images(12_000)
    rows = []
    for scheme, queries, params, architecture in CASES:
        rows += measure(scheme, queries, params, architecture, data, arguments.repeats)
        for row in rows[-2:]:
            print(f"{row['scheme']:24}{row['model']:8}{row['queries']:8,}  {row['act']:8}{row['passes_s']:9.3f}s"
                  f"{row['locard_s']:9.3f}s{row['ratio']:7.2f}{1000 * row['more_s']:7.1f}ms"
                  f"{row['passes_mb']:11.1f}{row['locard_mb']:11.1f}  {row['bound']}")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(row["bound"] == "MISSED" for row in rows))


def images(n: int) -> Data:
    """Blocky random images with random labels: only their number and size matter here."""
    source = np.random.default_rng(0)
    coarse = np.kron(source.random((n, 1, 7, 7), dtype=np.float32), np.ones((1, 1, 4, 4), np.float32))
    inputs = DOMAIN.deliver(coarse)
    return Data(inputs=inputs, labels=source.integers(0, 10, n), domain=DOMAIN, name="random images")


def measure(
    scheme: str, queries: int, params: dict[str, Any], architecture: str, data: Data, repeats: int
) -> list[dict[str, Any]]:
    """One row for extract, one for verify."""
    module = architectures.build(architecture, shape=[1, 28, 28], classes=10).eval()
    victim = TorchModel(module, domain=DOMAIN)
    settings = {"scheme": scheme, "data": data, "queries": queries, "params": params}
    fp = locard.extract(victim, **settings)
    asked = what_is_asked(scheme, params, fp, victim)
    suspect = TorchModel(architectures.build(architecture, shape=[1, 28, 28], classes=10).eval(), domain=DOMAIN)
    acts = {
        # The floor of extract is one pass over the data it chooses from or over what it records, whichever is more.
        "extract": (lambda: locard.extract(victim, **settings), data.inputs if fp.cost < len(data) else asked),
        "verify": (lambda: locard.verify(fp, suspect), asked),
    }
    rows = []
    for act, (ours, inputs) in acts.items():
        pairs = []
        floor_mb = peak_mb(lambda x=inputs: passes(module, x))
        locard_mb = peak_mb(ours)
        for _ in range(repeats):
            pairs.append((timed(lambda x=inputs: passes(module, x)), timed(ours)))
        floor, cost = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        more = statistics.median(b - a for a, b in pairs)
        kept = ratio <= RATIO if floor >= LONG_S else more <= SLACK_S
        bound = ("kept" if kept else "MISSED") if act == "verify" else "-"
        rows.append({"scheme": scheme, "model": architecture, "queries": fp.cost, "act": act, "passes_s": floor,
                     "locard_s": cost, "ratio": ratio, "more_s": more, "passes_mb": floor_mb, "locard_mb": locard_mb,
                     "bound": bound})  # fmt: skip
    return rows


def what_is_asked(scheme: str, params: dict[str, Any], fp: locard.Fingerprint, victim: Model) -> np.ndarray:
    """The inputs that one verification sends, in one array."""
    inputs = build(scheme, params).inputs(fp)
    if inputs is not None:
        return inputs
    sent: list[np.ndarray] = []
    stream = victim.stream
    victim.stream = lambda x: sent.append(x.copy()) or stream(x)
    try:
        locard.respond(fp, victim)
    finally:
        del victim.stream
    return np.concatenate(sent)


def passes(module: torch.nn.Module, x: np.ndarray, batch: int = 256) -> None:
    """The bare forward passes."""
    with torch.inference_mode():
        for start in range(0, len(x), batch):
            module(torch.from_numpy(x[start : start + batch]))


def timed(act: Callable[[], Any]) -> float:
    """Processor seconds of one call: one thread, nothing to wait for, and no neighbour on the machine in them."""
    gc.collect()
    start = time.process_time()
    act()
    return time.process_time() - start


def peak_mb(act: Callable[[], Any]) -> float:
    """How far one call raises the process's peak resident memory over where it stood before, in MB (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    act()
    return (status("VmHWM") - before) / 1024


def status(field: str) -> int:
    """A field of /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


if __name__ == "__main__":
    raise SystemExit(main())
