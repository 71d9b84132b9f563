"""Reference models for an owner who has none: networks like the victim, trained without it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from locard.errors import ParameterError, check_number
from locard.models import folder, load, restrict
from locard.models.fitting import Recipe as Training
from locard.records import Access, Data
from locard.seeds import derive
from locard.zoo.population import Built, Original, train_many

if TYPE_CHECKING:
    from locard.models import Model
    from locard.models.session import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What was trained.

    Args:
        built: the models, in their order.
        accuracies: of each, on the data to check by, or on the training data.
        wanted: how many were asked for.
        stratum: where they stand to the victim, as its card and theirs say; "unstated" where the victim's says nothing.
        made: how many this call made.
        seconds: what this call took.
    """

    built: list[Built]
    accuracies: list[float]
    wanted: int
    stratum: str
    made: int
    seconds: float

    @property
    def floor(self) -> float:
        """The smallest p-value, and so the smallest alpha, that these can give."""
        return 1 / (len(self.built) + 1)


def train_references(
    like: Model,
    data: Data,
    n: int,
    out: Path,
    *,
    check: Data | None = None,
    architecture: str = "",
    arguments: dict[str, Any] | None = None,
    training: Training | None = None,
    seed: int = 0,
    processes: int = 2,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> References:
    """Train models of a victim's architecture, or another, on data of the owner's.

    All of the data are used, so that a model's card says whether they are the victim's own. Only the seed of the first
    weights and of the order sets the references apart.

    Args:
        like: the victim. It is not asked anything.
        data: labelled, as the victim takes them.
        n: how many.
        out: folder; references that an earlier call with the same settings made are kept.
        check: labelled data that accuracy is measured on; None for the training data.
        architecture: of the references; "" for the victim's.
        arguments: of the architecture; None for the victim's own, or none where another architecture is named.
        training: how to train; None for the usual recipe.
        seed: of all of them.
        processes: models at a time.
        seconds: after so many no model is begun.
        progress: called with (done, wanted).

    Raises:
        ParameterError: no labels, data that the victim does not take, or a victim whose architecture has no name.
    """
    check_number("n", n, low=1)
    started = time.perf_counter()
    own = Path(like.source)
    card = folder.read_card(own) if (own / folder.CARD).is_file() else None
    if not architecture and card is None:
        raise ParameterError(
            f"{like.source} does not say its architecture, so nothing can be trained like it: name one of ours "
            "(--architecture cnn), as near to it as there is"
        )
    parts, judges = {"training": _fit(data, like)}, None if check is None else _fit(check, like)
    given = arguments if arguments is not None else {} if architecture or card is None else card.arguments
    same = card is not None and not architecture
    jobs = [
        Original(
            name=f"reference-{number:03}",
            data="training",
            architecture=architecture or (card.architecture if card else ""),
            arguments=given,
            recipe=training or Training(),
            seed=derive(seed, f"references/{number}"),
            mean=card.mean if card else None,
            std=card.std if card else None,
        )
        for number in range(n)
    ]
    before = _now(out)
    built = list(train_many(jobs, parts, out, held_out="training", processes=processes, seconds=seconds,
                            progress=progress).values())  # fmt: skip
    # Not by the build itself, for which other data to check by would be another model.
    scores = [one.accuracy if judges is None else accuracy(load(one.path), judges) for one in built]
    made = sum(before.get(one.name) != _stamp(one.path) for one in built)
    lineage = like.lineage
    stratum = "unstated"
    if lineage.data is not None:
        alike = same or lineage.architecture == architecture
        ours = parts["training"].digest == lineage.data
        stratum = ("same-architecture" if alike else "same-data") if ours else "disjoint"
    return References(
        built=built, accuracies=scores, wanted=n, stratum=stratum, made=made, seconds=time.perf_counter() - started
    )


def accuracy(model: Model, data: Data) -> float:
    """Share of right answers."""
    return float((restrict(model, Access.LABELS).labels(data.inputs) == data.labels).mean())


def _fit(data: Data, like: Model) -> Data:
    if data.labels is None:
        raise ParameterError(f"references are trained on true labels; {data.name} has none")
    data = data.taken_by(like.domain, like.source)
    data.check_labels(like.classes, like.source)
    return data


def _now(out: Path) -> dict[str, int]:
    return {path.parent.name: _stamp(path.parent) for path in out.glob(f"*/{folder.WEIGHTS}")}


def _stamp(path: Path) -> int:
    return (path / folder.WEIGHTS).stat().st_mtime_ns
