"""The endpoint adapter against servers and clients that others wrote: MLServer, and Triton's client."""

import json
import socket
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.models.fake_server import FakeServer, Output, logits, probabilities

import locard
from locard.errors import RemoteModelError
from locard.models import Session, load
from locard.models.callable import CallableModel
from locard.records import Access, Domain
from locard.seeds import generator
from locard.testing import toy_data, toy_domain, toy_model

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-server" / "bin" / "python"
HIDDEN, CLASSES = 24, 5


def weights(seed):
    """A small network on the toy images, as the server's file holds it."""
    source = generator(seed, "test/weights")
    w0 = source.normal(0, 1, (64, HIDDEN)).astype(np.float32)
    w1 = source.normal(0, 1, (HIDDEN, CLASSES)).astype(np.float32)
    return {"w0": w0, "b0": -w0.sum(axis=0) / 2, "w1": w1, "b1": np.zeros(CLASSES, np.float32)}


def local(seed):
    w = weights(seed)

    def answer(x):
        return np.maximum(x.reshape(len(x), -1) @ w["w0"] + w["b0"], 0) @ w["w1"] + w["b1"]

    return CallableModel(answer, domain=toy_domain(), outputs="logits", classes=CLASSES, name=f"network {seed}")


class Served:
    """MLServer with one network, and the log of what it was really asked."""

    def __init__(self, folder, seed):
        if not PYTHON.exists():
            pytest.fail(f"no server to test against: {PYTHON} is missing; `make test` builds it")
        np.savez(folder / "weights.npz", **weights(seed), input_shape=np.array([1, 8, 8]))
        self.log = folder / "asked.jsonl"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v2/models/network"
        command = [PYTHON, ROOT / "tests/server/serve.py", str(port), folder / "weights.npz", "--log", self.log]
        with (folder / "server.log").open("wb") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder)
        end = time.monotonic() + 90
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                pytest.fail(f"MLServer did not start: {(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def _ready(self):
        try:
            return httpx.get(f"{self.url}/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def asked(self):
        """Digests of all inputs that were asked, in order."""
        return [digest for line in self.log.read_text().splitlines() for digest in json.loads(line)["digests"]]

    def stop(self):
        """At once: on SIGTERM it would wait for connections to end."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("LOCARD_TOKEN", raising=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = Served(tmp_path_factory.mktemp("server"), seed=0)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def data():
    return toy_data()


def test_its_metadata_is_understood(served):
    model = load(served.url, output="probabilities")
    assert model.domain == Domain(kind="image", shape=(1, 8, 8))
    assert (model.classes, model.native) == (CLASSES, Access.PROBABILITIES)
    assert load(served.url, output="label").native is Access.LABELS
    assert load(f"{served.url}/versions/1", output="label").native is Access.LABELS


@pytest.mark.parametrize(
    ("output", "outputs", "rung"),
    [
        ("label", None, Access.LABELS),
        ("probabilities", None, Access.PROBABILITIES),
        ("probabilities", None, Access.LABELS),
        ("logits", "logits", Access.LOGITS),
        ("logits", "logits", Access.PROBABILITIES),
    ],
)
def test_its_answers_are_those_of_the_same_model_here(served, data, output, outputs, rung):
    x = data.inputs[:70]
    model = load(served.url, like=data.domain, output=output, outputs=outputs)
    before = len(served.asked()) if served.log.exists() else 0
    there = Session(model, rung)
    answers = there.answer(x, rung)
    here = Session(local(0), rung).answer(x, rung)
    if rung is Access.LABELS:
        assert (answers == here).all()
    else:
        # Two BLAS builds may add up in another order.
        assert np.allclose(answers, here, rtol=1e-4, atol=1e-5)
    assert there.asked == 70 == len(served.asked()) - before


@pytest.mark.parametrize(
    ("scheme", "output", "access"),
    [
        ("akh", "label", "labels"),
        ("akh", "probabilities", "labels"),
        ("random+probabilities+l1", "probabilities", "probabilities"),
    ],
)
def test_a_theft_is_found_through_it(served, data, tmp_path, scheme, output, access):
    """From fingerprint to verdict, and the same verdict as on the same model here."""
    fingerprint = locard.extract(local(0), scheme=scheme, data=data, queries=100)
    fingerprint = locard.calibrate(fingerprint, references=[toy_model(seed) for seed in range(100, 119)])
    suspect = load(served.url, like=data.domain, output=output)
    before = len(served.asked()) if served.log.exists() else 0
    there = locard.verify(fingerprint, suspect, access=access, journal=tmp_path / "journal")
    asked = served.asked()[before:]
    here = locard.verify(fingerprint, local(0), access=access)
    assert there.decision == here.decision == "derived"
    assert there.evidence.p_value == here.evidence.p_value == 1 / 20
    assert there.evidence.score == pytest.approx(here.evidence.score, abs=1e-4)
    assert there.queries.asked == len(asked) == len(set(asked)) == 100

    innocent = locard.extract(local(1), scheme=scheme, data=data, queries=100)
    innocent = locard.calibrate(innocent, references=[toy_model(seed) for seed in range(100, 119)])
    assert locard.verify(innocent, suspect, access=access).decision == "no-evidence"


def test_a_second_run_asks_it_the_sentinels_alone(served, data, tmp_path):
    x, rung = data.inputs[100:150], Access.LABELS
    Session(load(served.url, output="label"), rung, journal=tmp_path / "journal").answer(x, rung)
    before = served.asked()
    session = Session(load(served.url, output="label"), rung, journal=tmp_path / "journal")
    session.answer(x, rung)
    assert (session.asked, session.from_journal) == (3, 50)
    again = served.asked()[len(before) :]
    assert len(again) == 3
    assert set(again) <= set(before[-50:])


def test_what_it_says_is_passed_on(served, data):
    with pytest.raises(RemoteModelError, match="models/nobody is not there: it answers 404 'Model nobody not found'"):
        load(served.url.replace("network", "nobody"))
    with pytest.raises(RemoteModelError, match=r"it answers 404.*check the model's name and version"):
        load(f"{served.url}/versions/2")
    # Past the domain's check, so that the server itself must refuse it.
    stream = load(served.url, like=data.domain, output="label").stream(np.zeros((2, 1, 8, 9), np.float32))
    with pytest.raises(RemoteModelError, match=r"refuses the request: it answers 400 .*\[-1, 1, 8, 8\]"):
        next(stream)


def test_triton_s_client_and_the_fake_server_agree_on_the_binary_extension():
    """So that the adapter, tested against the fake server, is held to what others mean by it."""
    if not PYTHON.exists():
        pytest.fail(f"no other client to test with: {PYTHON} is missing; `make test` builds it")
    program = """
import sys, numpy as np, tritonclient.http as triton
client = triton.InferenceServerClient(sys.argv[1])
x = (np.arange(48, dtype=np.float32) / 48).reshape(3, 1, 4, 4)
tensor = triton.InferInput("x", list(x.shape), "FP32")
tensor.set_data_from_numpy(x, binary_data=True)
outputs = [triton.InferRequestedOutput(name, binary_data=True) for name in ("a", "b")]
result = client.infer("net", [tensor], outputs=outputs)
print([result.as_numpy(name).tobytes().hex() for name in ("a", "b")])
"""
    x = (np.arange(48, dtype=np.float32) / 48).reshape(3, 1, 4, 4)
    with FakeServer(outputs={"a": Output(), "b": Output(logits, "FP64")}) as server:
        address = server.server.removeprefix("http://")
        done = subprocess.run([PYTHON, "-c", program, address], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str([probabilities(x).tobytes().hex(), logits(x).astype("<f8").tobytes().hex()])
        assert np.array_equal(server.received[0], x)
        ours = next(load(server.url, output="b", outputs="logits", binary=True).stream(x))[1]
    assert np.array_equal(ours, logits(x))
    theirs, our = (headers for method, _, headers in server.requests if method == "POST")
    assert {"inference-header-content-length"} <= set(map(str.lower, theirs)) & set(map(str.lower, our))
