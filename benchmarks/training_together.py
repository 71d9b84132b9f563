"""Processor time of training small networks together, stacked along one more axis, against one after the other.

Each network of a stack has its own first weights and its own order of the data, as if `fit` had trained it. Two ways:
`torch.func.vmap` over the module, and the same layers written out for a stack (batched products, grouped convolutions
with channels last). Both sides of a ratio are measured in turns. Inputs are random, since time does not depend on what
they show. Then: how far the weights are from those that `fit` gives, whether they depend on how many are trained
together, and what share of building a whole population lies in training its originals.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

import locard
from locard.models.fitting import Recipe, build, fit, one_cycle
from locard.seeds import derive
from locard.zoo.population import Original, classes_of
from locard.zoo.recipe import read_recipe
from locard.zoo.zoo import build_zoo

TOGETHER = (4, 8, 16, 32)
Tensors = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network and the data that it is trained on, `rows` of them, `batch` in a step."""

    title: str
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...]
    classes: int = 10
    batch: int = 128
    rows: int = 2048

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, *shape) float32 in [0, 1), and labels that a network can learn from them."""
        rng = np.random.default_rng(0)
        inputs = rng.random((self.rows, *self.shape), dtype=np.float32)
        answers = inputs.reshape(self.rows, -1) @ rng.standard_normal((math.prod(self.shape), self.classes))
        return inputs, answers.argmax(axis=1)

    def network(self, seed: int, dtype: str = "float32") -> torch.nn.Module:
        """With first weights of that seed."""
        arguments = {"shape": self.shape, "classes": self.classes, **self.arguments}
        return build(self.architecture, arguments, seed=seed, dtype=dtype)


DIGITS: dict[str, Any] = {"shape": (1, 8, 8), "batch": 50, "rows": 300}
CASES = [
    Case(title="digits, cnn 8", architecture="cnn", arguments={"width": 8}, **DIGITS),
    Case(title="digits, mlp 64-32", architecture="mlp", arguments={"hidden": [64, 32]}, **DIGITS),
    Case(title="digits, resnet 8", architecture="resnet", arguments={"width": 8}, **DIGITS),
    Case(title="letters, mlp 128-64", architecture="mlp", arguments={"hidden": [128, 64]}, shape=(16,), classes=26),
    Case(title="fashion, mlp 128-64", architecture="mlp", arguments={"hidden": [128, 64]}, shape=(1, 28, 28)),
    Case(title="fashion, cnn 16", architecture="cnn", shape=(1, 28, 28)),
    Case(title="fashion, resnet 16", architecture="resnet", shape=(1, 28, 28)),
    Case(title="fashion, vgg 8", architecture="vgg", arguments={"width": 8}, shape=(1, 28, 28)),
    Case(title="fashion, transformer", architecture="transformer", shape=(1, 28, 28)),
]


class Stack:
    """Networks of one case, trained together.

    Args:
        case: what and on what.
        way: "vmap" or "by hand".
        seeds: of the networks, one each.
        recipe: as `fit` takes it.
        dtype: of weights and inputs.
    """

    def __init__(self, case: Case, way: str, seeds: list[int], recipe: Recipe, dtype: str = "float32") -> None:
        self.recipe, self.seeds = recipe, seeds
        modules = [case.network(seed, dtype) for seed in seeds]
        parameters, self.buffers = stack_module_state(modules)
        self.parameters = {name: one.detach().clone().requires_grad_() for name, one in parameters.items()}
        bare = copy.deepcopy(modules[0]).to("meta")
        self.loss = by_vmap(bare, self.parameters, self.buffers) if way == "vmap" else WAYS[way](self.parameters)
        inputs, labels = case.data()
        self.x, self.y = torch.from_numpy(inputs.astype(dtype)), torch.from_numpy(labels)

    def steps(self) -> Iterator[int]:
        """Train; the number of each step when it is done."""
        rate, epochs, size = self.recipe.lr, self.recipe.epochs, self.recipe.batch
        orders = [torch.Generator().manual_seed(derive(seed, "fit/order")) for seed in self.seeds]
        optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=rate, weight_decay=self.recipe.weight_decay, fused=True
        )
        batches = math.ceil(len(self.x) / size)
        for epoch in range(epochs):
            rows = torch.stack([torch.randperm(len(self.x), generator=order) for order in orders])
            for number, part in enumerate(rows.split(size, dim=1), epoch * batches):
                for group in optimiser.param_groups:
                    group["lr"] = rate * one_cycle((number + 0.5) / (epochs * batches))
                loss = self.loss(self.x[part], self.y[part])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                yield number


def by_vmap(bare: torch.nn.Module, parameters: Tensors, buffers: Tensors) -> Loss:
    """The sum of the networks' losses; batch norm writes its statistics to the stacked buffers."""

    def one(own: Tensors, statistics: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(functional_call(bare, (own, statistics), (x,)), y)

    many = vmap(one)
    return lambda x, y: many(parameters, buffers, x, y).sum()


def mlp_by_hand(p: Tensors) -> Loss:
    """The same for `mlp`: one batched product a layer."""
    layers = len(p) // 2

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2)
        for number in range(layers):
            x = dense(p, f"layers.{number}", x)
            x = torch.relu(x) if number < layers - 1 else x
        return summed(x, y)

    return loss


def cnn_by_hand(p: Tensors) -> Loss:
    """The same for `cnn`: networks side by side in the channels, one group of a convolution each."""

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        networks = len(x)
        x = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        for name in ("conv1", "conv2"):
            weight, bias = p[f"{name}.weight"].flatten(0, 1), p[f"{name}.bias"].flatten()
            x = torch.relu(functional.max_pool2d(functional.conv2d(x, weight, bias, padding=1, groups=networks), 2))
        x = x.unflatten(1, (networks, -1)).transpose(0, 1).flatten(2)
        return summed(dense(p, "dense2", torch.relu(dense(p, "dense1", x))), y)

    return loss


def dense(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    """(networks, n, in) to (networks, n, out)."""
    return torch.baddbmm(p[f"{name}.bias"][:, None], x, p[f"{name}.weight"].transpose(1, 2))


def summed(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Each network's mean cross-entropy, summed over networks."""
    return functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]


WAYS: dict[str, Callable[[Tensors], Loss]] = {"mlp by hand": mlp_by_hand, "cnn by hand": cnn_by_hand}


def main() -> None:
    """Print three tables."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--recipe", default="digits-small", help="population whose build is timed as a whole")
    given = options.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, torch "
          f"{torch.__version__}, one thread, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, locard "
          f"{locard.__version__}; processor time")  # fmt: skip
    print(f"\nOne by one: ms a step. Together: how many times as fast a network, the median of {given.repeats}.")
    print(f"{'network':22}{'one by one':>11}  {'way':12}" + "".join(f"{f'{k} nets':>9}" for k in TOGETHER))
    for case in CASES:
        for way in ways(case):
            print(speeds(case, way, given.repeats), flush=True)
    print("\nAfter one epoch at lr 0.01: the largest difference of any weight or statistic of a network trained among "
          "8 from the\nsame by fit in float64, by fit, among 1, 3 and 16.")  # fmt: skip
    print(f"{'network':22}{'way':12}{'8, fit, f64':>12}{'8, fit':>12}{'8, 1':>12}{'8, 3':>12}{'8, 16':>12}")
    for case in CASES:
        for way in ways(case):
            print(differences(case, way), flush=True)
    share(given.recipe)


def ways(case: Case) -> list[str]:
    """By vmap, and by hand where that is written."""
    return ["vmap", *(way for way in WAYS if way.startswith(case.architecture))]


def speeds(case: Case, way: str, repeats: int) -> str:
    """One row of the first table."""
    alone = step_alone(case)
    enough = max(1, round(0.2 / alone))
    ratios, base = [], []
    for k in TOGETHER:
        turns = [(step_alone(case), step_together(case, way, k, max(1, enough // k))) for _ in range(repeats)]
        base += [one for one, _ in turns]
        ratios.append(float(np.median([one / many for one, many in turns])))
    return f"{case.title:22}{1000 * np.median(base):11.2f}  {way:12}" + "".join(f"{ratio:9.2f}" for ratio in ratios)


def step_alone(case: Case) -> float:
    """Seconds a step of `fit`."""
    inputs, labels = case.data()
    epochs = 10 if case.rows < 1000 else 1
    module = case.network(0)
    start = time.process_time()
    fit(module, inputs, labels, recipe=Recipe(epochs=epochs, batch=case.batch), seed=0)
    return (time.process_time() - start) / (epochs * math.ceil(case.rows / case.batch))


def step_together(case: Case, way: str, networks: int, steps: int) -> float:
    """Seconds a step and network, after a first step."""
    stack = Stack(case, way, list(range(networks)), Recipe(epochs=100, batch=case.batch))
    left = stack.steps()
    next(left)
    start = time.process_time()
    for _ in range(steps):
        next(left)
    return (time.process_time() - start) / steps / networks


def differences(case: Case, way: str) -> str:
    """One row of the second table, of the network with seed 0."""
    recipe = Recipe(epochs=1, batch=case.batch, lr=0.01)

    def single(dtype: str) -> Tensors:
        return dict(fit(case.network(0, dtype), *case.data(), recipe=recipe, seed=0).state_dict())

    def first(networks: int, dtype: str = "float32") -> Tensors:
        stack = Stack(case, way, list(range(networks)), recipe, dtype)
        for _ in stack.steps():
            pass
        return {name: one[0].detach() for name, one in (stack.parameters | stack.buffers).items()}

    eight = first(8)
    gaps = [gap(first(8, "float64"), single("float64")), gap(eight, single("float32")),
            *(gap(eight, first(k)) for k in (1, 3, 16))]  # fmt: skip
    return f"{case.title:22}{way:12}" + "".join(f"{one:12.1e}" for one in gaps)


def gap(a: Tensors, b: Tensors) -> float:
    """The largest difference of two networks' tensors."""
    return max(float((one.double() - b[name].double()).abs().max()) for name, one in a.items())


def share(name: str) -> None:
    """What building a population takes, and what of it the training of its originals."""
    recipe = read_recipe(name)
    with TemporaryDirectory() as folder:
        start = time.process_time()
        build_zoo(recipe, Path(folder), processes=1)
        whole = time.process_time() - start
    parts, spent = recipe.parts(), 0.0
    originals = [job for job, _ in recipe.jobs() if isinstance(job, Original)]
    for job in originals:
        data = parts[job.data]
        shape = {"shape": list(data.domain.shape), "classes": classes_of(data)}
        module = build(job.architecture, {**shape, **job.arguments}, seed=job.seed)
        start = time.process_time()
        fit(module, data.inputs, np.asarray(data.labels), recipe=job.recipe, seed=job.seed)
        spent += time.process_time() - start
    print(f"\nBuilding {name}: {whole:.1f} s, of which training its {len(originals)} originals {spent:.1f} s "
          f"({spent / whole:.0%}).")  # fmt: skip


if __name__ == "__main__":
    main()
