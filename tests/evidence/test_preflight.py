"""Each warning is given when its reason is there, and not otherwise."""

import numpy as np

from locard.evidence.preflight import of_answers, of_calibration
from locard.records import Calibration, Reference


def codes(notices):
    return [notice.code for notice in notices]


def rows(n, stratum="same-data", accuracy=None):
    return tuple(
        Reference(name=str(i), digest=f"{stratum}{i}", stratum=stratum, score=0.1, accuracy=accuracy) for i in range(n)
    )


VARIED = {"labels": np.arange(12) % 3}


def test_quiet_when_all_is_well():
    answers = np.random.default_rng(0).normal(size=(8, 3))
    assert of_answers(VARIED, victim=VARIED, repeated=0.0, at_logits=answers) == []
    full = sum((rows(19, s, 0.9) for s in ("disjoint", "same-data", "same-architecture", "foreign-theft")), ())
    assert of_calibration(Calibration(references=full), alpha=0.05, accuracy=0.92) == []


def test_answers():
    assert codes(of_answers(VARIED, victim=VARIED, repeated=0.25, at_logits=None)) == ["random-answers"]
    constant = {"labels": np.full(12, 2)}
    assert codes(of_answers(constant, victim=VARIED, repeated=None, at_logits=None)) == ["constant-answers"]
    assert of_answers(constant, victim=constant, repeated=None, at_logits=None) == []
    soft = np.random.default_rng(0).dirichlet(np.ones(4), size=9)
    assert codes(of_answers(VARIED, victim=VARIED, repeated=None, at_logits=soft)) == ["logits-are-probabilities"]


def test_calibration():
    assert codes(of_calibration(None, alpha=0.05, accuracy=None)) == ["uncalibrated"]
    few = of_calibration(Calibration(references=rows(18)), alpha=0.05, accuracy=None)
    assert codes(few) == ["too-few-references", "missing-stratum"]
    assert "18 references" in few[0].text
    assert "needs 19" in few[0].text
    assert "disjoint, same-architecture, foreign-theft" in few[1].text
    weak = of_calibration(Calibration(references=rows(19, accuracy=0.6)), alpha=0.05, accuracy=0.9)
    assert codes(weak) == ["missing-stratum", "weak-references"]


def test_a_record_of_a_strangers_shape_and_an_alpha_next_to_nothing():
    stuck = {"labels": np.zeros(12, np.int64)}
    assert codes(of_answers(stuck, victim={"labels": np.array(3)}, repeated=None, at_logits=None)) == [
        "constant-answers"
    ]
    few = of_calibration(Calibration(references=rows(19)), alpha=5e-324, accuracy=None)
    assert codes(few) == ["too-few-references", "missing-stratum"]
