"""Functionally equivalent extraction of one-hidden-layer ReLU networks: queries, seconds, error.

    OMP_NUM_THREADS=1 python benchmarks/relu_extraction.py [--results FOLDER]

Each network is asked through a view that grants logits and counts. The error is the largest over inputs that the thief
never asked, standard normal or uniform within the bounds; rows are held against the victim's by the largest sine of the
angle between each and the nearest of the copy's, with biases as one more entry. The papers' figures are recalled, not
checked against their text.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from locard.attacks import build
from locard.data import read
from locard.errors import LocardError
from locard.models import restrict
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain

# What the papers say of networks of one hidden layer (parameters: log2 of queries, error or fidelity).
RECALLED = """The papers, as recalled:
  Jagielski et al. 2020: 12,500 parameters 2^17.2, fidelity 100%; 100,000 parameters 2^20.2, fidelity 99.98%
  Carlini et al. 2020: 4,000 parameters 2^18.5, error 2^-40.4; 100,000 parameters 2^21.5, error 2^-25"""
NETWORKS = (
    ("random", 10, 15, 1),
    ("random", 64, 32, 10),
    ("digits", 64, 32, 1),
    ("digits", 64, 32, 10),
    ("random", 100, 200, 1),
    ("random", 784, 16, 1),
    ("random", 784, 32, 1),
    ("random", 784, 128, 1),
)
POINTS = 100_000


def main() -> int:
    """Measure all."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    now = datetime.datetime.now(datetime.UTC)
    lines = [
        f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, torch "
        f"{torch.__version__}, {now:%Y-%m-%d}; seconds by the clock, one thread; largest error over {POINTS:,} inputs",
        f"{'network':26}{'dtype':>8}{'inputs':>8}{'parameters':>11}{'queries':>9}{'log2':>6}{'seconds':>9}{'found':>6}"
        f"{'error':>9}{'log2':>7}{'sine':>9}",
    ]
    print("\n".join(lines), flush=True)
    cases = [(*one, "float64", bounds) for one in NETWORKS for bounds in (None, (0.0, 1.0))]
    cases += [(*one, "float32", None) for one in NETWORKS[:4]]
    for kind, d, h, outputs, dtype, bounds in cases:
        lines.append(measure(kind, d, h, outputs, dtype, bounds))
        print(lines[-1], flush=True)
    lines.append(RECALLED)
    print(RECALLED)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / f"relu-extraction-{now:%Y-%m-%d}.txt").write_text("\n".join(lines) + "\n")
    return 0


def measure(kind: str, d: int, h: int, outputs: int, dtype: str, bounds: tuple[float, float] | None) -> str:
    """One row."""
    module = (learnt if kind == "digits" else drawn)(d, h, outputs).to(getattr(torch, dtype))
    domain = Domain(kind="tabular", shape=(d,), dtype=dtype, bounds=bounds)
    victim = restrict(TorchModel(module, domain=domain, batch_size=1024), Access.LOGITS)
    # Answers of few digits are lost far out.
    attack = build("relu", {"reach": 30.0} if dtype == "float32" else {})
    started = time.perf_counter()
    parameters = sum(one.numel() for one in module.parameters())
    head = f"{kind + f' {d}-{h}-{outputs}':26}{dtype:>8}{'box' if bounds else 'all':>8}{parameters:>11,}"
    try:
        stolen = attack.derive(victim)
    except LocardError:
        return f"{head}{victim.asked:>9,}{np.log2(victim.asked):6.1f}{time.perf_counter() - started:8.1f}s  refused"
    seconds = time.perf_counter() - started
    off = largest(module, stolen.module, d, bounds)
    ours, theirs = rows(stolen.module), rows(module)
    nearest = ours[np.abs(theirs @ ours.T).argmax(axis=1)]
    near = np.minimum(np.linalg.norm(theirs - nearest, axis=1), np.linalg.norm(theirs + nearest, axis=1))
    # A unit that the inputs do not reach is none that could be found.
    found = int((near < 1e-3).sum())
    return (f"{head}{stolen.effort.queries:>9,}{np.log2(stolen.effort.queries):6.1f}{seconds:8.1f}s{found:>6}"
            f"{off:9.1e}{np.log2(off):7.1f}{near[near < 1e-3].max():9.1e}")  # fmt: skip


def drawn(d: int, h: int, outputs: int) -> nn.Module:
    """Standard normal weights by the square root of their number, biases of 0.3."""
    source = np.random.default_rng(0)
    module = nn.Sequential(nn.Linear(d, h), nn.ReLU(), nn.Linear(h, outputs)).double()
    arrays = (source.normal(size=(h, d)) / np.sqrt(d), 0.3 * source.normal(size=h),
              source.normal(size=(outputs, h)) / np.sqrt(h), source.normal(size=outputs))  # fmt: skip
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return module


def learnt(d: int, h: int, outputs: int) -> nn.Module:
    """The same, trained on the digits, or on whether each is above four."""
    digits, module = read("digits"), drawn(d, h, outputs)
    x, y = torch.from_numpy(digits.inputs.reshape(-1, d)).double(), torch.from_numpy(np.asarray(digits.labels))
    adam = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(200):
        adam.zero_grad()
        scores = module(x)
        if outputs == 1:
            loss = nn.functional.binary_cross_entropy_with_logits(scores[:, 0], (y > 4).double())
        else:
            loss = nn.functional.cross_entropy(scores, y)
        loss.backward()
        adam.step()
    return module


def largest(one: nn.Module, two: nn.Module, d: int, bounds: tuple[float, float] | None) -> float:
    """The largest difference of two modules' answers."""
    source, dtype, most = np.random.default_rng(1), next(one.parameters()).dtype, 0.0
    with torch.no_grad():
        for _ in range(0, POINTS, 10_000):
            x = source.normal(size=(10_000, d)) if bounds is None else source.uniform(*bounds, (10_000, d))
            x = torch.from_numpy(x).to(dtype)
            most = max(most, float((one(x).double() - two(x).double()).abs().max()))
    return most


def rows(module: nn.Module) -> np.ndarray:
    """(h, d + 1) the first layer's weights with their bias, of length 1."""
    weights, bias = (one.detach().double().numpy() for one in list(module.parameters())[:2])
    joined = np.concatenate([weights, bias[:, None]], axis=1)
    return joined / np.linalg.norm(joined, axis=1, keepdims=True)


if __name__ == "__main__":
    raise SystemExit(main())
