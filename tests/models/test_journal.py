"""The journal and the session over it: nothing asked twice, nothing lost, nothing believed that has changed."""

import multiprocessing
import sqlite3
import threading
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from locard.errors import ArtefactError, BudgetError, RemoteModelError
from locard.models import Session, ViewParameters
from locard.models.base import Model
from locard.models.journal import Journal, keys_of
from locard.records import Access, Domain

LABEL = {"identity": "m", "access": "LABELS", "view": {"top_k": None}}
TABLE = Domain(kind="tabular", shape=(3,))


class Remote(Model):
    """An endpoint without a network: counts what it is asked, and yields its chunks in reverse."""

    remote = True

    def __init__(self, compute, *, native=Access.LABELS, domain=TABLE, batch_size=2, identity="remote"):
        self.compute, self.native, self.domain, self.batch_size = compute, native, domain, batch_size
        self.grants, self.classes, self.source, self.digest_ = native.implied, None, "an endpoint", identity
        self.asked = []
        self.fail_after: int | None = None

    @property
    def digest(self):
        return self.digest_

    def _forward(self, x):
        self.asked += keys_of(x)
        return self.compute(x)

    def stream(self, x):
        for done, (part, answers) in enumerate(reversed(list(super().stream(x)))):
            if done == self.fail_after:
                raise RemoteModelError("down")
            yield part, answers


def total(x):
    return np.floor(np.abs(x).sum(axis=1) * 10).astype(np.int64)


def scores(x):
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)


# Keys


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_keys_tell_inputs_apart_and_only_them(data):
    dtype = data.draw(st.sampled_from([np.float32, np.int64, np.uint8]))
    x = data.draw(arrays(dtype, array_shapes(min_dims=1, max_dims=3, max_side=4)))
    keys = keys_of(x)
    assert len(keys) == len(x)
    assert keys_of(x[:0]) == []
    for a in range(len(x)):
        for b in range(len(x)):
            assert (keys[a] == keys[b]) == (x[a].tobytes() == x[b].tobytes())
    assert keys_of(np.asfortranarray(x)) == keys


def test_keys_depend_on_dtype_and_shape():
    x = np.zeros((1, 4), np.float32)
    others = [x, x.astype(np.int32), x.reshape(1, 2, 2), x.astype(np.float64)[:, :2], np.array(["\0" * 16], object)]
    assert len({keys_of(other)[0] for other in others}) == len(others)


def test_keys_of_text_do_not_depend_on_how_it_is_stored():
    assert keys_of(np.array(["a", "bc"])) == keys_of(np.array(["a", "bc"], dtype=object))


# The file


@pytest.mark.parametrize(
    "answers",
    [
        np.arange(4, dtype=np.int64) * 2**60,
        np.array([[1 / 3, -0.0], [5e-39, 1], [2, 3], [4, 5]], np.float32),
        np.arange(4, dtype=np.float64).reshape(4, 1),
    ],
)
def test_answers_come_back_to_the_bit(path, x, answers):
    keys = keys_of(x[:4])
    Journal(path, **LABEL).put(keys, x[:4], answers)
    again = Journal(path, **LABEL)
    assert len(again) == 4
    for key, answer in zip(keys, answers, strict=True):
        known = again.gather([key])[0]
        assert known.tobytes() == answer.tobytes()
        assert (known.dtype, known.shape) == (answer.dtype, answer.shape)
    assert again.missing([b"no such key", keys[0], b"no such key"]) == {b"no such key": 0}


@pytest.mark.parametrize("where", ["file", "memory"])
def test_what_is_kept_is_a_copy(path, x, where):
    """A model may answer in the same memory each time, and a caller may reuse its own."""
    answers, inputs = np.zeros((3, 2), np.float32), x[:3].copy()
    journal = Journal(path if where == "file" else None, **LABEL)
    keys = keys_of(inputs)
    journal.put(keys, inputs, answers)
    answers[:] = 7
    inputs[:] = 7
    assert all((journal.gather([key])[0] == 0).all() for key in keys)
    if where == "file":
        kept = Journal(path, **LABEL).sentinels(x)
        assert kept is not None
        assert sorted(map(bytes, kept[0])) == sorted(row.tobytes() for row in x[:3])


@pytest.mark.parametrize(
    ("domain", "inputs"),
    [
        (Domain(kind="image", shape=(1, 2, 2), dtype="uint8"), np.arange(16, dtype=np.uint8).reshape(4, 1, 2, 2)),
        (Domain(kind="tabular", shape=(2,), dtype="float64"), np.arange(8.0).reshape(4, 2)),
        (Domain(kind="tokens", shape=(2,), dtype="int64"), np.arange(8).reshape(4, 2)),
        (Domain(kind="text", shape=(), dtype="str"), np.array(["", "naïve", "模型", "d"], dtype=object)),
    ],
    ids=["uint8", "float64", "tokens", "text"],
)
def test_a_run_is_resumed_in_every_domain(path, domain, inputs):
    def answer(x):
        return np.array([len(str(item)) for item in x])

    first = Session(Remote(answer, domain=domain), Access.LABELS, journal=path)
    before = first.answer(inputs[:3], Access.LABELS)
    model = Remote(answer, domain=domain)
    second = Session(model, Access.LABELS, journal=path)
    assert sorted(model.asked) == sorted(keys_of(inputs[:3]))  # the three sentinels, as they were
    assert (second.answer(inputs, Access.LABELS)[:3] == before).all()
    assert (second.asked, second.from_journal) == (4, 3)


def test_sessions_do_not_mix(path, x):
    """By identity, access and view parameters."""
    keys = keys_of(x)
    Journal(path, **LABEL).put(keys, x, total(x))
    for other in ({"identity": "n"}, {"access": "LOGITS"}, {"view": {"top_k": 1}}):
        assert len(Journal(path, **{**LABEL, **other})) == 0
    assert len(Journal(path, **LABEL)) == len(x)


def test_the_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "new" / "folder" / "journal"
    Journal(path, **LABEL)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_closed_session_keeps_its_answers_and_its_reason(path, x):
    journal = Journal(path, **LABEL)
    journal.put(keys_of(x), x, total(x))
    journal.restart("it changed")
    assert len(journal) == 0
    assert journal.sentinels(x) is None
    assert len(Journal(path, **LABEL)) == 0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT closed FROM session ORDER BY id").fetchall() == [("it changed",), (None,)]
        assert db.execute("SELECT count(*) FROM answer").fetchone() == (9,)


def test_a_journal_in_memory_leaves_nothing(tmp_path, x):
    journal = Journal(None, **LABEL)
    journal.put(keys_of(x), x, total(x))
    assert len(journal) == 9
    journal.restart("")
    assert len(journal) == 0
    assert list(tmp_path.iterdir()) == []


def test_two_writers_lose_nothing(path):
    """Eight threads and two processes put into one session at the same time."""
    threads = [threading.Thread(target=_write, args=(path, start)) for start in range(0, 80, 10)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(path, start)) for start in (80, 90)]
    for worker in (*processes, *threads):
        worker.start()
    for worker in (*processes, *threads):
        worker.join()
    assert [process.exitcode for process in processes] == [0, 0]
    journal = Journal(path, **LABEL)
    x = np.arange(300, dtype=np.float32).reshape(100, 3)
    assert journal.gather(keys_of(x)).tolist() == list(range(100))
    kept = journal.sentinels(x)
    assert kept is not None
    assert len(kept[0]) == 3
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM session").fetchone() == (1,)


def _write(path, start):
    x = np.arange(300, dtype=np.float32).reshape(100, 3)
    journal = Journal(path, **LABEL)
    for row in range(start, start + 10):
        journal.put(keys_of(x[row : row + 1]), x[row : row + 1], np.array([row]))


# Files that are no journals


CANNOT = r"the journal '.*' cannot be used: .*; name another with --journal"


def test_a_file_that_is_no_journal(path):
    path.write_bytes(b"my thesis" * 1000)
    with pytest.raises(ArtefactError, match=CANNOT):
        Journal(path, **LABEL)
    assert path.read_bytes() == b"my thesis" * 1000


def test_a_folder_and_a_folder_that_is_a_file(tmp_path, path):
    with pytest.raises(ArtefactError, match=CANNOT):
        Journal(tmp_path, **LABEL)
    path.write_text("")
    with pytest.raises(ArtefactError, match=CANNOT):
        Journal(path / "journal", **LABEL)


def test_somebody_elses_database(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE session (user TEXT)")
    with pytest.raises(ArtefactError, match=CANNOT):
        Journal(path, **LABEL)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE answer SET dtype = '|O'",
        "UPDATE answer SET dtype = 'nonsense('",
        "UPDATE answer SET shape = '[2]'",
        "UPDATE answer SET shape = '{'",
        "UPDATE answer SET value = x'00'",
        "UPDATE answer SET value = 5",
        "UPDATE answer SET shape = '[1]' WHERE key = (SELECT min(key) FROM answer)",
        "DROP TABLE sentinel; CREATE TABLE sentinel (x)",
    ],
)
def test_damaged_answers(path, x, damage):
    Journal(path, **LABEL).put(keys_of(x), x, total(x))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(damage)
    with pytest.raises(ArtefactError, match=CANNOT):
        Journal(path, **LABEL)


def test_a_damaged_sentinel(path, x):
    Journal(path, **LABEL).put(keys_of(x), x, total(x))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE sentinel SET input = x'00'")
    with pytest.raises(ArtefactError, match=CANNOT):
        Journal(path, **LABEL).sentinels(x)


def test_a_file_cut_short(path):
    x = np.arange(6000, dtype=np.float32).reshape(2000, 3)
    Journal(path, **LABEL).put(keys_of(x), x, total(x))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError, match=CANNOT):
        Journal(path, **LABEL)


def test_a_disk_that_is_full(path, x, monkeypatch):
    journal = Journal(path, **LABEL)
    real = sqlite3.connect

    def small(*args, **kwargs):
        db = real(*args, **kwargs)
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    many = np.zeros((5000, 3), np.float32) + np.arange(5000, dtype=np.float32)[:, None]
    with pytest.raises(ArtefactError, match=r"cannot be used: database or disk is full; name another"):
        journal.put(keys_of(many), many, total(many))
    monkeypatch.undo()
    assert len(Journal(path, **LABEL)) == 0  # all or nothing
    Journal(path, **LABEL).put(keys_of(x), x, total(x))
    assert len(Journal(path, **LABEL)) == 9


# Sessions over it


def test_nothing_is_asked_twice_but_the_sentinels(path, x):
    first = Remote(total)
    Session(first, Access.LABELS, journal=path).answer(x[:6], Access.LABELS)
    second = Remote(total)
    session = Session(second, Access.LABELS, journal=path)
    assert len(second.asked) == 3
    assert set(second.asked) <= set(first.asked)
    assert (session.answer(x, Access.LABELS) == total(x)).all()
    assert (session.asked, session.from_journal) == (6, 6)
    assert len(second.asked) == 6


def test_a_model_on_this_machine_is_not_asked_for_sentinels(path, x):
    class Local(Remote):
        remote = False

    Session(Local(total), Access.LABELS, journal=path).answer(x, Access.LABELS)
    model = Local(total)
    session = Session(model, Access.LABELS, journal=path)
    session.answer(x, Access.LABELS)
    assert (session.asked, session.from_journal, model.asked) == (0, 9, [])


def test_what_came_before_a_failure_is_kept(path, x):
    model = Remote(total)
    model.fail_after = 2
    session = Session(model, Access.LABELS, journal=path)
    with pytest.raises(RemoteModelError, match="down"):
        session.answer(x[:8], Access.LABELS)
    assert session.asked == len(session.journal) == len(Journal(path, **session_label(session))) == 4


def session_label(session):
    view = {name: getattr(session.parameters, name) for name in ("top_k", "decimals", "noise", "seed")}
    return {"identity": session.model.digest, "access": "LABELS", "view": view}


def test_a_spent_budget_loses_nothing(path, x):
    session = Session(Remote(total), Access.LABELS, journal=path, budget=5)
    with pytest.raises(BudgetError, match=r"the budget of 5 queries to an endpoint is spent; 4 more are needed"):
        session.answer(x, Access.LABELS)
    assert session.asked == len(session.journal) == 5
    more = Session(Remote(total), Access.LABELS, journal=path, budget=7)
    assert (more.answer(x, Access.LABELS) == total(x)).all()
    assert more.asked == 7


def test_a_budget_too_small_for_the_sentinels(path, x):
    Session(Remote(total), Access.LABELS, journal=path).answer(x, Access.LABELS)
    model = Remote(total)
    with pytest.raises(BudgetError, match=r"0 were asked and 3 more are needed; raise --budget"):
        Session(model, Access.LABELS, journal=path, budget=2)
    assert model.asked == []


@pytest.mark.parametrize("batch_size", [1, 2, 256])
@pytest.mark.parametrize("native", [Access.LABELS, Access.PROBABILITIES])
def test_the_same_endpoint_has_not_changed(path, x, batch_size, native):
    """Also when its answers come in another order, one by one, or with the last digits blurred."""
    compute = total if native is Access.LABELS else scores
    Session(Remote(compute, native=native), native, journal=path).answer(x, native)

    def blurred(x):
        return compute(x) if native is Access.LABELS else compute(x) * (1 + 1e-5)

    again = Session(Remote(blurred, native=native, batch_size=batch_size), native, journal=path)
    assert (again.answer(x, native) == compute(x)).all()
    assert again.asked == 3


@pytest.mark.parametrize(
    ("native", "before", "after", "changed"),
    [
        (Access.LABELS, total, lambda x: total(x) + 1, 3),
        (Access.LABELS, lambda x: total(x) + 5000, lambda x: total(x) + 5001, 3),  # near, but another class
        (Access.PROBABILITIES, scores, lambda x: scores(2 * x), 3),
        (Access.PROBABILITIES, scores, lambda x: scores(np.pad(x, ((0, 0), (0, 1)))), 3),
    ],
    ids=["labels", "large labels", "probabilities", "a class more"],
)
def test_an_endpoint_that_changed(path, x, native, before, after, changed):
    Session(Remote(before, native=native), native, journal=path).answer(x, native)
    model = Remote(after, native=native)
    match = rf"has changed: {changed} of 3 sentinels .* Its 9 answers stay in the journal '.*', closed; run again"
    with pytest.raises(RemoteModelError, match=match):
        Session(model, native, journal=path)
    fresh = Session(model, native, journal=path)
    assert fresh.asked == 0
    assert np.allclose(fresh.answer(x, native), after(x), atol=1e-6)
    assert (fresh.asked, fresh.from_journal) == (9, 0)


def test_an_endpoint_that_is_down_when_resumed_loses_nothing(path, x):
    Session(Remote(total), Access.LABELS, journal=path).answer(x, Access.LABELS)
    model = Remote(total)
    model.fail_after = 0
    with pytest.raises(RemoteModelError, match="down"):
        Session(model, Access.LABELS, journal=path)
    assert len(Session(Remote(total), Access.LABELS, journal=path).journal) == 9


def test_views_of_other_parameters_are_other_sessions(path, x):
    def ask(**parameters):
        view = ViewParameters(**parameters)
        session = Session(
            Remote(scores, native=Access.PROBABILITIES), Access.PROBABILITIES, journal=path, parameters=view
        )
        return session.answer(x, Access.PROBABILITIES), session.asked

    whole, asked = ask()
    assert asked == 9
    rounded, asked = ask(decimals=1)
    assert asked == 9
    assert np.array_equal(rounded, np.round(whole, 1))
    assert np.array_equal(ask(decimals=1)[0], rounded)


@settings(max_examples=25, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=8), min_size=1, max_size=6),
    resumed=st.lists(st.booleans(), min_size=6, max_size=6),
    batch_size=st.integers(1, 5),
)
def test_any_run_of_batches_and_restarts(tmp_path_factory, batches, resumed, batch_size):
    """Each distinct input is asked once, and up to three more for every restart; the answers are the model's."""
    path = tmp_path_factory.mktemp("j") / "journal"
    pool = np.arange(36, dtype=np.float32).reshape(12, 3)
    model = Remote(total, batch_size=batch_size)
    session, known, sentinels = Session(model, Access.LABELS, journal=path), set(), 0
    for rows, again in zip(batches, resumed, strict=False):
        if again:
            session = Session(model, Access.LABELS, journal=path)
            sentinels += min(3, len(known))
        assert (session.answer(pool[rows], Access.LABELS) == total(pool[rows])).all()
        known |= set(rows)
        assert len(session.journal) == len(known)
        assert len(model.asked) == len(known) + sentinels
    assert set(model.asked) == set(keys_of(pool[sorted(known)]))
