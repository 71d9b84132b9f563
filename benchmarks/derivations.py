"""Every way to derive or disguise a model from its weights, at its defaults: what a copy keeps, and what it costs.

    OMP_NUM_THREADS=1 python benchmarks/derivations.py --models FOLDER [--victims victim] [--attacks prune]

The victims are models of `fashion_mnist.py`, trained in FOLDER where they are missing: a small convolutional network,
a residual network with batch norm and a perceptron. The thief has 10,000 images of its own, accuracy is measured on
2,000 that nobody has seen. The task of `transfer` is digits, drawn larger: 8 x 8 pixels each three times, inside a
frame; 1,200 are the thief's, the others judge. For `adversarial-training` the share of images that 20 steps of PGD do
not turn wrong is told too, for victim and copy. Writes derivations-DATE.md and .json; exits with 1 where a default
fails to be a theft.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import locard
from locard.attacks import accept, attacks, build
from locard.data import read, split
from locard.models import Model, load, restrict
from locard.models.torch_module import TorchModel
from locard.queries._adversarial import pgd
from locard.records import Access, Data
from locard.zoo import fashion
from locard.zoo.population import train_many

VICTIMS = "victim,same-data-00,same-data-01"
# What is run beside the defaults, a line each.
BESIDE: dict[str, dict[str, Any]] = {
    "distil (features)": {"features": 1.0},
    "finetune (last)": {"layers": "last"},
    "finetune (fresh head)": {"head": "fresh"},
    "merge (slerp)": {"method": "slerp"},
    "merge (ties)": {"method": "ties"},
    "merge (dare)": {"method": "dare"},
    "prune (80% and recovery)": {"fraction": 0.8, "recovery": 2},
    "quantise (bf16)": {"format": "bf16"},
    "quantise (fp16)": {"format": "fp16"},
    "quantise (int4)": {"format": "int4"},
    "quantise (nf4)": {"format": "nf4"},
    "randomise (trained)": {"form": "trained"},
}
# Those that ask queries have a benchmark of their own.
ELSEWHERE = {"active", "datafree", "extraction", "jbda", "knockoff", "relu"}
EPS, STEPS, ATTACKED = 8 / 255, 20, 1000


def main() -> int:
    """Derive, judge, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--models", type=Path, required=True, help="folder of the models; what it holds is kept")
    options.add_argument("--victims", default=VICTIMS, help="names of models, separated by commas")
    options.add_argument("--attacks", help="lines of the table, separated by commas; all by default")
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    torch.set_num_threads(1)
    data, names = fashion.parts(), given.victims.split(",")
    jobs = [job for job, member in fashion.jobs(given.seed) if member.name in names]
    train_many(jobs, data, given.models, held_out="check", processes=1)
    lines = given.attacks.split(",") if given.attacks else sorted([*(set(attacks.names()) - ELSEWHERE), *BESIDE])
    rows = [row(name, line, load(given.models / name), data, given.seed) for name in names for line in lines]
    result = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "threads": 1,
                    "torch": torch.__version__, "python": platform.python_version(), "locard": locard.__version__},
        "seed": given.seed,
        "rows": rows,
    }  # fmt: skip
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"derivations-{result['date']}"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(page := markdown(result))
    print(page)
    return int(not all(row["theft"] for row in rows if row["line"] in attacks.names()))


def row(name: str, line: str, victim: Model, data: dict[str, Data], seed: int) -> dict[str, Any]:
    """One copy."""
    attack = build(line.partition(" ")[0], BESIDE.get(line, {}))
    own = digits() if attack.new_task else {"thief": data["attacker"], "check": data["check"]}
    view = restrict(victim, attack.needs)
    stolen = attack.derive(view, own["thief"] if attack.needs_data else None, seed=seed)
    copy = TorchModel(stolen.module, domain=victim.domain)
    judged = accept(attack, copy, victim, own["check"], floor=stolen.floor)
    found = {
        "victim": name,
        "architecture": victim.lineage.architecture,
        "line": line,
        "before": judged.victim_accuracy,
        "after": judged.accuracy,
        "agreement": judged.agreement,
        "theft": judged.accepted,
        "reason": judged.reason,
        "floor": stolen.floor,
        "notes": list(stolen.notes),
        "queries": stolen.effort.queries,
        "epochs": stolen.effort.epochs,
        "seconds": stolen.effort.seconds,
    }
    if line == "adversarial-training":
        found["robust"] = [robust(model, data["check"], seed) for model in (victim, copy)]
    print(f"{name}, {line}: {judged.accuracy:.1%}, {stolen.effort.seconds:.1f} s", file=sys.stderr, flush=True)
    return found


def digits() -> dict[str, Data]:
    """Digits in the domain of Fashion-MNIST."""
    small, like = read("digits"), fashion.parts()["check"].domain
    frame = np.kron(small.inputs, np.ones((1, 1, 3, 3), np.float32))
    inputs = like.deliver(np.pad(frame, ((0, 0), (0, 0), (2, 2), (2, 2))))
    large = replace(small, inputs=inputs, domain=like, name="digits, drawn larger")
    return split(large, {"thief": 1200, "check": len(large) - 1200}, seed=0)


def robust(model: Model, data: Data, seed: int) -> float:
    """Share of images that are classified correctly after PGD."""
    chosen = data.take(np.arange(ATTACKED))
    labels = np.asarray(chosen.labels)
    moved = pgd(restrict(model, Access.GRADIENTS), chosen.inputs, labels, radius=EPS, step=EPS / 4, steps=STEPS,
                domain=data.domain, source=np.random.default_rng(seed))  # fmt: skip
    return float(np.mean(restrict(model, Access.LABELS).labels(moved) == labels))


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    machine, rows = result["machine"], result["rows"]
    names = list(dict.fromkeys(row["victim"] for row in rows))
    titles = [f"`{row['architecture']}`" for name in names for row in [next(r for r in rows if r["victim"] == name)]]
    befores = [f"{next(r['before'] for r in rows if r['victim'] == name and r['before'] is not None):.1%}"
               for name in names]  # fmt: skip
    page = [
        f"# Copies made from the weights, {result['date']}",
        "",
        f"Made by `benchmarks/derivations.py`, seed {result['seed']}, {machine['architecture']}, one thread, torch "
        f"{machine['torch']}. Fashion-MNIST, 2,000 images that nobody has seen: accuracy of a copy of each victim, its "
        "agreement with the victim, and seconds by the clock; a failed theft is marked. Defaults, unless the name says "
        f"more. Victims: {', '.join(f'{t} {b}' for t, b in zip(titles, befores, strict=True))}.",
        "",
        f"| attack | {' | '.join(titles)} | agreement | epochs | seconds |",
        f"| --- |{' ---: |' * (len(names) + 3)}",
    ]
    for line in dict.fromkeys(row["line"] for row in rows):
        own = [row for row in rows if row["line"] == line]
        cells = [f"{row['after']:.1%}{'' if row['theft'] else ' (failed)'}" for row in own]
        kept = ["another task" if row["agreement"] is None else f"{row['agreement']:.1%}" for row in own]
        spent = ", ".join(f"{row['seconds']:.1f}" for row in own)
        page.append(f"| {line} | {' | '.join(cells)} | {', '.join(kept)} | {own[0]['epochs']} | {spent} |")
    for row in rows:
        if "robust" in row:
            before, after = row["robust"]
            page += ["", f"`{row['line']}` of `{row['architecture']}`: {row['notes'][0]}. {STEPS} steps of PGD at "
                         f"{EPS * 255:.0f}/255 leave {before:.1%} of {ATTACKED:,} images right with the victim, "
                         f"{after:.1%} with the copy."]  # fmt: skip
        if row["floor"] is not None:
            page += ["", f"`{row['line']}` of `{row['architecture']}`: {row['notes'][0]}."]
    return "\n".join(page) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
