"""What one scheme found of one suspect: a row. Rows are kept as Parquet, a column a field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np

from locard.errors import ArtefactError, need

Role = Literal["calibration", "evaluation"]
# Raised when a field changes its meaning.
VERSION = 2
_MARK = b"locard_bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One suspect, asked one fingerprint.

    Args:
        victim: name of the model whose fingerprint was taken.
        architecture: the victim's, as its recipe calls it.
        suspect: name of the model asked.
        model: its digest.
        parent: name of the model that it was stolen from, or "" where nobody was.
        shares: whether it, or a model it was made from, learnt from the data that the victim learnt from.
        role: "calibration", a reference that only says what innocents score; or "evaluation", a model to be judged.
        truth: "derived" from that victim, or "independent" of it.
        kind: of a derived model, the theft, as the recipe calls it; of an independent one, its stratum.
        family: of a derived model, the family of the theft; of an independent one, its stratum again.
        accepted: False for a theft that failed, which no scheme is blamed for missing.
        entry: the scheme with its parameters, as tables call it.
        scheme: its registered name.
        claim: "derived", "identical" or "trained-on".
        access: what it needs of the suspect, as `Access.text` says it.
        budget: the number of queries asked for, or 0 for the scheme's own.
        queries: what the suspect is asked, in queries.
        seed: of the extraction.
        score: similarity, higher = more alike; NaN where there is none.
        own: similarity of the fingerprint with itself.
        extraction: processor seconds that taking the fingerprint took.
        seconds: this fingerprint's share, by its queries, of the seconds that asking the suspect took.
        reason: why there is no score, or "".
    """

    victim: str
    architecture: str
    suspect: str
    model: str
    parent: str
    shares: bool
    role: Role
    truth: Literal["derived", "independent"]
    kind: str
    family: str
    accepted: bool
    entry: str
    scheme: str
    claim: str
    access: str
    budget: int
    queries: int
    seed: int
    score: float
    own: float
    extraction: float
    seconds: float
    reason: str = ""


COLUMNS: Mapping[str, str] = {field.name: str(field.type) for field in fields(Row)}
_VALUES = {
    "role": ("calibration", "evaluation"),
    "truth": ("derived", "independent"),
    "claim": ("derived", "identical", "trained-on"),
}
_DTYPES = {"str": np.dtype(object), "bool": np.dtype(bool), "int": np.dtype(np.int64), "float": np.dtype(np.float64)}


class Records:
    """Rows by column, in the order they were given.

    Args:
        columns: for each field of `Row` an (n,) array: texts as objects, whole numbers as int64, numbers as float64.
    """

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns = {name: np.asarray(columns[name], dtype_of(name)) for name in COLUMNS}

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Records:
        """From rows."""
        listed = list(rows)
        return cls({name: np.array([getattr(row, name) for row in listed], dtype_of(name)) for name in COLUMNS})

    @classmethod
    def concatenate(cls, parts: Sequence[Records]) -> Records:
        """One after the other; of none, no rows."""
        if not parts:
            return cls.of(())
        return cls({name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})

    @classmethod
    def read(cls, path: Path) -> Records:
        """From a Parquet file.

        Raises:
            ArtefactError: no Parquet file, or not one of ours.
            MissingExtraError: pyarrow is not installed.
        """
        need("pyarrow", extra="bench", why="reading records")
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, memory_map=False)
        except FileNotFoundError as error:
            raise ArtefactError(f"no file {str(path)!r}") from error
        except (OSError, pa.ArrowException) as error:
            raise ArtefactError(f"{str(path)!r} is no Parquet file: {error}") from error
        mark = (table.schema.metadata or {}).get(_MARK, b"").decode(errors="replace")
        if mark != str(VERSION) or not table.schema.equals(_schema()):
            raise ArtefactError(
                f"{str(path)!r} holds no records of a bench of this version ({VERSION}; it says {mark or 'nothing'})"
            )
        for name in COLUMNS:
            known = _VALUES.get(name)
            if table[name].null_count or (known and not set(table[name].unique().to_pylist()) <= set(known)):
                raise ArtefactError(f"{str(path)!r}: column {name!r} holds what no bench writes; run the bench again")
        return cls({name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS})

    def write(self, path: Path) -> None:
        """As a Parquet file, which is there whole or not at all.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        need("pyarrow", extra="bench", why="writing records")
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _schema()
        # Numbers of processes repeat from machine to machine of a cluster.
        part = path.with_name(f".{path.name}.{uuid4().hex}")
        pq.write_table(pa.table({name: pa.array(self[name]) for name in COLUMNS}, schema=schema), part)
        part.replace(path)

    def __len__(self) -> int:
        return len(self._columns["victim"])

    def __getitem__(self, column: str) -> np.ndarray:
        return self._columns[column]

    def where(self, mask: np.ndarray) -> Records:
        """The rows that a boolean mask (n,) or row numbers choose."""
        return Records({name: column[mask] for name, column in self._columns.items()})

    def names(self, column: str) -> list[Any]:
        """The different values of a column, in the order they first come."""
        return list(dict.fromkeys(self[column].tolist()))

    def rows(self) -> list[Row]:
        """As rows."""
        lists = [self[name].tolist() for name in COLUMNS]
        return [Row(**dict(zip(COLUMNS, values, strict=True))) for values in zip(*lists, strict=True)]


def _schema() -> Any:
    import pyarrow as pa

    kinds: dict[str, Any] = {"str": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    return pa.schema([(name, kinds[_kind(name)]) for name in COLUMNS], metadata={_MARK: str(VERSION)})


def dtype_of(column: str) -> np.dtype[Any]:
    """How a column is held."""
    return _DTYPES[_kind(column)]


def _kind(column: str) -> str:
    kind = COLUMNS[column]
    return kind if kind in _DTYPES else "str"
