"""Models: one adapter a file, views that grant access, and the journal that counts."""

from __future__ import annotations

from typing import Any

from locard.errors import ArtefactError, ParameterError
from locard.models.base import Adapter, Model, adapters
from locard.models.session import Session, ViewParameters
from locard.models.views import (
    GradientView,
    LabelView,
    LogitView,
    ModuleView,
    ProbabilityView,
    ValueView,
    View,
    WeightView,
    restrict,
    view,
)
from locard.records import Domain

__all__ = [
    "Adapter",
    "GradientView",
    "LabelView",
    "LogitView",
    "Model",
    "ModuleView",
    "ProbabilityView",
    "Session",
    "ValueView",
    "View",
    "ViewParameters",
    "WeightView",
    "adapters",
    "load",
    "restrict",
    "view",
]


def load(source: Any, *, like: Domain | None = None, trust: bool = False, **options: Any) -> Model:
    """Read a model, picking the adapter by what the source is.

    Args:
        source: a path or URL as text, or an object: a torch module, a scikit-learn estimator, a callable, a `Model`.
        like: the domain to assume where the source does not say its own.
        trust: allow files whose reading can run code (pickles, `.pt2`).
        **options: the adapter's own, such as `domain`, `outputs`, `mean`, `std`, `batch_size`.

    Returns:
        The model.

    Raises:
        ArtefactError: the file is missing, damaged, or needs `trust`.
        ParameterError: no adapter reads it, or an option is wrong.
    """
    if isinstance(source, Model):
        if options:
            raise ParameterError(f"{source.source} is loaded already; options {sorted(options)} come too late")
        return source
    # Modules and estimators of other kinds can be called too, so the plain callable is asked last.
    for name in sorted(adapters.names(), key=lambda name: name == "callable"):
        if adapters.get(name).recognises(source):
            return adapters.get(name).open(source, like=like, trust=trust, **options)
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        raise ArtefactError(
            f"no model at {str(source)!r}: expected a model folder, .onnx, .pt2, .skops, .toml description, "
            "Hugging Face folder or http(s) URL"
        )
    raise ParameterError(
        f"no adapter reads a {type(source).__name__}; expected a torch module, a scikit-learn estimator, a callable or "
        f"a path (adapters: {', '.join(adapters.names())})"
    )
