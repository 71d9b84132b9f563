"""What DeepJudge records of a model, and the metrics and the vote it takes from two records [1].

[1] Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song. Copy, Right? A Testing Framework for Copyright Protection of Deep
Learning Models. IEEE S&P 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from locard.distances import jensen_shannon
from locard.errors import ArtefactError, ParameterError, check_number, unknown
from locard.queries.base import Queries
from locard.records import Access
from locard.representations.activations import Activations
from locard.representations.base import Record
from locard.representations.probabilities import Probabilities

BLACK, WHITE = ("robd", "jsd"), ("nod", "nad", "lod", "lad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Record `probabilities` of the black-box tests, which come first, and `activations` of the others.

    The queries carry `classes`, as the sampler "fooling" gives them, for the first. Cost: one query a test.

    Args:
        layer: see `Activations`.
    """

    by_class: ClassVar[bool] = True

    layer: str = ""

    @property
    def access(self) -> Access:
        """The module."""
        return Access.MODULE

    def cost(self, queries: Queries) -> int:
        """One a test."""
        return len(queries.inputs)

    def inputs(self, queries: Queries) -> np.ndarray | None:
        """None, as activations are answered from no journal."""
        return None

    def record(self, view: Any, queries: Queries) -> Record:
        """See `Representation.record`."""
        black = len(_whole(queries.extras, "classes"))
        if not 0 < black < len(queries.inputs):
            raise ArtefactError(
                f"deepjudge needs tests of either kind; got {black} of {len(queries.inputs)} with classes"
            )
        first, second = (Queries(inputs=part) for part in np.split(queries.inputs, [black]))
        return Probabilities().record(view, first) | Activations(layer=self.layer).record(view, second)


def metrics(queries: Record, own: Record, theirs: Record) -> dict[str, float]:
    """All metrics that two records allow, float64, 0 for the owner's own.

    - robd: |Rob(g) - Rob(f)|, Rob the share of black-box tests answered truly, 0 for f.
    - jsd: the mean Jensen-Shannon divergence of the probabilities, natural logarithm, no root.
    - nod: the mean over the white-box tests of |phi_i(f) - phi_i(g)|, i the neuron that a test is for.
    - nad: the mean of |s_i(f) - s_i(g)| times the number of neurons that are tested; s is 1 where an activation exceeds
      half of the way from the smallest to the largest of the layer on the same test.
    - lod: the mean L2 length of phi(f) - phi(g), over all neurons of the layer.
    - lad: the mean number of neurons whose s differs.

    Args:
        queries: arrays by name: `classes` (black-box tests,), and `neurons` (white-box tests,) where there are some.
        own: the owner's record, f: `labels`, `probabilities`, or `probabilities` and `activations`.
        theirs: another model's, g.

    Raises:
        ArtefactError: queries and records do not fit one another.
    """
    f, g = _answers(own), _answers(theirs)
    if f.keys() != g.keys() or any(f[name].shape != g[name].shape for name in f):
        shapes = [{name: array.shape for name, array in one.items()} for one in (f, g)]
        raise ArtefactError(f"two records of deepjudge must hold the same answers; got {shapes[0]} and {shapes[1]}")
    classes = _whole(queries, "classes")
    if classes.shape != f["labels"].shape:
        raise ArtefactError(f"{len(f['labels'])} black-box tests need as many classes; got {len(classes)}")
    robust = [float(np.mean(one["labels"] == classes)) for one in (f, g)]
    found = {"robd": abs(robust[1] - robust[0])}
    if "probabilities" in f:
        found["jsd"] = jensen_shannon(f["probabilities"], g["probabilities"])
    if "activations" in f:
        change, differ = f["activations"] - g["activations"], _pattern(f["activations"]) != _pattern(g["activations"])
        whose, rows = _tested(queries, change.shape), np.arange(len(change))
        found["nod"] = float(np.mean(np.abs(change[rows, whose])))
        found["nad"] = float(np.mean(differ[rows, whose])) * len(np.unique(whose))
        found["lod"] = float(np.mean(np.linalg.norm(change, axis=1)))
        found["lad"] = float(np.mean(differ.sum(axis=1)))
    return found


def scales(queries: Record, own: Record) -> dict[str, float]:
    """What each metric is a share of, from the owner's queries and record alone.

    RobD: 1; JSD: ln 2, its most; NOD: the mean of |phi_i(f)|; NAD: the number of neurons that are tested, its most;
    LOD: the mean length of phi(f); LAD: the number of neurons, its most.

    Args:
        queries: see `metrics`.
        own: see `metrics`.

    Raises:
        ArtefactError: they do not fit one another, or the tested neurons are silent in the owner's own record.
    """
    found, answers = {"robd": 1.0, "jsd": float(np.log(2))}, _answers(own)
    if "activations" in answers:
        phi = answers["activations"]
        whose = _tested(queries, phi.shape)
        found["nod"] = float(np.mean(np.abs(phi[np.arange(len(phi)), whose])))
        found["nad"] = float(len(np.unique(whose)))
        found["lod"] = float(np.mean(np.linalg.norm(phi, axis=1)))
        found["lad"] = float(phi.shape[1])
        if not found["nod"] > 0:
            raise ArtefactError("the neurons that a fingerprint of deepjudge tests are silent in its own record")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What the metrics say, each and together.

    Args:
        thresholds: by metric; at most so much is a vote for a copy.
        votes: by metric.
        copy: whether more than half of the votes are for a copy.
    """

    thresholds: dict[str, float]
    votes: dict[str, bool]
    copy: bool


def vote(
    values: Mapping[str, float],
    negatives: Sequence[Mapping[str, float]],
    *,
    confidence: float = 0.99,
    black: float = 0.9,
    white: float = 0.6,
) -> Vote:
    """The paper's decision, which decides nothing here.

    The threshold of a metric is a share of the one-sided lower confidence bound of its mean over independent models, by
    Student's t: mean - t * deviation / sqrt(models).

    Args:
        values: a suspect's `metrics`.
        negatives: those of independent models, two or more.
        confidence: of the bound.
        black: share of the bound for RobD and JSD.
        white: share for the white-box metrics.

    Raises:
        ParameterError: fewer models, a metric that is none or that a model lacks.
    """
    from scipy.special import stdtrit

    check_number("confidence", confidence, above=0.5, below=1)
    check_number("black", black, above=0)
    check_number("white", white, above=0)
    for name in values:
        if name not in (*BLACK, *WHITE):
            raise unknown("metric of deepjudge", name, (*BLACK, *WHITE))
    if len(negatives) < 2 or not values or any(name not in one for one in negatives for name in values):
        raise ParameterError(
            f"a vote needs {', '.join(sorted(values)) or 'a metric'} of the suspect and of two independent models or "
            f"more; got {len(negatives)} models"
        )
    table = {name: np.array([one[name] for one in negatives], np.float64) for name in values}
    t = float(stdtrit(len(negatives) - 1, confidence))
    thresholds = {
        name: (black if name in BLACK else white)
        * float(column.mean() - t * column.std(ddof=1) / np.sqrt(len(negatives)))
        for name, column in table.items()
    }
    votes = {name: bool(values[name] <= thresholds[name]) for name in values}
    return Vote(thresholds=thresholds, votes=votes, copy=2 * sum(votes.values()) > len(votes))


def _answers(record: Record) -> Record:
    """The record in float64, with labels; checked, for it may come from a stranger."""
    names = set(record)
    if names not in ({"labels"}, {"probabilities"}, {"probabilities", "activations"}):
        raise ArtefactError(
            f"a record of deepjudge holds labels, or probabilities and activations; got {sorted(names)}"
        )
    if names == {"labels"}:
        return {"labels": _whole(record, "labels")}
    for name, array in record.items():
        if array.ndim != 2 or array.size == 0 or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ArtefactError(f"{name} of deepjudge must be finite (tests, numbers); got {array.dtype} {array.shape}")
    found = {name: array.astype(np.float64) for name, array in record.items()}
    return found | {"labels": found["probabilities"].argmax(axis=1)}


def _tested(queries: Record, shape: tuple[int, ...]) -> np.ndarray:
    """The neuron that each white-box test is for, of (tests, neurons) activations."""
    whose, (tests, width) = _whole(queries, "neurons"), shape
    if whose.shape != (tests,) or whose.min() < 0 or whose.max() >= width:
        raise ArtefactError(f"{tests} white-box tests need as many neurons, numbered from 0 to {width - 1}")
    return whose


def _pattern(activations: np.ndarray) -> np.ndarray:
    """(n, neurons) bool, which activations exceed half of the way from a row's smallest to its largest."""
    low, high = activations.min(axis=1, keepdims=True), activations.max(axis=1, keepdims=True)
    spread = np.where(high > low, high - low, 1)
    return (activations - low) / spread > 0.5


def _whole(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    array = arrays.get(name)
    if array is None or array.ndim != 1 or array.dtype.kind not in "iu":
        found = "none" if array is None else f"{array.dtype} {array.shape}"
        raise ArtefactError(f"{name} of deepjudge must be whole numbers, one a test; got {found}")
    return array
