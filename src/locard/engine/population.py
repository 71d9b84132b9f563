"""A population from a folder: the models that help a scheme to choose its queries, and do nothing else."""

from __future__ import annotations

from pathlib import Path

from locard.engine.calibrate import found
from locard.errors import ArtefactError
from locard.models import Model, Session, View, load, view
from locard.queries import Population
from locard.records import Access


def read_population(folder: Path, victim: Model, *, trust: bool = False) -> Population:
    """Read a folder of models.

    Args:
        folder: holds models in the sub-folders "derived" and "independent"; or model folders whose lineage says which
            are derived from the victim.
        victim: whose derivations count as derived.
        trust: allow files whose reading can run code.

    Raises:
        ArtefactError: no folder, or it holds no models.
    """
    if not folder.is_dir():
        raise ArtefactError(f"a population is a folder of models; got {str(folder)!r}")
    groups = {name: folder / name for name in ("derived", "independent")}
    if any(path.is_dir() for path in groups.values()):
        views = {
            name: tuple(widest(load(source, like=victim.domain, trust=trust)) for source in found(path))
            for name, path in groups.items()
            if path.is_dir()
        }
        return Population(derived=views.get("derived", ()), independent=views.get("independent", ()))
    models = [load(source, like=victim.domain, trust=trust) for source in found(folder)]
    return Population(
        derived=tuple(widest(model) for model in models if model.lineage.parent == victim.digest),
        independent=tuple(
            widest(model) for model in models if model.lineage.parent != victim.digest and model.digest != victim.digest
        ),
    )


def widest(model: Model) -> View:
    """A view of all that a model grants."""
    top = Access.MODULE if Access.MODULE in model.grants else model.grants.top or Access.WEIGHTS
    return view(Session(model, model.grants), top)
