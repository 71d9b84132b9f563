"""Are multipoints informative? Their words against IPGuard and AKH, at equal numbers of label queries.

    OMP_NUM_THREADS=1 python benchmarks/multipoints.py --models FOLDER [--processes 2] [--results FOLDER]

On the models of `fashion_mnist.py` (FOLDER; what it does not hold is trained, 20 minutes of one core): twelve of the
models made on the strangers' data are victims in turn, each with eight copies that are made here (about half a minute
of one core a victim) and with 78 models made without it. On four victims the parameters of multipoint and of ipguard
are chosen from a grid; on the other eight the choice is judged, beside the defaults, akh, and plain agreement on random
inputs. Writes multipoints-DATE.json and .txt; run again it keeps the models it has made.
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
from scipy import stats

import locard
from locard.engine.respond import respond
from locard.errors import ParameterError
from locard.evidence import auroc
from locard.models import Model, load
from locard.records import Data
from locard.schemes import build
from locard.seeds import derive
from locard.zoo import fashion
from locard.zoo.population import Built, Job, Theft, train_many

JUDGED = tuple(f"disjoint-{i:02}" for i in range(8))
CHOOSERS = tuple(f"disjoint-{i:02}" for i in range(8, 12))
COPIES = {kind: fashion.THEFTS[kind] for kind in ("finetune-all", "finetune-last", "prune", "prune-recover",
                                                 "quantise-int8", "noise", "extract-labels")}  # fmt: skip
# Ten epochs at the rate that the victim itself was trained at, which take a copy far from it.
COPIES["finetune-hard"] = ("finetune", {"layers": "all", "epochs": 10, "lr": fashion.RECIPE.lr}, True)
EXTRACTED = "extract-labels"
# The strata of the zoo: to a victim that was trained on the strangers' data, the first have its data and architecture.
NEAREST, *FAR = ("disjoint", "same-architecture", "same-data", "foreign-theft")
# Whole multipoints of 3 and of 5, as near to a hundred and to three hundred queries as may be.
BUDGETS = {3: (99, 300), 5: (100, 300), 0: (99, 300)}
MARGINS = (0.1, 0.3, 0.6, 1.0, 1.5, 2.0)
# What a table shows, by its head.
GRID = {"AUROC": "auroc", "same data, arch.": "nearest", "gap": "gap", "gap, all": "gap all", "z, weakest": "z",
        "found": "found", "strangers": "independent"}  # fmt: skip
PAIRED = {"AUROC": "auroc", "same data, arch.": "nearest", "gap": "gap", "gap, all": "gap all", "found": "found"}

Params = dict[str, Any]
Form = tuple[str, Params]


def main() -> int:
    """Build, choose, judge, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--models", type=Path, required=True, help="folder of the models; what it holds is kept")
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    seed, folder = arguments.seed, arguments.models
    queries = fashion.build(folder, seed=seed, processes=arguments.processes, progress=line("zoo")).queries
    started = time.perf_counter()
    built = train_many(jobs(seed), fashion.parts(), folder, held_out="check", processes=arguments.processes,
                       progress=line("copies"))  # fmt: skip
    trained, models = time.perf_counter(), {name: load(folder / name) for name in strangers()}
    grid = chosen_from(CHOOSERS, forms(), models, built, queries, seed)
    choice = {name: best(grid, name) for name in ("ipguard", "multipoint word", "multipoint unit")}
    judged = contestants(choice)
    rows = {label: [] for label in judged}
    for victim in JUDGED:
        found = scores(victim, list(judged.values()), models, built, queries, seed, budgets=(0, 1))
        for label, row in zip(judged, found, strict=True):
            rows[label].append(row)
        print(f"judged {victim}", file=sys.stderr)
    result = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "threads": 1,
                    "torch": torch.__version__, "python": platform.python_version(), "locard": locard.__version__},
        "seed": seed,
        "seconds": {"copies": round(trained - started, 1), "all": round(time.perf_counter() - started, 1)},
        "accuracy": {name: made.accuracy for name, made in built.items()},
        "agreement": {n: m.acceptance.agreement for n, m in built.items() if m.acceptance is not None},
        "failed thefts": [n for n, m in built.items() if m.acceptance is not None and not m.acceptance.accepted],
        "grid": [{"form": form, **{k: float(np.mean(v)) for k, v in found.items()}} for form, found in grid],
        "choice": choice,
        "forms": judged,
        "judged": rows,
    }  # fmt: skip
    page = text(result)
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"multipoints-{result['date']}"
    path.with_suffix(".json").write_text(json.dumps(result) + "\n")
    path.with_suffix(".txt").write_text(page)
    print(page)
    return 0


def jobs(seed: int) -> list[Job]:
    """The victims, which are there already, and their copies."""
    originals = {job.name: job for job, _ in fashion.jobs(seed)}
    listed: list[Job] = [originals[victim] for victim in (*JUDGED, *CHOOSERS)]
    for victim in (*JUDGED, *CHOOSERS):
        for kind, (attack, params, needs_data) in COPIES.items():
            listed.append(Theft(name=f"{victim}-{kind}", victim=victim, attack=attack, params=params,
                                data="attacker" if needs_data else None,
                                seed=derive(seed, f"multipoints/{victim}/{kind}")))  # fmt: skip
    return listed


def strangers() -> list[str]:
    """Every model that is no copy made here."""
    return [f"{stratum}-{i:02}" for stratum in (NEAREST, *FAR) for i in range(fashion.EACH)]


def forms() -> list[Form]:
    """What is tried on the choosers."""
    listed: list[Form] = [("ipguard", {"margin": margin}) for margin in MARGINS]
    for score in ("word", "unit"):
        for classes in (3, 5):
            listed += [("multipoint", {"score": score, "classes": classes, "margin": margin}) for margin in MARGINS]
    return listed


def contestants(choice: dict[str, Form]) -> dict[str, Form]:
    """What is judged, by a name for people."""
    plain: dict[str, Form] = {
        "random inputs": ("random+labels+hamming", {}),
        "akh": ("akh", {}),
        "ipguard, default": ("ipguard", {}),
        "ipguard, chosen": choice["ipguard"],
        "multipoint word, default": ("multipoint", {}),
        "multipoint word, chosen": choice["multipoint word"],
        "multipoint unit, default": ("multipoint", {"score": "unit"}),
        "multipoint unit, chosen": choice["multipoint unit"],
    }
    return plain


def scores(
    victim: str,
    wanted: list[Form],
    models: dict[str, Model],
    built: dict[str, Built],
    queries: Data,
    seed: int,
    *,
    budgets: tuple[int, ...] = (0,),
) -> list[dict[str, Any]]:
    """Of each form, the scores of the victim's copies and of the models made without it, at each budget.

    A form whose points the data do not hold in such a number scores nothing: its row is empty at that budget.
    """
    own = f"foreign-theft-{victim[-2:]}"
    copies = {kind: load(built[f"{victim}-{kind}"].path) for kind in COPIES if accepted(built[f"{victim}-{kind}"])}
    others = {name: model for name, model in models.items() if name not in (victim, own)}
    found, prints = [], {}
    for scheme, params in wanted:
        row: dict[str, Any] = {"victim": victim}
        probes = {name: value for name, value in params.items() if name != "score"}
        for budget in budgets:
            n = BUDGETS[params.get("classes", 3) if scheme == "multipoint" else 0][budget]
            key = json.dumps([scheme, probes, n], sort_keys=True)
            if key not in prints:
                # The two scores of multipoint read the same answers.
                prints[key] = answers(models[victim], scheme, probes, queries, n, seed, copies | others)
            if prints[key] is None:
                row[str(budget)] = None
                continue
            similarity = build(scheme, params).similarity
            fp, records = prints[key]
            values = {name: round(similarity(fp, record), 6) for name, record in records.items()}
            row[str(budget)] = {"queries": n, "copies": {k: values[k] for k in copies},
                                "independent": {k: values[k] for k in others}}  # fmt: skip
        found.append(row)
    return found


def answers(
    victim: Model, scheme: str, params: Params, queries: Data, n: int, seed: int, suspects: dict[str, Model]
) -> tuple[Any, dict[str, Any]] | None:
    """A fingerprint, and every suspect's record on its queries; None where there are too few points."""
    try:
        fp = locard.extract(victim, scheme=scheme, data=queries, queries=n, seed=seed, params=params)
    except ParameterError as error:
        print(error, file=sys.stderr)
        return None
    return fp, {name: respond(fp, model) for name, model in suspects.items()}


def accepted(made: Built) -> bool:
    """Whether a theft succeeded."""
    return made.acceptance is None or made.acceptance.accepted


def chosen_from(
    victims: tuple[str, ...],
    wanted: list[Form],
    models: dict[str, Model],
    built: dict[str, Built],
    queries: Data,
    seed: int,
) -> list[tuple[Form, dict[str, list[float]]]]:
    """The measures of every form on every victim, at the smaller budget."""
    rows = [scores(victim, wanted, models, built, queries, seed) for victim in victims]
    return [(form, measures([row[i] for row in rows], 0)) for i, form in enumerate(wanted)]


def best(grid: list[tuple[Form, dict[str, list[float]]]], name: str) -> Form:
    """The form with the largest mean AUROC over all copies, of equal ones that with the largest gap."""
    scheme, _, score = name.partition(" ")
    of = [entry for entry in grid if entry[0][0] == scheme and entry[0][1].get("score", "") == score and entry[1]]
    return max(of, key=lambda entry: (round(np.mean(entry[1]["auroc"]), 4), np.mean(entry[1]["gap"])))[0]


def measures(rows: list[dict[str, Any]], budget: int) -> dict[str, list[float]]:
    """What is read off each victim's scores; nothing where a victim has none.

    `auroc` over all copies and independent models, `nearest` against those of the victim's own data and architecture,
    `gap` from the weakest copy but extracted ones to the strongest independent model, `gap all` with extracted ones,
    `z` the weakest copy's distance from the independent models' mean in their standard deviations, `found` the share
    of copies that score above every independent model, `independent` these models' mean, and of each kind of copy the
    share of independent models below it, and its score.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        scored = row[str(budget)]
        if scored is None:
            return {}
        copies, others = scored["copies"], list(scored["independent"].values())
        ordinary = [score for kind, score in copies.items() if kind != EXTRACTED]
        near = [score for name, score in scored["independent"].items() if name.startswith(NEAREST)]
        values = {
            "auroc": auroc(list(copies.values()), others),
            "nearest": auroc(list(copies.values()), near),
            "gap": min(ordinary) - max(others),
            "gap all": min(copies.values()) - max(others),
            "z": (min(copies.values()) - float(np.mean(others))) / max(float(np.std(others, ddof=1)), 1e-12),
            "found": float(np.mean([score > max(others) for score in copies.values()])),
            "independent": float(np.mean(others)),
            **{kind: auroc([score], others) for kind, score in copies.items()},
            **{f"score of {kind}": score for kind, score in copies.items()},
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def interval(values: list[float]) -> str:
    """Mean and the half width of a 95% t interval over victims."""
    if len(values) < 2:
        return "-"
    half = stats.t.ppf(0.975, len(values) - 1) * float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def text(result: dict[str, Any]) -> str:
    """The tables."""
    machine, judged, seconds = result["machine"], result["judged"], result["seconds"]
    page = [
        f"Multipoints, {result['date']}",
        "",
        f"Made by benchmarks/multipoints.py, seed {result['seed']}, {machine['architecture']}, one thread a process, "
        f"torch {machine['torch']}; {seconds['copies']:g} s for copies that were missing, {seconds['all']:g} s in all.",
        f"{len(JUDGED)} victims judged, each with {len(COPIES)} copies and {4 * fashion.EACH - 2} independent models; "
        f"parameters chosen on {len(CHOOSERS)} other victims by mean AUROC, then gap.",
        f"Failed thefts, left out: {', '.join(result['failed thefts']) or 'none'}.",
        f"Mean and 95% t interval over n = {len(JUDGED)} victims, who share their data and most of their strangers.",
        "Gap: weakest copy minus strongest independent model, without and with extracted copies. z: the weakest copy's",
        "distance from the independent models' mean in their standard deviations. Found: share of copies above every",
        "independent model. Strangers: the independent models' mean.",
        "Chosen: " + "; ".join(f"{name}: {form[1]}" for name, form in result["choice"].items()),
        *table("The grid, means over the choosers, about 100 queries", GRID,
               {" ".join([row["form"][0], *(f"{k}={v}" for k, v in row["form"][1].items())]):
                [f"{row[k]:.3f}" for k in GRID.values()] if "auroc" in row else [] for row in result["grid"]}),
    ]  # fmt: skip
    for budget, title in ((0, "about 100 queries"), (1, "300 queries")):
        found = {label: measures(rows, budget) for label, rows in judged.items()}
        paired = {
            f"{ours} - {theirs}": {k: np.subtract(found[ours][k], found[theirs][k]).tolist() for k in PAIRED.values()}
            for how in ("default", "chosen")
            for ours in (f"multipoint word, {how}", f"multipoint unit, {how}")
            for theirs in ("random inputs", "akh", f"ipguard, {how}")
            if found[ours] and found[theirs]
        }
        below = {kind: kind for kind in COPIES}
        scored = {kind: f"score of {kind}" for kind in COPIES} | {"strangers": "independent"}
        for name, columns, rows in (
            ("Judged victims", GRID, found),
            ("Share of independent models below a copy", below, found),
            ("Score of a copy", scored, found),
            ("Differences, victim by victim", PAIRED, paired),
        ):
            page += table(f"{name}, {title}", columns,
                          {label: [interval(row.get(k, [])) for k in columns.values()] if row else []
                           for label, row in rows.items()})  # fmt: skip
    return "\n".join(page) + "\n"


def table(title: str, columns: dict[str, str], rows: dict[str, list[str]]) -> list[str]:
    """Lines of a table with its title and its heads; a row of nothing had too few points."""
    first = max(map(len, rows))
    return [
        "",
        title,
        "",
        " " * first + "".join(f"{head:>18}" for head in columns),
        *(f"{name:{first}}" + ("".join(f"{cell:>18}" for cell in cells) or "  too few points")
          for name, cells in rows.items()),
    ]  # fmt: skip


def line(what: str) -> Any:
    """A progress callback that says when all is done."""

    def show(done: int, wanted: int) -> None:
        if sys.stderr.isatty() or done == wanted:
            end = "\n" if done == wanted else ""
            print(f"\r{what}: {done} of {wanted} models", end=end, file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    raise SystemExit(main())
