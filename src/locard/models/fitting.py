"""Training: one loop for the zoo and for the thief, the same bytes for the same seed whatever the caller's settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import ParameterError, check_number, need
from locard.models.torch_module import device_of
from locard.seeds import derive

if TYPE_CHECKING:
    import torch

    from locard.models.session import Progress

_WARM_UP, _FIRST_SHARE = 0.3, 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how fast to train.

    Args:
        epochs: passes over the data.
        lr: highest learning rate of the one-cycle schedule.
        batch: inputs in one step.
        weight_decay: of AdamW.
    """

    epochs: int = 10
    lr: float = 5e-3
    batch: int = 64
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("epochs", self.epochs, low=1, whole=True)
        check_number("lr", self.lr, above=0)
        check_number("batch", self.batch, low=1, whole=True)
        check_number("weight_decay", self.weight_decay, low=0)


def build(architecture: str, arguments: dict[str, Any], *, seed: int, dtype: str = "float32") -> torch.nn.Module:
    """A network with weights drawn from a seed; torch's global random state stays as it was.

    Args:
        architecture: a name of `models.architectures`.
        arguments: its own.
        seed: of the initial weights.
        dtype: of the inputs; weights are float64 where these are, else float32.
    """
    from locard.models import architectures

    with reproducible(derive(seed, "fit/weights")):
        module = architectures.build(architecture, **arguments)
    return module.double() if dtype == "float64" else module


def fit(
    module: torch.nn.Module,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    recipe: Recipe,
    seed: int,
    parameters: Iterable[torch.nn.Parameter] | None = None,
    objective: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    after_step: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> torch.nn.Module:
    """Train a module in place with AdamW, a one-cycle schedule and cross-entropy, or another loss.

    Args:
        module: un-normalised inputs in, logits out.
        inputs: (n, *shape), cast to float64 where the module's parameters are, else to float32; or (n,) strings for a
            module with `encode`, see `TorchModel`.
        targets: (n,) int64 class indices, or (n, classes) probabilities (the soft loss of knockoff nets).
        recipe: epochs, learning rate, batch size.
        seed: of the order of the inputs, and of dropout where the module has it.
        parameters: what to train; None for all. When only some are trained, the module stays in evaluation mode, so
            that the statistics of its normalisation layers stay as they are.
        objective: maps the inputs of one step, on the module's device, and their row numbers to the loss, in torch;
            None for the cross-entropy of the module's answers with the targets.
        after_step: called after each step, to put a constraint back.
        progress: called with (done, wanted) epochs.

    Returns:
        The module, in evaluation mode.

    Raises:
        ParameterError: targets that do not fit the inputs, or a loss that is not finite.
    """
    torch = need("torch", extra="torch", why="training")
    from locard.models._torch import tensor

    if len(inputs) == 0 or len(targets) != len(inputs) or targets.ndim not in (1, 2):
        raise ParameterError(f"training needs one target an input; got {len(inputs)} inputs, targets {targets.shape}")
    chosen = list(module.parameters() if parameters is None else parameters)
    real = np.float64 if any(parameter.dtype == torch.float64 for parameter in module.parameters()) else np.float32
    device = device_of(module)
    x = tensor(module, inputs if inputs.dtype.kind in "OU" else np.asarray(inputs, real)).to(device)
    y = torch.from_numpy(np.array(targets, real if targets.ndim == 2 else None)).to(device)
    frozen = {id(p): p.requires_grad for p in module.parameters()}
    batches = math.ceil(len(x) / recipe.batch)
    order = torch.Generator().manual_seed(derive(seed, "fit/order"))
    optimiser = torch.optim.AdamW(chosen, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    module.requires_grad_(False).train(parameters is None)
    for parameter in chosen:
        parameter.requires_grad_(True)
    try:
        with reproducible(derive(seed, "fit/dropout")), torch.enable_grad():
            for epoch in range(recipe.epochs):
                rows = torch.randperm(len(x), generator=order)
                for number, part in enumerate(rows.split(recipe.batch)):
                    rate = recipe.lr * one_cycle((epoch * batches + number + 0.5) / (recipe.epochs * batches))
                    for group in optimiser.param_groups:
                        group["lr"] = rate
                    if objective is None:
                        loss = torch.nn.functional.cross_entropy(module(x[part]), y[part])
                    else:
                        loss = objective(x[part], part)
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    if after_step is not None:
                        after_step()
                if not math.isfinite(loss.item()):  # pyright: ignore[reportPossiblyUnboundVariable]
                    raise ParameterError(f"training diverged in epoch {epoch + 1}: the loss is not finite; lower lr")
                # The last step comes after the last loss.
                if not all(bool(parameter.isfinite().all()) for parameter in chosen):
                    raise ParameterError(f"training diverged in epoch {epoch + 1}: a weight is not finite; lower lr")
                if progress is not None:
                    progress(epoch + 1, recipe.epochs)
    finally:
        optimiser.zero_grad()
        for parameter in module.parameters():
            parameter.requires_grad_(frozen[id(parameter)])
        module.eval()
    return module


def one_cycle(done: float) -> float:
    """Learning rate as a share of the highest: cosine up from 1/25 over the first 30 %, cosine down to 0 over the rest.

    Args:
        done: share of the training that lies behind, in [0, 1].
    """
    if done < _WARM_UP:
        return _FIRST_SHARE + (1 - _FIRST_SHARE) * (1 - math.cos(math.pi * done / _WARM_UP)) / 2
    return (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread and torch's global generator seeded inside; both as they were afterwards."""
    torch = need("torch", extra="torch", why="training")
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, because sums over several depend on how many there are."""
    torch = need("torch", extra="torch", why="training")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
