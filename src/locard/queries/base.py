"""The contract of a sampler, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from locard.errors import AccessError, ArtefactError, ParameterError
from locard.records import Access, Data
from locard.registry import Registry

if TYPE_CHECKING:
    from locard.models.views import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """What is asked.

    Args:
        inputs: (n, *shape), as the domain says and as a suspect will receive them (clipped and on the quantum's grid).
        extras: more arrays that a representation needs to ask them (segments, masks, partners), by name.
    """

    inputs: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As the arrays of a fingerprint."""
        return {"inputs": self.inputs, **self.extras}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Queries:
        """Read what `to_arrays` gave.

        Raises:
            ParameterError: there are no inputs.
        """
        if "inputs" not in arrays or arrays["inputs"].ndim == 0 or len(arrays["inputs"]) == 0:
            raise ParameterError("a fingerprint's queries must hold 'inputs', at least one")
        return cls(inputs=arrays["inputs"], extras={name: a for name, a in arrays.items() if name != "inputs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Other models that help to choose queries, made by the caller and used for nothing else.

    Args:
        derived: views of models derived from the victim.
        independent: views of models made without it.
    """

    derived: tuple[View, ...] = ()
    independent: tuple[View, ...] = ()


class Sampler(Protocol):
    """Chooses queries. A frozen dataclass whose fields are the parameters that change the value.

    Attributes:
        victim_access: the grant it needs of the victim; `Access(0)` where it asks nothing.
        needs_labels: whether the data must have true labels.
        needs_population: whether other models must be given.
    """

    victim_access: ClassVar[Access]
    needs_labels: ClassVar[bool]
    needs_population: ClassVar[bool]

    def draw(
        self, victim: Any, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """Queries for a representation that asks `inputs` once each.

        Args:
            victim: a view at `victim_access`.
            data: where to draw from; its inputs are left unchanged.
            n: exactly so many, or None for up to `default`.
            default: the scheme's own number.
            seed: a seed of its own.
            population: other models, or None.

        Raises:
            ParameterError: the data hold too few inputs of the kind needed; the message names the way out.
        """
        ...


samplers: Registry[Sampler] = Registry("sampler", "locard.queries", "locard.samplers")


def take(candidates: np.ndarray, *, n: int | None, default: int, least: int, what: str, way_out: str) -> np.ndarray:
    """The first `n` candidates, or up to `default` where the caller named no number.

    Args:
        candidates: row numbers, in random order.
        n: exactly so many, or None.
        default: the most to take when `n` is None.
        least: fewest that make a fingerprint when `n` is None.
        what: what they are, for the message ("misclassified inputs").
        way_out: what the user can do.

    Raises:
        ParameterError: there are too few.
    """
    wanted = n if n is not None else min(default, len(candidates))
    if len(candidates) < wanted or (n is None and wanted < least):
        raise ParameterError(
            f"{wanted if n is not None else least} {what} are needed, the data hold {len(candidates)}; {way_out}"
        )
    return candidates[:wanted]


def reach(data: Data) -> float | np.ndarray:
    """How far inputs of the data can move: the domain's range, or each column's standard deviation where it has none.

    Samplers give their radii and steps as shares of it.
    """
    if data.domain.bounds is not None:
        return data.domain.bounds[1] - data.domain.bounds[0]
    return data.inputs.std(axis=0, dtype=np.float64).astype(np.float32)


def movable(data: Data, what: str) -> None:
    """Refuse data whose inputs cannot be moved by a gradient.

    Raises:
        ParameterError: texts, tokens or whole numbers.
    """
    if data.domain.kind not in ("image", "tabular") or np.dtype(data.domain.dtype).kind != "f":
        raise ParameterError(
            f"{what} need inputs that can be moved by a gradient; {data.name} holds {data.domain.text}: use a scheme "
            "that asks the data as they are (akh, sac with variant=normal or variant=source, zest)"
        )


def pool(
    population: Population | None,
    *,
    derived: int,
    independent: int,
    what: str,
    like: View | None = None,
    classes: bool = True,
) -> Population:
    """The population, which must hold so many models of each kind at least.

    Args:
        population: as it came.
        derived: fewest models derived from the victim.
        independent: fewest models made without it.
        what: the sampler, for the message ("conferrable examples").
        like: the victim, whose inputs all must take and whose labels they must have; None leaves that to the caller.
        classes: whether they must have the victim's number of classes.

    Raises:
        ParameterError: none, or too few, or one that takes other inputs or has other classes.
        AccessError: one that gives no labels.
    """
    here = Population() if population is None else population
    if len(here.derived) < derived or len(here.independent) < independent:
        raise ParameterError(
            f"{what} need a population of {derived} derived and {independent} independent models or more; "
            f"{len(here.derived)} and {len(here.independent)} were given: give a folder with more of them "
            "(--population DIR)"
        )
    if like is not None:
        for model in (*here.derived, *here.independent):
            _check_member(model, like, what, classes=classes)
    return here


def _check_member(model: View, like: View, what: str, *, classes: bool) -> None:
    ours, theirs = like.domain, model.domain
    if ours.apart(theirs) == "form":
        raise ParameterError(
            f"{what} need a population that takes the victim's inputs, {ours.text}; {model.source} takes "
            f"{theirs.text}: leave it out"
        )
    if not hasattr(model, "labels"):
        raise AccessError(f"{what} need labels of a population's models; {model.source} gives values: leave it out")
    if classes and None not in (like.classes, model.classes) and like.classes != model.classes:
        raise ParameterError(
            f"{what} need a population with the victim's {like.classes} classes; {model.source} has {model.classes}: "
            "leave it out"
        )


def unit_means(queries: dict[str, np.ndarray], values: np.ndarray | None, *, size: int | None = None) -> np.ndarray:
    """The mean over each unit of a value for each query.

    Args:
        queries: the arrays of a fingerprint; `units` (n,) says which unit a query belongs to, numbered from 0.
        values: (n,) numbers or truths, or None where a record has none.
        size: queries of every unit, or None where units may differ.

    Returns:
        (units,) float64.

    Raises:
        ArtefactError: the record or the units are not as they must be, as a stranger's fingerprint may be.
    """
    units = queries.get("units")
    if values is None:
        raise ArtefactError("two records of units must hold labels")
    if units is None or units.shape != values.shape or units.dtype.kind not in "iu" or len(units) == 0:
        found = "none" if units is None else f"{units.dtype} {units.shape}"
        raise ArtefactError(f"units must be whole numbers, one for each of {len(values)} queries; got {found}")
    if units.min() < 0 or units.max() >= len(units):
        raise ArtefactError(f"units must be numbered from 0 to {len(units) - 1}; got {units.min()} to {units.max()}")
    sizes = np.bincount(units)
    if not sizes.all():
        raise ArtefactError(f"unit {int(np.argmin(sizes))} has no query")
    if size is not None and (sizes != size).any():
        raise ArtefactError(f"every unit must have {size} queries; got {int(sizes.min())} to {int(sizes.max())}")
    return np.bincount(units, values.astype(np.float64)) / sizes
