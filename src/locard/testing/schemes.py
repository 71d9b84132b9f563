"""The laws of a scheme."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from locard import engine
from locard.engine.respond import Battery
from locard.errors import AccessError, BudgetError
from locard.fingerprint import Fingerprint
from locard.models import Model, Session, view
from locard.models.callable import CallableModel
from locard.queries import Population
from locard.records import FLAGGED, LADDER, Access, Data
from locard.schemes import Scheme, build
from locard.testing.laws import law, refused
from locard.testing.toys import CLASSES, toy_data, toy_domain, toy_model

# Pooled float arithmetic of another batch size moves a score by rounding, never by more.
ROUNDING = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """A scheme with a toy victim and data."""

    name: str
    params: dict[str, Any]
    queries: int | None
    scheme: Scheme
    data: Data

    def model(self, seed: int = 0, **options: Any) -> Model:
        needs = (self.scheme.victim_access | self.scheme.suspect_access).implied
        return toy_model(seed, gradients=bool(needs & (Access.GRADIENTS | Access.WEIGHTS)), **options)

    def extract(self, model: Model | None = None, *, seed: int = 0) -> Fingerprint:
        return engine.extract(model or self.model(), scheme=self.name, data=self.data, queries=self.queries, seed=seed,
                              params=self.params, population=self.population())  # fmt: skip

    def population(self) -> Population | None:
        if not self.scheme.needs_population:
            return None
        derived = tuple(_owned(self.model(0, noise=noise)) for noise in (0.02, 0.05, 0.1))
        return Population(derived=derived, independent=tuple(_owned(self.model(seed)) for seed in range(50, 54)))

    def score(self, fp: Fingerprint, model: Model) -> float:
        return self.scheme.similarity(fp, engine.respond(fp, model))


def _owned(model: Model) -> Any:
    return view(Session(model, model.grants), Access.MODULE if Access.MODULE in model.grants else Access.LOGITS)


def _self_match(bench: _Bench) -> None:
    """Greatest for a model with itself, whatever other model comes."""
    fp = bench.extract()
    own = bench.score(fp, bench.model())
    law(abs(own - bench.scheme.similarity(fp, fp)) <= ROUNDING, "a model asked again must match its own record")
    for seed in range(1, 6):
        other = bench.score(fp, bench.model(seed))
        law(other <= own, f"independent model {seed} scores {other}, above the victim's own {own}")


def _round_trip(bench: _Bench) -> None:
    """What was saved is what is read, to the byte, and scores the same."""
    fp = bench.extract()
    with tempfile.TemporaryDirectory() as folder:
        path = fp.save(Path(folder) / "fp.locard")
        again = Fingerprint.load(path)
    law(again.content == fp.content, "the content digest changes on the way through a file")
    law(again.to_bytes() == fp.to_bytes(), "a fingerprint read and written again has other bytes")
    record = engine.respond(again, bench.model(1))
    law(
        bench.scheme.similarity(again, record) == bench.score(fp, bench.model(1)),
        "a saved fingerprint scores otherwise",
    )


def _same_seed(bench: _Bench) -> None:
    """Same inputs and seed: same bytes."""
    law(bench.extract(seed=7).to_bytes() == bench.extract(seed=7).to_bytes(), "two extractions with one seed differ")


def _data_unchanged(bench: _Bench) -> None:
    """The caller's data are left as they are."""
    before = bench.data.digest
    bench.extract()
    law(bench.data.digest == before, "extraction changed the caller's data")


def _batch_size(bench: _Bench) -> None:
    """Batch size belongs to the adapter and changes nothing."""
    fp = bench.extract()
    scores = [bench.score(fp, bench.model(1, batch_size=size)) for size in (3, 64, 1024)]
    law(np.ptp(scores) <= ROUNDING, f"the score moves with the batch size: {scores}")


def _counted(bench: _Bench) -> None:
    """What is asked is what was said, and a budget of just that is enough.

    Where the next query hangs on the last answer, what was said is the most.
    """
    fp = bench.extract()
    battery = Battery([fp], bench.model(1), budget=fp.cost)
    ((record, cost),) = battery.records()
    asked = cost.asked + cost.from_journal
    if bench.scheme.inputs(fp) is None:
        law(0 < asked <= fp.cost, f"cost says {fp.cost} queries at the most; {cost} were counted")
    else:
        law(asked == fp.cost, f"cost says {fp.cost} queries; {cost} were counted")
    law(record.model == bench.model(1).digest, "a record must carry the digest of the model that answered")


def _budget(bench: _Bench) -> None:
    """A budget too small ends in an error, and what was answered stays in the journal."""
    fp = bench.extract()
    unbound = Battery([fp], bench.model(1))
    unbound.records()
    distinct = unbound.session.asked
    if distinct < 2:
        return
    battery = Battery([fp], bench.model(1, batch_size=1), budget=distinct // 2)
    with refused(BudgetError, "a budget of half the queries", str(distinct // 2)):
        battery.records()
    law(battery.session.asked <= distinct // 2, "more was asked than the budget allows")
    # Gradients and activations are of a model at hand, where nothing was paid for.
    needs = bench.scheme.suspect_access
    if not needs & (Access.GRADIENTS | Access.MODULE):
        law(len(battery.session.journal) == battery.session.asked, "answers already paid for are not in the journal")


def _access(bench: _Bench) -> None:
    """Below its access a scheme is refused, by name; at it, it works."""
    fp = bench.extract()
    needed = bench.scheme.suspect_access
    if needed in LADDER[1:]:
        below = LADDER[LADDER.index(needed) - 1]
        with refused(AccessError, "a suspect below the access needed", bench.name, needed.text, below.text):
            engine.verify(fp, bench.model(1), access=below)
    if bench.scheme.victim_access is not Access.LABELS:
        with refused(AccessError, "a victim that gives labels only", bench.name, bench.scheme.victim_access.text):
            bench.extract(_labels_only(bench.model()))
    if needed in LADDER:
        engine.verify(fp, bench.model(1), access=needed)


def _innocent(bench: _Bench) -> None:
    """A model made elsewhere is not taken for the victim, and the victim is."""
    fp = engine.calibrate(bench.extract(), references={"disjoint": [bench.model(seed) for seed in range(100, 119)]})
    # Of this claim the null is the victim itself, so the two answers change places.
    other, own = ("altered", "no-evidence") if fp.claim == "identical" else ("no-evidence", FLAGGED[fp.claim])
    stranger = engine.verify(fp, bench.model(200))
    law(stranger.decision == other, f"an independent model is called {stranger.decision}")
    copy = engine.verify(fp, bench.model())
    law(copy.decision == own, f"the victim's copy is called {copy.decision}: {copy}")


def _labels_only(model: Model) -> Model:
    session = Session(model, Access.LABELS)
    return CallableModel(lambda x: session.answer(x, Access.LABELS), domain=toy_domain(), outputs="labels",
                         classes=CLASSES, name="labels only")  # fmt: skip


_LAWS: dict[str, Callable[[_Bench], None]] = {
    "self-match": _self_match,
    "round-trip": _round_trip,
    "same-seed": _same_seed,
    "data-unchanged": _data_unchanged,
    "batch-size": _batch_size,
    "counted": _counted,
    "budget": _budget,
    "access": _access,
    "innocent": _innocent,
}
SCHEME_LAWS = tuple(_LAWS)


def check_scheme(
    name: str,
    law_name: str,
    *,
    params: dict[str, Any] | None = None,
    queries: int | None = None,
    data: Data | None = None,
) -> None:
    """Hold one registered or composed scheme to one law, on toy models.

    Args:
        name: the scheme.
        law_name: one of `SCHEME_LAWS`.
        params: the scheme's parameters, such as fewer steps.
        queries: number of queries, or None for the scheme's own.
        data: inputs with labels in the toy domain, or None for `toy_data()`.

    Raises:
        ConformanceError: the law does not hold.
    """
    given = data if data is not None else toy_data()
    _LAWS[law_name](_Bench(name=name, params=params or {}, queries=queries, scheme=build(name, params), data=given))
