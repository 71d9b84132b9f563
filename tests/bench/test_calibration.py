"""False accusations: counted by hand, over all splits, with their error, and judged."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bench.population import numbers, population, row

from locard.bench import Records
from locard.bench.calibration import LEVEL, Cells, calibrate, judge, rate, splits
from locard.bench.metrics import trials
from locard.bench.summary import summarise
from locard.evidence import p_value

counted = st.lists(st.integers(0, 6), min_size=4, max_size=6)


def innocents(scores, kind="disjoint", role="evaluation", name="e", **changed):
    return [row(suspect=f"{kind}{name}{i}", model=f"{kind}{name}{i}", role=role, truth="independent", kind=kind,
                family=kind, score=float(score), **changed) for i, score in enumerate(scores)]  # fmt: skip


def of(found, stratum, alpha):
    return next(one for one in found if (one.stratum, one.alpha) == (stratum, alpha))


@given(counted, counted)
def test_all_splits_are_counted(first, second):
    """Against every split, one after the other: half of a stratum, at least the two that alpha 0.4 needs."""
    scores = {"disjoint": first, "same-data": second}
    rows = [*innocents(first[:2]), *innocents(first[2:], role="calibration", name="c")]
    rows += innocents(second, kind="same-data")
    (trial,) = trials(Records.of([*rows, row(truth="derived")]))
    drawn = {k: [set(c) for c in itertools.combinations(range(len(v)), -(-len(v) // 2))] for k, v in scores.items()}
    for stratum, values in scores.items():
        accused = []
        for a, b in itertools.product(drawn["disjoint"], drawn["same-data"]):
            null = {"disjoint": [first[i] for i in a], "same-data": [second[i] for i in b]}
            judged = [i for i in range(len(values)) if i not in {"disjoint": a, "same-data": b}[stratum]]
            accused += [max(p_value(refs, values[i]) for refs in null.values()) <= 0.4 for i in judged]
        assert splits(trial, stratum, 0.4).mean() == pytest.approx(np.mean(accused))
        assert np.mean(accused) <= 0.4 + 1e-12  # by construction


def test_an_innocent_without_a_score_is_never_accused():
    rows = [*innocents([1, 2, 3, 4, 5]), *innocents([np.nan], name="n")]
    (trial,) = trials(Records.of([*rows, row()]))
    found = splits(trial, "disjoint", 0.4)
    assert found[trial.innocents.model == "disjointn0"] == 0
    assert found.sum() == pytest.approx(1 + 1 / 4)  # the highest always; the next where it outlives its better: 1/4


def test_the_roles_as_recorded():
    """At alpha 0.4 before three references, one of four models may be accused: those above all references."""
    rows = [*innocents([1, 2, 3], role="calibration", name="c"), *innocents([2.5, 3, 3.5, 4, np.nan])]
    found = of(calibrate(trials(Records.of([*rows, row()])), [0.4]), "disjoint", 0.4)
    assert (found.holdout.value, found.holdout.n, found.holdout.against) == (2 / 5, 5, 3)
    # 1 of 4 in the long run, of 5 with 3 references: beta-binomial.
    assert found.holdout.error == pytest.approx(np.sqrt(1 * 3 * (1 + 3 + 5) / (4**2 * 5 * 5)), rel=1e-12)
    assert found.transfer.why == "without disjoint, victim 'v' has no strata whose references can give p <= 0.4"


def test_a_stratum_left_out():
    rows = [*innocents([1, 2, 3], role="calibration", name="c"), *innocents([5, 6, 7], kind="same-data"),
            *innocents([2, 5, 8], kind="same-data", role="calibration", name="c")]  # fmt: skip
    found = calibrate(trials(Records.of([*rows, row()])), [0.4])
    assert of(found, "same-data", 0.4).transfer.value == 5 / 6
    assert of(found, "same-data", 0.4).transfer.n == 6
    assert of(found, "disjoint", 0.4).transfer.value == 0
    assert of(found, "same-data", 0.4).holdout.value == 0


def test_what_no_references_can_tell():
    rows = [*innocents(range(30), role="calibration", name="c"), *innocents([2, 3], kind="same-data")]
    found = calibrate(trials(Records.of([*rows, row()])), [0.05, 0.01])
    assert of(found, "same-data", 0.05).holdout.why == (
        "no references of stratum same-data, so nothing is promised to it"
    )
    assert of(found, "same-data", 0.05).holds is None
    assert of(found, "disjoint", 0.05).holdout.why == "no innocent of stratum disjoint is to be judged"
    assert of(found, "disjoint", 0.01).holdout.why.endswith("alpha 0.01 needs 99")
    assert of(found, "disjoint", 0.05).rate.why == (
        "stratum same-data of victim 'v' has 2 innocents with a score; a split at alpha 0.05 needs 19 references and "
        "one to judge"
    )


def test_the_error_is_over_models_and_victims():
    """By definition: sums of pulls by victim, by model and by cell."""
    draw = np.random.default_rng(0)
    victim, model = np.repeat(["a", "b", "c"], 8), np.tile([f"m{i}" for i in range(8)], 3)
    value = draw.integers(0, 2, 24).astype(float)
    found = rate(Cells(victim=victim, origin=model, value=value))
    pull = (value - value.mean()) / 24
    parts = []
    for by in (victim, model, np.char.add(victim, model)):
        sums = np.array([pull[by == one].sum() for one in np.unique(by)])
        parts.append(len(sums) / (len(sums) - 1) * (sums**2).sum())
    assert found.error == pytest.approx(np.sqrt(max(parts[0], parts[1], parts[0] + parts[1] - parts[2])))
    assert (found.value, found.n) == (value.mean(), 8)


def test_one_victim_is_an_ordinary_sample():
    value = np.array([1.0, 0, 0, 1, 0])
    found = rate(Cells(victim=np.array(["v"] * 5), origin=np.arange(5).astype(str), value=value))
    assert found.error == pytest.approx(np.std(value, ddof=1) / np.sqrt(5))


def test_models_judged_by_all_alike_are_no_more_models():
    value = np.array([1.0, 0, 0, 1, 0])
    once = rate(Cells(victim=np.array(["v"] * 5), origin=np.arange(5).astype(str), value=value))
    often = rate(Cells(victim=np.repeat(["u", "v", "w"], 5), origin=np.tile(np.arange(5), 3).astype(str),
                       value=np.tile(value, 3)))  # fmt: skip
    assert often.error == pytest.approx(once.error)
    assert often.n == 5


def test_victims_count_once():
    found = rate(Cells(victim=np.array(["a", "b", "b", "b"]), origin=np.arange(4).astype(str),
                       value=np.array([1.0, 0, 0, 0])))  # fmt: skip
    assert found.value == 0.5


def test_holm_by_hand():
    one = calibrate(trials(population(victims=1)), [0.05])[0]
    rows = [(replace(one, p=0.001), replace(one, p=0.5)), (replace(one, p=0.012),), (replace(one, p=None, holds=None),),
            (replace(one, p=0.04),)]  # fmt: skip
    told = [[(row.p, row.holds) for row in entry] for entry in judge(rows)]
    assert told[0][0] == (pytest.approx(0.006), False)  # 3 entries x 2 strata x 0.001
    assert told[0][1] == (1, True)
    assert told[1] == [(pytest.approx(0.024), True)]  # 2 x 0.012, just above the level
    assert told[2] == [(None, None)]
    assert told[3] == [(pytest.approx(0.04), True)]
    assert judge([]) == []
    assert LEVEL < 0.024


def test_holm_stays_in_order():
    one = calibrate(trials(population(victims=1)), [0.05])[0]
    told = judge([(replace(one, p=0.01),), (replace(one, p=0.009),)])
    assert [entry[0].p for entry in told] == pytest.approx([0.018, 0.018])


def test_exchangeable_scores_keep_the_promise():
    """Of 60 innocents before 2 of 40 ranks the share accused strays by 0.044; 80 independent trials by 0.005."""
    entries = [f"e{i}" for i in range(10)]
    summary = summarise(population(victims=8, strata=("disjoint",), innocents=60, entries=entries), resamples=100)
    found = [one for standing in summary.standings for one in standing.calibration if one.alpha == 0.05]
    assert all(standing.reliable for standing in summary.standings)
    assert numbers([one.holdout for one in found]).mean() == pytest.approx(0.05, abs=0.015)
    assert [one.rate.value for one in found] == pytest.approx([2 / 51] * 10)  # 50 of 99 are references


def test_the_error_covers_the_draw_of_references():
    """Over 150 benches of one victim the share accused strays as its error says: mostly by the references' luck."""
    found = [
        calibrate(trials(population(seed=seed, victims=1, strata=("disjoint",), innocents=200, thefts=1)), [0.05])[0]
        for seed in range(150)
    ]
    values, errors = (numbers([one.holdout for one in found], field) for field in ("value", "error"))
    assert values.std() == pytest.approx(errors.mean(), rel=0.25)
    assert values.mean() == pytest.approx(0.05, abs=0.01)
    assert (numbers(found, "p") <= LEVEL).mean() <= 0.05
    assert not any(one.holds is False for entry in judge([(one,) for one in found]) for one in entry)


def test_a_scheme_that_accuses_is_found():
    entries = [f"e{i}" for i in range(9)]
    summary = summarise(population(entries=[*entries, "liar"], broken=("liar",)), resamples=100)
    told = {one.entry: one for one in summary.standings}
    assert [one.entry for one in summary.standings if one.reliable is False] == ["liar"]
    assert summary.standings[-1].entry == "liar"  # though it finds most thefts
    assert told["liar"].reason.startswith("accuses ")
    assert "of the innocents of stratum " in told["liar"].reason
    assert {one.holds for one in told["liar"].calibration if one.alpha == 0.05} == {False}
    by_splits = numbers([one.rate for one in told["liar"].calibration if one.alpha == 0.05])
    assert (by_splits <= 0.05).all()  # they cannot tell


def test_thefts_of_one_foreign_model_count_together_as_one():
    references = [row(suspect=f"r{i}", model=f"r{i}", role="calibration", truth="independent", kind="foreign-theft",
                      parent=f"p{i}", score=0.5) for i in range(4)]  # fmt: skip
    accused = {"a": (0.9, 0.9, 0.1), "b": (0.1,)}
    pairs = [(parent, i, score) for parent, scores in accused.items() for i, score in enumerate(scores)]
    judged = [row(suspect=f"{parent}{i}", model=f"{parent}{i}", truth="independent", kind="foreign-theft",
                  parent=parent, score=score) for parent, i, score in pairs]  # fmt: skip
    found = of(calibrate(trials(Records.of([*references, *judged, row()])), [0.2]), "foreign-theft", 0.2)
    assert (found.holdout.value, found.holdout.n) == (pytest.approx((2 / 3 + 0) / 2), 2)
