"""A generated bench: scores of known laws instead of models."""

import itertools

import numpy as np

from locard.bench import Records, Row
from locard.bench.records import COLUMNS, dtype_of


def row(**changed):
    """A theft's row, with other values where they are named; whose it is and what it learnt go with its truth."""
    independent = changed.get("truth") == "independent"
    near = changed.get("kind") in ("same-data", "same-architecture")
    values = {
        "victim": "v", "architecture": "cnn", "suspect": "s", "model": "ab", "parent": "" if independent else "v",
        "shares": near or not independent,
        "role": "evaluation", "truth": "derived",
        "kind": "prune", "family": "pruning", "accepted": True, "entry": "akh", "scheme": "akh", "claim": "derived",
        "access": "LABELS", "budget": 0, "queries": 100, "seed": 0, "score": 0.5, "own": 1.0, "extraction": 0.1,
        "seconds": 0.01,
    }  # fmt: skip
    return Row(**(values | changed))


KINDS = {"finetune": "fine-tuning", "prune": "pruning", "distil": "extraction", "steal": "extraction"}


def population(
    *, seed=0, victims=3, kinds=KINDS, thefts=4, strata=("disjoint", "same-data"), references=39, innocents=30,
    entries=("akh",), shift=2.0, budgets=(0,), seeds=(0,), broken=(), score=None, shared=0.0, access="LABELS",
    claim="derived",
):  # fmt: skip
    """Records of `entries`: innocents score N(0, 1) before every victim, thefts N(shift, 1).

    `broken` entries give innocents to be judged 2 more than references. `shared` is the part of an innocent's variance
    that it has before all victims.
    """
    draw = np.random.default_rng(seed)
    models = [("calibration", "independent", k, k, f"{k}-r{i}") for k in strata for i in range(references)]
    models += [("evaluation", "independent", k, k, f"{k}-{i}") for k in strata for i in range(innocents)]
    parts = []
    for entry in entries:
        own = {name: draw.normal() for *_, name in models}
        for victim, budget, extraction in itertools.product(range(victims), budgets, seeds):
            rows = [*models, *(("evaluation", "derived", kind, family, f"{kind}-{victim}-{i}")
                               for kind, family in kinds.items() for i in range(thefts))]  # fmt: skip
            role, truth, kind, family, name = (np.array(column, object) for column in zip(*rows, strict=True))
            values = draw.normal(size=len(rows)) * np.sqrt(1 - shared)
            values += np.sqrt(shared) * np.array([own.get(one, draw.normal()) for one in name])
            values += shift * (truth == "derived")
            values += 2.0 * ((truth == "independent") & (role == "evaluation") & (entry in broken))
            columns = {
                "victim": f"v{victim}", "architecture": "cnn", "suspect": name, "model": name, "role": role,
                "parent": np.where(truth == "derived", f"v{victim}", ""),
                "shares": (truth == "derived") | np.isin(kind, ["same-data", "same-architecture"]),
                "truth": truth, "kind": kind, "family": family, "accepted": True, "entry": entry, "scheme": entry,
                "claim": claim, "access": access, "budget": budget, "queries": budget or 100, "seed": extraction,
                "score": values if score is None else score(values), "own": 10.0, "extraction": 1.5, "seconds": 0.01,
                "reason": "",
            }  # fmt: skip
            parts.append(Records({c: np.full(len(rows), columns[c], dtype_of(c)) for c in COLUMNS}))
    return Records.concatenate(parts)


def numbers(found, field="value"):
    """One field of many intervals, (n,); refused ones are NaN."""
    return np.array([getattr(one, field) for one in found], float)
