"""Verdicts as users get them: extracted, calibrated and verified on scikit-learn's digits, with small NumPy models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from locard.data import read, split
from locard.engine import calibrate, extract, verify
from locard.engine.compare import compare_fingerprints
from locard.fingerprint import Fingerprint
from locard.models.callable import CallableModel
from locard.records import (
    Calibration,
    Claim,
    Comparison,
    Cost,
    Data,
    Decision,
    Domain,
    Evidence,
    Exhibit,
    Null,
    Party,
    Power,
    Reference,
    Verdict,
)

DIGITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A layer of random features, and a read-out fitted by ridge regression."""

    hidden: np.ndarray
    readout: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.argmax(features(x, self.hidden) @ self.readout, axis=1)

    def named(self, name: str, domain: Domain) -> CallableModel:
        return CallableModel(self, domain=domain, outputs="labels", classes=DIGITS, name=name)


def features(x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    flat = np.hstack([x.reshape(len(x), -1), np.ones((len(x), 1))])
    return np.hstack([np.maximum(flat @ hidden, 0), np.ones((len(x), 1))])


def train(data: Data, *, width: int = 0, seed: int = 0, start: Net | None = None, pull: float = 1.0) -> Net:
    """Fit the read-out to the data, pulled towards zero or towards that of `start`, whose features are kept."""
    hidden = np.random.default_rng(seed).normal(size=(65, width)) / 8 if start is None else start.hidden
    phi, towards = features(data.inputs, hidden), 0.0 if start is None else start.readout
    gram = phi.T @ phi + pull * np.eye(phi.shape[1])
    return Net(hidden=hidden, readout=np.linalg.solve(gram, phi.T @ np.eye(DIGITS)[data.labels] + pull * towards))


def thefts(victim: Net, data: Data) -> dict[str, list[Net]]:
    """Copies of a victim, made in three ways."""
    finetuned = [train(data.take(np.arange(i, len(data), 3)), start=victim, pull=10.0) for i in range(3)]
    cuts = [np.quantile(np.abs(victim.readout), share) for share in (0.1, 0.2, 0.3)]
    pruned = [replace(victim, readout=np.where(np.abs(victim.readout) < cut, 0, victim.readout)) for cut in cuts]
    steps = [np.abs(victim.readout).max() / n for n in (32, 16, 8)]
    quantised = [replace(victim, readout=np.rint(victim.readout / step) * step) for step in steps]
    return {"finetune": finetuned, "prune": pruned, "quantise": quantised}


@pytest.fixture(scope="session")
def world() -> SimpleNamespace:
    """A victim, its copies and independent models, as loaded models, and data that none of them saw."""
    data = read("digits")
    parts = split(data, {"owner": 220, "other": 220, "thief": 220, "queries": 900}, seed=0)
    domain = data.domain
    victim = train(parts["owner"], width=120, seed=0)
    recipes = {
        "disjoint": [train(parts["other"], width=90 + 4 * i, seed=100 + i) for i in range(20)],
        "same-data": [train(parts["owner"], width=90 + 4 * i + (i > 7), seed=200 + i) for i in range(20)],
        "same-architecture": [train(parts["owner"], width=120, seed=300 + i) for i in range(20)],
    }
    copies = thefts(victim, parts["thief"])
    independent = {
        stratum: [net.named(f"{stratum}-{i:02}", domain) for i, net in enumerate(nets)]
        for stratum, nets in recipes.items()
    }
    derived = {kind: [net.named(f"{kind}-{i}", domain) for i, net in enumerate(nets)] for kind, nets in copies.items()}
    return SimpleNamespace(
        data=parts["queries"],
        domain=domain,
        victim=victim.named("victim", domain),
        independent=independent,
        derived=derived,
        stolen=train(parts["thief"].take(np.arange(60)), start=victim, pull=10.0).named("suspect-a", domain),
        honest=train(parts["thief"], width=110, seed=9).named("suspect-b", domain),
    )


@pytest.fixture(scope="session")
def fingerprint(world: SimpleNamespace) -> Fingerprint:
    return extract(world.victim, scheme="akh", data=world.data, queries=60)


@pytest.fixture(scope="session")
def calibrated(world: SimpleNamespace, fingerprint: Fingerprint) -> Fingerprint:
    return calibrate(fingerprint, references=world.independent, derived=world.derived)


@pytest.fixture(scope="session")
def derived(world: SimpleNamespace, calibrated: Fingerprint) -> Verdict:
    verdict = verify(calibrated, world.stolen)
    return replace(verdict, reproduce="locard verify digits.locard suspect-a --alpha 0.05 --html report.html")


@pytest.fixture(scope="session")
def cleared(world: SimpleNamespace, calibrated: Fingerprint) -> Verdict:
    return verify(calibrated, world.honest)


@pytest.fixture(scope="session")
def uncalibrated(world: SimpleNamespace, fingerprint: Fingerprint) -> Verdict:
    return verify(fingerprint, world.stolen)


@pytest.fixture(scope="session")
def comparison(world: SimpleNamespace, fingerprint: Fingerprint) -> Comparison:
    other = extract(world.victim, scheme="random+labels+hamming", data=world.data, queries=200)
    return compare_fingerprints(
        [fingerprint, other],
        world.stolen,
        references=world.independent,
        derived=world.derived,
        skipped={"ipguard": "ipguard needs GRADIENTS of the victim; victim gives LABELS. See `locard schemes`"},
    )


@pytest.fixture
def make() -> Callable[..., Verdict]:
    """A small verdict by hand, its p-values counted among the given scores."""

    def verdict(
        score: float = 0.9,
        *,
        references: dict[str, list[float]] | None = None,
        derived: dict[str, list[float]] | None = None,
        alpha: float = 0.05,
        claim: Claim = "derived",
        decision: Decision | None = None,
        power: tuple[Power, ...] | None = None,
        exhibit: Exhibit | None = None,
        **fields: object,
    ) -> Verdict:
        groups = references or {}
        p = {name: (1 + sum(s >= score for s in scores)) / (len(scores) + 1) for name, scores in sorted(groups.items())}
        largest = max(p, key=lambda name: p[name]) if p else None
        null = Null(kind="none")
        if largest is not None:
            missing = tuple(s for s in ("disjoint", "same-data", "same-architecture", "foreign-theft") if s not in p)
            strata = {name: len(groups[name]) for name in p}
            null = Null(kind="reference", n=sum(strata.values()), strata=strata, deciding=largest, missing=missing)
        value = None if largest is None else p[largest]
        judged: Decision = "uncalibrated" if value is None else "derived" if value <= alpha else "no-evidence"
        known = Calibration(references=rows(groups), derived=rows(derived or {}))
        given = Verdict(
            decision=decision or judged,
            claim=claim,
            scheme="akh",
            evidence=Evidence(
                score=score,
                statistic="1 - hamming",
                p_value=value,
                p_value_floor=max((1 / (len(scores) + 1) for scores in groups.values()), default=None),
                p_values=p,
                null=null,
            ),
            alpha=alpha,
            power=power,
            power_reason=None if power else "no derived models were given",
            queries=Cost(asked=100, from_journal=0),
            access_needed="LABELS",
            access_used="LABELS",
            warnings=(),
            fingerprint=Party(digest="f" * 64, source="digits"),
            suspect=Party(digest="5" * 64, source="suspect.onnx"),
            seconds=1.25,
            calibration=known,
            exhibit=exhibit,
        )
        return replace(given, **fields)

    return verdict


def rows(groups: dict[str, list[float]]) -> tuple[Reference, ...]:
    return tuple(
        Reference(name=f"{stratum}-{i}", digest=f"{i:02x}" * 32, stratum=stratum, score=score, accuracy=0.9)
        for stratum, scores in groups.items()
        for i, score in enumerate(scores)
    )
