"""Do Locard's parts give what the authors' released codes give? The same models and inputs through both.

    git clone https://github.com/cleverhans-lab/Zest-Model-Distance        # and the others
    OMP_NUM_THREADS=1 python benchmarks/released_parity.py --zest Zest-Model-Distance --sac SAC [...]

Their functions run as they lie in the checkouts, one by one: `_released.py` says how. Times are of the processor on one
thread. The script exits with 1 where the two differ and the reason given is not borne out by what is measured.
"""

from __future__ import annotations

import argparse
import ast
import copy
import datetime
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from _qurd import CLASSES, DOMAIN, seeded, view, world
from _released import IMPORTED, Counted, hushed, method, run, statements, taken, timed
from qurd_parity import MAGNIFIED, QUERIES, ROUNDING, Row, alike, faults, told
from scipy import spatial, stats

import locard
from locard.distances import distance
from locard.models import restrict
from locard.models.torch_module import TorchModel
from locard.queries import Queries
from locard.queries.cutmix import CutMix
from locard.queries.segments import Segments, masked
from locard.queries.trajectory import Trajectory, walk
from locard.records import Access, Data
from locard.representations.correlation import Correlation, correlation, spoken
from locard.representations.decision_distance import DecisionDistance
from locard.representations.local_explanations import LocalExplanations, explain
from locard.representations.margins import Margins
from locard.schemes.dataset_inference import fit, privacy, welch

Models = dict[str, torch.nn.Module]
REFERENCES, MASKS, WIDE = 4, 1000, 100
WALKS, CROSSED, ITERATIONS, WALKED, SPLITS = 10, 4, 300, 20, 5
# Share of an image that a patch may cover, with what rounding adds; share of entries whose gradient is all but 0.
PATCHED, SIGNS, CLAIM = 0.05, 1e-3, 0.01


def zest(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Masked images, weights, alignment and cosine."""
    lime = taken((checkout / "lime_pytorch.py").read_text(),
                 ["get_reference_dataset", "prepare_lime_dataset", "label_lime_dataset", "train_lime_model",
                  "compute_lime_signature"], os=os, copy=copy)  # fmt: skip
    names = ["consistent_type", "compute_distance", "parameter_distance", "lime_align"]
    distances = taken((checkout / "utils.py").read_text(), names, copy=copy)
    measure, align = distances.parameter_distance, distances.lime_align
    victim = models["victim"]
    queries = Segments(masks=MASKS).draw(
        view(victim), data, n=REFERENCES * MASKS, default=0, seed=0, population=None
    )
    segments, fill = queries.extras["segments"], queries.extras["fill"]
    kept = [np.unpackbits(m, axis=1, count=int(s.max()) + 1) for m, s in zip(queries.extras["masks"], segments, strict=True)]
    grey = np.broadcast_to(fill, DOMAIN.shape).transpose(1, 2, 0)
    references = queries.inputs.transpose(0, 2, 3, 1)

    def their_images() -> np.ndarray:
        parts = zip(kept, references, segments[:, 0], strict=True)
        return np.stack([lime.get_reference_dataset(k, image, s, grey) for k, image, s in parts])

    def our_images() -> np.ndarray:
        return np.stack([masked(queries, i, k.astype(bool)) for i, k in enumerate(kept)])

    images, ours, seconds = timed(their_images, our_images)
    rows = [alike(f"zest, {MASKS * REFERENCES:,} masked images", images.transpose(0, 1, 4, 2, 3), ours, seconds=seconds)]
    answers = lime.label_lime_dataset(kept, images, victim)
    a, b, seconds = timed(
        lambda: lime.train_lime_model(answers).numpy(),
        lambda: np.concatenate([explain(k.astype(bool), y) for k, (_, y) in zip(kept, answers, strict=True)]),
        5,
    )
    rows.append(alike("  weights from the same answers", a, b, bound=MAGNIFIED, seconds=seconds))
    weights = {}
    for name, module in models.items():
        counted = Counted(module)
        weights[name], b, seconds = timed(
            lambda counted=counted: lime.compute_lime_signature(counted, their_images(), kept),
            lambda module=module: LocalExplanations(answers="logits").record(view(module), queries)["weights"],
        )
        if name == "victim":
            asked = LocalExplanations(answers="logits").cost(queries)
            rows += [
                alike("  signature, images to weights", weights[name].numpy(), b, bound=MAGNIFIED, seconds=seconds),
                told("  queries for it", f"{counted.rows:,}", f"{asked:,}", asked < counted.rows,
                     "equal masks of a reference are asked once"),
            ]  # fmt: skip
    far = [measure(weights["victim"], w, "cos", lime=True)[0] for w in weights.values()]
    tables = [w.numpy() for w in weights.values()]
    rows.append(alike("  aligned cosine to the three", far, [distance("aligned-cosine")(tables[0], w) for w in tables],
                      bound=MAGNIFIED))  # fmt: skip
    source = np.random.default_rng(0)
    wide = source.normal(size=(2, 500, WIDE)).astype(np.float32)
    a, b, seconds = timed(
        lambda: measure(wide[0], wide[1], "cos", lime=True)[0], lambda: distance("aligned-cosine")(wide[0], wide[1])
    )
    rows.append(alike(f"  aligned cosine, {WIDE} classes", a, b, bound=MAGNIFIED, seconds=seconds))
    moved = 0
    for other in tables[1:]:
        paired = align(weights["victim"], torch.from_numpy(other), "cos")[1].numpy().reshape(other.shape)
        moved += int((paired != other).any(axis=0).sum())
    flat = [w.astype(np.float64).ravel() for w in tables]
    plain = [1 - a @ flat[0] / np.linalg.norm(a) / np.linalg.norm(flat[0]) for a in flat]
    far = [distance("flat-cosine")(tables[0], w) for w in tables]
    rows.append(faults("  classes compared with another", moved, 2 * CLASSES * (not np.allclose(far, plain)), 2 * CLASSES,
                       "theirs pairs classes off though all have the same; ours where `align` is set"))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("data").mkdir()
        try:
            lime.prepare_lime_dataset("digits", queries.inputs, segments[:, 0], num_samples=10)
            end = "masks"
        except ValueError as error:
            end = type(error).__name__
    refused = end == "ValueError"
    rows.append(told("  making masks", end, "masks", refused, f"NumPy {np.__version__} stores no ragged list"))
    return rows


def sac(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Correlations, their differences, and the patches of SAC-m."""
    listed: list[torch.Tensor] = []
    x = torch.from_numpy(data.inputs[:QUERIES])
    loader = [(part, torch.zeros(len(part))) for part in x.split(50)]
    theirs = taken(
        (checkout / "correlation_wrong.py").read_text(),
        ["correlation", "cal_cor", "cal_cor_onehot", "output_to_label", "cal_correlation"],
        dataset1=lambda *_, **__: None, DataLoader=lambda *_, **__: loader, BATCH_SIZE=50,
        calculate_auc=lambda first, _: listed.append(first),
    )  # fmt: skip
    queries = Queries(inputs=x.numpy(), extras={})
    rows, matrices = [], {}
    for name, compare, answers in (("correlation", theirs.cal_cor, "logits"),
                                   ("correlation of labels", theirs.cal_cor_onehot, "labels")):  # fmt: skip
        a, b, seconds = timed(
            lambda compare=compare: [compare(module, loader).numpy() for module in models.values()],
            lambda answers=answers: [
                Correlation(answers=answers).record(view(module), queries)["correlation"] for module in models.values()
            ],
            5,
        )
        matrices[name] = b
        rows.append(alike(f"sac, {name} of the three", np.stack(a), np.stack(b), seconds=seconds))
    theirs.cal_correlation([*models.values()], 0)
    ours = [distance("l1")(matrices["correlation"][0], other) for other in matrices["correlation"][1:]]
    rows.append(alike("  difference from the victim", listed[0][: len(ours)].numpy(), ours))
    many = np.random.default_rng(0).normal(size=(2000, CLASSES)).astype(np.float32)
    labels = torch.from_numpy(many)
    a, b, seconds = timed(
        lambda: theirs.correlation(*[theirs.output_to_label(labels)] * 2).numpy(),
        lambda: correlation(spoken(many.argmax(axis=1), CLASSES)),
        3,
    )
    rows.append(alike("  correlation of 2,000 labels", a, b, seconds=seconds))
    return [*rows, *patches(checkout, data, models["victim"])]


def patches(checkout: Path, data: Data, victim: torch.nn.Module) -> list[Row]:
    """SAC-m's patches, and what becomes of images that are written and read again."""
    source_of_patches = (checkout / "cut_mix.py").read_text()
    box = taken(source_of_patches, ["rand_bbox"]).rand_bbox
    side = DOMAIN.shape[1]
    try:
        box((1, 3, side, side), 0.5)
        end = "patches"
    except AttributeError as error:
        end = type(error).__name__
    rows = [told("  making patches", end, "patches", end == "AttributeError", f"NumPy {np.__version__} has no np.int")]
    draws = 3000
    source = np.random.default_rng(0)
    with (
        mock.patch.object(np, "int", int, create=True),
        mock.patch.object(np.random, "randint", lambda most: source.integers(most)),
    ):
        theirs = {tuple(map(int, box((1, 3, side, side), 0.5))) for _ in range(draws)}
    ours = set()
    for inside in CutMix().patches(draws, (side, side), np.random.default_rng(1)):
        down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        ours.add((int(down[0]), int(across[0]), int(down[-1]) + 1, int(across[-1]) + 1))
    rows.append(Row(part="  patches, with np.int put back", verdict="UNEXPLAINED" if theirs ^ ours else "same",
                    found=f"{len(theirs ^ ours)} of {len(theirs | ours)} places in one only"))  # fmt: skip
    written = next(node for node in ast.parse(source_of_patches).body if "transpose" in ast.unparse(node))
    space: dict[str, Any] = {"imgs": torch.from_numpy(data.inputs[:QUERIES])}
    run([written], space)
    stored = taken((checkout / "dataset.py").read_text(), ["dataset1"], Dataset=torch.utils.data.Dataset,
                   transform_test=lambda image: image).dataset1  # fmt: skip
    read = object.__new__(stored)
    read.images, read.labels = space["imgs"].numpy(), np.zeros(QUERIES, np.int64)
    images = np.stack([read[i][0] for i in range(QUERIES)]).transpose(0, 3, 1, 2) / 255
    lying = int((np.abs(images - data.inputs[:QUERIES]) > 1 / 255).any(axis=(1, 2, 3)).sum())
    upright = np.abs(images.swapaxes(2, 3) - data.inputs[:QUERIES]).max() <= 1 / 255
    drawn = CutMix().draw(view(victim), data, n=QUERIES, default=0, seed=0, population=None).inputs
    ours_lying = sum(min(float((image != other).mean()) for other in data.inputs) > PATCHED for image in drawn)
    rows.append(faults("  images lying on their side once read", lying if upright else 0, ours_lying, QUERIES,
                       "written as width x height, read as height x width"))  # fmt: skip
    return rows


def adv_tra(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Walks of given step sizes, the search for the sizes, and whole trajectories."""
    victim, sizes = models["victim"].eval(), []
    source = (checkout / "utils" / "adv_gen.py").read_text()
    names = ["capture", "next_adv_sample", "generate_unilateral_tra", "generate_bilateral_tra", "generate_all_classes"]
    theirs = taken(source, names, copy=copy)
    step = theirs.next_adv_sample

    def noted(image: torch.Tensor, size: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        sizes.append(float(size))
        return step(image, size, gradient)

    theirs.space["next_adv_sample"] = noted
    domain = replace(DOMAIN, quantum=None)
    right = np.flatnonzero(view(victim).labels(data.inputs) == data.labels)[:WALKS]
    data = replace(data.take(right, "walked from"), domain=domain)
    x = torch.from_numpy(data.inputs)
    asked = restrict(TorchModel(victim, domain=domain, batch_size=64), Access.GRADIENTS)
    targets = (asked.labels(data.inputs) + 1) % CLASSES
    given = [[0.02, 0.015, 0.01]] * WALKS

    def their_walks() -> tuple[np.ndarray, np.ndarray]:
        found = [theirs.generate_bilateral_tra(victim, [torch.tensor(v) for v in row], x[i : i + 1].clone(),
                                               torch.tensor(targets[i : i + 1]))
                 for i, row in enumerate(given)]  # fmt: skip
        return np.stack([points.detach().numpy()[1:] for points, _ in found]), np.array([labels[1:] for _, labels in found])

    def our_walks() -> tuple[np.ndarray, np.ndarray]:
        both = np.array([[*row, *row[::-1]] for row in given])
        fresh = restrict(TorchModel(victim, domain=domain, batch_size=64), Access.GRADIENTS)
        return walk(fresh, data.inputs, targets, both, 1.0, domain)

    (a, their_labels), (b, our_labels), seconds = timed(their_walks, our_walks, 3)
    gap, unlike = np.abs(a - b), int((their_labels != our_labels).sum())
    # Where a gradient is all but 0 its sign is rounding's, and another sign is two steps away.
    other = float((gap > ROUNDING).mean())
    verdict = "same" if other == unlike == 0 else "explained" if 0 < other < SIGNS else "UNEXPLAINED"
    rows = [Row(part=f"adv-tra, {WALKS} walks of given steps", seconds=seconds, verdict=verdict,
                found=f"largest difference {gap.max():.1e}, {unlike} of {our_labels.size} labels differ",
                why=f"{other:.1e} of all entries, whose gradient is all but 0")]  # fmt: skip
    options = {"length": 4, "device": "cpu", "factor_lc": 0.9, "factor_re": 0.95, "tra_lr": 0.05,
               "max_iteration": ITERATIONS, "num_classes": CLASSES, "tra_classes": CROSSED}  # fmt: skip
    draws = np.random.default_rng(0)

    def trajectories(first: float) -> list[Any]:
        args = SimpleNamespace(**options, initial_stepsize=first)
        with mock.patch.object(np.random, "choice", draws.choice):
            found = [theirs.generate_all_classes(victim, x[i : i + 1].clone(), torch.tensor(int(data.labels[i])), args)
                     for i in range(WALKS)]  # fmt: skip
        return [one for one in found if one is not None]

    def our_trajectories(first: float) -> Queries:
        fresh = restrict(TorchModel(victim, domain=domain, batch_size=64), Access.GRADIENTS)
        most = WALKS * (1 + 4 * (CROSSED - 1))
        return Trajectory(classes=CROSSED, step=first).draw(fresh, data, n=None, default=most, seed=0, population=None)

    for first in (0.05, 0.01):
        sizes.clear()
        a, b, seconds = timed(lambda first=first: trajectories(first), lambda first=first: our_trajectories(first))
        mine = int(b.extras["units"].max()) + 1
        points = b.inputs.reshape(mine, -1, *DOMAIN.shape)
        grown = max(sizes) / first, float(np.abs(np.diff(points, axis=1)).max()) / first
        each = f"{1000 * seconds[0] / max(1, len(a)):,.0f} and {1000 * seconds[1] / mine:,.0f} ms for each that is found"
        rows += [
            told(f"  trajectories, first step {first:g}", f"{len(a)} of {WALKS}", f"{mine} of {WALKS}", mine > len(a),
                 each, seconds),
            told("    largest step over the first", f"{grown[0]:.2f}", f"{grown[1]:.2f}", grown[0] < 1.05 < grown[1],
                 "theirs shrinks where a walk arrives too soon and never grows where it does not arrive"),
        ]  # fmt: skip
        if a:
            counts = sum(map(len, a[0][0])), points.shape[1]
            rows.append(told("    points of each", str(counts[0]), str(counts[1]), counts[0] - counts[1] == CROSSED - 2,
                             "the point where a walk to a class ends and the next begins counts twice"))  # fmt: skip
    return rows


def dataset_inference(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Margins by blind walks of the same noise, and what the notebook makes of them."""
    attacks, source = (checkout / "src" / "attacks.py").read_text(), np.random.default_rng(0)
    names = ["rand_steps", "norms", "norms_l1_squeezed", "norms_l2_squeezed", "norms_linf_squeezed"]
    walked = taken(attacks, names, time=time)
    measure = taken((checkout / "src" / "generate_features.py").read_text(), ["get_random_label_only"], device="cpu",
                    **vars(walked)).get_random_label_only  # fmt: skip
    domain, victim = replace(DOMAIN, quantum=None), models["victim"].eval()
    counted, ours_counted, put = Counted(victim), Counted(victim), torch.Tensor.__setitem__
    shape = (WALKED, 10, *DOMAIN.shape)
    noise = {"uniform": source.uniform(-0.005, 0.005, shape), "gaussian": source.normal(0, 0.005, shape),
             "laplace": source.laplace(0, 0.01, shape)}  # fmt: skip
    noise = {norm: draws.astype(np.float32) for norm, draws in noise.items()}
    inputs = data.inputs[:WALKED]
    classes = np.zeros(WALKED, np.int64) if data.labels is None else data.labels[:WALKED]
    extras = {"classes": classes, "walk": np.zeros(1, np.int64), "span": np.ones(DOMAIN.shape, np.float32),
              "grid": np.array([0.0, 1.0, 0.0])}  # fmt: skip

    def their_margins(module: torch.nn.Module) -> np.ndarray:
        given = {norm: iter(torch.from_numpy(draws).unbind(1)) for norm, draws in noise.items()}
        loader = [(torch.from_numpy(inputs), torch.from_numpy(classes))]
        uniform = SimpleNamespace(uniform_=lambda *_: next(given["uniform"]).clone())
        with (
            mock.patch.object(torch, "empty_like", lambda _: uniform),
            mock.patch.object(torch, "normal", lambda *_, **__: next(given["gaussian"]).clone()),
            mock.patch.object(np.random, "laplace", lambda **_: next(given["laplace"]).numpy().copy()),
        ):
            args = SimpleNamespace(batch_size=WALKED, regressor_embed=0, dataset="CIFAR10")
            return measure(args, loader, module, num_images=WALKED).numpy()

    def our_margins(steps: int) -> np.ndarray:
        with mock.patch.object(Margins, "_noise", lambda _, n, source, norm, span: noise[norm][:n]):
            asked = restrict(TorchModel(ours_counted, domain=domain, batch_size=64), Access.LABELS)
            return Margins(steps=steps).record(asked, Queries(inputs=inputs, extras=extras))["margins"]

    try:
        their_margins(victim)
        end = "margins"
    except RuntimeError as error:
        end = type(error).__name__
    rows = [told("dataset-inference, blind walks", end, "margins", end == "RuntimeError",
                 f"PyTorch {torch.__version__} writes no tensor through itself as a mask")]  # fmt: skip

    def written(at: torch.Tensor, key: Any, value: Any) -> None:
        put(at, key.clone() if key is at else key, value)

    def their_mended() -> np.ndarray:
        with mock.patch.object(torch.Tensor, "__setitem__", written):
            return their_margins(counted)

    counted.rows = ours_counted.rows = 0
    a, b, seconds = timed(their_mended, lambda: our_margins(51))
    queries = counted.rows, ours_counted.rows
    a, short = a.transpose(0, 2, 1).reshape(WALKED, 30), our_margins(50)
    right = view(victim).labels(inputs) == classes
    longer = np.abs(a - short) > ROUNDING * short.max(axis=0)
    rows += [
        alike(f"  margins of {right.sum()} images, 51 steps", a[right], b[right], seconds=seconds),
        told("  queries for them", f"{queries[0]:,}", f"{queries[1]:,}", queries[1] < queries[0],
             "each point is asked twice, the first time for nothing"),
        faults("  walks that end at a 51st step of 50", int(longer[right].sum()),
               int((np.abs(a - b) > ROUNDING * b.max(axis=0))[right].sum()), 30 * int(right.sum()),
               "the last step is taken and not asked"),
        faults("  margins of wrong answers that are not 0", int((a[~right] > 0).sum()), int((b[~right] > 0).sum()),
               30 * int((~right).sum()), "the first step is taken before the first answer is looked at"),
    ]  # fmt: skip
    return [*rows, *notebook(checkout / "src" / "notebooks" / "CIFAR10_rand.ipynb")]


def notebook(path: Path) -> list[Row]:
    """What the notebook's rows hold, and how often each claims theft where private and public inputs are alike."""
    space: dict[str, Any] = {**IMPORTED, "tqdm": Still, "ttest_ind": stats.ttest_ind, "v_type": "rand", "split_index": 500,
                             "names": ["teacher"], "mean_cifar": 0.0, "std_cifar": 1.0}  # fmt: skip
    numbers = torch.arange(2000.0)[:, None, None].expand(-1, 10, 3)
    space |= {"trains": {"teacher": numbers[:1000]}, "tests": {"teacher": numbers[1000:]}}
    run(statements(path, "trains_n = {}"), space)
    table = space["trains_n"]["teacher"].numpy().astype(int)
    mixed = max(len(set(row)) for row in table)
    again = len(set(table[:500].ravel()) & set(table[500:].ravel()))
    source, linear = np.random.default_rng(0), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, CLASSES))
    with torch.no_grad():
        for weights in linear.parameters():
            weights.copy_(torch.from_numpy(source.normal(size=tuple(weights.shape))))
    domain = replace(DOMAIN, shape=(1, 8, 8), quantum=None)
    asked = restrict(TorchModel(linear, domain=domain, batch_size=4096), Access.LABELS)
    inputs = source.random((2000, 1, 8, 8), np.float32)
    extras = {"classes": asked.labels(inputs), "walk": np.zeros(1, np.int64), "span": np.ones((1, 8, 8), np.float32),
              "grid": np.array([0.0, 1.0, 0.0])}  # fmt: skip
    margins = Margins(scale=4.0).record(asked, Queries(inputs=inputs, extras=extras))["margins"]
    found: tuple[list[float], list[float]] = [], []
    member, held = np.repeat([True, False], 1000), np.arange(2000) % 1000 >= 500
    for seed in range(SPLITS):
        split = margins[source.permutation(2000)]
        cube = torch.from_numpy(split.reshape(2000, 3, 10).transpose(0, 2, 1).copy())
        space |= {"trains": {"teacher": cube[:1000]}, "tests": {"teacher": cube[1000:]},
                  "mean_cifar": cube[:1000].mean(dim=(0, 1)), "std_cifar": cube[:1000].std(dim=(0, 1))}  # fmt: skip
        with seeded(seed):
            run(statements(path, "trains_n = {}", "n_ex = split_index", "model = nn.Sequential", "with tqdm(range(1000))",
                           "def get_p(", "outputs_tr = {}", "outputs_tr[name][split_index:]"), space)  # fmt: skip
            ends = space["outputs_tr"]["teacher"], space["outputs_te"]["teacher"]
            found[0].append(float(stats.hmean(space["get_p_values"](10, *ends, 100))))
        fitted: Any = SimpleNamespace(queries={**fit(split[~held], member[~held], seed=seed), "member": member[held]})
        record: Any = SimpleNamespace(record={"margins": split[held]})
        found[1].append(welch(*privacy(fitted, record), seed=seed))
    claims = [sum(p < CLAIM for p in part) for part in found]
    return [
        told("  images in one row of the features", str(mixed), "1", mixed > 1, "all axes are turned about, then cut up"),
        faults("  images fitted and held out", again, 0, 1000, "rows are not images, and it is rows that are split"),
        faults(f"  claims at p < {CLAIM}, nothing stolen", *claims, SPLITS,
               f"median p {np.median(found[0]):.1e} theirs, {np.median(found[1]):.1e} ours"),
    ]  # fmt: skip


class Still:
    """What they iterate over, without a bar."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __enter__(self) -> Still:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def __iter__(self) -> Any:
        return iter(self.items)

    def set_description(self, text: str) -> None:
        """Say nothing."""


def modeldiff(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Decision distances and their cosine, by the notebook and by the class."""
    tools = taken((checkout / "utils.py").read_text(), ["Utils"])
    space: dict[str, Any] = {**IMPORTED, "Utils": tools.Utils}
    path = checkout / "evaluate.ipynb"
    chosen = [node for node in statements(path, "def compute_ddv(")
              if isinstance(node, ast.FunctionDef) and node.name == "compute_ddv"]  # fmt: skip
    run(chosen, space)
    x = data.inputs[: QUERIES // 2]
    y = DOMAIN.deliver((x + np.random.default_rng(0).uniform(-0.1, 0.1, x.shape)).astype(np.float32))
    half = np.arange(len(x))
    pairs = Queries(inputs=np.concatenate([x, y]), extras={"pairs": np.stack([half, half + len(x)], axis=1)})
    asked = [SimpleNamespace(batch_forward=lambda at, module=module: forward(module, at)) for module in models.values()]
    a, b, seconds = timed(
        lambda: [space["compute_ddv"](one, x, y) for one in asked],
        lambda: [DecisionDistance().record(view(module), pairs)["distances"] for module in models.values()],
        3,
    )
    plain = [vector / np.linalg.norm(vector) for vector in b]
    rows = [alike("modeldiff, decision distances of the three", a, plain, bound=MAGNIFIED, seconds=seconds)]
    far = [spatial.distance.cosine(a[0], other) for other in a], [distance("flat-cosine")(b[0], other) for other in b]
    rows.append(alike("  cosine to the three", *far, bound=MAGNIFIED))
    text = (checkout / "modeldiff.py").read_text()
    compare = method(text, "ModelDiff", "compute_similarity_with_ddm",
                     ModelDiff=SimpleNamespace(mtx_similar1=method(text, "ModelDiff", "mtx_similar1")))  # fmt: skip
    matrix = method(text, "ModelDiff", "compute_ddm")
    logger = SimpleNamespace(info=lambda _: None, debug=lambda _: None)
    scores = [compare(SimpleNamespace(model1=asked[0], model2=other, logger=logger,
                                      compute_ddm=lambda model, at: matrix(None, model, at)), x)
              for other in asked]  # fmt: skip
    ours = [1 - value for value in far[1]]
    rows.append(told("  similarity to itself and the stranger", f"{scores[0]:.3f} and {scores[-1]:.3f}",
                     f"{ours[0]:.3f} and {ours[-1]:.3f}", scores[0] < scores[-1] and ours[0] > ours[-1],
                     "the class's default takes a similarity from 1 as if it were a distance"))  # fmt: skip
    return rows


def forward(module: torch.nn.Module, inputs: np.ndarray) -> torch.Tensor:
    """Logits."""
    with torch.no_grad():
        return module(torch.from_numpy(inputs))


PARTS: dict[str, tuple[str, Callable[[Path, Data, Models], list[Row]]]] = {
    "zest": ("lime_pytorch.py", zest),
    "sac": ("correlation_wrong.py", sac),
    "adv-tra": ("utils/adv_gen.py", adv_tra),
    "dataset-inference": ("src/attacks.py", dataset_inference),
    "modeldiff": ("evaluate.ipynb", modeldiff),
}


def main() -> int:
    """Run both codes and print one table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, (mark, _) in PARTS.items():
        options.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"a checkout, the folder that holds {mark}")
    options.add_argument("--json", type=Path)
    arguments = vars(options.parse_args())
    folders = {name: arguments[name.replace("-", "_")] for name in PARTS}
    if not any(folders.values()):
        options.error("give the folder of one checkout or more")
    for name, folder in folders.items():
        if folder is not None and not (folder / PARTS[name][0]).is_file():
            options.error(f"--{name}: {folder} has no file {PARTS[name][0]}")
    torch.set_num_threads(1)
    # Theirs call what PyTorch has deprecated.
    warnings.filterwarnings("ignore", category=UserWarning)
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, torch "
          f"{torch.__version__}, one thread, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, locard "
          f"{locard.__version__}", flush=True)  # fmt: skip
    data, models = world()
    print(f"{'part':43}{'theirs':>12}{'ours':>12}{'ratio':>8}  verdict      found")
    rows = []
    for name, (_, part) in PARTS.items():
        if folders[name] is None:
            continue
        with hushed():
            found = part(folders[name].resolve(), data, models)
        rows += found
        for row in found:
            theirs, ours = row.seconds
            times = f"{1000 * theirs:10.2f}ms{1000 * ours:10.2f}ms{theirs / ours:7.1f}x" if ours else ""
            why = f" ({row.why})" if row.verdict != "same" and row.why else ""
            print(f"{row.part:43}{times:32}  {row.verdict:13}{row.found}{why}", flush=True)
    if arguments["json"]:
        arguments["json"].write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return int(any(row.verdict == "UNEXPLAINED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
