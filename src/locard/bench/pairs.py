"""The pairs behind a figure, packed for the page: columns of numbers that point into tables of names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from locard.bench.metrics import innocent, p_values
from locard.bench.records import Records
from locard.reports.numerals import plain

# What a name could leave its element with, and two ends of line that JSON allows and scripts once did not.
ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
# Rows of a packed cell take a few bytes more or fewer than those of another.
_SPARE = 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Rows of the records, by cell.

    Args:
        rows: for each cell's name the numbers of its rows, (n,) int64, the smallest p first.
        p: (len(records),) float64, by row; NaN where a row is a reference or has no score.
    """

    rows: Mapping[str, np.ndarray]
    p: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """JSON that may stand inside an HTML element, with how many pairs it holds and how many there are."""

    text: str
    held: int
    total: int


def cells(
    records: Records, *, standings: Sequence[tuple[str, int]], kinds: Sequence[str], strata: Sequence[str]
) -> Cells:
    """The judged pairs of each standing against each kind of theft and each stratum of innocents.

    Args:
        records: the rows.
        standings: entry and budget of each.
        kinds: of theft.
        strata: of innocents.

    Returns:
        Cells named "standing/column" by their numbers, the strata after the kinds; those without rows are left out, and
        so are thefts that failed and models that are no innocents under the claim of the entry.
    """
    p, theft = p_values(records), records["truth"] == "derived"
    judged = (records["role"] == "evaluation") & np.where(theft, records["accepted"], innocent(records))
    rows = np.flatnonzero(judged)
    places = {standing: i for i, standing in enumerate(standings)}
    columns = {(i < len(kinds), kind): i for i, kind in enumerate((*kinds, *strata))}
    lines = zip(records["entry"][rows].tolist(), records["budget"][rows].tolist(), strict=True)
    line = np.array([places.get(standing, -1) for standing in lines], np.int64)
    names = zip(theft[rows].tolist(), records["kind"][rows].tolist(), strict=True)
    column = np.array([columns.get(name, -1) for name in names], np.int64)
    shown = (line >= 0) & (column >= 0)
    rows, cell = rows[shown], (line * len(columns) + column)[shown]
    order = np.lexsort((rows, np.nan_to_num(p[rows], nan=2.0), cell))
    rows, cell = rows[order], cell[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    named = [f"{number // len(columns)}/{number % len(columns)}" for number in cell[starts].tolist()]
    return Cells(rows=dict(zip(named, np.split(rows, starts[1:]), strict=True)) if named else {}, p=p)


def pack(records: Records, chosen: Cells, *, room: int) -> Packed:
    """All pairs, or as many of each cell as there is room for: evenly spaced in the order of p, as typical as all.

    Args:
        records: the rows.
        chosen: which of them.
        room: bytes that the text may take.

    Returns:
        Text of an object with the tables `victims`, `suspects`, `reasons` and `p`, whether there are several `seeds`,
        and `cells`: for each its pairs `n`, and of those held the victims `v`, suspects `s`, scores `x` (null where
        there is none), p-values `p`, seeds `d`, and where there is no score, by its place, the reason `w`.
    """
    sizes = np.array([len(rows) for rows in chosen.rows.values()], np.int64)
    total, most = int(sizes.sum()), int(sizes.max(initial=0))
    while True:
        kept = {name: _spaced(rows, most) for name, rows in chosen.rows.items()}
        text = _text(records, chosen, kept)
        held = sum(len(rows) for rows in kept.values())
        size = len(text.encode())
        if size <= room or most == 0:
            return Packed(text=text, held=held, total=total)
        wanted = int(held * _SPARE * room / size)
        most = min(most - 1, _cap(sizes, wanted))


def _spaced(rows: np.ndarray, most: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _cap(sizes: np.ndarray, wanted: int) -> int:
    """The largest number a cell may keep so that all together keep no more than `wanted`."""
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= wanted else (low, middle - 1)
    return low


def _text(records: Records, chosen: Cells, kept: Mapping[str, np.ndarray]) -> str:
    rows = np.concatenate([*kept.values(), np.empty(0, np.int64)])
    tables: dict[str, list[str]] = {}
    codes: dict[str, np.ndarray] = {}
    for column in ("victim", "suspect", "reason"):
        known: dict[str, int] = {}
        codes[column] = np.array([known.setdefault(text, len(known)) for text in records[column][rows].tolist()])
        tables[column] = [plain(text) for text in known]
    values, places = np.unique(chosen.p[rows], return_inverse=True)
    seeds = len(set(records["seed"][rows].tolist())) > 1
    packed: dict[str, object] = {}
    start = 0
    for name, chosen_rows in kept.items():
        part = slice(start, start + len(chosen_rows))
        start = part.stop
        cell: dict[str, object] = {
            "n": len(chosen.rows[name]),
            "v": codes["victim"][part].tolist(),
            "s": codes["suspect"][part].tolist(),
            "x": [_number(score, 4) for score in records["score"][chosen_rows].tolist()],
            "p": places[part].tolist(),
        }
        said = {i: int(codes["reason"][start - len(chosen_rows) + i]) for i in range(len(chosen_rows))}
        why = {i: code for i, code in said.items() if tables["reason"][code]}
        packed[name] = (
            cell | ({"w": why} if why else {}) | ({"d": records["seed"][chosen_rows].tolist()} if seeds else {})
        )
    whole = {
        "victims": tables["victim"],
        "suspects": tables["suspect"],
        "reasons": tables["reason"],
        "p": [_number(value, 9) for value in values.tolist()],
        "seeds": seeds,
        "cells": packed,
    }
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False, allow_nan=False).translate(ESCAPES)


def _number(value: float, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None
