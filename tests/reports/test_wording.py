from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from locard.engine.compare import conclude
from locard.evidence import unchanged
from locard.records import Comparison, Cost, Decision, Evidence, Null, Power, Verdict
from locard.reports import wording

Make = Callable[..., Verdict]

FORTY = {"same-data": [i / 100 for i in range(40)]}
HALVES = {"disjoint": [i / 100 for i in range(20)], "same-data": [i / 50 for i in range(20)]}


def test_a_derived_suspect(make: Make) -> None:
    verdict = make(0.9, references=FORTY)
    assert verdict.decision == "derived"
    assert wording.headline(verdict) == "Evidence that the suspect was derived from the victim"
    assert wording.statement(verdict) == (
        "The suspect agrees with the victim more than every one of 40 independently made models. If it had been made "
        "independently, as those models were, a score this high would occur with probability at most 1 in 41 (2.4%)."
    )
    assert wording.p_value(verdict) == "p = 0.024 (1 of 41)"
    assert wording.at_floor(verdict) == "the smallest that 40 references can give"


def test_a_suspect_that_ranks_among_the_references(make: Make) -> None:
    verdict = make(0.365, references=FORTY)
    assert verdict.decision == "no-evidence"
    assert wording.headline(verdict) == "No evidence that the suspect was derived from the victim"
    assert wording.statement(verdict) == (
        "The suspect agrees with the victim more than all but 3 of 40 independently made models. If it had been made "
        "independently, as those models were, a score this high would occur with probability up to 4 in 41 (9.8%), "
        "more than the 5% allowed. This does not show that it was made independently."
    )
    assert wording.p_value(verdict) == "p = 0.098 (4 of 41)"
    assert wording.at_floor(verdict) is None


@pytest.mark.parametrize(
    ("score", "begins"),
    [
        (0.055, "34 of 40 independently made models agree with the victim at least as much as the suspect does."),
        (-1.0, "All 40 independently made models agree with the victim at least as much as the suspect does."),
    ],
)
def test_a_suspect_in_the_crowd(make: Make, score: float, begins: str) -> None:
    assert wording.statement(make(score, references=FORTY)).startswith(begins)


def test_groups_that_differ_name_the_one_that_decides(make: Make) -> None:
    verdict = make(0.3, references=HALVES)
    assert wording.decides(verdict) == "same-data"
    assert "more than all but 5 of 40" in wording.statement(verdict)
    assert "as the 20 models of the group 'same-data' were (the group with the largest p-value)" in wording.statement(
        verdict
    )
    assert wording.p_value(verdict) == "p = 0.29 (6 of 21)"
    assert wording.references(verdict) == "40 in 2 groups (disjoint 20, same-data 20)"


def test_groups_that_agree_name_none(make: Make) -> None:
    verdict = make(0.9, references=HALVES)
    assert wording.decides(verdict) is None
    assert "as the models of any one of these 2 groups were, a score" in wording.statement(verdict)
    assert wording.at_floor(verdict) == "the smallest that 20 references can give"


def test_one_reference(make: Make) -> None:
    verdict = make(0.9, references={"disjoint": [0.1]})
    assert wording.headline(verdict) == "Too few reference models to decide at alpha = 0.05"
    assert wording.statement(verdict) == (
        "The suspect agrees with the victim more than the only independently made model at hand. If it had been made "
        "independently, as that model was, a score this high would occur with probability at most 1 in 2 (50%). No "
        "score could have been flagged at alpha = 0.05: that needs 19 reference models. This does not show that it "
        "was made independently."
    )
    assert wording.at_floor(verdict) == "the smallest that 1 reference can give"
    below = wording.statement(make(0.0, references={"disjoint": [0.1]}))
    assert below.startswith("The only independently made model at hand agrees with the victim at least as much")


def test_alpha_below_the_floor(make: Make) -> None:
    verdict = make(0.9, references=HALVES, alpha=0.01)
    assert verdict.decision == "no-evidence"
    assert wording.too_few(verdict)
    assert wording.headline(verdict) == "Too few reference models to decide at alpha = 0.01"
    assert "that needs 99 reference models in each group." in wording.statement(verdict)


def test_alpha_at_the_floor_is_enough(make: Make) -> None:
    verdict = make(0.9, references={"disjoint": [0.1] * 19})
    assert verdict.decision == "derived"
    assert not wording.too_few(verdict)
    assert "at most 1 in 20 (5%)." in wording.statement(verdict)


def test_a_p_value_that_rounds_to_alpha(make: Make) -> None:
    verdict = make(0.5, references={"disjoint": [0.6] * 5 + [0.1] * 113})
    assert verdict.decision == "no-evidence"
    assert "up to 6 in 119 (5.04%), more than the 5% allowed" in wording.statement(verdict)
    assert wording.p_value(verdict) == "p = 0.0504 (6 of 119)"


def test_an_uncalibrated_suspect(make: Make) -> None:
    verdict = make(0.987)
    assert verdict.decision == "uncalibrated"
    assert wording.headline(verdict) == "A score without an error rate"
    assert wording.statement(verdict) == (
        "The suspect scores 0.987 (1 - hamming; higher is more alike). No independently made models were scored, so "
        "nothing says how often such a model would score as high. By itself the score is no evidence."
    )
    assert (wording.p_value(verdict), wording.at_floor(verdict), wording.references(verdict)) == (
        "no p-value",
        None,
        "none",
    )
    assert "flagged" in wording.level(verdict)
    assert "p-value answers" not in wording.caution(verdict)


def test_an_exact_test_needs_no_references(make: Make) -> None:
    exact = Evidence(
        score=3.0, statistic="matches", p_value=0.0012, p_value_floor=None, p_values={}, null=Null(kind="exact")
    )
    verdict = make(evidence=exact, decision="derived")
    assert wording.p_value(verdict) == "p = 0.0012 (exact)"
    assert "at most 0.12%." in wording.statement(verdict)
    assert wording.references(verdict) == "none needed: the test is exact"
    assert "construction" in wording.null(verdict)
    assert "error-rate" not in {notice.code for notice in wording.not_tested(verdict)}


def test_other_claims_have_their_own_words(make: Make) -> None:
    data = make(0.9, references=FORTY, claim="trained-on")
    assert wording.headline(data) == "Evidence that the suspect was trained on the owner's data"
    assert "If it had been trained without these data" in wording.statement(data)
    altered = make(evidence=unchanged(0.9, 1.0, "matches"), claim="identical", decision="altered")
    assert wording.headline(altered) == "Evidence that the suspect is not the victim unchanged"
    assert "answers every query as it did before; this one does not" in wording.statement(altered)
    whole = make(evidence=unchanged(1.0, 1.0, "matches"), claim="identical", decision="no-evidence")
    assert wording.headline(whole) == "No evidence that the suspect was altered"
    assert "A change that moves none of these answers would not be seen" in wording.statement(whole)


def test_what_was_not_tested(make: Make) -> None:
    bare = {notice.code: notice.text for notice in wording.not_tested(make(0.9))}
    assert list(bare) == ["error-rate", "power", "direction", "common-source", "other-claims"]
    assert "no derived models were given" in bare["power"]
    power = (Power(kind="prune", flagged=2, n=3, low=0.09, high=0.99),)
    full = {notice.code: notice.text for notice in wording.not_tested(make(0.9, references=HALVES, power=power))}
    assert "(same-architecture)" in full["missing-strata"]
    assert "(foreign-theft)" in full["missing-strata"]
    assert "(same-data)" not in full["missing-strata"]
    assert full["power"].startswith("Other thefts than prune")


def test_power_and_cost() -> None:
    assert wording.power_row(Power(kind="prune", flagged=9, n=10, low=0.555, high=0.9975)) == (
        "9 of 10 flagged (95% interval 56% to 100%)"
    )
    assert wording.cost(Cost(asked=1200, from_journal=0), 1.25) == "1,200 asked, 0 from the journal, 1.2 s"
    assert [wording.duration(s) for s in (0.004, 59.0, 600.0)] == ["under 0.1 s", "59 s", "10 min"]


def test_strata_stand_from_far_to_near() -> None:
    assert wording.ordered({"zebra", "foreign-theft", "same-data", "disjoint", "ape"}) == [
        "disjoint", "same-data", "foreign-theft", "ape", "zebra",
    ]  # fmt: skip


def joined(*verdicts: Verdict) -> Comparison:
    return conclude(verdicts, alpha=verdicts[0].alpha, skipped={}, cost=Cost(asked=100, from_journal=0))


def test_schemes_that_share_their_references(make: Make) -> None:
    comparison = joined(make(0.9, references=FORTY), make(0.8, references=FORTY, scheme="zest"))
    assert (comparison.decision, comparison.method) == ("derived", "conformal rank")
    assert wording.headline(comparison) == "Evidence that the suspect was derived from the victim"
    assert wording.statement(comparison) == (
        "2 schemes judged the suspect together. If it had been made independently, as the reference models were, a "
        "joint rank this high would occur with probability at most 1 in 41 (2.4%)."
    )
    assert wording.p_value(comparison) == "p = 0.024 (1 of 41)"
    assert wording.at_floor(comparison) == "the smallest that 40 references can give"


def test_schemes_with_other_references(make: Make) -> None:
    comparison = joined(make(0.9, references=FORTY), make(0.9, references={"disjoint": [0.1] * 99}, scheme="zest"))
    assert comparison.method == "bonferroni"
    assert wording.p_value(comparison) == "p = 0.02 (Bonferroni, 2 schemes)"
    assert "a p-value this small under any of them would occur with probability at most 2%." in wording.statement(
        comparison
    )


def test_a_comparison_that_shows_nothing(make: Make) -> None:
    comparison = joined(make(0.2, references=FORTY), make(0.2, references=FORTY, scheme="zest"))
    assert comparison.decision == "no-evidence"
    assert wording.statement(comparison).endswith("This does not show that it was made independently.")
    few = joined(make(0.9, references={"disjoint": [0.1]}), make(0.9, references={"disjoint": [0.1]}, scheme="zest"))
    assert wording.headline(few) == "Too few reference models to decide at alpha = 0.05"
    assert "No scores could have been flagged" in wording.statement(few)


def test_a_comparison_without_references(make: Make) -> None:
    comparison = joined(make(0.9), make(0.8, scheme="zest"))
    assert wording.headline(comparison) == "Scores without an error rate"
    assert wording.statement(comparison).startswith(
        "2 schemes scored the suspect, but no independently made models were"
    )
    assert wording.p_value(comparison) == "no p-value"
    assert len(wording.not_tested(comparison)) == len(wording.not_tested(comparison.evidence[0]))


DECISIONS: tuple[Decision, ...] = ("derived", "no-evidence", "uncalibrated", "altered")


@pytest.mark.parametrize("claim", ["derived", "identical", "trained-on"])
@pytest.mark.parametrize("decision", DECISIONS)
def test_no_outcome_is_called_guilt_or_innocence_and_terminals_can_print_all(
    make: Make, decision: Decision, claim: str
) -> None:
    null = Null(kind="exact")
    for groups, score in itertools.product([{}, FORTY, HALVES, {"unstated": [0.4]}], [0.1, 0.3, 0.9]):
        for exact in (False, True):
            verdict = make(score, references=groups, claim=claim, decision=decision)
            if exact:
                verdict = replace(verdict, evidence=replace(verdict.evidence, null=null, p_value=0.01, p_values={}))
            sentences = (wording.headline, wording.statement, wording.null, wording.level)
            notices = (notice.text for notice in wording.not_tested(verdict))
            text = " ".join([wording.DECISIONS[decision], *(say(verdict) for say in sentences), *notices])
            assert text.isascii()
            assert not {"guilty", "guilt", "innocent", "innocence"} & set(text.lower().replace(".", "").split())


def test_a_test_without_references_has_no_smallest_p(make: Make) -> None:
    altered = make(evidence=unchanged(0.9, 1.0, "matches"), claim="identical", decision="altered")
    assert wording.at_floor(altered) is None
    assert wording.caution(altered).startswith("An answer that differs tells that the suspect computes otherwise")
    assert "not what, why or by whom" in wording.caution_line(altered)


def test_the_caution_speaks_of_the_claim(make: Make) -> None:
    assert "was made independently scores so high" in wording.caution_line(make(0.9, references=FORTY))
    assert "saw none of the owner's data" in wording.caution_line(make(0.9, references=FORTY, claim="trained-on"))
