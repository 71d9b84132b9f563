"""Fitted scikit-learn estimators, as objects and as `.skops` files; no torch."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from locard.errors import ArtefactError, ParameterError, need
from locard.models._archive import members
from locard.models._identity import digest_object
from locard.models._options import batch_rows, path_with_suffix, refuse_unknown
from locard.models.base import Adapter, Model, adapters
from locard.models.callable import native_access
from locard.records import Access, Domain, Lineage

SUFFIX = ".skops"
# A call costs the same some hundred microseconds for one row or thousands.
ROWS = 4096
_OPTIONS = ("domain", "outputs", "batch_size")


class EstimatorModel(Model):
    """A fitted classifier or regressor.

    Answers are `predict_proba` where the estimator has it, and the labels are its arg max (from which the `predict` of
    an estimator with a tuned threshold may part); else `predict`, as positions in `classes_`; a regressor's `predict`
    gives VALUES. Images are flattened, channel by channel.

    Args:
        estimator: fitted.
        domain: what its inputs are; None for `like`, or for a row of `n_features_in_` numbers.
        like: the domain to assume where it has as many numbers as the estimator takes.
        outputs: "probabilities", "labels" or "values"; None for the most it gives.
        source: where it was read from, for people.
        batch_size: inputs in one call.

    Raises:
        ParameterError: not fitted, neither classifier nor regressor, several outputs at once, or no such outputs.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        domain: Domain | None = None,
        like: Domain | None = None,
        outputs: str | None = None,
        source: str | None = None,
        batch_size: int = ROWS,
    ) -> None:
        self._estimator = estimator
        self.source = source or f"scikit-learn {type(estimator).__name__}"
        self.lineage, self.batch_size = Lineage(), batch_rows(batch_size)
        self._check_fitted()
        best = self._best()
        self.native = best if outputs is None else native_access(outputs)
        if self.native not in best.implied:
            raise ParameterError(f"{self.source} gives {best.text}, not {outputs}")
        self.grants = self.native.implied
        self.classes = None if best is Access.VALUES else len(self._classes())
        self.domain = self._take_domain(domain, like)

    @property
    def digest(self) -> str:
        """SHA-256 over the estimator's parameters and fitted state; the same for the object and its `.skops` file."""
        return digest_object((self._estimator, self.native.text))

    def _forward(self, x: np.ndarray) -> np.ndarray:
        rows = x if self.domain.kind == "text" else x.reshape(len(x), -1)
        with warnings.catch_warnings():
            # Fitted on a table with named columns; ours come in the same order without names.
            warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
            if self.native is Access.PROBABILITIES:
                return np.asarray(self._estimator.predict_proba(rows))
            answers = np.asarray(self._estimator.predict(rows))
        if self.native is Access.VALUES:
            return answers[:, None] if answers.ndim == 1 else answers
        return self._positions(answers)

    def _positions(self, answers: np.ndarray) -> np.ndarray:
        classes = self._classes()
        order = np.argsort(classes)
        found = order[np.searchsorted(classes, answers, sorter=order).clip(max=len(classes) - 1)]
        if answers.ndim != 1 or not (classes[found] == answers).all():
            raise ParameterError(f"{self.source} answers something that is none of its {len(classes)} classes")
        return found

    def _classes(self) -> np.ndarray:
        classes = getattr(self._estimator, "classes_", None)
        if classes is None or isinstance(classes, list) or np.asarray(classes).ndim != 1:
            raise ParameterError(f"{self.source} must have one output with classes_; got classes_ = {classes!r}")
        return np.asarray(classes)

    def _check_fitted(self) -> None:
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted

        try:
            check_is_fitted(self._estimator)
        except NotFittedError as error:
            raise ParameterError(f"{self.source} is not fitted: call its fit first") from error

    def _best(self) -> Access:
        from sklearn.base import is_classifier, is_regressor

        if is_regressor(self._estimator):
            return Access.VALUES
        if is_classifier(self._estimator):
            return Access.PROBABILITIES if hasattr(self._estimator, "predict_proba") else Access.LABELS
        raise ParameterError(f"{self.source} is neither a classifier nor a regressor; wrap what it does in a function")

    def _take_domain(self, domain: Domain | None, like: Domain | None) -> Domain:
        size = getattr(self._estimator, "n_features_in_", None)
        if domain is not None and size is not None and _numbers(domain) != size:
            raise ParameterError(f"{self.source} takes {size} numbers an input; the domain says {domain.text}")
        if domain is None and like is not None and (size is None or _numbers(like) == size):
            domain = like
        if domain is None and size is None:
            raise ParameterError(f"{self.source} does not say what its inputs are: give domain=Domain(...)")
        if domain is not None:
            return domain
        columns = tuple(map(str, getattr(self._estimator, "feature_names_in_", ())))
        return Domain(kind="tabular", shape=(int(size),), dtype="float64", columns=columns)  # pyright: ignore[reportArgumentType]


def _numbers(domain: Domain) -> int | None:
    return None if domain.kind == "text" else int(np.prod(domain.shape))


@adapters.register("sklearn")
class SklearnAdapter(Adapter):
    """A fitted estimator in memory, or a `.skops` file."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """Whether it is an estimator, or a path that ends in .skops; scikit-learn is not imported to find out."""
        base = sys.modules.get("sklearn.base")
        return path_with_suffix(source, SUFFIX) or (
            base is not None and isinstance(source, base.BaseEstimator) and not isinstance(source, type)
        )

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Wrap it; a file that holds types which skops does not know is only read with `trust`."""
        refuse_unknown(options, _OPTIONS, of="a scikit-learn estimator")
        if not path_with_suffix(source, SUFFIX):
            return EstimatorModel(source, like=like, **options)
        return EstimatorModel(read(source, trust=trust), like=like, source=os.fspath(source), **options)


def read(path: str | os.PathLike[str], *, trust: bool) -> Any:
    """The estimator in a `.skops` file.

    Args:
        path: the file.
        trust: make objects of types that skops does not know to be harmless too.

    Raises:
        ArtefactError: missing, damaged, no estimator, or such a type in it.
        MissingExtraError: skops is not installed.
    """
    path, where = Path(path), f"the estimator {os.fspath(path)!r}"
    names = members(path, where)
    skops = need("skops.io", extra="sklearn", why=where)
    from sklearn.base import BaseEstimator

    if "schema.json" not in names:
        raise ArtefactError(f"{where} is a zip archive but no skops file: it has no schema.json")
    try:
        strange = skops.get_untrusted_types(file=path)
        if strange and not trust:
            raise ArtefactError(
                f"{where} holds types that are not known to be harmless: {', '.join(sorted(strange))}. If you trust "
                "its maker, pass --trust (trust=True)"
            )
        estimator = skops.load(path, trusted=strange)
    except ArtefactError:
        raise
    # Whatever a damaged file leads skops to raise, the file is at fault.
    except Exception as error:
        text = str(error).strip() or "no message"
        raise ArtefactError(
            f"{where} is damaged or no skops file: {type(error).__name__}: {text.splitlines()[0]}"
        ) from error
    if not isinstance(estimator, BaseEstimator):
        raise ArtefactError(f"{where} holds a {type(estimator).__name__}, no scikit-learn estimator")
    return estimator
