"""Boundary randomisation: the copy answers as the victim on data, and its boundaries lie elsewhere.

`wrapper` needs no training. To the logits it adds A h(x), h a secret smooth field with |h_k| < 1, so no answer that
leads by more than 2 A can change. 2 A is just below the lead that all but a share `loss` of the thief's data have: of
their labels at most that share can change, by construction, and of others of their kind about as few. Off the data,
boundaries move by about A over the slope of the lead.

`trained` bakes it into the weights. It minimises KL(victim || copy) on the thief's data plus `weight` times the
cross-entropy, at points on the copy's own boundaries, to that one of the two first classes whose field is larger; a
field of short `length` cannot be learnt.
The points are found by bisection between inputs of different classes, afresh in each epoch, and kept where the nearest
of the thief's inputs is farther than half the usual distance between neighbours. The thief lays a fifth of his data
aside; training ends, and the last epoch is undone, when the copy has other labels than the victim on more than `loss`
of them. The loop is the house's, AdamW and not SGD, and labels are held against the victim's instead of the true ones:
what they differ by bounds the accuracy lost, and the thief needs no labels.

Both forms are our own, after the idea that many functions are equal on the data and different off them; RemovalNet
[1] pursues it with a generator and hidden features. Counts as a theft within 5 points of accuracy.

[1] Yao, Li, Huang, Wang, Qin. RemovalNet: DNN Fingerprint Removal Attacks. IEEE TDSC 2023.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.attacks.base import Attack, Copy, Network, attacks
from locard.errors import ParameterError, check_number
from locard.models.fitting import Recipe, fit
from locard.records import Access, Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    import torch

    from locard.attacks._wrappers import Field
    from locard.models import ModuleView
    from locard.models.session import Progress

# Room for rounding: twice the amplitude stays by so much below the lead that it may not reach.
ROOM = 1e-3
BISECTIONS = 10
# Boundary points of one epoch, and inputs whose nearest neighbours say what is near.
POINTS = 2000
NEIGHBOURS = 500


@attacks.register("randomise")
@dataclass(frozen=True, slots=True, kw_only=True)
class Randomise(Attack):
    """Move boundaries where no data lie.

    Args:
        form: "wrapper" or "trained".
        loss: share of the thief's data whose label may change, in [0, 1).
        length: distance over which the field changes, as a share of the usual distance between two inputs,
            in [0.001, 1000].
        fade: `wrapper`: the field fades as exp(-lead / (2 A fade)), so that confident answers stay; 0 for no fading.
        weight: `trained`: of the boundary points against the data.
        epochs: `trained`: the most passes over the data.
        lr: `trained`: highest learning rate.
        batch: `trained`: inputs in one step, and boundary points beside them.
    """

    name: ClassVar[str] = "randomise"
    margin: ClassVar[float] = 0.05

    form: str = "wrapper"
    loss: float = 0.05
    length: float = 1.0
    fade: float = 0.0
    weight: float = 0.3
    epochs: int = 3
    lr: float = 1e-3
    batch: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.form not in ("wrapper", "trained"):
            raise ParameterError(f"form must be 'wrapper' or 'trained'; got {self.form!r}")
        check_number("loss", self.loss, low=0, below=1)
        check_number("length", self.length, low=1e-3, high=1e3)
        check_number("fade", self.fade, low=0)
        check_number("weight", self.weight, low=0)
        check_number("epochs", self.epochs, low=1, whole=True)
        self._recipe()

    @property
    def needs(self) -> Access:
        """The module."""
        return Access.MODULE

    @property
    def network(self) -> Network:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The victim's own, trained on; or wrapped."""
        return "victim" if self.form == "trained" else "unnamed"

    def _recipe(self) -> Recipe:
        return Recipe(epochs=1, lr=self.lr, batch=self.batch)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        from locard.attacks._wrappers import Randomised, ask, check_inputs, keyed

        assert data is not None  # noqa: S101 - `derive` has checked
        check_inputs(victim, self.name)
        assert victim.classes is not None  # noqa: S101 - `derive` has checked
        module = copy.deepcopy(victim.module())
        field = keyed(data.inputs, victim.classes, share=self.length, seed=seed, name="randomise")
        if self.form == "trained":
            return self._train(module, field, data.inputs, seed=seed, progress=progress)
        widest = amplitude(ask(module, data.inputs), self.loss)
        return Copy(module=Randomised(module, field, widest, self.fade * 2 * widest))

    def _train(
        self, module: torch.nn.Module, field: Field, inputs: np.ndarray, *, seed: int, progress: Progress | None
    ) -> Copy:
        import torch
        from torch.nn import functional

        from locard.attacks._wrappers import ask

        order = generator(seed, "randomise/aside").permutation(len(inputs))
        aside, own = inputs[order[: len(order) // 5]], inputs[order[len(order) // 5 :]]
        if len(aside) == 0:
            raise ParameterError(f"randomise with form=trained needs 5 inputs or more; {len(inputs)} were given")
        usual, victims = ask(module, aside).argmax(1), ask(module, own)
        soft = torch.from_numpy(victims).softmax(1)
        least, weights = clearance(own, seed=seed), list(module.parameters())
        for epoch in range(self.epochs):
            before = copy.deepcopy(module.state_dict())
            points, targets = self._boundary(module, field, own, least, seed=derive(seed, f"randomise/{epoch}"))
            turn = torch.from_numpy(generator(seed, f"randomise/turn/{epoch}").permutation(len(own)) % len(points))
            beside, between = points[turn], targets[turn]

            def loss(
                x: torch.Tensor, rows: torch.Tensor, beside: torch.Tensor = beside, between: torch.Tensor = between
            ) -> torch.Tensor:
                # The cross-entropy with the victim's answers is KL(victim || copy), but for a constant.
                there = functional.cross_entropy(module(beside[rows]), between[rows])
                return functional.cross_entropy(module(x), soft[rows]) + self.weight * there

            fit(module, own, victims.argmax(1), recipe=self._recipe(), seed=derive(seed, f"randomise/fit/{epoch}"),
                parameters=weights, objective=loss)  # fmt: skip
            changed = float(np.mean(ask(module, aside).argmax(1) != usual))
            if changed > self.loss:
                module.load_state_dict(before)
                if progress is not None:
                    progress(self.epochs, self.epochs)
                note = (f"epoch {epoch + 1} of {self.epochs} was undone: it changed {changed:.1%} of the labels, "
                        f"{self.loss:.1%} were allowed")  # fmt: skip
                return Copy(module=module, epochs=epoch + 1, notes=(note,))
            if progress is not None:
                progress(epoch + 1, self.epochs)
        return Copy(module=module, epochs=self.epochs)

    def _boundary(
        self, module: torch.nn.Module, field: Field, inputs: np.ndarray, least: float, *, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points on the module's boundaries that lie `least` or more from the inputs, and the classes to give them."""
        import torch

        from locard.attacks._wrappers import ask

        points = boundary_points(module, inputs, POINTS, seed=seed)
        points = points[nearest(points, inputs) >= least]
        if len(points) == 0:
            raise ParameterError(
                "no boundary point was found far enough from the thief's inputs: give more data, of two classes or more"
            )
        answers = ask(module, points)
        two = np.argsort(-answers, axis=1, kind="stable")[:, :2]
        with torch.inference_mode():
            keys = field(torch.from_numpy(points)).numpy()
        better = np.take_along_axis(keys, two, axis=1).argmax(1)
        return torch.from_numpy(points), torch.from_numpy(two[np.arange(len(two)), better])


def amplitude(answers: np.ndarray, loss: float) -> float:
    """Half of what all but a share `loss` of (n, classes) logits lead by, less room for rounding."""
    two = np.sort(answers, axis=1)[:, -2:]
    lead = np.sort(two[:, 1] - two[:, 0])
    return float(lead[int(loss * len(lead))]) / 2 * (1 - ROOM)


def boundary_points(module: torch.nn.Module, inputs: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Where the label changes on the way from one input to another of another label, by bisection.

    Args:
        module: whose labels.
        inputs: (m, *shape).
        n: pairs to draw; those of one label are left out.
        seed: of the pairs.

    Returns:
        (k, *shape) float32, k <= n. Cost: n + 10 k answers.
    """
    from locard.attacks._wrappers import ask

    left, right = generator(seed, "randomise/pairs").integers(0, len(inputs), (2, n))
    labels = np.empty(len(inputs), np.int64)
    rows = np.unique([left, right])
    labels[rows] = ask(module, inputs[rows]).argmax(1)
    apart = labels[left] != labels[right]
    own, a, b = labels[left[apart]], inputs[left[apart]], inputs[right[apart]]
    for _ in range(BISECTIONS if len(a) else 0):
        middle = ((a + b) / 2).astype(inputs.dtype)
        same = (ask(module, middle).argmax(1) == own).reshape(-1, *[1] * (inputs.ndim - 1))
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    return ((a + b) / 2).astype(inputs.dtype)


def nearest(points: np.ndarray, inputs: np.ndarray, *, skip: np.ndarray | None = None) -> np.ndarray:
    """The distance from each point to the nearest input.

    Args:
        points: (n, *shape).
        inputs: (m, *shape).
        skip: (n,) for each point a row of the inputs to leave out, or None.

    Returns:
        (n,) float64.
    """
    a, b = points.reshape(len(points), inputs[0].size), inputs.reshape(len(inputs), -1)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    if skip is not None:
        squares[np.arange(len(a)), skip] = np.inf
    return np.sqrt(np.maximum(squares.min(1), 0), dtype=np.float64)


def clearance(inputs: np.ndarray, *, seed: int) -> float:
    """Half the median distance between an input and its nearest neighbour."""
    rows = generator(seed, "randomise/neighbours").permutation(len(inputs))[:NEIGHBOURS]
    return float(np.median(nearest(inputs[rows], inputs, skip=rows))) / 2
