"""The whole of it: against plain figures, unmoved by what says nothing, and every refusal."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bench.population import KINDS, numbers, population, row

from locard.bench import Records
from locard.bench.metrics import p_values
from locard.bench.records import COLUMNS
from locard.bench.summary import needs, summarise
from locard.errors import ParameterError
from locard.evidence import aruc, auroc, tpr_at_fpr
from locard.records import Access


def only(records, **kwargs):
    (one,) = summarise(records, resamples=100, **kwargs).standings
    return one


def flat(value):
    """All numbers and texts of nested records, in their order."""
    if dataclasses.is_dataclass(value):
        return [x for field in dataclasses.fields(value) for x in flat(getattr(value, field.name))]
    if isinstance(value, dict):
        return [x for key, item in value.items() for x in (key, *flat(item))]
    if isinstance(value, tuple | list):
        return [x for item in value for x in flat(item)]
    return value.tolist() if isinstance(value, np.ndarray) else [value]


def scored(records, score):
    """The same with other scores."""
    return Records({name: records[name] for name in COLUMNS} | {"score": score})


def innocents(scores, role="evaluation", kind="disjoint", **changed):
    return [row(suspect=f"{kind}-{role}-{i}", model=f"{kind}-{role}-{i}", role=role, truth="independent", kind=kind,
                family=kind, score=float(score), **changed) for i, score in enumerate(scores)]  # fmt: skip


def test_figures_are_means_of_plain_ones():
    """Within each victim and seed by the definition; then seeds, then victims."""
    records = population(victims=2, seeds=(0, 1), innocents=60, score=lambda x: 1 / (1 + np.exp(-x)))
    p = p_values(records)
    sought = records["truth"] == "derived"
    judged = (records["truth"] == "independent") & (records["role"] == "evaluation")
    found = only(records)
    want = {"auroc": auroc, "aruc": aruc, "fpr": lambda a, b: tpr_at_fpr(a, b, 0.05)}
    values = {name: [] for name in [*want, "tpr", *KINDS]}
    for victim in ("v0", "v1"):
        for seed in (0, 1):
            mine = (records["victim"] == victim) & (records["seed"] == seed)
            a, b = records["score"][mine & sought], records["score"][mine & judged]
            for name, figure in want.items():
                values[name].append(figure(a, b))
            values["tpr"].append(np.mean(p[mine & sought] <= 0.05))
            for kind in KINDS:
                values[kind].append(np.mean(p[mine & sought & (records["kind"] == kind)] <= 0.05))
    assert found.auroc.value == pytest.approx(np.mean(values["auroc"]))
    assert found.aruc.value == pytest.approx(np.mean(values["aruc"]))
    assert found.tpr_at_fpr[0.05].value == pytest.approx(np.mean(values["fpr"]))
    assert found.tpr[0.05].value == pytest.approx(np.mean(values["tpr"]))
    for kind in KINDS:
        assert found.kinds[kind].tpr[0.05].value == pytest.approx(np.mean(values[kind]))
    assert (found.tpr[0.05].n, found.tpr[0.05].against) == (32, 0)
    assert (found.auroc.n, found.auroc.against) == (32, 120)
    assert found.kinds["prune"].n_thefts == found.kinds["prune"].tpr[0.05].n == 8
    assert list(found.families) == ["extraction", "fine-tuning", "pruning"]
    assert (found.families["extraction"].n_thefts, found.families["extraction"].victims) == (16, 2)
    assert (found.victims, found.seeds) == (2, 2)
    low, value, high = (numbers([found.tpr[0.05]], field) for field in ("low", "value", "high"))
    assert low < value < high


def test_victims_count_once_however_many_thefts_they_have():
    rows = [*innocents(range(19), role="calibration"), row(suspect="a", model="a", score=20)]
    other = [*innocents(range(19), role="calibration", victim="w"),
             *(row(suspect=f"b{i}", model=f"b{i}", score=1, victim="w", kind="steal") for i in range(9))]  # fmt: skip
    found = only(Records.of(rows + other))
    assert found.tpr[0.05].value == 0.5
    assert (found.kinds["prune"].tpr[0.05].value, found.kinds["prune"].victims) == (1, 1)
    assert found.kinds["steal"].tpr[0.05].value == 0


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_says_nothing(random):
    records = population(victims=2, thefts=2, innocents=8, references=19, entries=("a", "b"), seeds=(0, 1))
    order = list(range(len(records)))
    random.shuffle(order)
    assert flat(summarise(records.where(np.array(order)), resamples=100)) == flat(summarise(records, resamples=100))


@settings(max_examples=15, deadline=None)
@given(st.floats(0.1, 10), st.floats(-5, 5), st.sampled_from([np.tanh, np.exp, np.cbrt]))
def test_only_ranks_count(scale, shift, function):
    """All but ARUC, which reads a score as a share."""
    records = population(victims=2, thefts=2, innocents=50, references=19)
    moved = scored(records, function(records["score"] * scale / 20) + shift)
    one, other = only(records), only(moved)
    for name in ("auroc", "tpr", "tpr_at_fpr", "families", "kinds", "calibration", "roc", "reliable"):
        assert flat(getattr(one, name)) == flat(getattr(other, name)), name


def test_a_victim_may_have_any_scale():
    """Scores of different victims are not compared: one victim's may all lie above the other's."""
    records = population(victims=2)
    moved = scored(records, records["score"] + 1000 * (records["victim"] == "v1"))
    assert flat(only(moved).auroc) == flat(only(records).auroc)
    assert flat(only(moved).tpr) == flat(only(records).tpr)


def test_the_curve_agrees_with_the_figures():
    records = population(innocents=100)
    found = only(records)
    at = np.searchsorted(found.roc.fpr, 0.05)
    assert found.roc.tpr[at] == pytest.approx(found.tpr_at_fpr[0.05].value)
    assert (found.roc.fpr[0], found.roc.fpr[-1], found.roc.tpr[-1]) == (0, 1, 1)
    assert (np.diff(found.roc.tpr) >= 0).all()
    # 200 innocents a victim, 200 steps: the area of the steps is the AUROC.
    assert found.roc.tpr[:-1].mean() == pytest.approx(found.auroc.value)


def test_without_a_score():
    rows = [*innocents(range(19), role="calibration"), *innocents([math.nan], role="calibration", kind="same-data"),
            *innocents([5, math.nan]), row(suspect="a", model="a", score=20),
            row(suspect="b", model="b", score=math.nan, reason="no layer fc1")]  # fmt: skip
    found = only(Records.of(rows))
    assert found.tpr[0.05].value == 0.5  # a theft without a score is missed
    assert found.auroc.value == (2 + 0.5) / 4
    assert dataclasses.astuple(found.missing) == (1, 1, 1, {"no reason given": 2, "no layer fc1": 1})
    assert found.references == {"disjoint": 19}


def test_failed_thefts_are_counted_apart():
    rows = [*innocents(range(19), role="calibration"), row(suspect="a", model="a", score=20)]
    rows += [row(suspect=name, model=name, score=0, accepted=False) for name in ("b", "c")]
    summary = summarise(Records.of(rows), resamples=100)
    assert summary.failed == {"prune": 2}
    assert (summary.n_thefts, summary.standings[0].tpr[0.05].value) == (1, 1)
    assert summary.references == {"disjoint": 19}


def test_what_is_counted():
    summary = summarise(population(entries=("a", "b")), resamples=100)
    assert summary.victims == ("v0", "v1", "v2")
    assert summary.n_thefts == 48
    assert summary.families == {"extraction": 24, "fine-tuning": 12, "pruning": 12}
    assert summary.kinds == dict(sorted(KINDS.items()))
    assert summary.innocents == {"disjoint": 30, "same-data": 30}
    assert summary.references == {"disjoint": 39, "same-data": 39}
    assert (summary.alphas, summary.fprs) == ((0.05, 0.01), (0.05, 0.01))


def test_an_entry_stands_once_for_each_budget():
    summary = summarise(population(budgets=(50, 100), entries=("a", "b")), resamples=100)
    assert sorted((one.entry, one.budget, one.queries) for one in summary.standings) == [
        ("a", 50, 50), ("a", 100, 100), ("b", 50, 50), ("b", 100, 100)
    ]  # fmt: skip
    assert {one.seconds for one in summary.standings} == {0.01}
    assert {one.extraction for one in summary.standings} == {1.5}


def test_the_best_stands_first():
    records = [population(entries=("weak",), shift=0.5), population(entries=("strong",), shift=5.0),
               population(entries=("data",), claim="trained-on", shift=5.0),
               population(entries=("same",), claim="identical")]  # fmt: skip
    summary = summarise(Records.concatenate(records), resamples=100)
    assert [one.entry for one in summary.standings] == ["strong", "weak", "data", "same"]


def test_access_chooses_entries():
    texts = ["LABELS", "PROBABILITIES", "LOGITS + WEIGHTS", "MODULE", "nothing"]
    records = Records.concatenate([population(entries=(text,), access=text, victims=1) for text in texts])

    def left(access):
        return sorted(one.entry for one in summarise(records, access=access, resamples=100).standings)

    assert left("labels") == ["LABELS", "nothing"]
    assert left(Access.LOGITS) == ["LABELS", "PROBABILITIES", "nothing"]
    assert left("module") == sorted(texts)
    assert left(Access.LOGITS | Access.WEIGHTS) == ["LABELS", "LOGITS + WEIGHTS", "PROBABILITIES", "nothing"]
    assert needs("LOGITS + WEIGHTS") == Access.LOGITS | Access.WEIGHTS
    assert summarise(records.where(np.zeros(len(records), bool)), resamples=100).standings == ()


def test_the_claim_identical():
    rows = [*innocents([1, 2]), row(suspect="a", model="a", score=0.9), row(suspect="b", model="b", score=1.0)]
    found = only(Records.of([dataclasses.replace(one, claim="identical", own=1.0) for one in rows]))
    assert found.tpr[0.01].value == 0.5
    why = "claim 'identical' has no innocents among these models, as each of them differs from the victim"
    assert found.auroc.why == found.aruc.why == found.tpr_at_fpr[0.05].why == why
    assert (found.reliable, found.calibration, found.roc) == (None, (), None)
    assert found.reason == (
        "its null is exact and needs no reference; no unchanged copy is among these models to be accused"
    )


def test_what_is_refused_says_why():
    few = only(population(innocents=30, references=10))
    assert few.tpr[0.05].why == (
        "10 references of stratum disjoint of victim 'v0' cannot give p below 0.0909; alpha 0.05 needs 19"
    )
    assert few.kinds["prune"].tpr[0.05].why == few.tpr[0.05].why
    assert few.tpr_at_fpr[0.05].why == "60 innocents x 0.05 = 3 expected accusations; fewer than 5 are luck"
    assert few.aruc.why == "it reads scores as shares, and some lie outside [0, 1]"
    assert (few.reliable, few.reason) == (None, f"its false accusations could not be tested: {few.tpr[0.05].why}")
    assert (few.tpr[0.05].value, few.tpr[0.05].low, few.tpr[0.05].n) == (None, None, 48)
    assert only(population(innocents=50)).tpr_at_fpr[0.05].value is not None  # 100 x 0.05 is 5
    bare = [*innocents(range(19), role="calibration"), row()]
    assert only(Records.of(bare)).auroc.why == "victim 'v' has no innocent to be judged"
    assert only(Records.of(bare[:-1])).tpr[0.05].why == "no theft to be judged"
    assert only(Records.of([row()])).reason == (
        "its false accusations could not be tested: no innocent and no reference"
    )


def test_refusals_are_listed_once():
    summary = summarise(population(innocents=30, entries=("a", "b")), resamples=100)
    assert "TPR at FPR 0.05: 60 innocents x 0.05 = 3 expected accusations; fewer than 5 are luck (every entry)" in (
        summary.refused
    )
    assert len(summary.refused) == len(set(summary.refused))
    mixed = Records.concatenate([population(entries=("a",)), population(entries=("b",), references=25)])
    assert any(text.endswith("needs 99 (b)") for text in summarise(mixed, resamples=100).refused)


def test_arguments_are_checked():
    records = population(victims=1)
    with pytest.raises(ParameterError, match="alphas must name at least one level; got none"):
        summarise(records, alphas=())
    with pytest.raises(ParameterError, match="alpha must lie in"):
        summarise(records, alphas=(0.05, 1))
    with pytest.raises(ParameterError, match="fpr must lie in"):
        summarise(records, fprs=(0,))
    with pytest.raises(ParameterError, match=r"resamples must lie in \[100"):
        summarise(records, resamples=10)
    with pytest.raises(ParameterError, match="stands 2 times"):
        summarise(Records.concatenate([records, records]))
    with pytest.raises(ParameterError, match="unknown access"):
        summarise(records, access="none")


def test_an_entry_without_any_score_says_nothing():
    found = summarise(population(victims=1, thefts=2, innocents=5, score=lambda values: np.full(len(values), np.nan)))
    (one,) = found.standings
    figures = [one.auroc, one.aruc, *one.tpr.values(), *one.tpr_at_fpr.values()]
    assert {figure.value for figure in figures} == {None}
    assert {figure.why for figure in figures} == {"no suspect has a score"}


def test_access_chooses_what_is_shown_and_changes_no_figure():
    labels = population(entries=("a", "b"), broken=("a",))
    logits = population(entries=("c", "d"), broken=("c",), seed=1, access="LOGITS")
    records = Records.concatenate([labels, logits])
    shown = {one.entry: one for one in summarise(records, access="labels").standings}
    whole = {one.entry: one for one in summarise(records).standings}
    assert shown.keys() == {"a", "b"}
    assert all(shown[name].calibration == whole[name].calibration for name in shown)
    assert all(shown[name].auroc == whole[name].auroc for name in shown)
