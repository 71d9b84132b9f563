"""Tables for tabular and text models: CSV (comma-separated, UTF-8, names in the first row) and Parquet.

The label is the column `label`, else `y`, else `target`, else there is none; "file.csv#label=species" names another,
and "file.csv#label=" says that there is none. Labels are whole numbers from 0 on, or names, which are numbered in
sorted order. With a column `text` the inputs are its strings, and there may be no further column. Otherwise every other
column holds numbers, in the order of the file; the model's own encoding of categories has to be done before.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from locard.data._files import check_file, check_values
from locard.data._labels import from_names, from_numbers, from_words
from locard.data.base import Reader, readers
from locard.data.text import DOMAIN as TEXT
from locard.data.text import texts
from locard.errors import ArtefactError, ParameterError, need, unknown
from locard.records import Data, Domain

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = ("label", "y", "target")
TEXT_COLUMN = "text"

Labels = tuple[np.ndarray, tuple[str, ...]]


@readers.register("table")
class Table(Reader):
    """A file that ends in .csv or .parquet, perhaps with "#label=COLUMN" behind."""

    @classmethod
    def recognises(cls, name: str) -> bool:
        """By suffix."""
        return _parts(name)[0].suffix.lower() in (".csv", ".parquet")

    @classmethod
    def read(cls, name: str) -> Data:
        """(n, columns) float32, or (n,) strings."""
        path, fragment = _parts(name)
        if fragment and not fragment.startswith("label="):
            raise ParameterError(f"{name!r}: after '#' comes label=COLUMN, or label= for none; got {fragment!r}")
        check_file(path)
        label = fragment.removeprefix("label=") if fragment else None
        inputs, labels, columns = (_read_csv if path.suffix.lower() == ".csv" else _read_parquet)(path, label)
        numbers, classes = (None, ()) if labels is None else labels
        if isinstance(inputs, list):
            return Data(inputs=texts(inputs), labels=numbers, domain=TEXT, name=name, classes=classes)
        domain = Domain(kind="tabular", shape=(len(columns),), columns=columns)
        return Data(inputs=_finite(inputs, columns, path), labels=numbers, domain=domain, name=name, classes=classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Which column is what.

    Attributes:
        label: index of the label column, or None.
        text: index of the text column, or None.
        columns: names of the columns of numbers.
    """

    label: int | None
    text: int | None
    columns: tuple[str, ...]


def _parts(name: str) -> tuple[Path, str]:
    """The path, and what stands behind the last "#" if no file is called so."""
    path, mark, fragment = name.rpartition("#")
    return (Path(path), fragment) if mark and not Path(name).exists() else (Path(name), "")


def _layout(path: Path, header: Sequence[str], label: str | None) -> _Layout:
    """Find label and text among the names of the columns.

    Args:
        path: for messages.
        header: the names.
        label: name of the label column, "" for none, None for the usual ones.
    """
    for number, column in enumerate(header, 1):
        if not column or column.startswith("__index_level_"):
            raise ArtefactError(
                f"{str(path)!r}: column {number} is a row index without a name; save the table without it"
            )
    if len(set(header)) != len(header):
        double = next(column for column in header if list(header).count(column) > 1)
        raise ArtefactError(f"{str(path)!r} has two columns {double!r}; rename one")
    if label is None:
        label = next((column for column in LABELS if column in header), "")
    elif label and label not in header:
        raise unknown(f"column of {str(path)!r}:", label, header)
    text = TEXT_COLUMN if TEXT_COLUMN in header and label != TEXT_COLUMN else ""
    columns = tuple(column for column in header if column not in (label, text))
    if text and columns:
        raise ArtefactError(
            f"{str(path)!r} has a column {TEXT_COLUMN!r} and also {', '.join(map(repr, columns))}; a text model takes "
            "the text alone: drop the others, or name the label as in file.csv#label=COLUMN"
        )
    if not text and not columns:
        raise ArtefactError(f"{str(path)!r} has no column but the label {label!r}")
    return _Layout(
        label=header.index(label) if label else None, text=header.index(text) if text else None, columns=columns
    )


def _read_csv(path: Path, label: str | None) -> tuple[np.ndarray | list[str], Labels | None, tuple[str, ...]]:
    rows = _csv_rows(path)
    header = [column.strip() for column in next(rows, [])]
    _check_header(header, path)
    layout = _layout(path, header, label)
    words: list[str] = []
    strings: list[str] = []
    numbers = array("d")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise ArtefactError(
                f"{str(path)!r}, row {number}: {len(row)} fields; the first row names {len(header)} columns"
            )
        if layout.text is not None:
            strings.append(row[layout.text])
        if layout.label is not None:
            words.append(row[layout.label].strip())
        if layout.text is None:
            if layout.label is not None:
                del row[layout.label]
            _extend(numbers, row, layout.columns, path, number)
    labels = None if layout.label is None else from_words(words, str(path))
    if layout.text is not None:
        return strings, labels, ()
    check_values(str(path), len(numbers))
    return np.frombuffer(numbers, np.float64).reshape(-1, len(layout.columns)), labels, layout.columns


def _csv_rows(path: Path) -> Iterator[list[str]]:
    """Rows that are not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from (row for row in csv.reader(stream, strict=True) if row)
    except OSError as error:
        raise ArtefactError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{str(path)!r} is no UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise ArtefactError(f"{str(path)!r} is no CSV file, or a damaged one: {error}") from error


def _check_header(header: list[str], path: Path) -> None:
    if not header:
        raise ArtefactError(f"{str(path)!r} is empty; expected the names of the columns in the first row")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ArtefactError(
            f"{str(path)!r} does not separate its fields by commas; its first row is {header[0][:60]!r}"
        )
    if all(_is_number(column) for column in header):
        raise ArtefactError(f"{str(path)!r} has numbers in its first row; expected the names of the columns there")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _extend(numbers: array[float], row: list[str], columns: Sequence[str], path: Path, number: int) -> None:
    """Append a row of numbers; float() alone would read the name "1_2" as 12."""
    try:
        numbers.extend(map(float, row))
        if "_" not in "".join(row):
            return
    except ValueError:
        pass
    column, cell = next((column, cell) for column, cell in zip(columns, row, strict=True) if not _is_number(cell))
    _refuse(path, column, number, repr(cell[:40]) if cell.strip() else "nothing")


def _refuse(path: Path, column: str, row: int, what: str) -> NoReturn:
    raise ArtefactError(
        f"{str(path)!r}, row {row}: column {column!r} holds {what}; expected a number. Encode categories and fill gaps "
        f"as the model's own training did; name the label as in {path.name}#label={column}"
    )


def _read_parquet(path: Path, label: str | None) -> tuple[np.ndarray | list[str], Labels | None, tuple[str, ...]]:
    pa = need("pyarrow", extra="tables", why="a Parquet file")
    parquet = need("pyarrow.parquet", extra="tables", why="a Parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            check_values(str(path), file.metadata.num_rows * file.metadata.num_columns)
            layout = _layout(path, file.schema_arrow.names, label)
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{str(path)!r} is no Parquet file, or a damaged one: {_first_line(error)}") from error
    labels = None if layout.label is None else _parquet_labels(table.column(layout.label), path, table, layout.label)
    if layout.text is not None:
        column = table.column(layout.text)
        if not _holds_strings(column.type):
            raise ArtefactError(f"{str(path)!r}: column {TEXT_COLUMN!r} holds {column.type}; expected strings")
        _refuse_nulls(column, TEXT_COLUMN, path)
        return _strings(column, TEXT_COLUMN, path), labels, ()
    inputs = np.empty((table.num_rows, len(layout.columns)), np.float64)
    for index, name in enumerate(layout.columns):
        inputs[:, index] = _parquet_numbers(table.column(name), name, path)
    return inputs, labels, layout.columns


def _parquet_numbers(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    if not _holds_numbers(column.type):
        _refuse(path, name, 1, f"the type {column.type}")
    _refuse_nulls(column, name, path)
    return column.to_numpy().astype(np.float64, copy=False)


def _parquet_labels(column: pa.ChunkedArray, path: Path, table: pa.Table, index: int) -> Labels:
    name = table.column_names[index]
    _refuse_nulls(column, name, path)
    if _holds_strings(column.type):
        return from_names(_strings(column, name, path))
    if not _holds_numbers(column.type):
        raise ArtefactError(
            f"{str(path)!r}: label column {name!r} holds {column.type}; expected names or whole numbers"
        )
    return from_numbers(column.to_numpy().astype(np.float64, copy=False), str(path)), ()


def _strings(column: pa.ChunkedArray, name: str, path: Path) -> list[str]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{str(path)!r}: column {name!r} holds strings that are no UTF-8: {error}") from error


def _holds_strings(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _holds_numbers(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _refuse_nulls(column: pa.ChunkedArray, name: str, path: Path) -> None:
    if column.null_count:
        row = int(column.is_null().to_numpy().argmax()) + 1
        raise ArtefactError(f"{str(path)!r}, row {row}: column {name!r} is empty; fill it, or leave the row out")


def _finite(inputs: np.ndarray, columns: Sequence[str], path: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = inputs.astype(np.float32)
    wrong = ~np.isfinite(cast)
    if wrong.any():
        row, column = divmod(int(wrong.argmax()), len(columns))
        value = float(inputs[row, column])
        _refuse(
            path, columns[column], row + 1, f"{value:g}" if not math.isfinite(value) else f"{value:g}, beyond float32"
        )
    return cast


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
