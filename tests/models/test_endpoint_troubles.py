"""Endpoints that fail: one clear line, in bounded time, and nothing lost that was answered."""

import json
import math
import ssl
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from tests.models.fake_server import CLASSES, SHAPE, FakeServer, Output, labels, logits, probabilities

from locard.errors import ArtefactError, LocardError, ParameterError, RemoteModelError
from locard.models import Session, load
from locard.models.journal import Journal
from locard.records import Access, Domain

IMAGES = Domain(kind="image", shape=SHAPE, bounds=(0.0, 1.0))
QUICK = {"tries": 2, "backoff": 0.01, "batch_size": 4}
BOUND = 10.0  # seconds: far more than any of these takes, far less than the 30 s of one try
SECRET = "s3cret-token-0123456789"  # noqa: S105 - what must be shown nowhere


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("LOCARD_TOKEN", SECRET)


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def x():
    return np.random.default_rng(3).random((24, *SHAPE), dtype=np.float32)


@contextmanager
def refused(kind, match, *, bound=BOUND):
    start = time.monotonic()
    with pytest.raises(kind, match=match) as caught:
        yield
    text = str(caught.value)
    assert time.monotonic() - start < bound
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 600
    assert SECRET not in text


def outputs(**change):
    """An answer to four inputs that is as it should be but for the change."""
    entry = {"name": "scores", "datatype": "FP32", "shape": [4, CLASSES], "data": [0.2] * (4 * CLASSES), **change}
    return {"model_name": "net", "outputs": [entry]}


def uniform(classes):
    return lambda x: np.full((len(x), classes), 1 / classes)


FAILURES = {
    "never answers": (lambda call: call.hang(), r"does not answer within 0.6 s \(2 tries\); what was answered is kept"),
    "500 always": (
        lambda call: call.reply(500, {"error": "out of\nmemory"}),
        r"answers 500 'out of\\nmemory' \(2 tries\)",
    ),
    "503 without a word": (lambda call: call.reply(503), r"answers 503 \(2 tries\)"),
    "429 always": (lambda call: call.reply(429, b"slow down"), r"answers 429 'slow down' \(2 tries\)"),
    "429, come back tomorrow": (
        lambda call: call.reply(429, Retry_After="86400"),
        r"answers 429 and asks to wait 86400 s \(1 try\)",
    ),
    "400": (
        lambda call: call.reply(400, {"error": "no such input"}),
        "refuses the request: it answers 400 'no such input'",
    ),
    "401": (
        lambda call: call.reply(401),
        "refuses access: it answers 401; the environment variable LOCARD_TOKEN.*is not acc",
    ),
    "403": (lambda call: call.reply(403, {"error": f"bad {SECRET}"}), r"it answers 403 'bad \*\*\*'; the environment"),
    "404": (lambda call: call.reply(404), "is not there: it answers 404; check the model's name and version"),
    "413": (lambda call: call.reply(413), "it answers 413; expected 200; try a smaller batch_size"),
    "204": (lambda call: call.reply(204), "it answers 204; expected 200"),
    "redirect elsewhere": (
        lambda call: call.reply(307, Location=f"http://u:p@evil.example/{SECRET}/x?token=1"),
        r"redirects to 'http://evil.example/\*\*\*/x' \(307\), which is not followed",
    ),
    "redirect to itself": (
        lambda call: call.reply(302, Location="/v2/models/net/infer"),
        "redirects to '/v2/models/net/inf",
    ),
    "redirect to no address": (
        lambda call: call.reply(301, Location="http://[\x7f"),
        "does not keep to HTTP: .*location",
    ),
    "not http": (lambda call: call.raw(b"\x16\x03\x01\x00\xff" * 50), r"does not keep to HTTP: .*\(2 tries\)"),
    "hangs up": (lambda call: call.raw(b""), "does not keep to HTTP: 'Server disconnected"),
    "hangs up half-way": (
        lambda call: call.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"outputs"'),
        "does not keep to HTTP: .*without sending complete message body",
    ),
    "drips its head": (lambda call: call.drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "does not answer within 0.6 s"),
    "drips its body": (
        lambda call: call.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b" "),
        "does not answer within 0.6 s",
    ),
    "endless head": (
        lambda call: call.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**21),
        "does not keep to HTTP|breaks the conn",
    ),
    "garbage": (
        lambda call: call.reply(200, bytes(range(128, 256))),
        "answers no JSON: b'.*speaks the Open Inference Prot",
    ),
    "a web page": (lambda call: call.reply(200, b"<html>Sign in</html>"), "answers no JSON: b'<html>Sign in</html>'"),
    "its caller's token": (
        lambda call: call.reply(200, SECRET.encode()),
        "what the protocol does not allow, and repeats",
    ),
    "nothing": (lambda call: call.reply(200), "answers no JSON: b''"),
    "compressed": (
        lambda call: call.reply(200, b"\x1f\x8b", Content_Encoding="gzip"),
        "answers in the coding 'gzip'; expected it uncompressed",
    ),
    "says it is huge": (
        lambda call: call.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        "answers more than 67108864 bytes",
    ),
    "deep JSON": (lambda call: call.reply(200, b"[" * 200_000), "answers no JSON"),
    "a list": (lambda call: call.reply(200, [1, 2]), "answers a JSON list; expected an object"),
    "an error with 200": (lambda call: call.reply(200, {"error": "busy"}), "answers without outputs: error 'busy'"),
    "other JSON": (lambda call: call.reply(200, {"predictions": []}), r"answers without outputs: \['predictions'\]"),
    "outputs of words": (lambda call: call.reply(200, {"outputs": ["a"]}), "answers without outputs"),
    "no output": (
        lambda call: call.reply(200, {"outputs": []}),
        r"answers the outputs \[\]; expected 'scores' among them",
    ),
    "another output": (
        lambda call: call.reply(200, outputs(name="s\x1b[31m")),
        r"the outputs \['s\\x1b\[31m'\]; expected",
    ),
    "no datatype": (
        lambda call: call.reply(200, outputs(datatype=None)),
        "a tensor of datatype None; expected numbers",
    ),
    "words": (
        lambda call: call.reply(200, outputs(datatype="BYTES", data=["a"] * 20)),
        "of datatype 'BYTES'; expected num",
    ),
    "no shape": (lambda call: call.reply(200, outputs(shape=None)), r"of shape None to 4 inputs; expected \[4, ...\]"),
    "a shape of words": (lambda call: call.reply(200, outputs(shape=["4", 5])), r"of shape \['4', 5\] to 4 inputs"),
    "a negative shape": (lambda call: call.reply(200, outputs(shape=[4, -5])), r"of shape \[4, -5\] to 4 inputs"),
    "fewer rows": (
        lambda call: call.reply(200, outputs(shape=[3, 5], data=[0.2] * 15)),
        r"of shape \[3, 5\] to 4 inputs",
    ),
    "more rows": (
        lambda call: call.reply(200, outputs(shape=[5, 5], data=[0.2] * 25)),
        r"of shape \[5, 5\] to 4 inputs",
    ),
    "a flat answer": (
        lambda call: call.reply(200, outputs(shape=[4], data=[1.0] * 4)),
        r"must answer numbers of shape \(4, ",
    ),
    "too little data": (
        lambda call: call.reply(200, outputs(data=[0.2] * 19)),
        r"answers 19 numbers in a .*\[4, 5\]; expected 20",
    ),
    "too much data": (lambda call: call.reply(200, outputs(data=[0.2] * 21)), "answers 21 numbers"),
    "no data": (lambda call: call.reply(200, outputs(data=None)), "answers FP32 data None; expected a list of numbers"),
    "empty data": (lambda call: call.reply(200, outputs(data=[])), "answers 0 numbers"),
    "a number for data": (lambda call: call.reply(200, outputs(data=0.2)), "answers FP32 data 0.2; expected a list"),
    "numbers as strings": (
        lambda call: call.reply(200, outputs(data=["0.2"] * 20)),
        r"data \['0.2', .*expected a list of num",
    ),
    "true and false": (lambda call: call.reply(200, outputs(data=[True] * 20)), "expected a list of numbers"),
    "nulls": (
        lambda call: call.reply(200, outputs(data=[None] * 20)),
        r"data \[None, None.*expected a list of numbers",
    ),
    "ragged data": (lambda call: call.reply(200, outputs(data=[[0.2], [0.2] * 19])), "expected a list of numbers"),
    "objects": (lambda call: call.reply(200, outputs(data=[{}] * 20)), "expected a list of numbers"),
    "NaN": (lambda call: call.reply(200, outputs(data=[math.nan] * 20)), "answers NaN, which is no number in JSON"),
    "infinity": (lambda call: call.reply(200, outputs(data=[-math.inf] * 20)), "answers -Infinity, which is no number"),
    "a number beyond float": (
        lambda call: call.reply(200, json.dumps(outputs()).replace("0.2", "1e999").encode()),
        "answers NaN or infinity to 4 of 4 inputs",
    ),
    "a number beyond float32": (lambda call: call.reply(200, outputs(data=[1e300] * 20)), "NaN or infinity to 4 of 4"),
    "an integer without end": (
        lambda call: call.reply(200, json.dumps(outputs()).replace("0.2", "9" * 9999).encode()),
        "answers no JSON",
    ),
    "fractions as integers": (
        lambda call: call.reply(200, outputs(datatype="INT64")),
        "expected a list of whole numbers",
    ),
    "integers that overflow": (
        lambda call: call.reply(200, outputs(datatype="INT8", data=[300] * 20)),
        "answers numbers from 300 to 300 as INT8",
    ),
    "logits for probabilities": (lambda call: call.answer(logits), "says it gives probabilities.*say outputs='logits'"),
    "more classes": (
        lambda call: call.answer(uniform(6)),
        "answers 6 numbers to an input; 5 were declared or came before",
    ),
    "no classes": (
        lambda call: call.reply(200, outputs(shape=[4, 0], data=[])),
        "answers 0 numbers to an input; 5 were",
    ),
    "bytes too short": (
        lambda call: call.reply(
            200, outputs(data=None, parameters={"binary_data_size": 80}), Inference_Header_Content_Length="900000"
        ),
        "and says that '900000' of them are JSON",
    ),
    "bytes that are not there": (
        lambda call: call.reply(200, outputs(parameters={"binary_data_size": 80})),
        "answers 0 of 80 bytes of FP32; the answer is cut off",
    ),
    "a length of words": (
        lambda call: call.reply(200, outputs(), Inference_Header_Content_Length="-1"),
        "says that '-1' of them are JSON",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_one_line_in_time_and_nothing_lost(server, x, tmp_path, name):
    """Two requests are answered, then trouble; afterwards the rest is asked, and nothing twice but the sentinels."""
    trouble, match = FAILURES[name]
    server.trouble = lambda call: call.number > 2 and trouble(call)
    # Short only where the trouble is silence, so that a busy machine makes no trouble of its own.
    model = load(server.url, like=IMAGES, timeout=0.6 if "within" in match else 30, **QUICK)
    session = Session(model, Access.PROBABILITIES, journal=tmp_path / "journal")
    with refused(RemoteModelError, match):
        session.answer(x, Access.PROBABILITIES)
    assert len(session.journal) == session.asked == 8
    assert len(kept(session)) == 8

    server.trouble = None
    server.answered.clear()
    again = Session(load(server.url, like=IMAGES, **QUICK), Access.PROBABILITIES, journal=tmp_path / "journal")
    assert np.array_equal(again.answer(x, Access.PROBABILITIES), probabilities(x))
    assert (again.asked, again.from_journal) == (3 + 16, 8)
    assert sum(server.answered.values()) == 19


def kept(session):
    view = {"top_k": None, "decimals": None, "noise": 0.0, "seed": 0}
    return Journal(session.journal.path, identity=session.model.digest, access="PROBABILITIES", view=view)


def test_a_huge_answer_is_not_read_to_its_end(server, x):
    sent = []

    def flood(call):
        call.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        part = b"100000\r\n" + b" " * 2**20 + b"\r\n"
        while len(sent) < 500:
            try:
                call.handler.wfile.write(part)
            except OSError:
                return True
            sent.append(1)
        return True

    server.trouble = flood
    model = load(server.url, like=IMAGES, max_bytes=2**23, concurrency=1, tries=1)
    with refused(RemoteModelError, "answers more than 8388608 bytes.*not read further"):
        next(model.stream(x))
    assert len(sent) < 60  # what the buffers between them hold


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_what_passes_is_tried_again(server, x, status):
    server.trouble = lambda call: call.number <= 2 and call.reply(status)
    model = load(server.url, like=IMAGES, tries=3, backoff=0.01)
    assert np.array_equal(next(model.stream(x))[1], probabilities(x))
    assert server.inferences == 3


def test_a_broken_and_a_slow_connection_are_tried_again(server, x):
    server.trouble = lambda call: (call.number == 1 and call.raw(b"")) or (call.number == 2 and call.hang())
    assert np.array_equal(next(load(server.url, like=IMAGES, timeout=0.6, backoff=0.01).stream(x))[1], probabilities(x))
    assert server.inferences == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 307])
def test_what_does_not_pass_is_not_tried_again(server, x, status):
    server.trouble = lambda call: call.reply(status, Location="/elsewhere")
    with refused(RemoteModelError, str(status)):
        next(load(server.url, like=IMAGES).stream(x))
    assert server.inferences == 1
    assert all(path == "/v2/models/net/infer" for method, path, _ in server.requests if method == "POST")


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server, x, form):
    times = []

    def busy(call):
        times.append(time.monotonic())
        # A date has whole seconds, so that up to one of them is lost.
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=1.9), usegmt=True)
        return call.number == 1 and call.reply(429, Retry_After="0.8" if form == "seconds" else date)

    server.trouble = busy
    next(load(server.url, like=IMAGES, backoff=0.001).stream(x))
    assert 0.7 < times[1] - times[0] < 5


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf", "Wed, 99 Foo", ""])
def test_a_retry_after_that_means_nothing(server, x, value):
    server.trouble = lambda call: call.number == 1 and call.reply(503, Retry_After=value)
    start = time.monotonic()
    next(load(server.url, like=IMAGES, backoff=0.01).stream(x))
    assert time.monotonic() - start < BOUND


def test_pauses_double_and_differ(server, x):
    times = []
    server.trouble = lambda call: times.append(time.monotonic()) or call.reply(500)
    with refused(RemoteModelError, r"\(4 tries\)"):
        next(load(server.url, like=IMAGES, tries=4, backoff=0.2).stream(x))
    for pause, longest in zip(np.diff(times), (0.2, 0.4, 0.8), strict=True):
        assert longest / 2 <= pause < longest + 1  # on a busy machine


def test_patience_bounds_all_tries_together(server, x):
    server.trouble = lambda call: call.hang()
    with refused(RemoteModelError, "does not answer within", bound=3):
        next(load(server.url, like=IMAGES, timeout=0.4, tries=100, backoff=0.01, patience=0.9).stream(x))


def test_answers_on_the_wire_when_a_request_fails_are_kept(server, x):
    """Of six requests the first fails at once, three come late; two are never sent."""
    server.trouble = lambda call: call.reply(400) if call.number == 1 else call.answer(pause=0.3)
    session = Session(load(server.url, like=IMAGES, **QUICK), Access.LABELS)
    with refused(RemoteModelError, "400"):
        session.answer(x, Access.LABELS)
    assert len(session.journal) == session.asked == 12
    assert server.inferences == 4


def test_a_failure_ends_the_pauses_of_the_others(server, x):
    server.trouble = lambda call: call.answer(pause=0.2) and False if call.number > 4 else (
        call.reply(503, Retry_After="60") if call.number > 1 else not call.fake.closing.wait(0.2) and call.reply(400)
    )  # fmt: skip
    with refused(RemoteModelError, "400"):
        next(load(server.url, like=IMAGES, batch_size=4).stream(x))
    assert server.inferences == 4


@pytest.mark.parametrize(
    ("trouble", "match"),
    [
        (lambda call: call.hang(), "does not answer within 0.6 s"),
        (lambda call: call.reply(500), r"answers 500 \(2 tries\)"),
        (lambda call: call.reply(401), "refuses access: it answers 401"),
        (lambda call: call.reply(200, b"hello"), "answers no JSON: b'hello'"),
        (lambda call: call.reply(200, {"inputs": "x"}), "metadata whose inputs are 'x'; expected a list of tensors"),
        (
            lambda call: call.reply(200, {"inputs": ["x"]}),
            "metadata whose inputs hold .*'x'.*; expected a name, a datatype",
        ),
        (lambda call: call.reply(200, metadata(shape=[2.5])), "metadata whose inputs hold"),
        (lambda call: call.reply(200, metadata(shape=[-2])), "metadata whose inputs hold"),
        (lambda call: call.reply(200, metadata(shape=[1] * 99)), "metadata whose inputs hold"),
        (lambda call: call.reply(200, metadata(name="\x1b[2J")), "metadata whose inputs hold"),
        (lambda call: call.reply(200, metadata(name=SECRET)), "repeats its caller's token"),
        (lambda call: call.reply(200, {"inputs": [{}] * 5000}), "metadata whose inputs are"),
    ],
)
def test_metadata(server, trouble, match):
    server.metadata_trouble = trouble
    with refused(LocardError, match):
        load(server.url, like=IMAGES, timeout=0.6, tries=2, backoff=0.01)


def metadata(**change):
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 9], **change}]}


def test_no_such_model(server):
    with refused(
        RemoteModelError, "/v2/models/other is not there: it answers 404 'Model .*other not found'; check the mod"
    ):
        load(f"{server.server}/v2/models/other", like=IMAGES)


def test_no_token(server, monkeypatch):
    monkeypatch.delenv("LOCARD_TOKEN")
    server.metadata_trouble = lambda call: call.reply(403)
    with refused(
        RemoteModelError, "answers 403; the environment variable LOCARD_TOKEN, which holds the token.*is not set"
    ):
        load(server.url)


def test_nobody_there(server):
    url = server.url
    server.__exit__()
    with refused(RemoteModelError, r"cannot be reached: '?Connection refused'? \(2 tries\); what was answered is kept"):
        load(url, tries=2, backoff=0.01)
    server.__enter__()


def test_no_such_host():
    with refused(RemoteModelError, "cannot be reached", bound=30):  # as long as the system's resolver takes
        load("http://no-such-host.invalid/v2/models/net", tries=1)


def test_a_host_that_is_none():
    with refused(ParameterError, "is no address that can be asked"):
        load("http://\N{SNOWMAN}/v2/models/net")


def test_a_server_that_accepts_and_says_nothing():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v2/models/net"
        with refused(RemoteModelError, r"does not answer within 0.2 s \(2 tries\)"):
            load(url, timeout=0.2, tries=2, backoff=0.01)


def test_other_schemes_are_not_asked():
    with refused(ArtefactError, r"no model at 'ftp://h/v2/models/net': expected .* http\(s\) URL"):
        load("ftp://h/v2/models/net")


def test_a_proxy_that_cannot_be(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:1")
    with refused(ParameterError, "the proxy that the environment names cannot be used"):
        load(server.url)


# TLS


def test_a_certificate_that_nobody_vouches_for(server):
    url = server.secure(certificate())
    with refused(RemoteModelError, "has no TLS that can be trusted: .*CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE"):
        load(url, tries=2, backoff=0.01)
    assert server.requests == []


def test_a_certificate_that_the_user_vouches_for(server, x, monkeypatch):
    url = server.secure(certificate())
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    assert np.array_equal(next(load(url).stream(x))[1], probabilities(x))
    with refused(RemoteModelError, "has no TLS that can be trusted: .*not valid for '127.0.0.1'"):
        load(url.replace("localhost", "127.0.0.1"))


def test_tls_asked_of_a_server_without(server):
    with refused(RemoteModelError, "has no TLS that can be trusted"):
        load(server.url.replace("http://", "https://"), tries=2, backoff=0.01)


PEM = Path(__file__).parent / "localhost.pem"


def certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


# Endpoints that change


def test_the_number_of_classes_is_learnt_once(server, x):
    """Where the metadata is silent, the first answer counts."""
    server.outputs = {"scores": Output(shape=(-1, -1))}
    model = load(server.url, like=IMAGES, batch_size=4, concurrency=1)
    assert model.classes is None
    server.trouble = lambda call: call.number == 4 and call.answer(uniform(7))
    session = Session(model, Access.PROBABILITIES)
    with refused(RemoteModelError, "answers 7 numbers to an input; 5 were declared or came before.*name a version"):
        session.answer(x, Access.PROBABILITIES)
    assert (model.classes, len(session.journal)) == (CLASSES, 12)


@pytest.mark.parametrize(
    "change",
    [lambda x: np.roll(probabilities(x), 1, axis=1), uniform(CLASSES)],
)
def test_an_endpoint_that_changed_its_mind_between_two_runs(server, x, tmp_path, change):
    path = tmp_path / "journal"
    Session(load(server.url, like=IMAGES), Access.PROBABILITIES, journal=path).answer(x, Access.PROBABILITIES)
    server.outputs["scores"].compute = change
    with refused(RemoteModelError, "has changed: 3 of 3 sentinels.*24 answers stay in the journal.*run again"):
        Session(load(server.url, like=IMAGES), Access.PROBABILITIES, journal=path)
    fresh = Session(load(server.url, like=IMAGES), Access.PROBABILITIES, journal=path)
    assert np.allclose(fresh.answer(x, Access.PROBABILITIES), change(x))
    assert (fresh.asked, fresh.from_journal) == (24, 0)


def test_an_endpoint_that_gained_classes_between_two_runs(server, x, tmp_path):
    path = tmp_path / "journal"
    server.outputs = {"scores": Output(shape=(-1, -1))}
    Session(load(server.url, like=IMAGES), Access.PROBABILITIES, journal=path).answer(x, Access.PROBABILITIES)
    server.outputs["scores"].compute = uniform(9)
    with refused(RemoteModelError, "has changed: 3 of 3 sentinels"):
        Session(load(server.url, like=IMAGES), Access.PROBABILITIES, journal=path)


def test_labels_out_of_range(server, x):
    server.outputs = {"label": Output(lambda x: labels(x) - 9, "INT64", (-1,))}
    with refused(RemoteModelError, r"answers labels from -\d to -\d; expected 0 or above"):
        next(load(server.url, like=IMAGES).stream(x))
