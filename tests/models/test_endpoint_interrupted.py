"""Runs against an endpoint that are killed, interrupted or refused: the real command line, in a process of its own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.models.fake_server import FakeServer, Output

import locard
from locard.models import _http
from locard.testing import toy_data, toy_model

QUERIES, BATCH, CONCURRENCY = 200, 32, 4
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory):
    path = tmp_path_factory.mktemp("fingerprint") / "fp.locard"
    locard.extract(toy_model(0), data=toy_data(), queries=QUERIES).save(path)
    return path


@pytest.fixture
def server():
    """Serves the victim's own labels."""
    victim = toy_model(0)
    output = Output(lambda x: victim._forward(x).argmax(axis=1), "INT64", (-1,))
    with FakeServer(inputs={"x": ("FP32", (-1, *SHAPE))}, outputs={"label": output}) as server:
        yield server


@contextmanager
def heeding_ctrl_c():
    """What was started in the background ignores Ctrl-C, and so do its children, unless they are told otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Run:
    """`locard verify` of the served model, under way."""

    def __init__(self, fingerprint, server, folder, *more):
        self.journal = folder / "state" / "locard" / "journal.sqlite"
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(locard.__file__).parents[1]),
            "XDG_STATE_HOME": str(folder / "state"),  # the command line's own choice of a journal is tested too
            "NO_PROXY": "*",
            "LOCARD_TOKEN": "",
        }
        command = [sys.executable, "-m", "locard", "verify", str(fingerprint), server.url, "--json", *more]
        with heeding_ctrl_c():
            self.process = subprocess.Popen(
                command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )

    def answered(self):
        if not self.journal.exists():
            return 0
        with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as db:
            try:
                return db.execute("SELECT count(*) FROM answer").fetchone()[0]
            except sqlite3.OperationalError:  # not made yet, or being written
                return 0

    def wait_for(self, condition):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def end(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def held_after(chunks):
    """Answers so many requests and lets the others wait, unanswered and so unpaid."""
    return lambda call: call.number > chunks and call.hang()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_half_way_and_run_again_no_query_is_asked_twice(fingerprint, server, tmp_path, blow):
    server.trouble = held_after(3)
    run = Run(fingerprint, server, tmp_path)
    run.wait_for(lambda: server.inferences == 3 + CONCURRENCY and run.answered() == 3 * BATCH)
    run.process.send_signal(blow)
    start = time.monotonic()
    code, out, err = run.end()
    assert time.monotonic() - start < 3  # a single try may take 30 s
    assert out == ""
    if blow is signal.SIGINT:
        assert code == 130
        assert "Traceback" not in err
    assert sum(server.answered.values()) == 3 * BATCH

    server.trouble = None
    code, out, err = Run(fingerprint, server, tmp_path).end()
    assert (code, err) == (0, "")
    verdict = json.loads(out)
    assert verdict["queries"] == {"asked": QUERIES - 3 * BATCH + 3, "from_journal": 3 * BATCH}
    assert verdict["score"] == 1.0
    assert len(server.answered) == QUERIES
    assert sorted(server.answered.values()) == [1] * (QUERIES - 3) + [2] * 3  # the sentinels


def test_killed_at_any_moment_only_what_was_on_the_wire_is_asked_twice(fingerprint, server, tmp_path):
    server.trouble = lambda call: call.answer(pause=0.05)
    for chunks in (1, 3, 5):
        run = Run(fingerprint, server, tmp_path)
        run.wait_for(lambda most=chunks * BATCH, run=run: run.answered() >= most)
        run.process.kill()
        run.end()
    code, out, _ = Run(fingerprint, server, tmp_path).end()
    assert code == 0
    assert json.loads(out)["score"] == 1.0
    assert len(server.answered) == QUERIES
    assert sum(server.answered.values()) <= QUERIES + 3 * (CONCURRENCY * BATCH + 3)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (
            lambda call: call.reply(500, {"error": "out of memory"}),
            "answers 500 'out of memory' (4 tries); what",
        ),
        (lambda call: call.raw(b"\0" * 99), "does not keep to HTTP"),
        (lambda call: call.reply(200, b"garbage"), "answers no JSON: b'garbage'"),
        (lambda call: call.reply(429, Retry_After="3600"), "asks to wait 3600 s"),
    ],
)
def test_one_line_and_exit_code_2(fingerprint, server, tmp_path, trouble, said):
    server.trouble = lambda call: call.number > 1 and trouble(call)
    run = Run(fingerprint, server, tmp_path)
    code, out, err = run.end()
    assert (code, out) == (2, "")
    assert err.startswith(f"locard: {server.url} ")
    assert said in err
    assert err.count("\n") == 1
    assert run.answered() == BATCH


def test_a_changed_mind_is_one_line_and_then_a_fresh_start(fingerprint, server, tmp_path):
    assert Run(fingerprint, server, tmp_path).end()[0] == 0
    other = toy_model(1)
    server.outputs["label"].compute = lambda x: (other._forward(x).argmax(axis=1) + 1) % 5
    code, out, err = Run(fingerprint, server, tmp_path).end()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "has changed: " in err
    code, out, _ = Run(fingerprint, server, tmp_path).end()
    assert code == 0
    assert json.loads(out)["queries"] == {"asked": QUERIES, "from_journal": 0}


def test_a_spent_budget_and_then_more(fingerprint, server, tmp_path):
    code, _, err = Run(fingerprint, server, tmp_path, "--budget", "100").end()
    assert code == 2
    assert "the budget of 100 queries" in err
    assert sum(server.answered.values()) == 100
    code, out, _ = Run(fingerprint, server, tmp_path, "--budget", "103").end()
    assert code == 0
    assert json.loads(out)["queries"]["from_journal"] == 100
    assert sorted(server.answered.values()) == [1] * (QUERIES - 3) + [2] * 3


def test_the_journal_is_the_owners_alone(fingerprint, server, tmp_path):
    run = Run(fingerprint, server, tmp_path)
    assert run.end()[0] == 0
    assert run.journal.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_ends_an_exchange_that_will_not_be_cancelled(server, monkeypatch):
    monkeypatch.setattr(_http, "_cancel", lambda loop, task: None)
    server.trouble = held_after(0)
    suspect = locard.load(server.url)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with heeding_ctrl_c(), pytest.raises(KeyboardInterrupt):
        list(suspect.stream(toy_data().inputs[:BATCH]))
    assert time.monotonic() - start < 10
