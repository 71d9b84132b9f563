"""Whom the lineage test on weights accuses among trained strangers, and which copies it finds.

    OMP_NUM_THREADS=1 python benchmarks/weights_null.py --population FOLDER

FOLDER is the population `fashion-mnist`. Each stranger is compared with two others of its architecture, so that pairs
share models: the standard error printed is that of as many independent pairs, a little too small.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from locard.engine.lineage import compare_weights
from locard.seeds import generator
from locard.zoo import open_zoo

LEVELS = (0.01, 0.05, 0.1)
REFERENCES = 99


def main() -> int:
    """Both tables."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--population", type=Path, required=True)
    zoo = open_zoo(options.parse_args().population)
    for network in ("cnn", "resnet"):
        named = [one.name for one in zoo.members.values()
                 if one.network == network and one.victim is None
                 and one.role in ("calibration", "evaluation")]  # fmt: skip
        order = [named[i] for i in generator(0, "weights-null").permutation(len(named))]
        found = [
            compare_weights(zoo.built[one].path, zoo.built[order[(i + step) % len(order)]].path).p_value
            for step in (1, 2)
            for i, one in enumerate(order)
        ]
        told = ", ".join(f"{np.mean(np.array(found) <= level):.3f} at {level:g} (error "
                         f"{(level * (1 - level) / len(found)) ** 0.5:.3f})" for level in LEVELS)  # fmt: skip
        print(f"{network}, {len(found)} pairs of strangers, accused: {told}")
    victim = next(one for one in zoo.victims if one.network == "cnn")
    references = [zoo.built[one.name].path for one in zoo.members.values()
                  if one.role == "calibration" and one.victim is None
                  and one.stratum(victim) == "same-architecture"]  # fmt: skip
    for one in zoo.members.values():
        if one.victim == victim.name and one.role == "evaluation":
            verdict = compare_weights(zoo.built[victim.name].path, zoo.built[one.name].path,
                                      references=references[:REFERENCES])  # fmt: skip
            matched = "-" if verdict.matched_fraction is None else f"{verdict.matched_fraction:.2f}"
            print(f"{one.kind:22} {verdict.decision:12} p {verdict.p_value:.4f}, of the order {verdict.order_p:.4f}; "
                  f"matched {matched}, strangers at most {verdict.largest_reference:.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
