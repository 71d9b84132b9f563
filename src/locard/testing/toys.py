"""Toy models and data: small random networks whose answers take microseconds."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from locard.models.callable import CallableModel
from locard.records import Data, Domain, Lineage
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import Model
    from locard.models.torch_module import TorchModel

CLASSES = 5
_SHAPE = (1, 8, 8)
_HIDDEN = 24


def toy_domain() -> Domain:
    """Grey images of 8 x 8 in [0, 1], 8-bit."""
    return Domain(kind="image", shape=_SHAPE, bounds=(0.0, 1.0), quantum=1 / 255)


def toy_model(seed: int = 0, *, gradients: bool = False, noise: float = 0.0, batch_size: int = 256) -> Model:
    """A random two-layer ReLU network with centred inputs.

    Args:
        seed: of the weights; two seeds are two independent models.
        gradients: as a torch module with gradients, else in NumPy with logits; the answers are the same up to rounding.
        noise: relative Gaussian noise on the weights, which makes a derived model.
        batch_size: inputs in one forward pass.
    """
    w1, w2 = _weights(seed, noise)
    if gradients:
        return _torch_model(w1, w2, batch_size)

    def answer(x: np.ndarray) -> np.ndarray:
        hidden = np.maximum((x.reshape(len(x), -1) - 0.5) @ w1, 0)
        return hidden @ w2

    return CallableModel(answer, domain=toy_domain(), outputs="logits", classes=CLASSES, name=f"toy-{seed}",
                         identity=f"toy-{seed}-{noise}", batch_size=batch_size)  # fmt: skip


@functools.cache
def toy_network() -> TorchModel:
    """A small trained network of a named architecture, `cnn`, with its normalisation in front."""
    from locard.models.fitting import Recipe, build, fit
    from locard.models.torch_module import TorchModel

    data = toy_data()
    assert data.labels is not None  # noqa: S101 - toy data have labels
    module = build("cnn", {"shape": list(_SHAPE), "classes": CLASSES, "width": 8}, seed=0)
    model = TorchModel(module, domain=toy_domain(), mean=(0.5,), std=(0.3,), source="toy network",
                       lineage=Lineage(architecture="cnn", seed=0))  # fmt: skip
    fit(model.module(), data.inputs, data.labels, recipe=Recipe(epochs=20, lr=1e-2, batch=50), seed=0)
    return model


def toy_data(n: int = 400, seed: int = 0) -> Data:
    """Smooth random images, labelled by a network that is none of the toy models, so that each of them errs often."""
    source = generator(seed, "toy/data")
    coarse = source.random((n, 1, 4, 4))
    images = np.clip(np.kron(coarse, np.ones((1, 1, 2, 2))) + source.normal(0, 0.1, (n, *_SHAPE)), 0, 1)
    inputs = toy_domain().deliver(images.astype(np.float32))
    w1, w2 = _weights(1_000_003, 0.0)
    labels = (np.maximum((inputs.reshape(n, -1) - 0.5) @ w1, 0) @ w2).argmax(axis=1)
    return Data(inputs=inputs, labels=labels.astype(np.int64), domain=toy_domain(), name="toy data")


def _weights(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    source = generator(seed, "toy/weights")
    w1 = source.normal(0, 1, (64, _HIDDEN)).astype(np.float32)
    w2 = source.normal(0, 1, (_HIDDEN, CLASSES)).astype(np.float32)
    if noise:
        blur = generator(seed, f"toy/noise/{noise}")
        w1 = w1 + (noise * blur.normal(0, 1, w1.shape)).astype(np.float32)
        w2 = w2 + (noise * blur.normal(0, 1, w2.shape)).astype(np.float32)
    return w1, w2


def _torch_model(w1: np.ndarray, w2: np.ndarray, batch_size: int) -> Model:
    from locard.errors import need
    from locard.models.torch_module import TorchModel

    torch = need("torch", extra="torch", why="a toy model with gradients")
    module = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, _HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(_HIDDEN, CLASSES, bias=False),
    )
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(w1.T.copy()))
        module[1].bias.copy_(torch.from_numpy(-0.5 * w1.sum(axis=0)))
        module[3].weight.copy_(torch.from_numpy(w2.T.copy()))
    return TorchModel(module, domain=toy_domain(), batch_size=batch_size)
