"""Reasons not to believe a score, looked for before it is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from locard.evidence.conformal import EXPECTED
from locard.records import Calibration, Claim, Notice

# A median reference so much less accurate than the victim is no match for it.
ACCURACY_GAP = 0.1


def of_answers(
    record: dict[str, np.ndarray],
    *,
    victim: dict[str, np.ndarray],
    repeated: float | None,
    at_logits: np.ndarray | None,
) -> list[Notice]:
    """What the suspect's answers give away.

    Args:
        record: the suspect's record.
        victim: the victim's.
        repeated: share of queries answered otherwise when asked twice, or None where that was not tried.
        at_logits: (n, C) answers that the model calls logits, or None.
    """
    found: dict[str, str] = {}
    if repeated:
        found["random-answers"] = (
            f"the suspect answers at random: {repeated:.0%} of repeated queries were answered otherwise; the score is "
            "one draw of many"
        )
    if _constant(record.get("labels")) and not _constant(victim.get("labels")):
        found["constant-answers"] = (
            f"the suspect answers class {int(record['labels'][0])} to every query; is its input normalised "
            "as it expects?"
        )
    if at_logits is not None and _probabilities(at_logits):
        found["logits-are-probabilities"] = (
            "what the suspect calls logits are probabilities (no negative number, rows add up to 1); load it with "
            "outputs='probabilities'"
        )
    return [Notice(code=code, text=text) for code, text in found.items()]


def of_calibration(
    calibration: Calibration | None, *, alpha: float, accuracy: float | None, claim: Claim = "derived"
) -> list[Notice]:
    """What the references cannot tell.

    Args:
        calibration: the fingerprint's, or None.
        alpha: the level asked for.
        accuracy: the victim's accuracy on the check inputs, or None.
        claim: what the score speaks of.
    """
    references = () if calibration is None else calibration.references
    if not references:
        text = "no reference models: the score has no error rate; run locard calibrate with independent models"
        return [Notice(code="uncalibrated", text=text)]
    notices: list[Notice] = []
    sizes = Counter(reference.stratum for reference in references)
    for stratum, n in sorted(sizes.items()):
        if 1 / (n + 1) > alpha:
            text = (
                f"{n} references in stratum {stratum} cannot give p below {1 / (n + 1):.3g}; alpha {alpha:g} needs "
                f"{np.ceil(1 / alpha - 1 - 1e-9):.0f}"
            )
            notices.append(Notice(code="too-few-references", text=text))
    missing = [stratum for stratum in EXPECTED[claim] if stratum not in sizes]
    if missing:
        text = f"no references in {', '.join(missing)}: the error rate is not known for a suspect of that kind"
        notices.append(Notice(code="missing-stratum", text=text))
    known = [reference.accuracy for reference in references if reference.accuracy is not None]
    if accuracy is not None and known and float(np.median(known)) < accuracy - ACCURACY_GAP:
        text = (
            f"the references are far less accurate (median {np.median(known):.0%}) than the victim ({accuracy:.0%}); "
            "worse models agree less, so the p-value is too small"
        )
        notices.append(Notice(code="weak-references", text=text))
    return notices


def of_identity(altered: bool) -> list[Notice]:
    """What a comparison with the victim's own answers cannot tell.

    Args:
        altered: whether an answer differs.
    """
    if altered:
        text = (
            "another precision, library or accelerator may move an answer of an unchanged model too; see whether the "
            "owner's own copy in the suspect's surroundings answers as the fingerprint says"
        )
        return [Notice(code="numerics", text=text)]
    text = "only these queries were compared: a change that moves none of their answers is not seen"
    return [Notice(code="unseen-changes", text=text)]


def doubles(digests: Sequence[str]) -> list[str]:
    """Digests that occur more than once."""
    return sorted(digest for digest, times in Counter(digests).items() if times > 1)


def _constant(labels: np.ndarray | None) -> bool:
    return labels is not None and labels.ndim == 1 and len(labels) >= 10 and len(np.unique(labels)) == 1


def _probabilities(answers: np.ndarray) -> bool:
    return (
        answers.ndim == 2
        and answers.shape[1] > 1
        and bool(answers.min() >= 0)
        and bool(np.abs(answers.sum(axis=1) - 1).max() < 1e-3)
    )
