"""DeepJudge: several metrics on tests that amplify how alike two models are [1].

Black-box tests are adversarial points of the victim; white-box tests drive single neurons of one of its layers far. On
them six metrics are taken, all small for a copy (`representations/_judged.py` defines them). The paper holds each
against a threshold taken from independent models and lets the metrics `vote`. Here the decision comes from the rank of
one score among reference models, because a vote has no error rate: its confidence bound is that of a mean, which half
of the independent models may lie below, and metrics on the same tests do not err independently. The score is 1 minus
the mean of the metrics, each as a share of a scale that the owner's record fixes and cut at 1, so that none outweighs
the others, as in a vote.

Where f does not answer truly on any black-box test, RobD is what g answers truly: a model that is wrong everywhere
looks like a copy to it. Ask probabilities, and take references as good as the suspect. Whoever chooses tests that
transfer can accuse others' models [2]: commit to the fingerprint before suspects are known. White-box metrics compare
neurons by place, so a thief who permutes them escapes, and NOD and LOD see a rescaled layer as another.

[1] Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song. Copy, Right? A Testing Framework for Copyright Protection of Deep
Learning Models. IEEE S&P 2022. Metrics after the released code, which rounds them to four decimals; the vote is
reconstructed, for that code holds none and the paper's text was not at hand. [2] Liu, Zhang, Szyller, Ren, Asokan.
False Claims against Model Ownership Resolution. arXiv 2304.06607.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from locard.errors import ParameterError, unknown
from locard.fingerprint import Fingerprint
from locard.queries import Population, Queries, Sampler
from locard.queries._layers import hidden
from locard.queries.fooling import Fooling
from locard.queries.neurons import Neurons
from locard.records import Data
from locard.representations import Representation
from locard.representations._judged import Judged, metrics, scales
from locard.representations.labels import Labels
from locard.representations.probabilities import Probabilities
from locard.schemes.base import Citation, schemes
from locard.schemes.query import QueryScheme
from locard.seeds import derive

ACCESS = ("probabilities", "labels", "module")


@schemes.register("deepjudge")
@dataclass(frozen=True, slots=True, kw_only=True)
class DeepJudge(QueryScheme):
    """Several metrics on adversarial points, and on driven neurons. Cost: one query a test, 100 by default.

    Args:
        access: what the suspect must give: "labels" (RobD), "probabilities" (RobD, JSD) or "module" (all six, on models
            of one architecture; half of the tests, the smaller half of an odd number, are then black-box).
        method: of the black-box tests, "pgd", "fgsm" or "carlini-wagner".
        eps: their largest change, as a share of the domain's range (PGD, FGSM).
        step: of PGD.
        steps: of PGD.
        confidence: of Carlini-Wagner, in logits.
        layer: whose neurons are driven and compared, or "" for the last hidden one.
        factor: how far they are driven, in their maxima over the data.
        climb: the most steps of that.
    """

    summary: ClassVar[str] = "several metrics on adversarial points and on driven neurons"
    citation: ClassVar[Citation | None] = Citation(
        key="chen2022deepjudge",
        authors="Jialuo Chen and Jingyi Wang and Tinglan Peng and Youcheng Sun and Peng Cheng and Shouling Ji and "
        "Xingjun Ma and Bo Li and Dawn Song",
        title="Copy, Right? A Testing Framework for Copyright Protection of Deep Learning Models",
        venue="IEEE Symposium on Security and Privacy",
        year=2022,
        eprint="2112.05588",
    )

    access: str = ACCESS[0]
    method: str = "pgd"
    eps: float = 0.1
    step: float = 0.03
    steps: int = 10
    confidence: float = 5.0
    layer: str = ""
    factor: float = 3.0
    climb: int = 1000

    def __post_init__(self) -> None:
        """Check the names and ranges."""
        if self.access not in ACCESS:
            raise unknown("access of deepjudge", self.access, ACCESS)
        _ = self.sampler, self._driven

    @property
    def sampler(self) -> Sampler:
        """Adversarial points."""
        return Fooling(method=self.method, eps=self.eps, step=self.step, steps=self.steps, confidence=self.confidence)

    @property
    def _driven(self) -> Neurons:
        return Neurons(layer=self.layer, factor=self.factor, steps=self.climb)

    @property
    def representation(self) -> Representation:
        """What the metrics need."""
        if self.access == "module":
            return Judged(layer=self.layer)
        return Labels() if self.access == "labels" else Probabilities()

    @property
    def metric(self) -> str:
        """How far two models' answers lie apart; `similarity` takes all metrics."""
        return "hamming" if self.access == "labels" else "jensen-shannon"

    @property
    def statistic(self) -> str:
        """The mean of the metrics."""
        return "1 - mean of the metrics' shares"

    def extract(
        self, name: str, victim: Any, data: Data, *, population: Population | None, queries: int | None, seed: int
    ) -> Fingerprint:
        """See `Scheme.extract`."""
        if self.access != "module":
            return QueryScheme.extract(self, name, victim, data, population=population, queries=queries, seed=seed)
        if queries == 1:
            raise ParameterError("deepjudge with access=module needs a test of either kind: ask 2 --queries or more")
        total, black, white = queries or self.default_queries, self.sampler, self._driven
        first, second = (
            part.draw(
                victim,
                data,
                n=None if queries is None else share,
                default=share,
                seed=derive(seed, place),
                population=population,
            )
            for part, share, place in ((black, total // 2, "sampler"), (white, total - total // 2, "sampler/white"))
        )
        both = Queries(inputs=np.concatenate([first.inputs, second.inputs]), extras={**first.extras, **second.extras})
        return self._fingerprint(name, victim, data, both, seed)

    def check_suspect(self, fingerprint: Fingerprint, suspect: Any) -> None:
        """See `Scheme.check_suspect`.

        Raises:
            ParameterError: the suspect has other classes, or its layer other neurons, where they are compared.
        """
        ours, theirs = fingerprint.classes, suspect.classes
        if self.access != "labels" and None not in (ours, theirs) and ours != theirs:
            raise ParameterError(
                f"deepjudge compares probabilities of {ours} classes; {suspect.source} has {theirs}: set access=labels"
            )
        own = fingerprint.record.get("activations")
        if self.access == "module" and own is not None:
            layers = suspect.layers()
            name = hidden(layers, self.layer, suspect.source)
            width = int(np.prod(layers[name][:1]))
            if own.shape[1:] != (width,):
                raise ParameterError(
                    f"deepjudge compares layers neuron by neuron: the victim's has {own.shape[-1]}, {name!r} of "
                    f"{suspect.source} has {width}; set access=probabilities for another architecture"
                )

    def similarity(self, fp1: Fingerprint, fp2: Fingerprint) -> float:
        """1 minus the mean over all metrics of their shares, in [0, 1]; see `metrics` and `scales`."""
        values, most = metrics(fp1.queries, fp1.record, fp2.record), scales(fp1.queries, fp1.record)
        return 1.0 - float(np.mean([min(1.0, values[name] / most[name]) for name in sorted(values)]))
