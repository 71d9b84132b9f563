"""Four schemes on Fashion-MNIST: what they say of a victim's copies, and how often they accuse eighty innocent models.

    OMP_NUM_THREADS=1 python benchmarks/fashion_mnist.py --models FOLDER [--processes 2] [--results benchmarks/results]

Trains what FOLDER does not hold yet (about 20 minutes of one core for everything), extracts the victim's fingerprints
on test images that no model has seen, scores every model once, and writes fashion-mnist-DATE.json and .md. Exits with 1
where a fine-tuned, pruned or quantised copy is missed by akh, sac or ipguard, or where a scheme flags more of the
innocent than alpha and two standard errors.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import locard
from locard.engine.calibrate import calibrate_all
from locard.engine.compare import compare_fingerprints
from locard.engine.extract import extract
from locard.evidence import p_value, stratified
from locard.fingerprint import Fingerprint
from locard.models.session import Progress
from locard.records import Reference
from locard.seeds import generator
from locard.zoo import fashion
from locard.zoo.roles import Population

ALPHA, SPLITS, REFERENCES, RESAMPLES = 0.05, 200, 19, 2000
# zest at a thirtieth of its paper's queries: 16 references of 250 masks.
SCHEMES: dict[str, dict[str, Any]] = {
    "akh": {},
    "sac": {},
    "ipguard": {},
    "zest": {"queries": 4000, "params": {"masks": 250}},
}
MUST = {"finetune-all", "finetune-last", "prune", "quantise-int8", "quantise-fp16"}


def main() -> int:
    """Build, score, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--models", type=Path, required=True, help="folder of the models; what it holds is kept")
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    population = fashion.build(arguments.models, seed=arguments.seed, processes=arguments.processes,
                               progress=line("models"))  # fmt: skip
    started = time.perf_counter()
    prints = [extract(population.victim, scheme=name, data=population.queries, seed=arguments.seed, **wanted)
              for name, wanted in SCHEMES.items()]  # fmt: skip
    prints = calibrate_all(prints, references=population.references, progress=line("references"))
    result: dict[str, Any] = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": 1, "torch": torch.__version__,
                    "python": platform.python_version(), "locard": locard.__version__},
        "seed": arguments.seed,
        "alpha": ALPHA,
        "queries": {fp.scheme: fp.cost for fp in prints},
        "models": models(population),
        "copies": copies(population, prints),
        "innocent": {fp.scheme: innocent(fp, arguments.seed) for fp in prints},
        "scores": {fp.scheme: {r.name: r.score for r in references(fp)} for fp in prints},
    }  # fmt: skip
    result["seconds_after_training"] = round(time.perf_counter() - started, 1)
    result["missed"] = [
        f"{row['kind']} by {scheme}"
        for row in result["copies"]
        for scheme in ("akh", "sac", "ipguard")
        if row["kind"] in MUST and row[scheme]["decision"] != "derived"
    ]
    result["too_many"] = [name for name, row in result["innocent"].items() if row["flagged"] > row["bound"]]
    page = markdown(result)
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"fashion-mnist-{result['date']}"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(page)
    print(page)
    return int(bool(result["missed"] or result["too_many"]))


def line(what: str) -> Progress:
    """A progress callback that keeps one line of a terminal up to date."""

    def show(done: int, wanted: int) -> None:
        if sys.stderr.isatty() or done == wanted:
            print(f"\r{what}: {done} of {wanted}", end="\n" if done == wanted else "", file=sys.stderr, flush=True)

    return show


def models(population: Population) -> dict[str, Any]:
    """Number and accuracy of the models of each kind."""
    groups = {"victim": [population.victim], **population.references}
    accuracies = {kind: [population.built[path.name].accuracy for path in paths] for kind, paths in groups.items()}
    return {
        kind: {"n": len(a), "accuracy": float(np.mean(a)), "low": min(a), "high": max(a)}
        for kind, a in accuracies.items()
    }


def copies(population: Population, prints: list[Fingerprint]) -> list[dict[str, Any]]:
    """What each scheme, and all together, say of each copy."""
    rows = []
    for suspect in population.suspects:
        comparison = compare_fingerprints(prints, suspect.path, alpha=ALPHA)
        built = population.built[suspect.path.name]
        row: dict[str, Any] = {"kind": suspect.kind, "accuracy": built.accuracy, "accepted": suspect.accepted,
                               "agreement": built.acceptance.agreement if built.acceptance else None,
                               "combined": {"p": comparison.p_value, "decision": comparison.decision}}  # fmt: skip
        for verdict in comparison.evidence:
            row[verdict.scheme] = {"score": verdict.evidence.score, "p": verdict.evidence.p_value,
                                   "decision": verdict.decision}  # fmt: skip
        rows.append(row)
    return rows


def innocent(fingerprint: Fingerprint, seed: int) -> dict[str, Any]:
    """How often innocent models are flagged.

    `flagged` is the share over random splits of the whole pool into references and the rest, `se` its standard error by
    a bootstrap over models, not over splits or queries. `stratified` judges each model by all others as `verify` does,
    with the largest p over the strata. `across[a][b]` is the share of stratum b that is flagged by references of
    stratum a alone, which is what goes wrong when references are unlike the suspect.
    """
    pool = references(fingerprint)
    scores = np.array([model.score for model in pool])
    source = generator(seed, f"benchmark/{fingerprint.scheme}")
    flags = np.full((SPLITS, len(pool)), np.nan)
    for split in range(SPLITS):
        order = source.permutation(len(pool))
        null, rest = order[:REFERENCES], order[REFERENCES:]
        flags[split, rest] = [p_value(scores[null], float(scores[i])) <= ALPHA for i in rest]
    rates = np.nanmean(flags, axis=0)
    se = float(rates[source.integers(0, len(pool), (RESAMPLES, len(pool)))].mean(axis=1).std(ddof=1))
    alone = [stratified([*pool[:i], *pool[i + 1 :]], pool[i].score, "").p_value or 1.0 for i in range(len(pool))]
    strata = sorted({model.stratum for model in pool})
    of = {stratum: np.array([model.score for model in pool if model.stratum == stratum]) for stratum in strata}
    across = {
        a: {
            b: float(np.mean([p_value(of[a][:REFERENCES], score) <= ALPHA for score in of[b]]))
            for b in strata
            if b != a
        }
        for a in strata
    }
    return {
        "n": len(pool),
        "flagged": float(np.nanmean(flags)),
        "se": se,
        "bound": ALPHA + 2 * se,
        "stratified": float(np.mean(np.array(alone) <= ALPHA)),
        "means": {stratum: float(values.mean()) for stratum, values in of.items()},
        "highest": {stratum: float(values.max()) for stratum, values in of.items()},
        "across": across,
    }


def references(fingerprint: Fingerprint) -> tuple[Reference, ...]:
    """The scored pool."""
    return fingerprint.calibration.references if fingerprint.calibration is not None else ()


def processor() -> str:
    """The processor's name where Linux tells, else the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((text.partition(":")[2].strip() for text in lines if text.startswith("model name")), platform.machine())


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    schemes, machine = list(result["queries"]), result["machine"]
    asked = ", ".join(f"{name} {cost:,}" for name, cost in result["queries"].items())
    page = [
        f"# Fashion-MNIST, {result['date']}",
        "",
        f"Made by `benchmarks/fashion_mnist.py`, seed {result['seed']}, on {machine['processor']}, one thread a "
        f"process, torch {machine['torch']}. Queries to a suspect: {asked}. Alpha {result['alpha']}.",
        "",
        "## Models",
        "",
        "| kind | n | mean accuracy | lowest | highest |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(f"| {kind} | {row['n']} | {row['accuracy']:.1%} | {row['low']:.1%} | {row['high']:.1%} |"
          for kind, row in result["models"].items()),
        "",
        "## Copies of the victim",
        "",
        "Score and p; the references are all strata, twenty models each, and the largest p over the strata counts. "
        "Bold: flagged.",
        "",
        "| copy | accuracy | agreement | " + " | ".join(schemes) + " | combined p |",
        "| --- | ---: | ---: | " + " | ".join("---:" for _ in schemes) + " | ---: |",
        *(copy_row(row, schemes) for row in result["copies"]),
        "",
        "## Innocent models",
        "",
        f"Share flagged over {SPLITS} random splits of the pool into {REFERENCES} references and the rest; SE by a "
        "bootstrap over models. 'As deployed' judges each model by all others, with the largest p over the strata.",
        "",
        "| scheme | pool | flagged | SE | bound | as deployed | "
        + " | ".join(f"mean, {s}" for s in strata(result)) + " |",
        "| --- | ---: | ---: | ---: | ---: | ---: | " + " | ".join("---:" for _ in strata(result)) + " |",
        *(f"| {name} | {row['n']} | {row['flagged']:.4f} | {row['se']:.4f} | {row['bound']:.4f} | "
          f"{row['stratified']:.4f} | " + " | ".join(f"{row['means'][s]:.3f}" for s in strata(result)) + " |"
          for name, row in result["innocent"].items()),
        "",
        "## References of the wrong kind",
        "",
        f"Share of a stratum's models flagged when the {REFERENCES} references are all of another one: why `calibrate` "
        "wants every stratum.",
        "",
        "| scheme | references | " + " | ".join(strata(result)) + " |",
        "| --- | --- | " + " | ".join("---:" for _ in strata(result)) + " |",
        *(f"| {name} | {a} | "
          + " | ".join("" if a == b else f"{row['across'][a][b]:.2f}" for b in strata(result)) + " |"
          for name, row in result["innocent"].items() for a in strata(result)),
        "",
        f"Missed that must not be: {', '.join(result['missed']) or 'none'}. "
        f"Schemes that flag too many: {', '.join(result['too_many']) or 'none'}.",
        "",
    ]  # fmt: skip
    return "\n".join(page)


def copy_row(row: dict[str, Any], schemes: list[str]) -> str:
    """One copy."""
    cells = [f"{row[name]['score']:.3f}, " + bold(row[name]["p"], row[name]["decision"]) for name in schemes]
    failed = "" if row["accepted"] else " (failed theft)"
    return (f"| {row['kind']}{failed} | {row['accuracy']:.1%} | {row['agreement']:.1%} | " + " | ".join(cells)
            + f" | {bold(row['combined']['p'], row['combined']['decision'])} |")  # fmt: skip


def bold(p: float, decision: str) -> str:
    """A p-value, bold where it flags."""
    return f"**{p:.3f}**" if decision == "derived" else f"{p:.3f}"


def strata(result: dict[str, Any]) -> list[str]:
    """The strata of the pool."""
    return list(next(iter(result["innocent"].values()))["means"])


if __name__ == "__main__":
    raise SystemExit(main())
