"""The claim "identical": one answer that differs settles it, and equal answers settle nothing."""

from locard.evidence import unchanged
from locard.evidence.preflight import of_identity


def test_the_victims_own_score_is_no_evidence():
    evidence = unchanged(1.0, 1.0, "matches")
    assert (evidence.p_value, evidence.null.kind, evidence.null.n) == (1.0, "exact", 0)


def test_one_answer_that_differs_has_probability_nothing():
    assert unchanged(0.9, 1.0, "matches").p_value == 0.0


def test_each_outcome_has_its_own_caution():
    assert [notice.code for notice in of_identity(True)] == ["numerics"]
    assert [notice.code for notice in of_identity(False)] == ["unseen-changes"]
