"""Do Locard's parts give what the authors' released codes give? The same models and inputs through both.

    git clone https://github.com/cleverhans-lab/Zest-Model-Distance        # and the others
    OMP_NUM_THREADS=1 python benchmarks/released_parity.py --zest Zest-Model-Distance --sac SAC [...]

Their functions run as they lie in the checkouts, one by one: `_released.py` says how. Times are of the processor on one
thread. The script exits with 1 where the two differ and the reason given is not borne out by what is measured.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import platform
import sys
import tempfile
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
from _qurd import CLASSES, DOMAIN, view, world
from _released import (
    Answering,
    BlindWalks,
    Counted,
    Notebook,
    Patches,
    Trajectories,
    ending,
    hushed,
    modeldiffs,
    taken,
    timed,
)
from qurd_parity import MAGNIFIED, QUERIES, ROUNDING, Row, alike, faults, told
from scipy import spatial

import locard
from locard.distances import distance
from locard.models import restrict
from locard.models.torch_module import TorchModel
from locard.queries import Queries
from locard.queries.cutmix import CutMix
from locard.queries.segments import Segments, masked
from locard.queries.trajectory import Trajectory, walk
from locard.records import Access, Data, Domain
from locard.representations.correlation import Correlation, correlation, spoken
from locard.representations.decision_distance import DecisionDistance
from locard.representations.local_explanations import LocalExplanations, explain
from locard.representations.margins import Margins
from locard.schemes.dataset_inference import fit, privacy, welch

Models = dict[str, torch.nn.Module]
CONTINUOUS = replace(DOMAIN, quantum=None)
REFERENCES, MASKS, WIDE = 4, 1000, 100
WALKS, CROSSED, WALKED, SPLITS = 10, 4, 20, 30
# Share of an image that a patch may cover, with what rounding adds; share of entries whose gradient is all but 0.
PATCHED, SIGNS = 0.05, 1e-3
# The first step from which theirs finds most, how much a penalty may add to steps, and the p of a claim.
BEST, GROWN, CLAIM = 0.2, 1.1, 0.01


def zest(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Masked images, weights, alignment and cosine."""
    lime = taken((checkout / "lime_pytorch.py").read_text(),
                 ["get_reference_dataset", "prepare_lime_dataset", "label_lime_dataset", "train_lime_model",
                  "compute_lime_signature"], os=os, copy=copy)  # fmt: skip
    names = ["consistent_type", "compute_distance", "parameter_distance", "lime_align"]
    distances = taken((checkout / "utils.py").read_text(), names, copy=copy)
    measure, align = distances.parameter_distance, distances.lime_align
    victim, source = models["victim"], np.random.default_rng(0)
    queries = Segments(masks=MASKS).draw(view(victim), data, n=REFERENCES * MASKS, default=0, seed=0, population=None)
    segments, fill = queries.extras["segments"], queries.extras["fill"]
    packed = zip(queries.extras["masks"], segments, strict=True)
    kept = [np.unpackbits(masks, axis=1, count=int(parts.max()) + 1) for masks, parts in packed]
    grey = np.broadcast_to(fill, DOMAIN.shape).transpose(1, 2, 0)
    references = queries.inputs.transpose(0, 2, 3, 1)

    def their_images() -> np.ndarray:
        parts = zip(kept, references, segments[:, 0], strict=True)
        return np.stack([lime.get_reference_dataset(k, image, s, grey) for k, image, s in parts])

    def our_images() -> np.ndarray:
        return np.stack([masked(queries, i, k.astype(bool)) for i, k in enumerate(kept)])

    images, b, seconds = timed(their_images, our_images, 5)
    a = images.transpose(0, 1, 4, 2, 3)
    rows = [alike(f"zest, {MASKS * REFERENCES:,} masked images", a, b, seconds=seconds)]
    answers = lime.label_lime_dataset(kept, images, victim)
    a, b, seconds = timed(
        lambda: lime.train_lime_model(answers).numpy(),
        lambda: np.concatenate([explain(k.astype(bool), y) for k, (_, y) in zip(kept, answers, strict=True)]),
        20,
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
    wide, aligned = source.normal(size=(2, 500, WIDE)).astype(np.float32), distance("aligned-cosine")
    a, b, seconds = timed(lambda: measure(*wide, "cos", lime=True)[0], lambda: aligned(*wide), 5)
    rows.append(alike(f"  aligned cosine, {WIDE} classes", a, b, bound=MAGNIFIED, seconds=seconds))
    moved = 0
    for other in tables[1:]:
        paired = align(weights["victim"], torch.from_numpy(other), "cos")[1].numpy().reshape(other.shape)
        moved += int((paired != other).any(axis=0).sum())
    plain = [spatial.distance.cosine(tables[0].ravel(), w.ravel()) for w in tables]
    far = [distance("flat-cosine")(tables[0], w) for w in tables]
    rows.append(faults("  classes compared with another", moved, 0 if np.allclose(far, plain) else moved, 2 * CLASSES,
                       "theirs pairs classes off though all have the same; ours where `align` is set"))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("data").mkdir()
        end = ending(lambda: lime.prepare_lime_dataset("digits", queries.inputs, segments[:, 0]), "masks", ValueError)
    last = told("  making masks", end, "masks", end != "masks", f"NumPy {np.__version__} stores no ragged list")
    return [*rows, last]


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
            20,
        )
        matrices[name] = b
        rows.append(alike(f"sac, {name} of the three", np.stack(a), np.stack(b), seconds=seconds))
    theirs.cal_correlation([*models.values()], 0)
    ours = [distance("l1")(matrices["correlation"][0], other) for other in matrices["correlation"][1:]]
    rows.append(alike("  difference from the victim", listed[0][: len(ours)].numpy(), ours))
    many = np.random.default_rng(0).normal(size=(2000, CLASSES)).astype(np.float32)
    a, b, seconds = timed(
        lambda: theirs.correlation(*[theirs.output_to_label(torch.from_numpy(many))] * 2).numpy(),
        lambda: correlation(spoken(many.argmax(axis=1), CLASSES)),
        3,
    )
    rows.append(alike("  correlation of 2,000 labels", a, b, seconds=seconds))
    return [*rows, *patches(checkout, data, models["victim"])]


def patches(checkout: Path, data: Data, victim: torch.nn.Module) -> list[Row]:
    """SAC-m's patches, and what becomes of images that are written and read again."""
    theirs, side, draws, some = Patches(checkout), DOMAIN.shape[1], 3000, data.inputs[:QUERIES]
    end = ending(lambda: theirs.box((1, 3, side, side), 0.5), "patches", AttributeError)
    boxes = set()
    for inside in CutMix().patches(draws, (side, side), np.random.default_rng(1)):
        down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        boxes.add((int(down[0]), int(across[0]), int(down[-1]) + 1, int(across[-1]) + 1))
    known, again = theirs.boxes(side, draws), theirs.read_again(some)
    gaps = [np.abs(images - some).max(axis=(1, 2, 3)) * 255 for images in (again, again.swapaxes(2, 3))]
    lying = (gaps[0] > 1) & (gaps[1] < 1)
    drawn = CutMix().draw(view(victim), data, n=QUERIES, default=0, seed=0, population=None).inputs
    ours = sum(min(float((image != other).mean()) for other in data.inputs) > PATCHED for image in drawn)
    return [
        told("  making patches", end, "patches", end != "patches", f"NumPy {np.__version__} has no np.int"),
        Row(part="  patches, with np.int put back", verdict="UNEXPLAINED" if known ^ boxes else "same",
            found=f"{len(known ^ boxes)} of {len(known | boxes)} places in one only"),
        faults("  images that lie on their side once read", int(lying.sum()), ours, QUERIES,
               "written as width x height, read as height x width"),
    ]  # fmt: skip


def adv_tra(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Walks of given step sizes, and whole trajectories."""
    victim, given = models["victim"].eval(), [0.02, 0.015, 0.01]
    right = np.flatnonzero(view(victim).labels(data.inputs) == data.labels)[:WALKS]
    data = replace(data.take(right, "walked from"), domain=CONTINUOUS)
    own = view(victim).labels(data.inputs)
    theirs, targets = Trajectories(checkout, victim, data.inputs, own, CLASSES), (own + 1) % CLASSES

    def asked() -> Any:
        return restrict(TorchModel(victim, domain=CONTINUOUS, batch_size=64), Access.GRADIENTS)

    def ours(first: float) -> Queries:
        sampler, most = Trajectory(classes=CROSSED, step=first), WALKS * (1 + 4 * (CROSSED - 1))
        return sampler.draw(asked(), data, n=None, default=most, seed=0, population=None)

    both = np.tile([*given, *given[::-1]], (WALKS, 1))
    (a, their_labels), (b, our_labels), seconds = timed(
        lambda: theirs.walks(targets, given), lambda: walk(asked(), data.inputs, targets, both, 1.0, CONTINUOUS), 5
    )
    gap, unlike = np.abs(a - b), int((their_labels != our_labels).sum())
    # Where a gradient is all but 0 its sign is rounding's, and another sign is two steps away.
    other = float((gap > ROUNDING).mean())
    verdict = "same" if other == unlike == 0 else "explained" if 0 < other < SIGNS else "UNEXPLAINED"
    rows = [Row(part=f"adv-tra, {WALKS} walks of given steps", seconds=seconds, verdict=verdict,
                found=f"largest difference {gap.max():.1e}, {unlike} of {our_labels.size} labels differ",
                why=f"{other:.1e} of all entries, whose gradient is all but 0")]  # fmt: skip
    for first in (0.01, 0.05, 0.2, 0.5):
        found, queries, seconds = timed(lambda first=first: theirs.all(first, CROSSED), lambda first=first: ours(first))
        points = queries.inputs.reshape(int(queries.extras["units"].max()) + 1, -1, *DOMAIN.shape)
        grown = max(theirs.sizes) / first, float(np.abs(np.diff(points, axis=1)).max()) / first
        each = [f"{1000 * t / max(1, len(part)):,.0f}" for t, part in zip(seconds, (found, points), strict=True)]
        why = (f"theirs grows steps only where it has succeeded and returned: to {grown[0]:.2f} times the first, "
               f"ours to {grown[1]:.2f}; {each[0]} and {each[1]} ms for each found")  # fmt: skip
        borne_out = len(points) > len(found) and grown[0] < GROWN
        counts = f"{len(found)} of {WALKS}", f"{len(points)} of {WALKS}"
        rows.append(told(f"  trajectories, first step {first:g}", counts[0], counts[1], borne_out, why, seconds))
        if found and first == BEST:
            rows.append(told("    points of each", str(found[0]), str(points.shape[1]),
                             found[0] - points.shape[1] == CROSSED - 2,
                             "the point where a walk to a class ends and the next begins counts twice"))  # fmt: skip
    return rows


def dataset_inference(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Margins by blind walks of the same noises."""
    source, victim, inputs = np.random.default_rng(0), models["victim"].eval(), data.inputs[:WALKED]
    classes = np.zeros(WALKED, np.int64) if data.labels is None else data.labels[:WALKED]
    shape = (WALKED, 10, *DOMAIN.shape)
    draws = {"uniform": source.uniform(-0.005, 0.005, shape), "gaussian": source.normal(0, 0.005, shape),
             "laplace": source.laplace(0, 0.01, shape)}  # fmt: skip
    noise = {norm: numbers.astype(np.float32) for norm, numbers in draws.items()}
    counted = Counted(victim), Counted(victim)
    theirs = BlindWalks(checkout, noise, inputs, classes)

    def ours(steps: int, at: np.ndarray = inputs, module: torch.nn.Module = victim) -> np.ndarray:
        with mock.patch.object(Margins, "_noise", lambda _, n, source, norm, span: noise[norm][:n]):
            return blind(module, CONTINUOUS, at, classes, Margins(steps=steps))

    end = ending(lambda: theirs.margins(victim), "margins", RuntimeError)
    rows = [told("dataset-inference, blind walks", end, "margins", end != "margins",
                 f"PyTorch {torch.__version__} writes no mask through itself; below it is a copy")]  # fmt: skip
    a, b, seconds = timed(lambda: theirs.mended(counted[0]), lambda: ours(51, module=counted[1]))
    a, short = a.transpose(0, 2, 1).reshape(WALKED, 30), ours(50)
    right = view(victim).labels(inputs) == classes
    late, odd = (np.abs(a - margins)[right] > ROUNDING * b.max(axis=0) for margins in (short, b))
    asked, other = [one.rows for one in counted], inputs.copy()
    other[0] = 1 - other[0]
    held = int((ours(50, other) != short).any(axis=1).sum())
    rows += [
        alike(f"  margins of {right.sum()} images, 51 steps", a[right], b[right], seconds=seconds),
        told("  queries for them", f"{asked[0]:,}", f"{asked[1]:,}", asked[1] < asked[0],
             "theirs asks each point twice and looks at one answer"),
        faults("  walks of 50 steps that end at the 51st", int(late.sum()), int(odd.sum()), late.size,
               "the last step is taken and not asked"),
        faults("  margins of wrong answers that are not 0", int((a[~right] > 0).sum()), int((b[~right] > 0).sum()),
               a[~right].size, "the first step is taken before the first answer is looked at"),
    ]  # fmt: skip
    return [*rows, *inferences(Notebook(checkout / "src" / "notebooks" / "CIFAR10_rand.ipynb"), held)]


def inferences(theirs: Notebook, held: int) -> list[Row]:
    """What the notebook makes of margins, and how often each claims theft where nothing is stolen.

    Args:
        theirs: the notebook.
        held: how many of our rows of margins change with one image.
    """
    table = theirs.rows(torch.arange(2000.0)[:, None, None].expand(-1, 10, 3)).astype(int)
    member, late = np.repeat([True, False], 1000), np.arange(2000) % 1000 >= 500
    again = len(set(table[:500].ravel()) & set(table[500:].ravel()))
    source, linear = np.random.default_rng(0), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, CLASSES))
    with torch.no_grad():
        for weights in linear.parameters():
            weights.copy_(torch.from_numpy(source.normal(size=tuple(weights.shape))))
    inputs, domain = source.random((2000, 1, 8, 8), np.float32), replace(CONTINUOUS, shape=(1, 8, 8))
    classes = Answering(linear).batch_forward(inputs).numpy().argmax(axis=1)
    # Wider noises, so that more walks arrive.
    margins = blind(linear, domain, inputs, classes, Margins(scale=4.0))
    found: tuple[list[float], list[float], list[float]] = [], [], []
    for seed in range(SPLITS):
        split = margins[source.permutation(2000)]
        found[0].append(theirs.p_value(split, seed))
        fitted: Any = SimpleNamespace(queries={**fit(split[~late], member[~late], seed=seed), "member": member[late]})
        record: Any = SimpleNamespace(record={"margins": split[late]})
        found[1].append(welch(*privacy(fitted, record), seed=seed))
        found[2].append(theirs.p_value(split, seed, mended=True))
    claims = [sum(p < CLAIM for p in part) for part in found]
    return [
        told("  rows of features that hold one image", str(int((table == 0).any(axis=1).sum())), str(held), held == 1,
             f"axes are reversed, then cut up: {len(set(table[0]))} images to a row, {again:,} of 1,000 images in rows "
             "to fit as in rows held out"),
        faults(f"  claims at p < {CLAIM}, nothing stolen", claims[0], claims[1], SPLITS,
               f"inputs split at random; {claims[2]} theirs with an image to a row; median p "
               f"{' and '.join(f'{np.median(part):.2f}' for part in found[:2])}"),
    ]  # fmt: skip


def blind(module: torch.nn.Module, domain: Domain, x: np.ndarray, classes: np.ndarray, part: Margins) -> np.ndarray:
    """(n, 30) margins of ours, from inputs that are not rounded to a grid."""
    extras = {"classes": classes, "walk": np.zeros(1, np.int64), "span": np.ones(domain.shape, np.float32),
              "grid": np.array([0.0, 1.0, 0.0])}  # fmt: skip
    asked = restrict(TorchModel(module, domain=domain, batch_size=4096), Access.LABELS)
    return part.record(asked, Queries(inputs=x, extras=extras))["margins"]


def modeldiff(checkout: Path, data: Data, models: Models) -> list[Row]:
    """Decision distances and their cosine by the notebook, and the similarity by the class."""
    theirs, similarity = modeldiffs(checkout)
    x = data.inputs[: QUERIES // 2]
    y = DOMAIN.deliver((x + np.random.default_rng(0).uniform(-0.1, 0.1, x.shape)).astype(np.float32))
    half = np.arange(len(x))
    pairs = Queries(inputs=np.concatenate([x, y]), extras={"pairs": np.stack([half, half + len(x)], axis=1)})
    asked = [Answering(module) for module in models.values()]
    a, b, seconds = timed(
        lambda: [theirs(one, x, y) for one in asked],
        lambda: [DecisionDistance().record(view(module), pairs)["distances"] for module in models.values()],
        20,
    )
    # Theirs brings them to length 1.
    plain = [vector / np.linalg.norm(vector) for vector in b]
    far = [spatial.distance.cosine(a[0], other) for other in a], [distance("flat-cosine")(b[0], other) for other in b]
    scores, ours = [similarity(asked[0], other, x) for other in asked], [1 - value for value in far[1]]
    return [
        alike("modeldiff, decision distances of the three", a, plain, bound=MAGNIFIED, seconds=seconds),
        alike("  cosine to the three", *far, bound=MAGNIFIED),
        told("  similarity to itself and to the stranger", f"{scores[0]:.3f} and {scores[-1]:.3f}",
             f"{ours[0]:.3f} and {ours[-1]:.3f}", scores[0] < scores[-1] and ours[0] > ours[-1],
             "theirs by the class, which takes a similarity from 1 as if it were a distance"),
    ]  # fmt: skip


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
