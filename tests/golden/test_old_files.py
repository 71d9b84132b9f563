"""Files of every schema stay readable, with the digests they were deposited under."""

from pathlib import Path

import locard
from locard.testing import toy_model

CONTENT = "9776b27b153463a47dc3b272ce40eb50bd8675c102f884db230446866ea36c0e"


def test_schema_1():
    fp = locard.Fingerprint.load(Path(__file__).with_name("schema-1.locard"))
    assert fp.content == CONTENT
    assert [row.stratum for row in fp.calibration.references] == ["disjoint"] * 3
    verdict = locard.verify(fp, toy_model(0))
    assert (verdict.evidence.score, verdict.evidence.p_value) == (1.0, 0.25)
