"""When do 'unhappy families' fail? AKH with and without discounting the mistakes that independent models share.

    OMP_NUM_THREADS=1 python benchmarks/unhappy_families.py --models FOLDER [--processes 2] [--results FOLDER]

AKH rests on mistakes being individual. Three data sets are cut from Fashion-MNIST (all ten classes; the five garments
that are confused with each other; the five things that are not), and the first is also asked with some of the query
labels replaced by wrong ones. In each, five victims with four copies and sixteen independent models each are scored by
akh at equal numbers of queries: plain, and with `discount`, whose eight models are judged nowhere. Trains what FOLDER
does not hold yet, and writes unhappy-families-DATE.json and .md.
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
from scipy import stats

import locard
from locard.data import read, split
from locard.engine.respond import respond
from locard.evidence import auroc
from locard.models import Model, load, restrict
from locard.models.fitting import Recipe
from locard.queries import Population
from locard.records import Data
from locard.schemes import build
from locard.seeds import derive, generator
from locard.zoo.population import Job, Original, Theft, train_many

RECIPE = Recipe(epochs=3, lr=5e-3, batch=128)
SETS = {"ten classes": tuple(range(10)), "five garments": (0, 2, 3, 4, 6), "five others": (1, 5, 7, 8, 9)}
WRONG = (0.05, 0.2)
COPIES: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("finetune", {"layers": "all", "epochs": 3}),
    "prune": ("prune", {"fraction": 0.8, "recovery": 2}),
    "noise": ("noise", {"share": 0.1}),
    "extract": ("extraction", {"answers": "labels", "queries": 20_000, "epochs": 5, "batch": 128}),
}
VICTIMS, JUDGED, WEIGHERS, QUERIES = 5, 8, 4, 100


def main() -> int:
    """Build, score, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--models", type=Path, required=True, help="folder of the models; what it holds is kept")
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, classes in SETS.items():
        data, folder = parts(classes), arguments.models / name.replace(" ", "-")
        train_many(jobs(arguments.seed), data, folder, held_out="check", processes=arguments.processes,
                   progress=line(name))  # fmt: skip
        models = {job.name: load(folder / job.name) for job in jobs(arguments.seed)}
        for share in (0.0, *WRONG) if name == "ten classes" else (0.0,):
            queries = mislabelled(data["queries"], share, arguments.seed)
            rows.append(world(name, share, models, queries, arguments.seed))
            print(summary(rows[-1]), file=sys.stderr)
    result = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "threads": 1,
                    "torch": torch.__version__, "python": platform.python_version(), "locard": locard.__version__},
        "seed": arguments.seed,
        "queries": QUERIES,
        "worlds": rows,
    }  # fmt: skip
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"unhappy-families-{result['date']}"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))
    return 0


def parts(classes: tuple[int, ...]) -> dict[str, Data]:
    """The parts of Fashion-MNIST with those classes only, numbered from 0."""
    train = split(read("fashion-mnist:train"), {"victim": 25_000, "other": 25_000, "attacker": 10_000}, seed=0)
    test = split(read("fashion-mnist:test"), {"queries": 8_000, "check": 2_000}, seed=0)
    return {name: only(data, classes) for name, data in (train | test).items()}


def only(data: Data, classes: tuple[int, ...]) -> Data:
    """The rows of some classes, whose labels become their places in the tuple."""
    assert data.labels is not None
    rows = np.flatnonzero(np.isin(data.labels, classes))
    taken = data.take(rows)
    assert taken.labels is not None
    return replace(
        taken, labels=np.searchsorted(classes, taken.labels), classes=tuple(data.classes[c] for c in classes)
    )


def mislabelled(data: Data, share: float, seed: int) -> Data:
    """The data with that share of labels replaced by another class, each other class as likely as the next."""
    source, classes = generator(seed, f"families/wrong/{share}"), len(data.classes)
    hit = source.random(len(data)) < share
    assert data.labels is not None
    return replace(
        data, labels=np.where(hit, (data.labels + source.integers(1, classes, len(data))) % classes, data.labels)
    )


def jobs(seed: int) -> list[Job]:
    """Victims and others on the victims' data, others on other data, and copies of the victims."""
    listed: list[Job] = []
    for data, number in (("victim", JUDGED + 1 + WEIGHERS), ("other", JUDGED + WEIGHERS)):
        listed += [
            Original(name=f"{data}-{i:02}", data=data, architecture="cnn", recipe=RECIPE, mean=(0.286,), std=(0.353,),
                     seed=derive(seed, f"families/{data}/{i}"))
            for i in range(number)
        ]  # fmt: skip
    for victim in range(VICTIMS):
        listed += [
            Theft(name=f"{kind}-{victim:02}", victim=f"victim-{victim:02}", attack=attack, params=params,
                  data=None if kind == "noise" else "attacker", seed=derive(seed, f"families/{kind}/{victim}"))
            for kind, (attack, params) in COPIES.items()
        ]  # fmt: skip
    return listed


def world(name: str, share: float, models: dict[str, Model], queries: Data, seed: int) -> dict[str, Any]:
    """The scores of every model against every victim, plain and discounted."""
    same = [n for n in models if n.startswith("victim-")]
    apart = [n for n in models if n.startswith("other-")]
    weighers = same[-WEIGHERS:] + apart[-WEIGHERS:]
    population = Population(independent=tuple(restrict(models[n], models[n].native) for n in weighers))
    victims = []
    for number in range(VICTIMS):
        victim = same[number]
        independent = [n for n in same[: JUDGED + 1] if n != victim] + apart[:JUDGED]
        copies = [f"{kind}-{number:02}" for kind in COPIES]
        row: dict[str, Any] = {"victim": victim}
        for form, params in (("plain", {}), ("discounted", {"discount": True})):
            fp = locard.extract(models[victim], scheme="akh", data=queries, queries=QUERIES, seed=seed, params=params,
                                population=population if params else None)  # fmt: skip
            scheme = build("akh", params)
            scores = {n: scheme.similarity(fp, respond(fp, models[n])) for n in (*copies, *independent)}
            row[form] = {"copies": {n: scores[n] for n in copies}, "independent": {n: scores[n] for n in independent}}
        row["accuracy"] = float((restrict(models[victim], models[victim].native).labels(queries.inputs)
                                 == queries.labels).mean())  # fmt: skip
        victims.append(row)
    return {"set": name, "wrong": share, "victims": victims}


def measures(row: dict[str, Any], form: str) -> dict[str, list[float]]:
    """What is read off each victim's scores."""
    found: dict[str, list[float]] = {"independent": [], "auroc": [], "gap": [], "extract": []}
    for victim in row["victims"]:
        copies, independent = victim[form]["copies"], list(victim[form]["independent"].values())
        kept = [score for kind, score in copies.items() if not kind.startswith("extract")]
        stolen = [score for kind, score in copies.items() if kind.startswith("extract")]
        found["independent"].append(float(np.mean(independent)))
        found["auroc"].append(auroc(list(copies.values()), independent))
        found["gap"].append(min(kept) - max(independent))
        found["extract"].append(auroc(stolen, independent))
    return found


def interval(values: list[float]) -> str:
    """Mean and the half width of a 95% t interval over victims."""
    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {stats.t.ppf(0.975, len(values) - 1) * spread:.3f}"


def title(row: dict[str, Any]) -> str:
    """A world's name."""
    return f"{row['set']}, {row['wrong']:.0%} wrong labels" if row["wrong"] else row["set"]


def summary(row: dict[str, Any]) -> str:
    """One line."""
    gaps = " / ".join(interval(measures(row, form)["gap"]) for form in ("plain", "discounted"))
    return f"{title(row)}: gap plain / discounted {gaps}"


def markdown(result: dict[str, Any]) -> str:
    """The tables."""
    machine = result["machine"]
    page = [
        f"# Unhappy families, {result['date']}",
        "",
        f"Made by `benchmarks/unhappy_families.py`, seed {result['seed']}, {machine['architecture']}, one thread a "
        f"process, torch {machine['torch']}. {result['queries']} queries; {VICTIMS} victims a row, each with "
        f"{len(COPIES)} copies and {2 * JUDGED} independent models of its architecture, half of them trained on its "
        "data. Mean and 95% t interval over victims. Gap: weakest fine-tuned, pruned or noised copy minus strongest "
        "independent model.",
        "",
        "| queries from | victim's accuracy | form | independent models' mean score | gap | AUROC, all copies | "
        "AUROC, extracted |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in result["worlds"]:
        accuracy = np.mean([victim["accuracy"] for victim in row["victims"]])
        for form in ("plain", "discounted"):
            found = measures(row, form)
            cells = [interval(found[name]) for name in ("independent", "gap", "auroc", "extract")]
            page.append(f"| {title(row)} | {accuracy:.1%} | {form} | " + " | ".join(cells) + " |")
    return "\n".join(page) + "\n"


def line(what: str) -> Any:
    """A progress callback that says when all is done."""

    def show(done: int, wanted: int) -> None:
        if sys.stderr.isatty() or done == wanted:
            print(
                f"\r{what}: {done} of {wanted} models", end="\n" if done == wanted else "", file=sys.stderr, flush=True
            )

    return show


if __name__ == "__main__":
    raise SystemExit(main())
