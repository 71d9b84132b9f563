"""Adversarial examples of one model tried on another, both ways: what a thief gains, and what he gives away.

A thief who holds a copy makes adversarial examples on it, without asking, and the victim falls for many of them [1].
The reverse is evidence of descent: examples made on the victim fool a copy more often than an independent model, above
all into the very class that was aimed at. Examples are made by MI-FGSM [2]: ten steps of a quarter of `eps` along the
sign of the sum of the gradients, each divided by its L1 norm. Aimed examples take fifty steps towards a class drawn for
each input.

At 8/255, where the literature stands, examples go over to independent models too (the rates saturate); 4/255 tells
more. A model trained adversarially is fooled less, both ways, and one of another architecture likewise: compare with
references of the same making. The papers' texts were not at hand; algorithm 1 of [2] was recalled, and its diversified
inputs (DI) are left out.

[1] Papernot, McDaniel, Goodfellow, Jha, Celik, Swami. Practical Black-Box Attacks against Machine Learning. AsiaCCS
2017. [2] Dong, Liao, Pang, Su, Zhu, Hu, Li. Boosting Adversarial Attacks with Momentum. CVPR 2018, algorithm 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import AccessError, ParameterError, check_number
from locard.queries._adversarial import cross_entropy, pgd
from locard.queries.base import movable, reach
from locard.records import Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import LabelView
    from locard.models.session import Progress
    from locard.records import Domain

MOMENTUM, STEP = 1.0, 1 / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Examples made on one model and tried on another; all are counts of inputs.

    Args:
        fooled: the untargeted examples took the source away from the true label.
        transferred: of these, the target too.
        same_wrong: of these, to the label that the source gave.
        aimed: the targeted examples took the source to their class.
        matched: of these, the target too.
        shaken: random signs of the same size, made on no model, took the target away from the true label.
    """

    fooled: int
    transferred: int
    same_wrong: int
    aimed: int
    matched: int
    shaken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferability:
    """What `transferability` found.

    Args:
        n: inputs, all of which both models classify correctly.
        eps: largest change of an entry, as a share of the domain's range; whole quanta of it.
        steps: of the untargeted examples.
        aimed_steps: of the targeted ones.
        there: made on the first model, tried on the second; None where the first gives no gradients.
        back: the other way round; None likewise.
        cosine: mean cosine between both models' gradients of the cross-entropy; None where one gives none.
    """

    n: int
    eps: float
    steps: int
    aimed_steps: int
    there: Way | None
    back: Way | None
    cosine: float | None


def transferability(
    a: LabelView,
    b: LabelView,
    data: Data,
    *,
    n: int = 500,
    eps: float = 8 / 255,
    steps: int = 10,
    aimed_steps: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Transferability:
    """Make adversarial examples on each model, and try them on the other.

    Args:
        a: a view of the first, of gradients or of labels; examples can be made on a model with gradients only.
        b: a view of the second.
        data: labelled inputs, disjoint from the training data of both.
        n: the most inputs to take, of those that both classify correctly, at random.
        eps: largest change of an entry, as a share of the domain's range or of each column's standard deviation, cut
            down to whole quanta where the domain has a grid.
        steps: of the untargeted examples.
        aimed_steps: of the targeted ones; 0 leaves them out.
        seed: of inputs, classes aimed at and random signs.
        progress: called with (done, wanted) parts of the work.

    Raises:
        AccessError: neither model gives gradients.
        ParameterError: data without labels, that cannot be moved, or that do not fit the models; no input that both
            classify correctly; an eps below the grid's step.

    Cost: to find the inputs one answer of each model an input of the data; then, for each of n, `steps + aimed_steps`
    gradients of the source, one more for the cosine, two answers of it and three of the target.
    """
    check_number("n", n, low=1, whole=True)
    check_number("eps", eps, above=0, high=1)
    check_number("steps", steps, low=1, whole=True)
    check_number("aimed_steps", aimed_steps, low=0, whole=True)
    data = _check(a, b, data)
    radius, eps = _radius(data, eps)
    chosen = _known_to_both(a, b, data, n, generator(seed, "transferability/inputs"))
    x, y = data.inputs[chosen], np.asarray(data.labels)[chosen]
    signs = generator(seed, "transferability/signs").choice(np.array([-1.0, 1.0]), x.shape)
    trial = _Trial(x=x, y=y, aims=_others(y, a.classes or b.classes or 0, generator(seed, "transferability/aims")),
                   shaken=data.domain.deliver((x + radius * signs).astype(x.dtype)), radius=radius,
                   domain=data.domain)  # fmt: skip
    makers = [hasattr(model, "input_gradient") for model in (a, b)]
    parts, wanted = itertools.count(1), sum(makers) * (1 + bool(aimed_steps))

    def made() -> None:
        if progress is not None:
            progress(next(parts), wanted)

    there, back = (trial.way(source, target, steps, aimed_steps, made) if can else None
                   for source, target, can in zip((a, b), (b, a), makers, strict=True))  # fmt: skip
    return Transferability(n=len(x), eps=eps, steps=steps, aimed_steps=aimed_steps, there=there, back=back,
                           cosine=_cosine(a, b, x, y) if all(makers) else None)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Inputs, their labels, the classes aimed at, and the inputs with random signs added: the same for both ways."""

    x: np.ndarray
    y: np.ndarray
    aims: np.ndarray
    shaken: np.ndarray
    radius: float | np.ndarray
    domain: Domain

    def way(self, source: Any, target: LabelView, steps: int, aimed_steps: int, made: Callable[[], None]) -> Way:
        away = self._examples(source, self.y, steps, targeted=False)
        ours, theirs = source.labels(away), target.labels(away)
        fooled = ours != self.y
        made()
        aimed = matched = np.zeros(len(self.x), bool)
        if aimed_steps:
            towards = self._examples(source, self.aims, aimed_steps, targeted=True)
            aimed = source.labels(towards) == self.aims
            matched = aimed & (target.labels(towards) == self.aims)
            made()
        counts = {"fooled": fooled, "transferred": fooled & (theirs != self.y), "same_wrong": fooled & (theirs == ours),
                  "aimed": aimed, "matched": matched, "shaken": target.labels(self.shaken) != self.y}  # fmt: skip
        return Way(**{name: int(np.count_nonzero(rows)) for name, rows in counts.items()})

    def _examples(self, source: Any, labels: np.ndarray, steps: int, *, targeted: bool) -> np.ndarray:
        return pgd(source, self.x, labels, radius=self.radius, step=self.radius * STEP, steps=steps, momentum=MOMENTUM,
                   domain=self.domain, targeted=targeted)  # fmt: skip


def _check(a: LabelView, b: LabelView, data: Data) -> Data:
    """The data as both models take them."""
    movable(data, "adversarial examples")
    if data.labels is None:
        raise ParameterError(f"transferability needs true labels; {data.name} has none")
    for model in (a, b):
        if not hasattr(model, "labels"):
            raise AccessError(f"transferability asks both models for labels; {model.source} gives none")
        data = data.taken_by(model.domain, model.source)
    if not any(hasattr(model, "input_gradient") for model in (a, b)):
        raise AccessError(
            f"adversarial examples need gradients; neither {a.source} nor {b.source} gives any: load one of them from "
            "a model folder, a .pt2 or an .onnx file"
        )
    if a.classes is not None and b.classes is not None and a.classes != b.classes:
        raise ParameterError(f"both models need the same classes; they have {a.classes} and {b.classes}")
    if min(a.classes or 2, b.classes or 2) < 2:
        raise ParameterError("adversarial examples need models of two classes or more")
    for model in (a, b):
        data.check_labels(model.classes, model.source)
    return replace(data, inputs=data.domain.deliver(data.inputs))


def _radius(data: Data, eps: float) -> tuple[float | np.ndarray, float]:
    """The radius in the inputs' units, on the grid of the domain, and as the share that is left of eps."""
    size, quantum = reach(data), data.domain.quantum
    if quantum is None or isinstance(size, np.ndarray):
        return eps * size, eps
    # So much slack that 8/255 is eight quanta of 1/255, whatever the rounding.
    quanta = int(eps * size / quantum + 1e-6)
    if quanta == 0:
        raise ParameterError(
            f"eps must be at least one step of the inputs' grid, {quantum / size:.3g} of their range; got {eps:.3g}"
        )
    return quanta * quantum, quanta * quantum / size


def _known_to_both(a: LabelView, b: LabelView, data: Data, n: int, source: np.random.Generator) -> np.ndarray:
    """Rows that both classify correctly, in random order; looked for in pieces, to ask no more than is needed."""
    order, found = source.permutation(len(data)), np.empty(0, np.int64)
    labels = np.asarray(data.labels)
    for rows in np.split(order, range(n, len(order), n)):
        right = rows[a.labels(data.inputs[rows]) == labels[rows]]
        if len(right):
            right = right[b.labels(data.inputs[right]) == labels[right]]
        found = np.concatenate([found, right])
        if len(found) >= n:
            break
    if len(found) == 0:
        raise ParameterError(f"no input of {data.name} is classified correctly by both {a.source} and {b.source}")
    return found[:n]


def _others(labels: np.ndarray, classes: int, source: np.random.Generator) -> np.ndarray:
    """For each label another class, each as likely."""
    classes = max(classes, int(labels.max()) + 1, 2)
    return (labels + source.integers(1, classes, len(labels))) % classes


def _cosine(a: Any, b: Any, x: np.ndarray, y: np.ndarray) -> float:
    ours, theirs = (model.input_gradient(x, cross_entropy(y))[1].reshape(len(x), -1).astype(float) for model in (a, b))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    moves = lengths > 0
    return float(((ours * theirs).sum(1)[moves] / lengths[moves]).mean()) if moves.any() else 0.0
