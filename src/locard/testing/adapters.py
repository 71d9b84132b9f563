"""The laws of a model adapter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from locard.errors import AccessError, BudgetError, ParameterError
from locard.models import Model, Session
from locard.models.base import convert
from locard.records import LADDER, Access
from locard.testing.laws import law, refused

Make = Callable[[], Model]
TOLERANCE = 1e-4


def _answers(model: Model, x: np.ndarray, rung: Access) -> np.ndarray:
    return Session(model, rung).answer(x, rung)


def _rungs(model: Model) -> list[Access]:
    return [rung for rung in (*LADDER[:3], Access.VALUES) if rung in model.grants]


def _ladder(make: Make, x: np.ndarray) -> None:
    """Each rung follows from the one above it, in the right shape and dtype."""
    model = make()
    law(model.native in model.grants, "a model must grant its native rung")
    answers = {rung: _answers(model, x, rung) for rung in _rungs(model)}
    if Access.LABELS in answers:
        labels = answers[Access.LABELS]
        law(labels.dtype == np.int64 and labels.shape == (len(x),), f"labels are {labels.dtype} {labels.shape}")
        for rung in set(answers) - {Access.LABELS}:
            law((convert(answers[rung], rung, Access.LABELS) == labels).all(), f"labels do not follow from {rung.name}")
    if Access.PROBABILITIES in answers:
        law(np.allclose(answers[Access.PROBABILITIES].sum(axis=1), 1, atol=1e-3), "probabilities must add up to 1")
    for rung, values in answers.items():
        if rung is not Access.LABELS:
            exact = model.domain.dtype == "float64" and values.dtype == np.float64
            law((exact or values.dtype == np.float32) and values.ndim == 2, f"{rung.name} must be (n, k) float32")
            law(
                model.classes in (None, values.shape[1]),
                f"{rung.name} has {values.shape[1]} columns, not {model.classes}",
            )


def _batch_size(make: Make, x: np.ndarray) -> None:
    """Batch size changes nothing."""
    model = make()
    rung = _rungs(model)[-1]
    whole = _answers(model, x, rung)
    model.batch_size = 3
    law(np.allclose(_answers(model, x, rung), whole, atol=TOLERANCE), "answers move with the batch size")


def _same_again(make: Make, x: np.ndarray) -> None:
    """Loaded twice it is the same model, with the same digest and answers."""
    one, two = make(), make()
    law(one.digest == two.digest and len(one.digest) == 64, f"digests differ: {one.digest} and {two.digest}")
    rung = _rungs(one)[-1]
    law(np.allclose(_answers(one, x, rung), _answers(two, x, rung), atol=TOLERANCE), "answers differ between two loads")


def _inputs_unchanged(make: Make, x: np.ndarray) -> None:
    """Inputs are left as they are; read-only memory serves."""
    before = x.copy()
    frozen = x.copy()
    frozen.flags.writeable = False
    model = make()
    _answers(model, frozen, _rungs(model)[0])
    law(bool((frozen == before).all()), "the inputs were changed")


def _bad_inputs(make: Make, x: np.ndarray) -> None:
    """Wrong shape, NaN, nothing: one clear line each."""
    model = make()
    rung = _rungs(model)[0]
    with refused(ParameterError, "an empty batch", "at least one"):
        _answers(model, x[:0], rung)
    if model.domain.kind == "text":
        with refused(ParameterError, "numbers for text", "strings"):
            _answers(model, np.zeros((2, 3)), rung)
        return
    with refused(ParameterError, "an axis too many", "shape"):
        _answers(model, np.zeros((2, *model.domain.shape, 2), np.float32), rung)
    if model.domain.dtype.startswith("float"):
        bad = x[:2].copy()
        bad.reshape(2, -1)[1, 0] = np.nan
        with refused(ParameterError, "NaN", "1 of 2"):
            _answers(model, bad, rung)


def _refused_above(make: Make, x: np.ndarray) -> None:
    """What was not granted is refused, and so is what the model does not have."""
    model = make()
    for rung in LADDER[:3]:
        if rung not in model.grants:
            with refused(AccessError, f"{rung.name} of a model without", model.source):
                Session(model, rung)
    if Access.LOGITS in model.grants:
        with refused(AccessError, "LOGITS through a view of LABELS", "LABELS"):
            Session(model, Access.LABELS).answer(x, Access.LOGITS)
    if Access.GRADIENTS not in model.grants:
        with refused(AccessError, "gradients of a model without", model.source):
            model.input_gradient(x, lambda logits: logits.sum(1))


def _counted(make: Make, x: np.ndarray) -> None:
    """Each distinct input is asked once; a spent budget loses nothing."""
    model = make()
    rung = _rungs(model)[0]
    session = Session(model, rung)
    session.answer(x, rung)
    asked = session.asked
    session.answer(x, rung)
    law(session.asked == asked <= len(x), f"{session.asked} asked for {len(x)} inputs given twice")
    if asked > 1:
        short = Session(model, rung, budget=asked - 1)
        with refused(BudgetError, "a budget one short", str(asked - 1)):
            short.answer(x, rung)
        law(short.asked == len(short.journal) == asked - 1, "answers within the budget must be kept")


_LAWS: dict[str, Callable[[Make, np.ndarray], None]] = {
    "ladder": _ladder,
    "batch-size": _batch_size,
    "same-again": _same_again,
    "inputs-unchanged": _inputs_unchanged,
    "bad-inputs": _bad_inputs,
    "refused-above": _refused_above,
    "counted": _counted,
}
ADAPTER_LAWS = tuple(_LAWS)


def check_adapter(make: Make, x: np.ndarray, law_name: str) -> None:
    """Hold one adapter to one law.

    Args:
        make: loads the model anew at each call.
        x: (n, *shape) inputs of its domain, n >= 4, all different.
        law_name: one of `ADAPTER_LAWS`.

    Raises:
        ConformanceError: the law does not hold.
    """
    _LAWS[law_name](make, x)
