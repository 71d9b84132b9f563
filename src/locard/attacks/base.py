"""The contract of an attack: what it needs, what it costs, what it gives, and when it counts as a theft.

An attack gets a view of the victim, so it sees no more than was granted and pays for each query; whether its copy is
still worth having is judged afterwards, by `accept`, on data that the thief never had.
"""

from __future__ import annotations

import abc
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np

from locard.errors import AccessError, ParameterError
from locard.models import Model, Session, View, view
from locard.records import Access, Data, Lineage
from locard.registry import Registry, construct

if TYPE_CHECKING:
    import torch

    from locard.models.session import Progress

Network = Literal["victim", "own", "unnamed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What an attack cost: distinct queries sent, answers known already, epochs of training, seconds."""

    queries: int = 0
    known: int = 0
    epochs: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What an attack itself gives back; `Attack.derive` makes a `Stolen` of it.

    Args:
        module: un-normalised inputs in, logits out; shares no memory with the victim.
        architecture: name of the copy's architecture, or None where it is the victim's.
        arguments: of that architecture; where it is the victim's, those that the copy does not share with it.
        unnamed: whether the module, of an attack whose `network` is the victim's, is none of that architecture after
            all, as where channels were cut. It can be written as a `.pt2` or `.onnx` file only.
        epochs: of training, with those that were undone.
        floor: where the copy's task is not the victim's, the accuracy on its own from which it counts as a theft.
        notes: what the user should know, such as a budget that ended early.
    """

    module: torch.nn.Module
    architecture: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    unnamed: bool = False
    epochs: int = 0
    floor: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stolen:
    """A copy with its papers.

    Args:
        module: un-normalised inputs in, logits out; in evaluation mode.
        architecture: name of the copy's own architecture, or None where it is the victim's.
        arguments: see `Copy`.
        unnamed: whether it is of no named architecture, and not of the victim's.
        lineage: whose copy it is, how and from what data it was made.
        effort: what it cost.
        floor: see `Copy`.
        notes: what the user should know.
    """

    module: torch.nn.Module
    architecture: str | None
    arguments: dict[str, Any]
    unnamed: bool
    lineage: Lineage
    effort: Effort
    floor: float | None = None
    notes: tuple[str, ...] = ()


class Attack(abc.ABC):
    """Abstract: a way to make one model from another. A frozen dataclass whose fields are its parameters.

    Attributes:
        name: what it is registered as, and what a copy's lineage says.
        margin: accuracy (a share) that a copy may lose and still count as a theft; a property where parameters say.
        fidelity: share of the victim's answers that a copy must give to count as a theft.
        new_task: whether the thief's labels are those of another task than the victim's.
        one_class: whether a victim of a single class will do, or one that does not say how many classes it has.
        less: parameters with which it needs less of the victim.
        network: what its copies are: of the "victim"'s architecture, of a named one of their "own", or "unnamed", as
            where the victim is wrapped; a property where parameters say.
    """

    __slots__ = ()

    name: ClassVar[str]
    # No annotation lets both a class variable and a property stand in for it, so a property tells the type checker.
    margin: ClassVar[float]
    fidelity: ClassVar[float] = 0.0
    new_task: ClassVar[bool] = False
    one_class: ClassVar[bool] = False
    less: ClassVar[dict[str, Any]] = {}
    network: ClassVar[Network] = "victim"

    @property
    @abc.abstractmethod
    def needs(self) -> Access:
        """The grant that the thief needs of the victim."""

    @property
    def needs_data(self) -> bool:
        """Whether the thief needs inputs."""
        return True

    @property
    def needs_labels(self) -> bool:
        """Whether the thief's inputs need true labels."""
        return False

    @abc.abstractmethod
    def _steal(self, victim: Any, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        """The attack itself; `data` is there where it is needed."""

    @final
    def derive(
        self, victim: View, data: Data | None = None, *, seed: int = 0, progress: Progress | None = None
    ) -> Stolen:
        """Make a copy.

        Args:
            victim: a view that grants what the attack needs.
            data: the thief's own inputs, disjoint from the victim's; None where the attack needs none.
            seed: of every random choice; the same seed gives the same copy.
            progress: called with (done, wanted) steps of the attack's own.

        Raises:
            AccessError: the view grants less than the attack needs.
            ParameterError: data are missing, or do not fit the victim, or it has too few classes.
        """
        taken = self._check(victim, data)
        started, sent, had = time.perf_counter(), victim.asked, victim.from_journal
        copy = self._steal(victim, taken, seed=seed, progress=progress)
        unnamed = copy.unnamed or self.network == "unnamed"
        lineage = Lineage(
            architecture=copy.architecture or (None if unnamed else victim.lineage.architecture),
            data=data.digest if data is not None and self.needs_data else None,
            seed=seed,
            parent=victim.digest,
            derived_by=self.name,
        )
        effort = Effort(queries=victim.asked - sent, known=victim.from_journal - had, epochs=copy.epochs,
                        seconds=time.perf_counter() - started)  # fmt: skip
        return Stolen(module=copy.module.eval(), architecture=copy.architecture, arguments=copy.arguments,
                      unnamed=unnamed, lineage=lineage, effort=effort, floor=copy.floor,
                      notes=copy.notes)  # fmt: skip

    @final
    def check_access(self, granted: Access, shown: str) -> None:
        """Refuse a victim that shows too little, and name the parameters that would do with what it shows.

        Args:
            granted: what may be seen of the victim.
            shown: so much in words, for the message.

        Raises:
            AccessError: it is less than the attack needs.
        """
        if self.needs in granted.implied:
            return
        modest: Attack = replace(self, **self.less)  # pyright: ignore[reportArgumentType]
        words = " ".join(f"{name}={value}" for name, value in self.less.items())
        instead = f": --param {words} needs no more than {modest.needs.text}" if modest.needs in granted.implied else ""
        raise AccessError(f"{self.name} needs {self.needs.text} of the victim; {shown}{instead}")

    def judge(self, ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> Acceptance:
        """Whether a copy that has the victim's task is still worth having.

        Besides keeping margin and fidelity it must do better than the most frequent class alone, if the victim does.

        Args:
            ours: (n,) the victim's labels of held-out inputs.
            theirs: (n,) the copy's.
            labels: (n,) the true ones.
        """
        before, after = (float(np.mean(answers == labels)) for answers in (ours, theirs))
        agreement = float(np.mean(ours == theirs))
        commonest = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
        reason = None
        # Shares of a few hundred inputs are compared, so the margin itself must pass whatever the rounding.
        if after < before - self.margin - 1e-9:
            reason = (f"accuracy fell from {before:.1%} to {after:.1%}; {self.name} counts as a theft down to "
                      f"{max(before - self.margin, 0):.1%}")  # fmt: skip
        elif agreement < self.fidelity - 1e-9:
            reason = (f"it agrees with the victim on {agreement:.1%}; {self.name} counts as a theft from "
                      f"{self.fidelity:.0%}")  # fmt: skip
        elif after <= commonest < before:
            reason = f"accuracy is {after:.1%}, and always answering the most frequent class reaches {commonest:.1%}"
        return Acceptance(accuracy=after, victim_accuracy=before, agreement=agreement, accepted=reason is None,
                          reason=reason)  # fmt: skip

    def _check(self, victim: View, data: Data | None) -> Data | None:
        """The data as the victim takes them, or None where none are needed."""
        granted = Access(0)
        for access, method in _METHODS.items():
            granted |= access if hasattr(victim, method) else Access(0)
        self.check_access(granted, f"{victim!r} has no {_METHODS[self.needs]}()")
        if not self.one_class and (victim.classes is None or victim.classes < 2):
            known = "does not say how many it has" if victim.classes is None else "has one"
            raise ParameterError(f"{self.name} needs a victim of two classes or more; {victim.source} {known}")
        if not self.needs_data:
            return None
        if data is None or len(data) == 0:
            raise ParameterError(f"{self.name} needs data of the thief's own; none were given")
        if self.needs_labels and data.labels is None:
            raise ParameterError(f"{self.name} needs data with true labels; {data.name} has none")
        taken = data.taken_by(victim.domain, victim.source)
        if self.needs_labels and not self.new_task:
            taken.check_labels(victim.classes, victim.source)
        # The thief's inputs are what the victim would be sent.
        return replace(taken, inputs=taken.domain.deliver(taken.inputs))


def bare(module: torch.nn.Module) -> torch.nn.Module:
    """The network without the normalisation that a view puts in front, which is no attack's to change."""
    from locard.models._torch import Normalised

    return module.module if isinstance(module, Normalised) else module


_METHODS = {
    Access.LABELS: "labels",
    Access.PROBABILITIES: "probabilities",
    Access.LOGITS: "logits",
    Access.MODULE: "module",
}

attacks: Registry[Attack] = Registry("attack", "locard.attacks", "locard.attacks")


def build(name: str, params: dict[str, Any] | None = None) -> Attack:
    """The attack of that name with those parameters.

    Raises:
        ParameterError: unknown name, unknown parameter, or a value out of range.
    """
    return construct(attacks.get(name), params or {}, f"attack {name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Whether a copy is still worth having.

    Args:
        accuracy: the copy's, on the held-out data.
        victim_accuracy: the victim's, on the same; None where the copy's task is not the victim's.
        agreement: share of the held-out data that both answer alike; None likewise.
        accepted: whether it counts as a theft.
        reason: in words, where it does not.
    """

    accuracy: float
    victim_accuracy: float | None
    agreement: float | None
    accepted: bool
    reason: str | None = None


def accept(attack: Attack, copy: Model, victim: Model, held_out: Data, *, floor: float | None = None) -> Acceptance:
    """Hold a copy against its victim: one that has lost the task is no theft, and no scheme is blamed for missing it.

    Args:
        attack: states the margin.
        copy: the copy.
        victim: the victim.
        held_out: labelled data that neither was trained on.
        floor: the copy's; the labels are then those of its own task, and the victim is not asked.

    Raises:
        ParameterError: the data have no labels, or labels of another task than the victim's.
    """
    if held_out.labels is None:
        raise ParameterError(f"whether a theft succeeded is judged on true labels; {held_out.name} has none")
    if floor is None:
        held_out.check_labels(victim.classes, victim.source)
    held_out = held_out.taken_by(victim.domain, victim.source)
    assert held_out.labels is not None  # noqa: S101 - just checked
    theirs = view(Session(copy, Access.LABELS), Access.LABELS).labels(held_out.inputs)
    if floor is None:
        ours = view(Session(victim, Access.LABELS), Access.LABELS).labels(held_out.inputs)
        return attack.judge(ours, theirs, held_out.labels)
    after = float(np.mean(theirs == held_out.labels))
    reason = f"accuracy is {after:.1%}; {attack.name} counts as a theft from {floor:.1%}" if after < floor else None
    return Acceptance(accuracy=after, victim_accuracy=None, agreement=None, accepted=reason is None, reason=reason)
