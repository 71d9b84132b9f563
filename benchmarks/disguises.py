"""What a disguise costs its thief and hides from the owner: accuracy lost against the AUROC of seven fingerprints.

    OMP_NUM_THREADS=1 python benchmarks/disguises.py --models FOLDER [--processes 2] [--victims 5] [--results FOLDER]

Trains what FOLDER does not hold yet of the victims and strangers of `survival.py`, takes each victim's fingerprints,
disguises each victim at several strengths, and writes disguises-DATE.json, .md and .svg. The unit is the model: an
AUROC holds a copy against its victim's twenty strangers, and is a mean over copies. Strengths are matched by the
accuracy lost on images that serve nothing else; the accuracy that is reported is that on others, and queries are drawn
from others again. Under smoothing, adversarial examples made on the victim, and on the smoothed copy itself, are tried
on the copy.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import _survival_zoo as zoo
import numpy as np
import torch
from _curves import Panel, draw

import locard
from locard.attacks import build
from locard.attacks.transferability import transferability
from locard.engine.extract import extract
from locard.engine.respond import Battery
from locard.evidence import auroc, clopper_pearson
from locard.fingerprint import Fingerprint
from locard.models import Model, load, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access, Data
from locard.schemes import build as build_scheme
from locard.seeds import derive
from locard.zoo.population import train_many

# zest at a fraction of its paper's queries.
SCHEMES: dict[str, dict[str, Any]] = {
    "ipguard": {"queries": 100},
    "deepfool": {"queries": 100},
    "multipoint": {"queries": 102},
    "modeldiff": {"queries": 100},
    "akh": {"queries": 100},
    "sac": {"queries": 100},
    "zest": {"queries": 1600, "params": {"masks": 100}},
}
COPIES = 16
# attack, what is common to all strengths, the parameter that is the strength, its values from the weakest on
DISGUISES: dict[str, tuple[str, dict[str, Any], str, tuple[float, ...]]] = {
    "randomise, wrapper": ("randomise", {}, "loss", (0.05, 0.1, 0.2, 0.4)),
    "randomise, trained": ("randomise", {"form": "trained", "loss": 0.2, "epochs": 2}, "weight", (0.1, 0.3, 1.0)),
    "smooth": ("smooth", {"copies": COPIES}, "sigma", (0.02, 0.05, 0.075, 0.1)),
    "lie, margin": ("lie", {}, "rate", (0.01, 0.02, 0.05, 0.1)),
    "preprocess, blur": ("preprocess", {"kind": "blur"}, "strength", (0.4, 0.6, 0.8, 1.0)),
    "preprocess, jpeg": ("preprocess", {"kind": "jpeg"}, "strength", (75.0, 50.0, 25.0, 10.0)),
}
# Copies of each victim at each strength; those of one seed where the attack draws nothing.
SEEDS, DRAWS = 2, ("randomise", "smooth", "lie")
# Accuracy, in points, that disguises are compared at.
ALLOWED = (0.5, 1.0, 2.0, 5.0)
EPS, STEPS, EXAMPLES, MATCHED = 8 / 255, 10, 100, 2000


def main() -> int:
    """Build, disguise, score, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--models", type=Path, required=True, help="folder of the models; what it holds is kept")
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--victims", type=int, default=zoo.VICTIMS, help=f"how many, at most {zoo.VICTIMS}")
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    data, originals = zoo.parts(), [job for job in zoo.jobs(arguments.seed) if not hasattr(job, "victim")]
    train_many(originals, data, arguments.models, held_out="check", processes=arguments.processes, progress=None)
    started, rows = time.process_time(), []
    for victim in range(arguments.victims):
        rows += judged(victim, arguments.models, data, arguments.seed)
        print(f"victim {victim}: {time.process_time() - started:.0f} s", file=sys.stderr)
    result: dict[str, Any] = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "threads": 1,
                    "torch": torch.__version__, "python": platform.python_version(), "locard": locard.__version__},
        "seed": arguments.seed,
        "victims": arguments.victims,
        "strangers": len(zoo.independent(0)),
        "seconds": round(time.process_time() - started),
        "rows": rows,
    }  # fmt: skip
    result["strengths"] = strengths(rows)
    result["matched"] = matched(result["strengths"])
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"disguises-{result['date']}"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".svg").write_text(draw(panels(result["strengths"])))
    path.with_suffix(".md").write_text(markdown(result, f"{path.name}.svg"))
    print(markdown(result, f"{path.name}.svg"))
    return 0


def judged(victim: int, folder: Path, data: dict[str, Data], seed: int) -> list[dict[str, Any]]:
    """One row for each copy of one victim."""
    own = load(folder / f"victim-{victim:02}")
    prints = [extract(own, scheme=name, data=data["queries"], seed=seed, **wanted) for name, wanted in SCHEMES.items()]
    strangers = [scores(prints, load(folder / name)) for name in zoo.independent(victim)]
    aside = data["owner"].take(np.arange(MATCHED))
    before = [accuracy(own, part) for part in (aside, data["check"])]
    rows = []
    for name, (attack, common, parameter, values) in DISGUISES.items():
        for value, i in itertools.product(values, range(SEEDS if attack in DRAWS else 1)):
            copy, notes = disguised(own, attack, {**common, parameter: value}, data["attacker"],
                                    derive(seed, f"disguises/{name}/{value}/{victim}/{i}"))  # fmt: skip
            after = [accuracy(copy, part) for part in (aside, data["check"])]
            found = scores(prints, copy)
            tried = attack == "smooth" and i == 0
            rows.append({
                "victim": victim, "disguise": name, "strength": value, "copy": i, "notes": notes,
                "lost_aside": 100 * (before[0] - after[0]), "lost": 100 * (before[1] - after[1]),
                "auroc": {scheme: auroc([found[scheme]], [one[scheme] for one in strangers]) for scheme in SCHEMES},
                "adversarial": adversarial(own, copy, data["check"], seed) if tried else None,
            })  # fmt: skip
    return rows


def disguised(
    victim: Model, attack: str, params: dict[str, Any], data: Data, seed: int
) -> tuple[TorchModel, tuple[str, ...]]:
    """A copy in disguise."""
    built = build(attack, params)
    stolen = built.derive(restrict(victim, built.needs), data if built.needs_data else None, seed=seed)
    # A smoothed copy looks at each input many times; so many rows as usual then go through the network at once.
    rows = max(1, victim.batch_size // COPIES) if attack == "smooth" else None
    return TorchModel(stolen.module, domain=victim.domain, batch_size=rows), stolen.notes


def scores(prints: list[Fingerprint], suspect: Model) -> dict[str, float]:
    """The score that each fingerprint gives a suspect."""
    records = [record for record, _ in Battery(prints, suspect).records()]
    return {fp.scheme: build_scheme(fp.scheme, fp.params).similarity(fp, record)
            for fp, record in zip(prints, records, strict=True)}  # fmt: skip


def accuracy(model: Model, data: Data) -> float:
    """Share of the labels that a model gives."""
    return float(np.mean(restrict(model, Access.LABELS).labels(data.inputs) == data.labels))


def adversarial(victim: Model, copy: Model, data: Data, seed: int) -> dict[str, int]:
    """Counts of adversarial examples on a smoothed copy."""
    found = transferability(restrict(victim, Access.GRADIENTS), restrict(copy, Access.GRADIENTS), data, n=EXAMPLES,
                            eps=EPS, steps=STEPS, aimed_steps=0, seed=seed)  # fmt: skip
    assert found.there is not None
    assert found.back is not None
    return {"n": found.n, "plain": found.there.fooled, "carried": found.there.transferred, "own": found.back.fooled}


def strengths(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the victims, one row for each disguise and strength."""
    table = []
    for name, (_, _, _, values) in DISGUISES.items():
        for value in values:
            own = [row for row in rows if (row["disguise"], row["strength"]) == (name, value)]
            smoothed = [row["adversarial"] for row in own if row["adversarial"] is not None]
            table.append({
                "disguise": name, "strength": value,
                "lost_aside": float(np.mean([row["lost_aside"] for row in own])),
                "lost": float(np.mean([row["lost"] for row in own])),
                "auroc": {scheme: float(np.mean([row["auroc"][scheme] for row in own])) for scheme in SCHEMES},
                "undone": sum(bool(row["notes"]) for row in own),
                "adversarial": {key: sum(one[key] for one in smoothed) for key in smoothed[0]} if smoothed else None,
            })  # fmt: skip
    return table


def matched(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each accuracy allowed and each disguise, the row of the greatest strength that keeps to it, or None."""
    found = []
    for allowed in ALLOWED:
        for name in DISGUISES:
            rows = [row for row in table if row["disguise"] == name and row["lost_aside"] <= allowed]
            found.append({"allowed": allowed, "disguise": name, "row": rows[-1] if rows else None})
    return found


def panels(table: list[dict[str, Any]]) -> list[Panel]:
    """One chart for each scheme, and one for adversarial examples."""
    charts = [
        Panel(title=scheme, across="accuracy lost, points", up="AUROC", level=0.5,
              lines={name: sorted((row["lost"], row["auroc"][scheme]) for row in table if row["disguise"] == name)
                     for name in DISGUISES})
        for scheme in SCHEMES
    ]  # fmt: skip
    smoothed = [row for row in table if row["adversarial"] is not None]
    lines = {
        "victim's examples, on it": [(row["strength"], share(row, "plain", "n")) for row in smoothed],
        "victim's, on the smoothed copy": [(row["strength"], share(row, "carried", "n")) for row in smoothed],
        "smoothed copy's, on it": [(row["strength"], share(row, "own", "n")) for row in smoothed],
    }
    return [*charts, Panel(title="adversarial examples", across="sigma of smooth", up="share that fools", lines=lines)]


def share(row: dict[str, Any], part: str, whole: str) -> float:
    """A share of adversarial examples."""
    return row["adversarial"][part] / max(row["adversarial"][whole], 1)


def markdown(result: dict[str, Any], picture: str) -> str:
    """The page."""
    machine, names = result["machine"], list(SCHEMES)
    page = [
        f"# Disguises, {result['date']}",
        "",
        f"Made by `benchmarks/disguises.py`, seed {result['seed']}, {machine['architecture']}, one thread, torch "
        f"{machine['torch']}, {result['seconds']:,} s. Fashion-MNIST, small convolutional networks; "
        f"{result['victims']} victims, {SEEDS} copies of each at every strength (one where the attack draws nothing), "
        f"{result['strangers']} strangers to each. An AUROC is the mean over copies of the share of their victim's "
        "strangers that score below them, ties counting half. `modeldiff`, `sac` and `zest` read numbers, and a "
        "smoothed copy's are the logarithms of its shares of votes; the other schemes read labels.",
        "",
        f"![accuracy lost against AUROC]({picture})",
        "",
        "## At equal accuracy",
        "",
        "Of each disguise the greatest strength that loses no more than is allowed, in points on one set of images; "
        "`lost` is on others.",
        "",
        "| allowed | disguise | strength | lost | " + " | ".join(names) + " |",
        "| ---: | --- | ---: | ---: | " + " | ".join("---:" for _ in names) + " |",
        *(matched_row(entry, names) for entry in result["matched"]),
        "",
        "## All strengths",
        "",
        "`undone`: copies whose training was ended because it cost too much.",
        "",
        "| disguise | strength | lost | undone | " + " | ".join(names) + " |",
        "| --- | ---: | ---: | ---: | " + " | ".join("---:" for _ in names) + " |",
        *(f"| {row['disguise']} | {row['strength']:g} | {row['lost']:.2f} | {row['undone']} | {cells(row, names)} |"
          for row in result["strengths"]),
        "",
        "## Adversarial examples under smoothing",
        "",
        f"MI-FGSM, {STEPS} steps, eps {EPS * 255:.0f}/255, on inputs that victim and copy classify correctly; 95% "
        "intervals take inputs for independent. Gradients of the copy flow through the mean of its versions' "
        "probabilities.",
        "",
        "| sigma | n | fool the victim | of these, the copy too | made on the copy, fool it |",
        "| ---: | ---: | ---: | ---: | ---: |",
        *(f"| {row['strength']:g} | {row['adversarial']['n']} | {rate(row, 'plain', 'n')} | "
          f"{rate(row, 'carried', 'plain')} | {rate(row, 'own', 'n')} |"
          for row in result["strengths"] if row["adversarial"] is not None),
        "",
    ]  # fmt: skip
    return "\n".join(page)


def matched_row(entry: dict[str, Any], names: list[str]) -> str:
    """One disguise at one accuracy allowed."""
    row = entry["row"]
    if row is None:
        return f"| {entry['allowed']:g} | {entry['disguise']} | - | - | " + " | ".join("-" for _ in names) + " |"
    return (f"| {entry['allowed']:g} | {entry['disguise']} | {row['strength']:g} | {row['lost']:.2f} | "
            f"{cells(row, names)} |")  # fmt: skip


def cells(row: dict[str, Any], names: list[str]) -> str:
    """The AUROC of each scheme."""
    return " | ".join(f"{row['auroc'][name]:.3f}" for name in names)


def rate(row: dict[str, Any], part: str, whole: str) -> str:
    """A share with its interval."""
    k, n = row["adversarial"][part], row["adversarial"][whole]
    if n == 0:
        return "-"
    low, high = clopper_pearson(k, n)
    return f"{k / n:.0%} ({low:.0%} to {high:.0%})"


if __name__ == "__main__":
    raise SystemExit(main())
