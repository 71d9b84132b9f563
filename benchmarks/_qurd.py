"""QuRD's modules as they lie in a checkout, stand-ins for packages they import that are missing, and what both run on.

A stand-in has only what `qurd_parity.py` touches, written from the package's documentation.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils.data import TensorDataset

from locard.data import read
from locard.errors import ParameterError
from locard.models import restrict
from locard.models.fitting import Recipe, build, fit
from locard.models.torch_module import TorchModel
from locard.queries.cutmix import CutMix
from locard.records import Access, Data, Domain

DOMAIN = Domain(kind="image", shape=(3, 32, 32), bounds=(0.0, 1.0), quantum=1 / 255)
CLASSES = 10
MODULES = ("distance", "representation", "queries", "zlime")


def load(checkout: Path) -> tuple[types.SimpleNamespace, list[str]]:
    """Their modules by name, and the packages that were stood in for."""
    missing = [name for name in ("torchvision", "foolbox", "numba") if importlib.util.find_spec(name) is None]
    if "numba" in missing:
        _module("numba", njit=lambda act=None: act if act is not None else (lambda inner: inner))
    if "foolbox" in missing:
        _module("foolbox")
    if "torchvision" in missing:
        flips = _module("torchvision.transforms.v2.functional", horizontal_flip=lambda x: x.flip(-1),
                        vertical_flip=lambda x: x.flip(-2))  # fmt: skip
        parts = {part.__name__: part for part in (Compose, Normalize, Resize, CenterCrop)}
        v2 = _module("torchvision.transforms.v2", Transform=Transform, CutMix=Mix, functional=flips, **parts)
        _module("torchvision", transforms=_module("torchvision.transforms", v2=v2, **parts))
    sys.path.insert(0, str(checkout.resolve()))
    named = {name: importlib.import_module(f"qurd.fingerprint.{name}") for name in MODULES}
    return types.SimpleNamespace(**named), missing


def world() -> tuple[Data, dict[str, torch.nn.Module]]:
    """Coloured digits of 32 x 32 that no model has seen; a victim, a fine-tuned copy and a stranger."""
    digits, source = read("digits"), np.random.default_rng(0)
    if digits.labels is None:
        raise ParameterError(f"{digits.name} must have labels")
    grey = np.kron(digits.inputs.reshape(-1, 1, 8, 8), np.ones((1, 1, 4, 4))) / digits.inputs.max()
    tint = source.uniform(0.4, 1.0, (len(grey), 3, 1, 1))
    images = DOMAIN.deliver((grey * tint + source.uniform(0, 0.15, (len(grey), *DOMAIN.shape))).astype(np.float32))
    labels, rows = digits.labels, source.permutation(len(images))

    def trained(module: torch.nn.Module, at: np.ndarray, seed: int, epochs: int) -> torch.nn.Module:
        return fit(module, images[at], labels[at], recipe=Recipe(epochs=epochs, batch=32), seed=seed)

    shape = {"shape": DOMAIN.shape, "classes": CLASSES, "width": 8}
    victim = trained(build("cnn", shape, seed=0), rows[:250], 0, 20)
    models = {"victim": victim, "copy": trained(copy.deepcopy(victim), rows[250:400], 1, 3),
              "stranger": trained(build("cnn", shape, seed=2), rows[400:650], 2, 20)}  # fmt: skip
    return Data(inputs=images[rows[650:]], labels=labels[rows[650:]], domain=DOMAIN, name="coloured digits"), models


def view(module: torch.nn.Module, access: Access = Access.LOGITS) -> Any:
    """A fresh view, whose journal knows no answer yet, of a model that is loaded once, as theirs is."""
    return restrict(_loaded(module), access)


@functools.cache
def _loaded(module: torch.nn.Module) -> TorchModel:
    return TorchModel(module, domain=DOMAIN)


def dataset(data: Data) -> TensorDataset:
    """Images and labels as torch loads them."""
    labels = np.zeros(len(data), np.int64) if data.labels is None else data.labels
    return TensorDataset(torch.from_numpy(data.inputs), torch.from_numpy(labels))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Their draws come from torch's global state, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


def adam() -> Any:
    """A context in which torch shows its module `adam` through the parent, as it did for them."""
    return mock.patch.object(torch.optim, "adam", importlib.import_module("torch.optim.adam"), create=True)


def _module(name: str, **members: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    for key, member in members.items():
        setattr(made, key, member)
    sys.modules[name] = made
    return made


class Transform(torch.nn.Module):
    """Of images."""


class Resize(Transform):
    """Only asked for by name."""


class CenterCrop(Transform):
    """Only asked for by name."""


class Compose(Transform):
    """One after the other."""

    def __init__(self, transforms: list[Transform]) -> None:
        super().__init__()
        self.transforms = transforms

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images to images."""
        for transform in self.transforms:
            image = transform(image)
        return image


class Normalize(Transform):
    """Channels less a mean, over a deviation."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(..., c, h, w) to the same."""
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return (image - mean) / std


class Mix:
    """CutMix of each image with the one before it, one patch for all."""

    def __init__(self, *, alpha: float, num_classes: int) -> None:
        self.patch = CutMix(patch="textbook")

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, c, h, w) images to mixtures; the labels are not looked at."""
        inside = self.patch.patches(1, tuple(images.shape[2:]), np.random.default_rng(0))
        return torch.where(torch.from_numpy(inside)[:, None], images.roll(1, 0), images), labels
