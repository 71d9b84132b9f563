"""Do Locard's parts give what QuRD's code gives? The same models and queries through both, in one process.

    git clone https://github.com/grodino/QuRD
    OMP_NUM_THREADS=1 python benchmarks/qurd_parity.py QuRD [--repeats 5] [--json FILE]

Their modules run as they lie in the checkout. What they import and is not installed (torchvision, foolbox, numba) is
stood in for by the little that is touched here, so without numba their mutual information runs uncompiled; their
adversarial samplers, which are foolbox's, are not run. Times are of the processor on one thread, the least of the
repeats (of one run for Boundary). The script exits with 1 where the two differ and the reason given is not borne out by
what is measured.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import platform
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _qurd import CLASSES, DOMAIN, adam, dataset, load, seeded, view, world

import locard
from locard.distances import distance
from locard.errors import ParameterError
from locard.models.fitting import build
from locard.queries import Queries
from locard.queries.boundary import Boundary, median_gap
from locard.queries.negative import Negative
from locard.queries.negative_augment import NegativeAugment
from locard.queries.subsample import Subsample
from locard.records import Access, Data
from locard.representations.correlation import Correlation, correlation, spoken
from locard.representations.decision_change import DecisionChange
from locard.representations.decision_distance import DecisionDistance
from locard.representations.labels import Labels
from locard.representations.local_explanations import LocalExplanations
from locard.representations.logits import Logits

QUERIES, BEACONS, MASKS, POINTS, DEPTH, WIDE = 100, 4, 50, 40, 10.0, 64
# Largest difference as a share of the largest number: float32 sums of another order, and what least squares and angles
# between nearly equal answers make of them.
ROUNDING, MAGNIFIED = 1e-5, 1e-3
# Of theirs and of ours.
Seconds = tuple[float, float]
UNTIMED: Seconds = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: what was found, and whether the two are the "same", "explained" or "UNEXPLAINED"."""

    part: str
    found: str
    verdict: str
    why: str = ""
    seconds: Seconds = UNTIMED


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Their modules, images with labels, three models, and how often each act is timed."""

    qurd: types.SimpleNamespace
    data: Data
    models: dict[str, torch.nn.Module]
    repeats: int

    def timed(self, theirs: Callable[[], Any], ours: Callable[[], Any]) -> tuple[Any, Any, Seconds]:
        """What each gives, and the least seconds of each."""
        results, seconds = [], []
        for act in (theirs, ours):
            spent, result = [], None
            for _ in range(self.repeats):
                start = time.process_time()
                result = act()
                spent.append(time.process_time() - start)
            results.append(result)
            seconds.append(min(spent))
        return results[0], results[1], (seconds[0], seconds[1])


def main() -> int:
    """Run both codes and print one table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("checkout", type=Path, help="folder of a checkout of QuRD")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--json", type=Path)
    arguments = options.parse_args()
    if not (arguments.checkout / "qurd" / "fingerprint").is_dir():
        options.error(f"{arguments.checkout} is no checkout of QuRD: it has no folder qurd/fingerprint")
    torch.set_num_threads(1)
    # Their mutual information takes logarithms of 0 and drops what comes of it.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    qurd, missing = load(arguments.checkout)
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, torch "
          f"{torch.__version__}, one thread, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, locard "
          f"{locard.__version__}; stood in for: {', '.join(missing) or 'nothing'}", flush=True)  # fmt: skip
    data, models = world()
    bench = Bench(qurd=qurd, data=data, models=models, repeats=arguments.repeats)
    once = replace(bench, repeats=1)
    rows = [*distances(bench), *representations(bench), *mistakes(bench), *subsamples(bench), *boundaries(once)]
    print(f"{'part':41}{'theirs':>10}{'ours':>10}{'ratio':>8}  verdict      found")
    for row in rows:
        theirs, ours = row.seconds
        times = f"{1000 * theirs:8.2f}ms{1000 * ours:8.2f}ms{theirs / ours:7.1f}x" if ours else ""
        why = f" ({row.why})" if row.verdict != "same" and row.why else ""
        print(f"{row.part:41}{times:28}  {row.verdict:13}{row.found}{why}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return int(any(row.verdict == "UNEXPLAINED" for row in rows))


def alike(part: str, theirs: Any, ours: Any, *, bound: float = ROUNDING, seconds: Seconds = UNTIMED) -> Row:
    """A row of what should be the same numbers."""
    a, b = (np.asarray(x, np.float64) for x in (theirs, ours))
    gap = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)) if a.shape == b.shape else float("inf")
    verdict = "same" if gap <= bound else "UNEXPLAINED"
    return Row(part=part, found=f"largest difference {gap:.1e}", verdict=verdict, seconds=seconds)


def faults(part: str, theirs: int, ours: int, of: int, why: str, seconds: Seconds = UNTIMED) -> Row:
    """A row of how often each shows a fault: explained where they do and we never."""
    verdict = "UNEXPLAINED" if ours else "explained" if theirs else "same"
    return Row(part=part, found=f"{theirs} of {of} theirs, {ours} ours", verdict=verdict, why=why, seconds=seconds)


def told(part: str, theirs: str, ours: str, explained: bool, why: str, seconds: Seconds = UNTIMED) -> Row:
    """A row of what each does, in words."""
    verdict = "same" if theirs == ours else "explained" if explained else "UNEXPLAINED"
    return Row(part=part, found=f"{theirs} theirs, {ours} ours", verdict=verdict, why=why, seconds=seconds)


def distances(bench: Bench) -> list[Row]:
    """Their four, on random records of 1,000 queries."""
    source, theirs = np.random.default_rng(1), bench.qurd.distance
    labels, scores = source.integers(0, CLASSES, (2, 1000)), source.normal(size=(2, 1000, CLASSES)).astype(np.float32)
    labels[1, ::2] = labels[0, ::2]
    renamed = source.permutation(CLASSES)[labels[0]]
    pairs = {"hamming": [labels], "cosine": [scores], "l2": [scores],
             "mutual-information": [labels, (labels[0], renamed)]}  # fmt: skip
    rows = []
    for name, records in pairs.items():
        measure, mine = getattr(theirs, name.replace("-", "_")), distance(name)
        tensors = [[torch.from_numpy(record) for record in pair] for pair in records]
        a, b, seconds = bench.timed(
            lambda tensors=tensors, measure=measure: [measure(*pair) for pair in tensors],
            lambda records=records, mine=mine: [mine(*pair) for pair in records],
        )
        rows.append(alike(f"distance {name}", a, b, seconds=seconds))
    silent = np.array([[0.0, 0.0], [1.0, 2.0]], np.float32)
    far = theirs.cosine(torch.from_numpy(silent), torch.from_numpy(silent)), distance("cosine")(silent, silent)
    rows.append(faults("  cosine, a record is far from itself", int(far[0] > 0.1), int(far[1] > 0.1), 1,
                       "two rows of zeros count as unrelated"))  # fmt: skip
    constant, draws = np.zeros(1000, np.int64), source.integers(0, CLASSES, (20, 1000))
    far = [theirs.mutual_information(torch.from_numpy(some), torch.from_numpy(constant)) for some in draws]
    mine = [distance("mutual-information")(some, constant) for some in draws]
    wrong = [sum(abs(value - 1) > ROUNDING for value in values) for values in (far, mine)]
    why = f"rounding leaves an I of nearly 0 over an H of nearly 0; from {min(far):.2g} to {max(far):.2g}"
    rows.append(faults("  mutual-information, a constant not at 1", wrong[0], wrong[1], len(draws), why))
    return rows


def representations(bench: Bench) -> list[Row]:
    """The records of all models, and the distances from the victim that follow from them."""
    theirs, d, source = bench.qurd.representation, bench.qurd.distance, np.random.default_rng(2)
    x, half = bench.data.inputs[: QUERIES // 2], np.arange(QUERIES // 2)
    x = np.concatenate([x, DOMAIN.deliver((x + source.uniform(-0.1, 0.1, x.shape)).astype(np.float32))])
    plain = Queries(inputs=x, extras={"pairs": np.stack([half, half + len(half)], axis=1)})
    masked = Subsample(masks=MASKS).draw(
        view(bench.models["victim"]), bench.data, n=BEACONS * MASKS, default=0, seed=0, population=None
    )
    masks, sizes = masked.extras["masks"], masked.extras["parts"]
    kept = [torch.from_numpy(np.unpackbits(m, axis=1, count=int(c))) for m, c in zip(masks, sizes, strict=True)]
    tensor, lime = torch.from_numpy(x), torch.from_numpy(masked.inputs).reshape(BEACONS, MASKS, *DOMAIN.shape)
    pair = tensor[: len(half)], tensor[len(half) :]
    # Two labels that differ are so far apart in our R, and 1 in theirs.
    apart = float(correlation(spoken(np.array([0, 1]), CLASSES))[0, 1])
    fill = float(np.sqrt(sizes.sum() / (len(sizes) * sizes.max())))
    # Theirs, what it is asked, ours, what it is asked, how ours reads as theirs, their distance, ours, times a factor.
    cells: dict[str, tuple[Any, Any, Any, Queries, Callable[[np.ndarray], Any], Any, str, float]] = {
        "Labels": (theirs.HardLabels(), tensor, Labels(), plain, np.asarray, d.hamming, "hamming", 1),
        "Logits": (theirs.Logits(), tensor, Logits(), plain, np.asarray, d.cosine, "cosine", 1),
        "SAC, as 1 - 2 R": (theirs.SAC(), tensor, Correlation(), plain, lambda r: 1 - 2 * r, d.l2, "l2", 2),
        "HardSAC, as R = 0": (theirs.SAC(hard_labels=True), tensor, Correlation(answers="labels"), plain,
                              lambda r: r == 0, d.l2, "l2", 1 / apart),
        "DDV": (theirs.DecisionDistanceVector(), pair, DecisionDistance(), plain, np.asarray, d.cosine,
                "flat-cosine", 1),
        "HardDDV": (theirs.DecisionDistanceVector(hard_labels=True), pair, DecisionChange(), plain, np.asarray,
                    d.hamming, "hamming", 1),
        "ZLIME, padded with 0": (theirs.ZLIME(), (lime, kept), LocalExplanations(answers="logits"), masked,
                                 lambda w: padded(w, sizes), d.l2, "l2", fill),
    }  # fmt: skip
    rows = []
    for name, (rep, asked, part, queries, read_as, measure, metric, factor) in cells.items():
        a, b, seconds = bench.timed(
            lambda rep=rep, asked=asked: [rep(asked, module) for module in bench.models.values()],
            lambda part=part, queries=queries: [
                next(iter(part.record(view(module), queries).values())) for module in bench.models.values()
            ],
        )
        bound = MAGNIFIED if name.startswith(("DDV", "ZLIME")) else ROUNDING
        as_theirs = np.stack([read_as(record) for record in b])
        rows.append(alike(f"representation {name}", torch.stack(a).numpy(), as_theirs, bound=bound, seconds=seconds))
        far = [measure(a[0], record) for record in a], [factor * distance(metric)(b[0], record) for record in b]
        times = "" if factor == 1 else f", ours times {factor:.4g}"
        rows.append(alike(f"  {metric} to the three{times}", *far, bound=MAGNIFIED))
    wide = build("cnn", {"shape": DOMAIN.shape, "classes": CLASSES, "width": WIDE}, seed=0).eval()
    a, b, seconds = bench.timed(
        lambda: theirs.HardLabels()(tensor, wide), lambda: Labels().record(view(wide), plain)["labels"]
    )
    rows.append(alike(f"Labels, a network {WIDE // 8} times as wide", a.numpy(), b, seconds=seconds))
    return rows


def padded(weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Stacked weights as a table for each reference, filled up with zeros."""
    tables = np.zeros((len(sizes), sizes.max(), weights.shape[1]))
    for table, part in zip(tables, np.split(weights, np.cumsum(sizes)[:-1]), strict=True):
        table[: len(part)] = part
    return tables


def mistakes(bench: Bench) -> list[Row]:
    """Negative and NegativeAugment: the same mistakes, and as many rounds of mixtures in the same order."""
    theirs, data, victim = bench.qurd.queries, bench.data, bench.models["victim"]
    prepare = theirs.v2.Compose([theirs.v2.Normalize(mean=[0.0] * 3, std=[1.0] * 3)])
    module: Any = copy.deepcopy(victim)
    module.pretrained_cfg = {"num_classes": CLASSES}
    draw: dict[str, Any] = {"default": 10**9, "seed": 0, "population": None}

    def their_mistakes() -> np.ndarray:
        with seeded(0):
            return theirs.find_negatives(dataset(data), module, 10**9, 64, "cpu", prepare)[0].numpy()

    def their_mixtures(data: Data, n: int) -> np.ndarray:
        with seeded(0):
            return theirs.RandomNegativeQueries(augment=True).sample(dataset(data), n, module, prepare).numpy()

    a, b, seconds = bench.timed(their_mistakes, lambda: Negative().draw(view(victim), data, n=None, **draw).inputs)
    a, b = ({image.tobytes() for image in images} for images in (a, b))
    rows = [Row(part="sampler Negative", verdict="UNEXPLAINED" if a ^ b else "same",
                found=f"{len(a ^ b)} of {len(a | b)} mistakes in one only", seconds=seconds)]  # fmt: skip
    wrong = view(victim).labels(data.inputs) != data.labels
    few = data.take(np.concatenate([np.flatnonzero(wrong)[:20], np.flatnonzero(~wrong)[:200]]), "20 mistakes")
    none = data.take(np.flatnonzero(~wrong)[:200], "no mistakes")
    a, b, seconds = bench.timed(
        lambda: their_mixtures(few, QUERIES),
        lambda: NegativeAugment().draw(view(victim), few, n=QUERIES, **draw).inputs,
    )
    a, b = (layout(images, few.inputs[:20]) for images in (a, b))
    rows.append(told("sampler NegativeAugment", a, b, False, "", seconds=seconds))
    ends = []
    for act in (
        lambda: their_mixtures(none, 10),
        lambda: NegativeAugment().draw(view(victim), none, n=10, **draw).inputs,
    ):
        try:
            ends.append(f"{len(act())} queries")
        except (ZeroDivisionError, ParameterError) as error:
            ends.append(type(error).__name__)
    refused = ends[1] == "ParameterError"
    return [*rows, told("  without a mistake", ends[0], ends[1], refused, "ours says that there is nothing to mix")]


def layout(images: np.ndarray, wrong: np.ndarray) -> str:
    """In words: mistakes, then rounds of mixtures, the same left to right, and top to bottom."""
    known, m = {image.tobytes() for image in wrong}, len(wrong)
    rounds = 0
    for start in range(m, len(images), 3 * m):
        mix, across, down = (images[start + k * m : start + (k + 1) * m] for k in range(3))
        rounds += np.array_equal(across, mix[: len(across), :, :, ::-1]) and np.array_equal(
            down, mix[: len(down), :, ::-1]
        )
    return f"{sum(image.tobytes() in known for image in images[:m])} mistakes and {rounds} rounds to {len(images)}"


def subsamples(bench: Bench) -> list[Row]:
    """RandomSubsample: how many segments, and what is masked with what."""
    victim = bench.models["victim"]
    draw: dict[str, Any] = {"n": BEACONS * MASKS, "default": 0, "seed": 0, "population": None}
    # The first mask keeps all, so the unmasked images can be given to them.
    seeds = Subsample(masks=MASKS).draw(view(victim), bench.data, **draw).inputs[::MASKS]

    def their_draw() -> tuple[torch.Tensor, list[torch.Tensor]]:
        with seeded(0):
            return bench.qurd.zlime.subsample(seeds, MASKS)

    (images, features), drawn, seconds = bench.timed(
        their_draw, lambda: Subsample(masks=MASKS).draw(view(victim), bench.data, **draw)
    )
    least = Subsample(masks=MASKS, pieces=2).draw(view(victim), bench.data, **draw).extras["parts"]
    counts, parts = np.array([feature.shape[1] for feature in features]), drawn.extras["parts"]
    cut = np.array_equal(np.maximum(counts, 2), least) and np.array_equal(np.maximum(counts, 8), parts)
    mean = np.rint(bench.data.inputs.mean(axis=(0, 2, 3), dtype=np.float64) * 255)[None, None, :, None, None] / 255
    black = masked_with(images.numpy(), seeds, np.zeros(1))
    grey = masked_with(drawn.inputs.reshape(images.shape), seeds, mean)
    found = [f"{numbers.min()} to {numbers.max()}" for numbers in (counts, parts)]
    why = "ours cuts small images into `pieces` at least; with pieces=2 into as many as theirs"
    filled = "0" if black else "something else", "the mean" if grey else "something else"
    return [
        told("sampler RandomSubsample, segments", found[0], found[1], cut, why, seconds),
        told("  a masked entry becomes", filled[0], filled[1], black and grey, "ours as Zest's"),
    ]


def masked_with(images: np.ndarray, seeds: np.ndarray, fill: np.ndarray) -> bool:
    """Whether every entry is its seed's or the fill, some the fill, and the first image of each seed is the seed."""
    same, filled = images == seeds[:, None], np.abs(images - fill) < 1e-6
    return bool((same | filled).all() and filled.any() and same[:, 0].all())


def boundaries(bench: Bench) -> list[Row]:
    """Boundary: what each gives for the same depth k."""
    theirs, victim = bench.qurd.queries, bench.models["victim"]
    prepare = theirs.v2.Compose([theirs.v2.Normalize(mean=[0.0] * 3, std=[1.0] * 3)])
    data = Data(inputs=bench.data.inputs, labels=None, domain=DOMAIN, name=bench.data.name)
    lowered, draws, targets = torch.nn.Sequential(victim, Lowered()), torch.randint_like, []

    def noted(*arguments: Any, **options: Any) -> torch.Tensor:
        targets.append(draws(*arguments, **options))
        return targets[-1]

    def their_points(module: torch.nn.Module) -> np.ndarray:
        with seeded(3), adam(), mock.patch.object(torch, "randint_like", noted):
            sampler = theirs.BoundaryQueries(k=DEPTH)
            return sampler.sample(dataset(data), POINTS, copy.deepcopy(module), prepare).numpy()

    def our_points(module: torch.nn.Module, depth: float = DEPTH) -> Queries:
        asked = view(module, Access.GRADIENTS)
        sampler = Boundary(margin=depth / median_gap(view(module), data.inputs), steps=1000)
        return sampler.draw(asked, data, n=POINTS, default=POINTS, seed=0, population=None)

    with seeded(3):
        begun = theirs.sample_batch(dataset(data), POINTS)[0]
    a, b, seconds = bench.timed(lambda: their_points(victim), lambda: our_points(victim))
    with torch.no_grad():
        own, logits = victim(begun).argmax(dim=1).numpy(), victim(torch.from_numpy(a)).numpy()
    goal, faces, rows = targets[0].numpy(), b.extras["faces"], np.arange(POINTS)
    gaps = (logits[rows, goal] - logits[rows, own])[goal != own]
    ours = view(victim).logits(b.inputs)
    shallow = int((ours[rows, faces[:, 1]] - ours[rows, faces[:, 0]] < DEPTH - 1e-3).sum())
    unmoved = int((a == begun.numpy())[goal == own].all(axis=(1, 2, 3)).sum())
    changed = [differing(a, their_points(lowered)), differing(b.inputs, our_points(lowered).inputs)]
    outside = [int(((x < 0) | (x > 1)).any(axis=(1, 2, 3)).sum()) for x in (a, b.inputs)]
    depth = float(np.median(gaps))
    _, _, briefly = bench.timed(lambda: None, lambda: our_points(victim, depth))
    own_class = int((goal == own).sum()), int((faces[:, 0] == faces[:, 1]).sum())
    deep = "it stops as soon as the label is j"
    clip = f"never clipped; up to {np.maximum(a - 1, -a).max():.2f} beyond"
    zero = "what its maximum leaves out is multiplied by 0, and 0 is then the largest"
    return [
        faults("sampler Boundary, target is the own class", *own_class, POINTS,
               f"j is drawn among all classes; {unmoved} seeds come back unmoved", seconds),
        Row(part=f"  ours at their median depth, {depth:.1f}", verdict="same", found=f"{POINTS} points each",
            seconds=(seconds[0], briefly[1])),
        faults(f"  less than k = {DEPTH:g} deep", int((gaps < DEPTH).sum()), shallow, len(gaps), deep),
        faults("  outside [0, 1]", outside[0], outside[1], POINTS, clip),
        faults(f"  other if all logits are {Lowered.BY:g} less", changed[0], changed[1], POINTS, zero),
    ]  # fmt: skip


def differing(a: np.ndarray, b: np.ndarray) -> int:
    """How many points differ by more than a quantum anywhere."""
    return int((np.abs(a - b) > 1.5 / 255).any(axis=(1, 2, 3)).sum())


class Lowered(torch.nn.Module):
    """Logits less a constant: the same labels, probabilities and differences."""

    BY = 32.0

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, classes) to the same."""
        return logits - self.BY


if __name__ == "__main__":
    sys.exit(main())
