"""The claim "identical": a model that was left alone answers as it did."""

from __future__ import annotations

from locard.records import Evidence, Null


def unchanged(score: float, own: float, statistic: str) -> Evidence:
    """The evidence that a suspect is not the victim unchanged.

    The null is that nothing was changed and that the model computes as it did when the fingerprint was taken. Then it
    answers every query as before, so one answer that differs has probability 0, and no reference is needed.

    Args:
        score: similarity of victim and suspect.
        own: similarity of the victim's record with itself.
        statistic: name of the score.
    """
    return Evidence(
        score=score,
        statistic=statistic,
        p_value=1.0 if score >= own else 0.0,
        p_value_floor=0.0,
        p_values={},
        null=Null(kind="exact"),
    )
