"""Dataset inference: a model has wider margins on what it was trained on, and a copy inherits them [1].

The claim is `trained-on`: that the suspect learnt from the owner's private data, itself or through a model that did.
The margins of a model around inputs are measured by `Margins`; a small regressor g, fitted on the victim's margins
around some private and some public inputs, says how private an input looks. The score is the mean of g over other
public inputs less that over other private ones. The paper's test is Welch's t on these (`welch`), which takes inputs
for independent draws; here reference models, which did not see the private data, give the p-value.

`--data` are labelled data that no model has seen, as everywhere; `--param private=...` names the victim's training
data. References must be trained on neither. The fingerprint holds some fifty of the private inputs.

The released notebooks permute the axes of the margins before flattening them, so that a row holds one feature of many
inputs, not all features of one, and both halves hold the same inputs; their p-values are better than the method is.
Here a row is an input. Later work finds false positives for models trained on data of the same distribution, and false
negatives after adversarial training [2].

[1] Maini, Yaghini, Papernot. Dataset Inference: Ownership Resolution in Machine Learning. ICLR 2021; blind walk,
numbers after the authors' released code. [2] Szyller, Zhang, Liu, Asokan. On the Robustness of Dataset Inference. TMLR
2023.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from locard.errors import ArtefactError, ParameterError, check_number
from locard.fingerprint import Fingerprint
from locard.queries import Population, Queries, Sampler
from locard.queries.members import Members, check_pairs
from locard.records import Claim, Data
from locard.representations import Representation
from locard.representations.margins import Margins
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme
from locard.seeds import derive, generator

# The regressor: hidden units, step of the descent, and steps, as released.
HIDDEN, RATE, STEPS = 100, 0.1, 1000
_SHAPES = ("mean", "std", "w1", "b1", "w2", "b2")


@schemes.register("dataset-inference")
@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInference(QueryScheme):
    """Wider margins on private data. Cost: up to 1 + 3 * `directions` * `steps` labels for each of 100 inputs.

    Args:
        private: the victim's training data with their labels, a name or path.
        directions: walks of each of three kinds from each input.
        steps: of a walk.
        scale: factor on the width of the walks' noises.
    """

    claim: ClassVar[Claim] = "trained-on"
    summary: ClassVar[str] = "wider margins on the owner's private data than on public ones"
    citation: ClassVar[Citation | None] = Citation(
        key="maini2021dataset",
        authors="Pratyush Maini and Mohammad Yaghini and Nicolas Papernot",
        title="Dataset Inference: Ownership Resolution in Machine Learning",
        venue="ICLR",
        year=2021,
        eprint="2104.10706",
    )

    private: str = ""
    directions: int = 10
    steps: int = 50
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        _ = self.representation

    @property
    def sampler(self) -> Sampler:
        """Private and public inputs."""
        return Members(private=self.private, each=self._each)

    @property
    def representation(self) -> Representation:
        """Margins by blind walks."""
        return Margins(directions=self.directions, steps=self.steps, scale=self.scale)

    @property
    def metric(self) -> str:
        """Distance of two tables of margins, where a distance is asked for."""
        return "l2"

    @property
    def statistic(self) -> str:
        """Mean of the regressor on public less that on private inputs."""
        return "public less private"

    @property
    def default_queries(self) -> int:
        """Fifty private and fifty public inputs, as many as the paper says must be revealed."""
        return 100 * self._each

    @property
    def _each(self) -> int:
        return 1 + 3 * self.directions * self.steps

    def extract(
        self, name: str, victim: Any, data: Data, *, population: Population | None, queries: int | None, seed: int
    ) -> Fingerprint:
        """See `Scheme.extract`. Five times as many inputs are drawn as a suspect is asked; the rest fit g."""
        check_pairs(queries, self._each)
        more = 5
        drawn = self.sampler.draw(
            victim,
            data,
            n=None if queries is None else more * queries,
            default=more * self.default_queries,
            seed=derive(seed, "sampler"),
            population=population,
        )
        margins = self.representation.record(victim, drawn)["margins"]
        member = drawn.extras["member"].astype(bool)
        half = len(member) // 2
        shown = np.arange(len(member)) % half < half // more
        regressor = fit(margins[~shown], member[~shown], seed=seed)
        kept = Queries(
            inputs=drawn.inputs[shown],
            extras={
                "classes": drawn.extras["classes"][shown],
                "member": drawn.extras["member"][shown],
                **{name: drawn.extras[name] for name in ("walk", "span", "grid")},
                **regressor,
            },
        )
        # The walks' noises follow the order of the inputs, so the victim walks anew as every suspect will.
        fingerprint = self._fingerprint(name, victim, data, kept, seed)
        if self.similarity(fingerprint, fingerprint) <= 0:
            raise ParameterError(
                f"{victim.source} shows no wider margins on {self.private} than on {data.name}, so nothing could be "
                "recognised: is it what it was trained on? Give more data, or more directions or steps (--param ...)"
            )
        # The last part only: a fingerprint must not carry the paths of its maker's machine.
        return replace(fingerprint, params={**fingerprint.params, "private": Path(self.private).name})

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """Mean of g over public inputs less that over private ones, in [-2, 2], at most the victim's own.

        A copy may know the private data even better than the victim; the cap keeps the order of all below.

        Raises:
            ArtefactError: the fingerprint holds no regressor or the record no margins that fit it.
        """
        effects = []
        for record in (fp1, fp2):
            values, member = privacy(fp1, record)
            effects.append(float(values[~member].mean() - values[member].mean()))
        return min(effects)


def fit(margins: np.ndarray, member: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """The regressor g: features brought to the private inputs' mean and deviation, 100 ReLU units, a tanh.

    Full-batch descent maximises the mean of g over public inputs less that over private ones.

    Args:
        margins: (n, features).
        member: (n,) bool, private.
        seed: of the weights.

    Returns:
        `mean`, `std` (features,), `w1` (features, 100), `b1`, `w2` (100,), `b2` (1,), float64.
    """
    x = margins.astype(np.float64)
    mean, std = x[member].mean(axis=0), x[member].std(axis=0)
    x = (x - mean) / np.where(std > 0, std, 1)
    source = generator(seed, "dataset-inference/regressor")
    # As wide as the framework's default for linear layers.
    wide = [1 / np.sqrt(size) for size in (x.shape[1], HIDDEN)]
    w1, b1 = source.uniform(-wide[0], wide[0], (x.shape[1], HIDDEN)), source.uniform(-wide[0], wide[0], HIDDEN)
    w2, b2 = source.uniform(-wide[1], wide[1], HIDDEN), source.uniform(-wide[1], wide[1], 1)
    sign = np.where(member, 1.0, -1.0) / len(x)
    for _ in range(STEPS):
        hidden = np.maximum(x @ w1 + b1, 0)
        out = np.tanh(hidden @ w2 + b2)
        slope = sign * (1 - out**2)
        back = slope[:, None] * w2 * (hidden > 0)
        w2, b2 = w2 - RATE * (hidden.T @ slope), b2 - RATE * slope.sum()
        w1, b1 = w1 - RATE * (x.T @ back), b1 - RATE * back.sum(axis=0)
    return {"mean": mean, "std": np.where(std > 0, std, 1), "w1": w1, "b1": b1, "w2": w2, "b2": b2}


def privacy(fingerprint: Fingerprint, record: Fingerprint) -> tuple[np.ndarray, np.ndarray]:
    """What g makes of a model's margins, (n,) in (-1, 1), low where an input looks private; and which are, (n,) bool.

    Raises:
        ArtefactError: the fingerprint holds no regressor or the record no margins that fit it.
    """
    parts = [fingerprint.queries.get(name) for name in _SHAPES]
    margins, member = record.record.get("margins"), fingerprint.queries.get("member")
    if margins is None or member is None or margins.ndim != 2 or member.shape != margins.shape[:1]:
        raise ArtefactError("dataset-inference needs a record of margins, one row for each private and public input")
    features = margins.shape[1]
    shapes = ((features,), (features,), (features, HIDDEN), (HIDDEN,), (HIDDEN,), (1,))
    fits = all(part is not None and part.shape == shape and part.dtype.kind == "f" and np.isfinite(part).all()
               for part, shape in zip(parts, shapes, strict=True))  # fmt: skip
    if not fits or not (np.asarray(parts[1]) > np.finfo(np.float32).tiny).all():
        raise ArtefactError(f"the regressor of a dataset-inference fingerprint does not fit {features} margins")
    if not np.array_equal(np.unique(member), [0, 1]):
        raise ArtefactError("dataset-inference needs private and public inputs, both")
    mean, std, w1, b1, w2, b2 = (np.asarray(part, np.float64) for part in parts)
    x = (margins.astype(np.float64) - mean) / std
    return np.tanh(np.maximum(x @ w1 + b1, 0) @ w2 + b2), member == 1


def welch(values: np.ndarray, member: np.ndarray, *, revealed: int = 10, draws: int = 100, seed: int = 0) -> float:
    """The paper's p-value: Welch's one-sided t-test on `revealed` inputs of each kind, harmonic mean over draws.

    It takes inputs for independent, which answers of one model are not; it decides nothing here.

    Args:
        values: (n,) what `privacy` gives.
        member: (n,) bool, private.
        revealed: inputs of each kind in one draw, at least 2.
        draws: how many.
        seed: of the draws.

    Raises:
        ParameterError: there are fewer inputs of a kind.
    """
    check_number("revealed", revealed, low=2)
    check_number("draws", draws, low=1)
    private, public = values[member], values[~member]
    if min(len(private), len(public)) < revealed:
        raise ParameterError(f"{revealed} inputs of each kind are to be drawn; got {len(private)} and {len(public)}")
    source = generator(seed, "dataset-inference/welch")
    found = [
        _welch(source.choice(public, revealed, replace=False), source.choice(private, revealed, replace=False))
        for _ in range(draws)
    ]
    return 1 / float(np.mean(1 / np.maximum(found, np.finfo(np.float64).tiny)))


def _welch(a: np.ndarray, b: np.ndarray) -> float:
    """One-sided p-value of Welch's t-test for mean(a) > mean(b), n values each; 1/2 where none differs."""
    from scipy.special import stdtr

    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if sum(parts) == 0:
        return 0.5 if a.mean() == b.mean() else float(a.mean() < b.mean())
    freedom = sum(parts) ** 2 / sum(part**2 / (len(a) - 1) for part in parts)
    return float(stdtr(freedom, (b.mean() - a.mean()) / np.sqrt(sum(parts))))
