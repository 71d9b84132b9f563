"""Reasons not to believe a score, looked for before it is reported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locard.evidence.conformal import STRATA
from locard.records import Calibration, Notice


def of_answers(
    record: dict[str, np.ndarray], *, victim: dict[str, np.ndarray], repeated: float | None, at_logits: np.ndarray | None
) -> list[Notice]:
    """What the suspect's answers give away.

    Args:
        record: the suspect's record.
        victim: the victim's.
        repeated: share of queries answered otherwise when asked twice, or None where that was not tried.
        at_logits: (n, C) answers that the model calls logits, or None.
    """
    notices = []
    if repeated:
        notices.append(Notice(code="random-answers", text=(
            f"the suspect answers at random: {repeated:.0%} of repeated queries were answered otherwise; "
            "the score is one draw of many")))  # fmt: skip
    labels, own = record.get("labels"), victim.get("labels")
    if labels is not None and len(labels) >= 10 and len(np.unique(labels)) == 1 and (
        own is None or len(np.unique(own)) > 1
    ):  # fmt: skip
        notices.append(Notice(code="constant-answers", text=(
            f"the suspect answers class {int(labels[0])} to every query; is its input normalised as it expects?")))  # fmt: skip
    if at_logits is not None and at_logits.ndim == 2 and at_logits.shape[1] > 1 and (
        at_logits.min() >= 0 and np.abs(at_logits.sum(axis=1) - 1).max() < 1e-3
    ):  # fmt: skip
        notices.append(Notice(code="logits-are-probabilities", text=(
            "what the suspect calls logits are probabilities (no negative number, rows add up to 1); "
            "load it with outputs='probabilities'")))  # fmt: skip
    return notices


def of_calibration(calibration: Calibration | None, *, alpha: float, accuracy: float | None) -> list[Notice]:
    """What the references cannot tell.

    Args:
        calibration: the fingerprint's, or None.
        alpha: the level asked for.
        accuracy: the victim's accuracy on the check inputs, or None.
    """
    references = () if calibration is None else calibration.references
    if not references:
        return [Notice(code="uncalibrated", text=(
            "no reference models: the score has no error rate; run locard calibrate with independent models"))]  # fmt: skip
    notices = []
    sizes = {s: sum(r.stratum == s for r in references) for s in sorted({r.stratum for r in references})}
    for stratum, n in sizes.items():
        if 1 / (n + 1) > alpha:
            notices.append(Notice(code="too-few-references", text=(
                f"{n} references in stratum {stratum} cannot give p below {1 / (n + 1):.3g}; alpha {alpha:g} needs "
                f"{int(np.ceil(1 / alpha - 1 - 1e-9))}")))  # fmt: skip
    missing = [stratum for stratum in STRATA if stratum not in sizes]
    if missing:
        notices.append(Notice(code="missing-stratum", text=(
            f"no references in {', '.join(missing)}: the error rate is not known for a suspect of that kind")))  # fmt: skip
    known = [r.accuracy for r in references if r.accuracy is not None]
    if accuracy is not None and known and float(np.median(known)) < accuracy - 0.1:
        notices.append(Notice(code="weak-references", text=(
            f"the references are far less accurate (median {np.median(known):.0%}) than the victim ({accuracy:.0%}); "
            "worse models agree less, so the p-value is too small")))  # fmt: skip
    return notices


def doubles(digests: Sequence[str]) -> list[str]:
    """Digests that occur more than once."""
    return sorted({digest for digest in digests if list(digests).count(digest) > 1})
