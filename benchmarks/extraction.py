"""How long each scheme takes to extract a fingerprint: one victim, about 100 queries, one and two threads.

    python benchmarks/extraction.py --models FOLDER [--schemes A,B] [--results FOLDER]

FOLDER is that of `survival.py`, whose first victim and its population are taken (and made, where they are missing). A
scheme that trains no models must take less than 30 s; the script exits with 1 where one does not. Carlini
and Wagner's search at its paper's ten thousand steps a constant is exempt: its cost is shown at our 100 and at 1,000.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from pathlib import Path
from typing import Any

import _survival_zoo as zoo
import numpy as np
import torch
from survival import PRIVATE, SETTINGS

import locard
from locard.engine.population import widest
from locard.errors import LocardError
from locard.models import load
from locard.queries import Population
from locard.schemes import build, schemes

LIMIT_S = 30.0
# Beside the named schemes, samplers of the grid that none of them uses.
COMPOSED: dict[str, dict[str, Any]] = {
    "adversarial+decision-distance+flat-cosine": {},
    "adversarial+labels+hamming, fgsm": {"params": {"sampler.method": "fgsm"}},
    "adversarial+labels+hamming, deepfool": {"params": {"sampler.method": "deepfool"}},
    "adversarial+labels+hamming, carlini-wagner": {"params": {"sampler.method": "carlini-wagner"}},
    "adversarial+labels+hamming, carlini-wagner 1000": {
        "params": {"sampler.method": "carlini-wagner", "sampler.steps": 1000}
    },
    "negative-augment+labels+hamming": {},
    "random+sensitivity+l2": {},
    "random+sensitivity+l2, weights": {"params": {"representation.by": "weights"}},
    "subsample+local-explanations+l2": {"params": {"representation.answers": "logits"}},
}
# Whose queries come in units that do not make a hundred.
OWN = {"uap", "sensitive", "deepjudge"}
EXEMPT = {"adversarial+labels+hamming, carlini-wagner 1000"}


def main() -> int:
    """Measure all."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--models", type=Path, required=True)
    options.add_argument("--schemes", help="names, separated by commas; all by default")
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    arguments = options.parse_args()
    zoo.build(arguments.models, seed=0, processes=1, progress=None)
    data = zoo.parts()
    private = arguments.models / PRIVATE
    np.savez(private, x=np.rint(255 * data["victim"].inputs).astype(np.uint8), y=np.asarray(data["victim"].labels))
    derived, independent = (tuple(widest(load(arguments.models / one)) for one in names) for names in zoo.choosers(0))
    population = Population(derived=derived, independent=independent)
    victim = load(arguments.models / "victim-00")
    cases = {name: {"queries": 100, **SETTINGS.get(name, {})} for name in schemes.names()}
    cases |= {name: {"queries": 100, **settings} for name, settings in COMPOSED.items()}
    if arguments.schemes:
        cases = {name: cases[name] for name in arguments.schemes.split(",")}
    lines = [f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, torch "
             f"{torch.__version__}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}; seconds by the clock",
             f"{'scheme':50}{'queries':>9}{'one thread':>12}{'two':>9}  bound"]  # fmt: skip
    slow = []
    for name, settings in cases.items():
        settings = dict(settings)
        scheme = build(name.partition(",")[0], settings.get("params"))
        if scheme.claim == "trained-on":
            settings["params"] = settings["params"] | {"private": str(private)}
        if name in OWN:
            settings.pop("queries")
        seconds, cost = [], "refused"
        for threads in (1, 2):
            torch.set_num_threads(threads)
            started = time.perf_counter()
            try:
                fp = locard.extract(victim, scheme=name.partition(",")[0], data=data["queries"],
                                    population=population, **settings)  # fmt: skip
                cost = f"{fp.cost:,}"
            except LocardError as error:
                # Dataset inference refuses a victim that has learnt nothing by heart, once it has walked.
                print(f"{name}: {error}", file=sys.stderr)
            seconds.append(time.perf_counter() - started)
        bound = "exempt" if name in EXEMPT else "kept" if seconds[0] < LIMIT_S else "MISSED"
        slow += [name] if bound == "MISSED" else []
        lines.append(f"{name:50}{cost:>9}{seconds[0]:11.2f}s{seconds[1]:8.2f}s  {bound}")
        print(lines[-1], flush=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"extraction-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.txt"
    path.write_text("\n".join(lines) + "\n")
    return int(bool(slow))


if __name__ == "__main__":
    raise SystemExit(main())
