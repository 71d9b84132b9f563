"""Modules that a thief puts around a stolen one; imported only where torch is at hand.

Each takes un-normalised inputs, answers logits, runs on a free batch size, and can be written by torch.export and as
ONNX. None draws anything when it is asked: whatever is random was drawn once, from the thief's seed, and is kept as a
buffer. So the same query has the same answer each time, and asking again tells nobody anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from locard.errors import ParameterError
from locard.models.base import NETWORK_BATCH
from locard.models.torch_module import device_of, evaluating
from locard.seeds import derive, generator

if TYPE_CHECKING:
    from locard.models import View

# What a probability of 0 counts as, before the logarithm.
FLOOR = 1e-9
# By so much of itself the answered class leads another that was rounded to the same probability.
LEAD = 1e-5
# Cosines of a field, and pairs of inputs whose distances say what is far.
FEATURES = 256
PAIRS = 1000
# Over shorter distances a field's frequencies are beyond float32.
NEAREST = 1e-30


class Field(nn.Module):
    """A fixed, secret, smooth random function of the inputs: tanh of a Gaussian field from random features [1].

    h(x) = tanh(sqrt(2 / features) * M cos(W x + b)), entries of W from N(0, 1 / length^2), of b uniform in [0, 2 pi),
    of M from N(0, 1). In the mean over keys the inner field has variance 1 and the covariance
    exp(-|x - y|^2 / (2 length^2)).

    [1] Rahimi, Recht. Random Features for Large-Scale Kernel Machines. NeurIPS 2007, section 3.

    Args:
        shape: of one input.
        outputs: how many functions.
        length: distance over which they change.
        source: draws them.
        features: how many cosines.
    """

    waves: torch.Tensor
    phases: torch.Tensor
    mix: torch.Tensor

    def __init__(
        self, shape: Sequence[int], outputs: int, *, length: float, source: torch.Generator, features: int = FEATURES
    ) -> None:
        super().__init__()
        self.register_buffer("waves", torch.randn((math.prod(shape), features), generator=source) / length)
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=source))
        mix = torch.randn((features, outputs), generator=source)
        self.register_buffer("mix", math.sqrt(2 / features) * mix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, outputs), each in (-1, 1)."""
        return torch.tanh(torch.cos(x.flatten(1) @ self.waves + self.phases) @ self.mix)


class Randomised(nn.Module):
    """Logits plus `amplitude` times a field, which can change no answer that leads by more than 2 * amplitude.

    Args:
        module: the stolen one.
        field: of as many functions as there are classes.
        amplitude: in logits.
        fade: the field is multiplied by exp(-lead / fade), so that confident answers stay; 0 for no fading.
    """

    def __init__(self, module: nn.Module, field: Field, amplitude: float, fade: float) -> None:
        super().__init__()
        self.module, self.field, self.amplitude, self.fade = module, field, amplitude, fade

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, classes) logits."""
        logits = self.module(x)
        shift = self.amplitude * self.field(x)
        if self.fade:
            shift = shift * torch.exp(-leads(logits)[:, None] / self.fade)
        return logits + shift

    def extra_repr(self) -> str:
        """What sets two of them apart beside their tensors."""
        return f"amplitude={self.amplitude!r}, fade={self.fade!r}"


class Smoothed(nn.Module):
    """What a bank of noisy versions of an input are taken for, together.

    Args:
        module: the stolen one.
        bank: (copies, *shape), added to each input.
        votes: whether the copies vote by their labels, or their probabilities are averaged.
    """

    bank: torch.Tensor

    def __init__(self, module: nn.Module, bank: torch.Tensor, *, votes: bool) -> None:
        super().__init__()
        self.module, self.votes = module, votes
        self.register_buffer("bank", bank)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, classes) logits."""
        noisy = x.unsqueeze(1) + self.bank
        logits = self.module(noisy.flatten(0, 1)).unflatten(0, (-1, len(self.bank)))
        mean = logits.softmax(2).mean(1)
        if not self.votes:
            return (mean + FLOOR).log()
        # One more vote, dealt out by the mean: it breaks ties, can overturn no majority, and is never 0.
        counts = chosen(logits.flatten(0, 1)).unflatten(0, (-1, len(self.bank))).sum(1)
        return ((counts + mean) / (len(self.bank) + 1) + FLOOR).log()

    def extra_repr(self) -> str:
        """What sets two of them apart beside their tensors."""
        return f"votes={self.votes}"


class Answering(nn.Module):
    """Probabilities at a temperature, cut to the largest, rounded; the answered class stays the first.

    Args:
        module: the stolen one.
        temperature: divides the logits.
        top: how many probabilities are told; 0 for all.
        decimals: they are rounded to so many; 0 for no rounding.
    """

    def __init__(self, module: nn.Module, *, temperature: float, top: int, decimals: int) -> None:
        super().__init__()
        self.module, self.temperature, self.top, self.decimals = module, temperature, top, decimals

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, classes): logarithms of what is told."""
        logits = self.module(x)
        told = (logits / self.temperature).softmax(1)
        if self.top:
            told = told * largest(logits, self.top)
        if self.decimals:
            told = torch.round(told * 10**self.decimals) / 10**self.decimals
        return (told + FLOOR).log() + LEAD * chosen(logits)

    def extra_repr(self) -> str:
        """What sets two of them apart beside their tensors."""
        return f"temperature={self.temperature!r}, top={self.top}, decimals={self.decimals}"


class Crowd(nn.Module):
    """Several modules as one: their mean probability, or the answer of one that a field chooses for each input.

    Args:
        members: of one task.
        field: of as many functions as there are members; None for the mean.
    """

    def __init__(self, members: Sequence[nn.Module], field: Field | None) -> None:
        super().__init__()
        self.members, self.field = nn.ModuleList(members), field

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, classes) logits."""
        answers = torch.stack([member(x) for member in self.members], dim=1).softmax(2)
        if self.field is None:
            return (answers.mean(1) + FLOOR).log()
        return ((answers * chosen(self.field(x)).unsqueeze(2)).sum(1) + FLOOR).log()


class Typicality(nn.Module):
    """How far an input lies from data, as a squared Mahalanobis distance under probabilistic PCA [1].

    Along the data's main axes the distance is in their standard deviations, across them in one deviation for all the
    rest, so that small changes in directions that data never take count for much.

    [1] Tipping, Bishop. Probabilistic Principal Component Analysis. J. Royal Statistical Society B 61, 1999, section 3.

    Args:
        mean: (d,) of the data.
        axes: (d, r) orthonormal.
        variances: (r,) along the axes.
        rest: variance along each other direction.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    variances: torch.Tensor

    def __init__(self, mean: torch.Tensor, axes: torch.Tensor, variances: torch.Tensor, rest: float) -> None:
        super().__init__()
        self.rest = rest
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes)
        self.register_buffer("variances", variances)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n,)."""
        centred = x.flatten(1) - self.mean
        along = (centred @ self.axes).square()
        across = centred.square().sum(1) - along.sum(1)
        return (along / self.variances).sum(1) + across / self.rest

    def extra_repr(self) -> str:
        """What sets two of them apart beside their tensors."""
        return f"rest={self.rest!r}"


class Lying(nn.Module):
    """The answer of a stolen module, with the two first classes exchanged where a query looks suspicious.

    Args:
        module: the stolen one.
        suspicion: maps inputs to (n,) numbers; None for minus the lead of the answered class.
        threshold: a query is suspicious above it.
        key: of one function; a suspicious query is lied to only where it is positive. None for all of them.
    """

    def __init__(self, module: nn.Module, suspicion: nn.Module | None, threshold: float, key: Field | None) -> None:
        super().__init__()
        self.module, self.suspicion, self.threshold, self.key = module, suspicion, threshold, key

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *shape) to (n, classes) logits."""
        logits = self.module(x)
        lie = self.suspected(x, logits) > self.threshold
        if self.key is not None:
            lie = lie & (self.key(x)[:, 0] > 0)
        first = chosen(logits)
        second = chosen(logits - first * (logits.amax(1, keepdim=True) - logits.amin(1, keepdim=True) + 1))
        step = (leads(logits) * lie)[:, None]
        return logits + step * (second - first)

    def suspected(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """(n,) how suspicious each query is."""
        return -leads(logits) if self.suspicion is None else self.suspicion(x).reshape(-1)

    def extra_repr(self) -> str:
        """What sets two of them apart beside their tensors."""
        return f"threshold={self.threshold!r}"


def leads(logits: torch.Tensor) -> torch.Tensor:
    """(n,) by how much the largest of (n, classes) leads the next."""
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def chosen(scores: torch.Tensor) -> torch.Tensor:
    """(n, k) with a 1 where (n, k) scores are largest, the first of equals, and 0 elsewhere."""
    places = torch.arange(scores.shape[1], device=scores.device)
    return (scores.argmax(1, keepdim=True) == places).to(scores.dtype)


def largest(scores: torch.Tensor, n: int) -> torch.Tensor:
    """(m, k) with a 1 at the n largest of each row of (m, k) scores, of equal ones the first, and 0 elsewhere."""
    least = scores.topk(n, dim=1).values[:, -1:]
    above, equal = (scores > least).to(scores.dtype), (scores == least).to(scores.dtype)
    room = n - above.sum(1, keepdim=True)
    return above + equal * (equal.cumsum(1) <= room)


def keyed(inputs: np.ndarray, outputs: int, *, share: float, seed: int, name: str) -> Field:
    """A field that changes over a share of the median distance between two inputs.

    Args:
        inputs: (n, *shape), n >= 2.
        outputs: how many functions.
        share: of the median distance.
        seed: the thief's.
        name: of the stream.
    """
    flat = inputs.reshape(len(inputs), -1)
    left, right = generator(seed, f"{name}/pairs").integers(0, len(flat), (2, PAIRS))
    apart = np.linalg.norm((flat[left] - flat[right])[left != right], axis=1)
    usual = float(np.median(apart)) if len(apart) else 0.0
    if usual < NEAREST:
        raise ParameterError(
            "the thief's inputs must differ: half of the pairs of them, or more, are equal or nearly so"
        )
    key = torch.Generator().manual_seed(derive(seed, f"{name}/key"))
    return Field(inputs.shape[1:], outputs, length=share * usual, source=key)


def ask(module: nn.Module, inputs: np.ndarray) -> np.ndarray:
    """(n, classes) logits of a module of the thief's own, in evaluation mode."""
    with evaluating(module), torch.inference_mode():
        parts = [module(torch.from_numpy(inputs[at : at + NETWORK_BATCH].copy()).to(device_of(module))).cpu().numpy()
                 for at in range(0, len(inputs), NETWORK_BATCH)]  # fmt: skip
    return np.concatenate(parts)


def check_inputs(victim: View, attack: str) -> None:
    """Refuse a victim whose inputs are no float32 numbers.

    Raises:
        ParameterError: it is such a one.
    """
    if victim.domain.dtype != "float32":
        raise ParameterError(
            f"{attack} needs a victim of images or tables in float32; {victim.source} takes {victim.domain.text}"
        )
