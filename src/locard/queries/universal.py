"""Points with and without one perturbation that fools the victim on most inputs, and an encoder of the answers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import AccessError, ArtefactError, ParameterError, check_number
from locard.queries._adversarial import deepfool, radius_of
from locard.queries.base import Population, Queries, movable, pool, samplers
from locard.records import Access, Data, Domain
from locard.seeds import derive, generator

if TYPE_CHECKING:
    import torch

    from locard.models import GradientView

WHAT = "queries with a universal perturbation"
# One of each side to learn from alone would teach the encoder that one model.
FEWEST = 2
# Inputs that clusters are made of, and those whose steps are added to v at once.
CANDIDATES, TOGETHER = 2000, 64
# Of the encoder, and of its training: profiles in a batch.
HIDDEN, EMBEDDING, BATCH = 50, 20, 512

Encoder = dict[str, np.ndarray]


@samplers.register("universal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Universal:
    """Representative inputs x, and x + v with v a universal adversarial perturbation of the victim [1, 2].

    v starts at 0. For inputs that x + v leaves in the victim's class, DeepFool's step from x + v is added to v, which
    is then projected onto the box of `radius`, until x + v fools the victim on a share 1 - `delta` of `seeds` inputs,
    as delivered [2, algorithm 1]. Steps of 64 inputs are found at once and added up, where the algorithm takes one
    after the other: on our CNN that fooled no fewer and took a third of the time or less. After `rounds` passes through
    the seeds it is an error.

    K-means on the victim's logits makes one cluster for each point. A *view* has one input of each cluster, the first
    view those nearest to the centres, the next view the next nearest, no input twice. A model's *profile* of a view is
    the concatenation over its points of [f(x), f(x + v)], probabilities. An encoder (50 units, ReLU, 20 units) learns
    profiles of the victim and of all models of the population from `lessons` views, by the supervised contrastive loss

        - log(sum over others of its class of exp(cos / t) / sum over all others of exp(cos / t)),  t = `temperature`

    with two classes, victim with `derived`, and `independent`. The first `views` of them are the queries. The models of
    the population must be judged nowhere.

    The paper's text was not at hand. Layers, loss, t and Adam's step are those of a third party's code; it gives the
    victim the class of independent models, counts each profile as its own neighbour, and does not clip x + v, all of
    which are mended here. It has ReLU after the second layer too; that maps most strangers to exactly 0, and at times
    the victim, whence no gradient leads back. It asks 200 views of 150 points, 60000 queries. Here 4 views of 50 points
    are 400, 20 views to learn from cost the suspect nothing, and with fewer profiles `steps` stand for its 10 epochs.
    Its radius, 10 of 255, is for colour images: v of that size fooled a small CNN on 4% of images of clothes. Its
    `delta`, 0.17, some victims miss by a hundredth within `rounds`. On the same task the encoder told copies as well
    with v = 0 or with random signs for v: there it is the encoder that does the work, not the perturbation.

    Args:
        radius: largest change of an entry, as a share of `reach`.
        delta: share of the seeds that v need not fool.
        rounds: the most passes through the seeds.
        seeds: inputs that v is made on, those that the data hold at the most.
        views: views that are asked.
        lessons: views that the encoder learns from, as many as the data hold; no less than `views`.
        temperature: t.
        lr: Adam's step on the encoder.
        steps: of the encoder.

    n, the number of queries, must be a multiple of 2 * `views`. The queries carry `pairs` (m, 2) int64, rows of x and
    x + v; `views` (m,) int64, the view of each pair, from 0; `perturbation` (*shape) float32, which is v; and the
    encoder, `hidden_weight` (2 * classes * points, 50), `hidden_bias` (50,), `out_weight` (50, 20) and `out_bias` (20,)
    float32, see `embed`.

    [1] Peng, Li, Chen, Zhang, Zhu, Xue. Fingerprinting Deep Neural Networks Globally via Universal Adversarial
    Perturbations. CVPR 2022. [2] Moosavi-Dezfooli, Fawzi, Fawzi, Frossard. Universal adversarial perturbations. CVPR
    2017.
    """

    victim_access: ClassVar[Access] = Access.GRADIENTS
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = True

    radius: float = 0.4
    delta: float = 0.25
    rounds: int = 5
    seeds: int = 300
    views: int = 4
    lessons: int = 20
    temperature: float = 0.2
    lr: float = 5e-4
    steps: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("radius", self.radius, above=0)
        check_number("delta", self.delta, low=0, below=1)
        check_number("rounds", self.rounds, low=1)
        check_number("seeds", self.seeds, low=1)
        check_number("views", self.views, low=1)
        check_number("lessons", self.lessons, low=1)
        check_number("temperature", self.temperature, above=0)
        check_number("lr", self.lr, above=0)
        check_number("steps", self.steps, low=1)

    def draw(
        self, victim: GradientView, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`.

        Cost: up to some hundred gradients of the victim for each seed and round, 2000 answers of the victim, and
        2 * `lessons` answers of every model for each point.

        Raises:
            ParameterError: v fools too few inputs.
        """
        movable(data, WHAT)
        others = pool(population, derived=FEWEST, independent=FEWEST, what=WHAT)
        models = (victim, *others.derived, *others.independent)
        for model in models:
            _fits(model, victim)
        each = 2 * self.views
        if n is not None and n % each:
            raise ParameterError(
                f"{self.views} views of pairs need a multiple of {each} --queries; got {n}: ask another number, or set "
                "another number of views (--param views=...)"
            )
        points = min(max(1, default // each), len(data) // self.views) if n is None else n // each
        least = 2 if n is None else points
        if points < least or points * self.views > len(data):
            raise ParameterError(
                f"{self.views} views of {least} inputs are needed, {data.name} holds {len(data)}: give more data, or "
                "ask fewer --queries or views"
            )
        v = self._perturbation(victim, data, seed)
        lessons = self._views(victim, data, points, seed)
        perturbed = data.domain.deliver((lessons + v).astype(lessons.dtype))
        shape = len(lessons) // points, points
        learnt = np.stack([_answers(model, lessons, perturbed).reshape(*shape, -1) for model in models])
        positive = np.repeat([True, False], [1 + len(others.derived), len(others.independent)])
        encoder = self._learn(
            learnt.reshape(len(models) * shape[0], -1), np.repeat(positive, shape[0]), derive(seed, "universal/encoder")
        )
        asked = self.views * points
        number = np.arange(asked)
        return Queries(
            inputs=np.concatenate([lessons[:asked], perturbed[:asked]]),
            extras={
                "pairs": np.stack([number, number + asked], axis=1),
                "views": np.repeat(np.arange(self.views), points),
                "perturbation": v,
                **encoder,
            },
        )

    def _perturbation(self, victim: GradientView, data: Data, seed: int) -> np.ndarray:
        """v, (*shape) float32."""
        rows = generator(seed, "universal/seeds").permutation(len(data))[: self.seeds]
        x = data.domain.deliver(data.inputs[rows])
        v, fooled = perturbation(victim, x, radius=radius_of(data, self.radius), share=1 - self.delta,
                                 rounds=self.rounds, domain=data.domain)  # fmt: skip
        if fooled < 1 - self.delta:
            raise ParameterError(
                f"a universal perturbation must fool {victim.source} on {1 - self.delta:.0%} of {len(x)} inputs; "
                f"{fooled:.0%} were reached within a radius of {self.radius:g}: set a larger radius or delta, or more "
                "rounds (--param radius=...)"
            )
        return v

    def _views(self, victim: GradientView, data: Data, points: int, seed: int) -> np.ndarray:
        """(views * points, *shape) inputs of as many views as may be learnt from, view after view."""
        most = max(CANDIDATES, points * self.views)
        x = data.domain.deliver(data.inputs[generator(seed, "universal/points").permutation(len(data))[:most]])
        views = min(max(self.views, self.lessons), len(x) // points)
        kept = parallel(victim.logits(x), points, views, derive(seed, "universal/clusters"))
        return x[kept.ravel()]

    def _learn(self, profiles: np.ndarray, positive: np.ndarray, seed: int) -> Encoder:
        """The encoder's arrays, float32."""
        import torch

        encoder, order = _untrained(profiles.shape[1], seed), generator(seed, "batches")
        optimiser = torch.optim.Adam(list(encoder.values()), lr=self.lr)
        given, labels = torch.from_numpy(profiles.astype(np.float32)), torch.from_numpy(positive)
        for _ in range(self.steps):
            rows = torch.from_numpy(order.permutation(len(profiles))[:BATCH])
            optimiser.zero_grad()
            with torch.enable_grad():
                contrast(embed(given[rows], encoder), labels[rows], self.temperature).backward()
            optimiser.step()
        return {name: one.detach().numpy() for name, one in encoder.items()}


def perturbation(
    victim: GradientView, x: np.ndarray, *, radius: float | np.ndarray, share: float, rounds: int, domain: Domain
) -> tuple[np.ndarray, float]:
    """A perturbation that fools the victim on many inputs at once.

    Args:
        victim: whom to ask.
        x: (n, *shape) inputs.
        radius: largest change of an entry, one number or one for each entry of an input.
        share: of the inputs to fool; it ends when so many are.
        rounds: the most passes through the inputs.
        domain: what inputs are.

    Returns:
        v (*shape) float32 and the share that it fools; of all v met, the one that fools most.
    """
    own, v = victim.labels(x), np.zeros(x.shape[1:], np.float32)
    best, most = v, 0.0
    for start in [*range(0, len(x), TOGETHER)] * rounds:
        at = np.arange(start, min(start + TOGETHER, len(x)))
        held = at[victim.labels(domain.deliver((x[at] + v).astype(x.dtype))) == own[at]]
        if len(held) == 0:
            continue
        crossing = deepfool(victim, domain.deliver((x[held] + v).astype(x.dtype)), domain=domain)
        if not crossing.crossed.any():
            continue
        v = np.clip(v + crossing.step[crossing.crossed].sum(axis=0), -radius, radius).astype(np.float32)
        fooled = float((victim.labels(domain.deliver((x + v).astype(x.dtype))) != own).mean())
        if fooled > most:
            best, most = v, fooled
        if most >= share:
            break
    return best, most


def parallel(outputs: np.ndarray, clusters: int, views: int, seed: int) -> np.ndarray:
    """Rows of one input of each cluster for each view, no row twice.

    Args:
        outputs: (n, k), n at least clusters * views.
        clusters: how many k-means makes.
        views: how many rows to take of each, nearest to its centre first; where a cluster holds fewer, it takes the
            nearest that are left of others.
        seed: of k-means.

    Returns:
        (views, clusters) row numbers.
    """
    from scipy.cluster.vq import kmeans2
    from scipy.spatial.distance import cdist

    given = outputs.astype(np.float64)
    distinct = np.unique(given, axis=0)
    if len(distinct) <= clusters:
        centres = distinct[np.arange(clusters) % len(distinct)]
    else:
        with warnings.catch_warnings():
            # A cluster that loses all its rows keeps its centre, which serves all the same.
            warnings.filterwarnings("ignore", message="One of the clusters is empty")
            centres, _ = kmeans2(distinct, clusters, minit="++", seed=np.random.default_rng(seed))
    far = cdist(given, centres)
    rows = np.empty((views, clusters), np.int64)
    for view in range(views):
        for cluster in range(clusters):
            rows[view, cluster] = far[:, cluster].argmin()
            far[rows[view, cluster]] = np.inf
    return rows


def embed(profiles: Any, encoder: Mapping[str, Any]) -> Any:
    """What the encoder makes of profiles, in NumPy or torch: (k, inputs) -> (k, outputs)."""
    hidden = profiles @ encoder["hidden_weight"] + encoder["hidden_bias"]
    return (hidden * (hidden > 0)) @ encoder["out_weight"] + encoder["out_bias"]


def contrast(embeddings: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """The supervised contrastive loss, mean over those that are not alone in their class.

    Args:
        embeddings: (k, d).
        labels: (k,).
        temperature: of the softmax over cosines.
    """
    import torch

    unit = torch.nn.functional.normalize(embeddings, dim=1)
    near, alone = unit @ unit.T / temperature, torch.eye(len(unit), dtype=torch.bool)
    same = (labels[:, None] == labels) & ~alone
    paired = same.any(dim=1)
    every, own = near.masked_fill(alone, -math.inf)[paired], near.masked_fill(~same, -math.inf)[paired]
    return (every.logsumexp(dim=1) - own.logsumexp(dim=1)).mean()


def profiles_of(queries: Mapping[str, np.ndarray], probabilities: np.ndarray) -> np.ndarray:
    """Each view's [f(x), f(x + v)], point after point.

    Args:
        queries: the arrays of a fingerprint, with `pairs` and `views`.
        probabilities: (n, classes), a model's answers to all inputs.

    Returns:
        (views, 2 * classes * points) float64.

    Raises:
        ArtefactError: pairs or views are missing or wrong, as a stranger's may be.
    """
    pairs, views = (_whole(queries, name, ndim) for name, ndim in (("pairs", 2), ("views", 1)))
    if pairs.shape != (len(views), 2) or pairs.min() < 0 or pairs.max() >= len(probabilities):
        raise ArtefactError(
            f"pairs must be two rows of {len(probabilities)} inputs for each of {len(views)} views' points; got "
            f"{pairs.shape}, {pairs.min()} to {pairs.max()}"
        )
    names, sizes = np.unique(views, return_counts=True)
    if not np.array_equal(names, np.arange(len(names))) or np.ptp(sizes):
        raise ArtefactError(f"views must be numbered from 0 and of one size; got {names.tolist()[:9]}")
    rows = pairs[np.argsort(views, kind="stable")]
    return probabilities.astype(np.float64)[rows].reshape(len(names), -1)


def encoder_of(queries: Mapping[str, np.ndarray], inputs: int) -> Encoder:
    """The encoder as a fingerprint's queries carry it, float64.

    Args:
        queries: the arrays of a fingerprint.
        inputs: length of a profile.

    Raises:
        ArtefactError: an array is missing or does not fit, as a stranger's fingerprint may be.
    """
    hidden, out = (queries[name].size if name in queries else 0 for name in ("hidden_bias", "out_bias"))
    shapes = {"hidden_weight": (inputs, hidden), "hidden_bias": (hidden,), "out_weight": (hidden, out),
              "out_bias": (out,)}  # fmt: skip
    for name, shape in shapes.items():
        array = queries.get(name)
        if array is None or array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            found = "none" if array is None else f"{array.dtype} {array.shape}"
            raise ArtefactError(f"the encoder's {name} must be finite floating-point numbers {shape}; got {found}")
    return {name: queries[name].astype(np.float64) for name in shapes}


def _whole(queries: Mapping[str, np.ndarray], name: str, ndim: int) -> np.ndarray:
    array = queries.get(name)
    if array is None or array.dtype.kind not in "iu" or array.ndim != ndim or array.size == 0:
        found = "none" if array is None else f"{array.dtype} {array.shape}"
        raise ArtefactError(f"{name} must be whole numbers in {ndim} dimension(s); got {found}")
    return array


def _answers(model: Any, x: np.ndarray, perturbed: np.ndarray) -> np.ndarray:
    """(m, 2, classes) probabilities of both."""
    said = model.probabilities(np.concatenate([x, perturbed]))
    return np.stack([said[: len(x)], said[len(x) :]], axis=1)


def _fits(model: Any, victim: GradientView) -> None:
    if not hasattr(model, "probabilities"):
        raise AccessError(f"{WHAT} need PROBABILITIES of every model; {model.source} gives less: leave it out")
    if model.classes is None or model.classes < 2 or model.classes != victim.classes:
        raise ParameterError(
            f"{WHAT} need models of one and the same two classes or more; {victim.source} has {victim.classes}, "
            f"{model.source} {model.classes}: leave it out"
        )


def _untrained(inputs: int, seed: int) -> dict[str, torch.Tensor]:
    import torch

    source = generator(seed, "weights")
    sizes = {"hidden_weight": ((inputs, HIDDEN), inputs), "hidden_bias": ((HIDDEN,), inputs),
             "out_weight": ((HIDDEN, EMBEDDING), HIDDEN), "out_bias": ((EMBEDDING,), HIDDEN)}  # fmt: skip
    return {
        name: torch.from_numpy((source.uniform(-1, 1, shape) / math.sqrt(fan)).astype(np.float32)).requires_grad_()
        for name, (shape, fan) in sizes.items()
    }
