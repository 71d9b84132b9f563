"""The journal: every answer is kept the moment it arrives, so that nothing paid for is asked twice.

In memory for one run; with a path also in an SQLite file (mode 0600), which survives a killed process. A `Session` is
one model identity at one access level under one set of view parameters. Answers to inputs are found by a keyed digest.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from locard.errors import ArtefactError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    id INTEGER PRIMARY KEY, identity TEXT NOT NULL, access TEXT NOT NULL, view TEXT NOT NULL, closed TEXT);
CREATE TABLE IF NOT EXISTS answer (
    session INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL,
    PRIMARY KEY (session, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sentinel (
    session INTEGER NOT NULL, key BLOB NOT NULL, input BLOB NOT NULL, PRIMARY KEY (session, key)) WITHOUT ROWID;
"""
SENTINELS = 3
_DTYPES = ("<f4", "<f8", "<i8")


def keys_of(x: np.ndarray) -> list[bytes]:
    """A 20-byte key of each input: four bytes for its dtype and shape, sixteen of a digest of its bytes."""
    if x.dtype.kind in "OU":
        return [b"text" + sha256(str(item).encode()).digest()[:16] for item in x]
    kind = sha256(f"{x.dtype.str}{x.shape[1:]}".encode()).digest()[:4]
    # Slices of one flat view: a view for each row would take longer to make than its digest.
    flat, size = np.ascontiguousarray(x).reshape(-1).view(np.uint8).data, x[:1].nbytes
    return [kind + sha256(flat[start : start + size]).digest()[:16] for start in range(0, x.nbytes, size or 1)]


class Journal:
    """The answers of one session.

    Args:
        path: the SQLite file, made if missing; None keeps answers in memory only.
        identity: the model's digest.
        access: name of the rung that the answers are at.
        view: parameters of the view.

    Raises:
        ArtefactError: the file is no journal, or cannot be read or written.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, *, identity: str, access: str, view: dict[str, Any]
    ) -> None:
        self.path = None if path is None else Path(path)
        self._label = (identity, access, json.dumps(view, sort_keys=True))
        self._answers: dict[Hashable, np.ndarray] = {}
        self._sentinels: dict[Hashable, bytes] = {}
        self._session = 0
        if self.path is not None:
            self._resume()

    def __len__(self) -> int:
        """How many inputs have an answer."""
        return len(self._answers)

    def keys(self, x: np.ndarray) -> Sequence[Hashable]:
        """A key of each input; within one process, which is all that memory lasts, its own quick hash serves.

        Two of n different inputs share a quick key with probability below n**2 / 2**65.
        """
        if self.path is not None or x.dtype.kind in "OU":
            return keys_of(x)
        return [hash(row.tobytes()) for row in x]

    def missing(self, keys: Sequence[Hashable]) -> dict[Hashable, int]:
        """The keys without an answer, each with its first place."""
        found: dict[Hashable, int] = {}
        for place, key in enumerate(keys):
            if key not in found and key not in self._answers:
                found[key] = place
        return found

    def gather(self, keys: Sequence[Hashable]) -> np.ndarray:
        """The answers to inputs that all have one, (n, C) or (n,)."""
        answers = [self._answers[key] for key in keys]
        # Rows joined end to end take a third of the time that stacking them takes.
        return np.concatenate(answers).reshape(len(keys), -1) if answers[0].ndim else np.array(answers)

    def put(self, keys: Sequence[Hashable], inputs: np.ndarray, answers: np.ndarray) -> None:
        """Keep answers, on disk too before this returns.

        Raises:
            ArtefactError: the file cannot be written.
        """
        # A copy: a model may answer every batch in the same memory.
        answers = np.array(answers)
        self._answers.update(zip(keys, answers, strict=True))
        if self.path is None:
            return
        sentinels = []
        for key, item in zip(keys, inputs, strict=True):
            if len(self._sentinels) >= SENTINELS:
                break
            self._sentinels[key] = _encode(item)
            sentinels.append((self._session, key, self._sentinels[key]))
        rows = [(self._session, k, a.tobytes(), a.dtype.str, json.dumps(a.shape))
                for k, a in zip(keys, map(np.asarray, answers), strict=True)]  # fmt: skip
        with self._file() as db:
            db.executemany("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?)", rows)
            db.executemany("INSERT OR REPLACE INTO sentinel VALUES (?, ?, ?)", sentinels)

    def sentinels(self, like: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The first inputs of the resumed session and their answers, to be asked again; None when nothing was resumed.

        Args:
            like: any batch of the domain, for dtype and shape.
        """
        # Two processes that began together may each have left some.
        known = [key for key in self._sentinels if key in self._answers][:SENTINELS]
        if not known:
            return None
        try:
            inputs = [_decode(self._sentinels[key], like) for key in known]
        except (ValueError, TypeError) as error:
            raise self._unreadable(error) from error
        stacked = np.array(inputs, dtype=object) if like.dtype.kind in "OU" else np.stack(inputs)
        return stacked, np.stack([self._answers[key] for key in known])

    def restart(self, why: str) -> None:
        """Close this session with a reason and begin an empty one; the old answers stay in the file."""
        self._answers.clear()
        self._sentinels.clear()
        if self.path is not None:
            with self._file() as db:
                db.execute("UPDATE session SET closed = ? WHERE id = ?", (why, self._session))
            self._resume()

    def _resume(self) -> None:
        with self._file() as db:
            # Taken for writing at once: two processes that start together must share one session, not make two.
            db.execute("BEGIN IMMEDIATE")
            query = "SELECT id FROM session WHERE identity = ? AND access = ? AND view = ? AND closed IS NULL"
            row = db.execute(query, self._label).fetchone()
            if row is None:
                insert = "INSERT INTO session (identity, access, view) VALUES (?, ?, ?)"
                self._session = int(db.execute(insert, self._label).lastrowid or 0)
                return
            self._session = row[0]
            answers = db.execute("SELECT key, value, dtype, shape FROM answer WHERE session = ?", row).fetchall()
            self._sentinels = dict(db.execute("SELECT key, input FROM sentinel WHERE session = ?", row))
        try:
            for key, value, dtype, shape in answers:
                if dtype not in _DTYPES or (dtype, shape) != answers[0][2:]:
                    raise ValueError(f"an answer of {dtype} {shape} among others of {answers[0][2]} {answers[0][3]}")
                self._answers[key] = np.frombuffer(value, dtype).reshape(json.loads(shape))
        except (ValueError, TypeError) as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        """The file, open for one transaction, and made where there is none."""
        path = self.path or Path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(sqlite3.connect(path, timeout=30)) as db:
                db.executescript(_SCHEMA)
                with db:
                    yield db
        except (OSError, sqlite3.Error) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ArtefactError:
        return ArtefactError(f"the journal {str(self.path)!r} cannot be used: {error}; name another with --journal")


def _encode(item: Any) -> bytes:
    return item.encode() if isinstance(item, str) else np.ascontiguousarray(item).tobytes()


def _decode(item: bytes, like: np.ndarray) -> Any:
    if like.dtype.kind in "OU":
        return item.decode()
    return np.frombuffer(item, like.dtype).reshape(like.shape[1:])
