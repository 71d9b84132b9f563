"""Extraction through an API: agreement with the victim against the budget, for every attack, beside ART's.

    OMP_NUM_THREADS=1 python benchmarks/extraction_attacks.py --models FOLDER [--target FOLDER] [--attacks A,B]
        [--budgets 500,1000] [--answers labels] [--architecture mlp] [--results FOLDER]

The victim is the small convolutional network of `fashion_mnist.py` (made in FOLDER where it is missing), the thief has
10,000 images of its own and trains a perceptron: another architecture. Agreement is measured on the 10,000 test images,
which nobody has seen; its standard error is at most half a point. Parameters are the attacks' defaults but for what
stands in `ATTACKS`. --target is a folder made by `pip install --target FOLDER --no-deps adversarial-robustness-toolbox
six tqdm`; its attacks then run in this process, with the same budget, data and student. Writes
extraction-attacks-DATE.json, .md and .svg. Exits with 1 where no attack of ours agrees on 85% by labels alone within
20,000 queries, if such were asked for.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import _art_attacks
import numpy as np
import torch
from _budget_curves import draw

import locard
from locard.attacks import attacks, build
from locard.models import Model, fitting, load, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access, Data
from locard.seeds import derive
from locard.zoo import fashion
from locard.zoo.population import train_many

BUDGETS = "500,1000,2000,5000,10000,20000"
LEVEL, MOST = 0.85, 20_000
ANSWERS = {"probabilities": Access.PROBABILITIES, "labels": Access.LABELS}
# What is run, a line each: the attack's name, perhaps what sets this run apart, and its parameters beside the budget.
ATTACKS: dict[str, dict[str, Any]] = {
    "extraction": {},
    "active": {},
    "active (k-centre)": {"score": "k-centre"},
    "knockoff": {},
    "knockoff (clusters)": {"clusters": 30},
    # As many rounds as the budget takes.
    "jbda": {"seeds": 150, "rounds": 10},
    "jbda (random)": {"seeds": 150, "rounds": 10, "step": "random"},
    "datafree": {},
}


def main() -> int:
    """Steal, measure, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--models", type=Path, required=True, help="folder of the models; what it holds is kept")
    options.add_argument("--target", type=Path, help="folder that ART was installed to; without, ours alone are run")
    options.add_argument("--attacks", help="lines of the table and ART's, separated by commas; all by default")
    options.add_argument("--budgets", default=BUDGETS, help="separated by commas")
    options.add_argument("--answers", default=",".join(ANSWERS), help="probabilities, labels, or both")
    options.add_argument("--architecture", default="mlp", help="of the thief's student")
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    torch.set_num_threads(1)
    started, data = time.perf_counter(), fashion.parts()
    train_many([fashion.jobs(given.seed)[0][0]], data, given.models, held_out="check", processes=1)
    bench = Bench(load(given.models / "victim"), data, given.architecture, given.seed)
    version = None if given.target is None else _art_attacks.reach_for(given.target)
    budgets = [int(budget) for budget in given.budgets.split(",")]
    rows = []
    for name in chosen(given.attacks, theirs=version is not None):
        for answers in given.answers.split(","):
            for budget in budgets:
                row = bench.run(name, answers, budget)
                if row is not None:
                    rows.append(row)
                    print("{name}, {answers}, {budget}: {agreement:.1%}, {queries} queries, {seconds:.1f} s"
                          .format(**row), file=sys.stderr, flush=True)  # fmt: skip
    result: dict[str, Any] = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "threads": 1,
                    "torch": torch.__version__, "python": platform.python_version(), "locard": locard.__version__,
                    "art": version},
        "seed": given.seed,
        "student": given.architecture,
        "victim_accuracy": bench.victim_accuracy,
        "budgets": budgets,
        "rows": rows,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    result["missed"] = missed(rows)
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"extraction-attacks-{result['date']}"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".svg").write_text(draw(curves(rows), level=LEVEL, theirs="ART"))
    path.with_suffix(".md").write_text(markdown(result, path.with_suffix(".svg").name))
    print(markdown(result, path.with_suffix(".svg").name))
    return int(result["missed"])


class Bench:
    """The victim, the thief's data, and the images on which copies are measured."""

    def __init__(self, victim: Model, data: dict[str, Data], architecture: str, seed: int) -> None:
        self.victim, self.thief, self.architecture, self.seed = victim, data["attacker"], architecture, seed
        self.inputs = np.concatenate([data["queries"].inputs, data["check"].inputs])
        self.truth = np.concatenate([np.asarray(data["queries"].labels), np.asarray(data["check"].labels)])
        self.answers = restrict(victim, Access.LABELS).labels(self.inputs)
        self.victim_accuracy = float(np.mean(self.answers == self.truth))

    def run(self, name: str, answers: str, budget: int) -> dict[str, Any] | None:
        """One copy, or None where the attack cannot do with such answers."""
        started = time.process_time()
        if name in _art_attacks.ATTACKS:
            view = restrict(self.victim, ANSWERS[answers], budget=budget)
            arguments = {"shape": list(view.domain.shape), "classes": view.classes}
            module = fitting.build(self.architecture, arguments, seed=derive(self.seed, "extraction/copy"))
            _art_attacks.steal(name, view, module, self.thief, budget=budget, soft=answers == "probabilities",
                               seed=self.seed)  # fmt: skip
            queries, notes = view.asked, ()
        else:
            short = name.partition(" ")[0]
            known = {field.name for field in fields(attacks.get(short))}  # pyright: ignore[reportArgumentType]
            wanted = {"queries": budget, "answers": answers, "architecture": self.architecture}
            attack = build(short, {key: value for key, value in wanted.items() if key in known} | ATTACKS[name])
            if attack.needs is not ANSWERS[answers]:
                return None
            view = restrict(self.victim, attack.needs, budget=budget)
            stolen = attack.derive(view, self.thief if attack.needs_data else None, seed=self.seed)
            module, queries, notes = stolen.module, stolen.effort.queries, stolen.notes
        seconds = time.process_time() - started
        copy = restrict(TorchModel(module, domain=self.victim.domain), Access.LABELS).labels(self.inputs)
        return {"name": name, "answers": answers, "budget": budget, "queries": queries, "seconds": seconds,
                "agreement": float(np.mean(copy == self.answers)), "accuracy": float(np.mean(copy == self.truth)),
                "notes": list(notes)}  # fmt: skip


def chosen(names: str | None, *, theirs: bool) -> list[str]:
    """The lines to run: those named, or all that are there."""
    there = [name for name in ATTACKS if name.partition(" ")[0] in attacks.names()]
    there += list(_art_attacks.ATTACKS) if theirs else []
    if names is None:
        return there
    wanted = names.split(",")
    strange = [name for name in wanted if name not in there]
    if strange:
        raise SystemExit(f"there is no line {strange[0]!r}; there are {', '.join(there)}")
    return wanted


def missed(rows: list[dict[str, Any]]) -> bool:
    """Whether labels alone were asked for at the most queries, and no attack of ours reached the level."""
    ours = [row for row in rows if row["answers"] == "labels" and row["name"] in ATTACKS and row["budget"] <= MOST]
    return any(row["budget"] == MOST for row in ours) and max(row["agreement"] for row in ours) < LEVEL


def curves(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Panels of lines."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        lines = panels.setdefault(f"Agreement with the victim, by {row['answers']}", {})
        # A copy that agrees everywhere would stand at infinity.
        lines.setdefault(row["name"], []).append((row["budget"], min(row["agreement"], 0.9999)))
    return panels


def markdown(result: dict[str, Any], plot: str) -> str:
    """The page."""
    machine, budgets = result["machine"], result["budgets"]
    page = [
        f"# Extraction through an API, {result['date']}",
        "",
        f"Made by `benchmarks/extraction_attacks.py`, seed {result['seed']}, {machine['architecture']}, one thread, "
        f"torch {machine['torch']}{'' if machine['art'] is None else ', ART ' + machine['art']}, "
        f"{result['seconds'] / 60:.0f} minutes. Fashion-MNIST: a convolutional victim of accuracy "
        f"{result['victim_accuracy']:.1%}, a student of architecture `{result['student']}`. Cells: agreement with the "
        "victim on 10,000 test images that nobody has seen; of the last column also accuracy, distinct queries and "
        "processor seconds.",
        "",
        f"![Agreement against budget]({plot})",
    ]
    for answers in dict.fromkeys(row["answers"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["answers"] == answers]
        page += [
            "",
            f"## By {answers}",
            "",
            "| attack | " + " | ".join(f"{budget:,}" for budget in budgets) + " | accuracy | queries | seconds |",
            "| --- | " + " | ".join("---:" for _ in budgets) + " | ---: | ---: | ---: |",
        ]
        for name in dict.fromkeys(row["name"] for row in rows):
            line = [row for row in rows if row["name"] == name]
            cells = " | ".join(f"{row['agreement']:.1%}" for row in line)
            last = line[-1]
            page.append(f"| {name} | {cells} | {last['accuracy']:.1%} | {last['queries']:,} | {last['seconds']:.1f} |")
    page += ["", f"Labels alone reach {LEVEL:.0%} within {MOST:,} queries: {'no' if result['missed'] else 'yes'}."] if (
        any(row["budget"] == MOST and row["answers"] == "labels" for row in result["rows"])
    ) else []  # fmt: skip
    return "\n".join(page) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
