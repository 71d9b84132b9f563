"""The base install, without torch: what it must do, and that what it lacks is an error with the way out."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

import locard
from locard.cli import run
from locard.errors import MissingExtraError
from locard.schemes import build, schemes
from locard.testing import SCHEME_LAWS, check_scheme, toy_data, toy_domain, toy_model

pytestmark = pytest.mark.light
# zest cuts images with an extra, dataset-inference needs data of its own.
TORCH_FREE = [
    name
    for name in schemes.names()
    if build(name).victim_access.name not in ("GRADIENTS", "MODULE") and name not in ("zest", "dataset-inference")
]


@pytest.fixture(scope="module")
def fingerprint():
    fp = locard.extract(toy_model(0), data=toy_data())
    return locard.calibrate(fp, references={"disjoint": [toy_model(seed) for seed in range(100, 119)]})


def test_there_is_no_torch():
    assert importlib.util.find_spec("torch") is None
    with pytest.raises(MissingExtraError, match=r"pip install 'locard\[torch\]'"):
        toy_model(0, gradients=True)


@pytest.mark.parametrize("law", SCHEME_LAWS)
@pytest.mark.parametrize("name", TORCH_FREE)
def test_schemes_without_gradients_keep_every_law(name, law):
    check_scheme(name, law)


def test_an_onnx_file(fingerprint):
    # Written once by export_onnx.py beside it: the toy victim as a graph.
    suspect = locard.load(Path(__file__).with_name("toy-0.onnx"), like=fingerprint.domain)
    verdict = locard.verify(fingerprint, suspect)
    assert verdict.decision == "derived"
    assert verdict.evidence.score == 1


def test_a_scikit_learn_model(fingerprint, tmp_path):
    import skops.io
    from sklearn.linear_model import LogisticRegression

    data = toy_data(300, seed=5)
    estimator = LogisticRegression(max_iter=300).fit(data.inputs.reshape(300, -1), data.labels)
    skops.io.dump(estimator, tmp_path / "model.skops")
    for suspect in (estimator, str(tmp_path / "model.skops")):
        assert locard.verify(fingerprint, suspect).decision == "no-evidence"


def test_a_callable(fingerprint):
    assert locard.verify(fingerprint, toy_model(0, noise=0.02)).decision == "derived"


class _Server(BaseHTTPRequestHandler):
    """The toy victim behind the Open Inference Protocol v2."""

    rows = 0

    def do_GET(self):
        self._send({"name": "toy", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
                    "outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 5]}]})  # fmt: skip

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        x = np.array(body["inputs"][0]["data"], np.float32).reshape(body["inputs"][0]["shape"])
        _Server.rows += len(x)
        y = toy_model(0)._forward(x)
        self._send({"model_name": "toy", "outputs": [{"name": "p", "datatype": "FP32", "shape": list(y.shape),
                                                      "data": y.ravel().tolist()}]})  # fmt: skip

    def _send(self, value):
        raw = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format, *args):
        """Quiet."""


def test_an_endpoint(fingerprint, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), _Server)
    _Server.rows = 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        suspect = locard.load(f"http://127.0.0.1:{server.server_port}/v2/models/toy", outputs="logits")
        verdict = locard.verify(fingerprint, suspect, journal=tmp_path / "journal.sqlite")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert verdict.decision == "derived"
    assert verdict.queries.asked == _Server.rows == 100  # no check of Locard's own asks a paid endpoint more


def test_the_command_line_and_its_page(fingerprint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fingerprint.save("fp.locard")
    suspect = Path(__file__).with_name("toy-0.onnx")
    assert run(["verify", "fp.locard", str(suspect), "--json", "--html", "page.html", "--fail-if", "derived"]) == 3
    assert json.loads(capsys.readouterr().out)["decision"] == "derived"
    assert "data:image/png;base64," in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["verify", "fp.locard", "victim"], "torch"),
        (["extract", "victim", "--scheme", "akh", "--data", "table.parquet", "-o", "x.locard"], "tables"),
        (["extract", "victim", "--scheme", "akh", "--data", "pictures", "-o", "x.locard"], "images"),
        (["demo", "--out", "demo"], "torch"),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_installs_it(
    fingerprint, tmp_path, monkeypatch, capsys, words, extra
):
    monkeypatch.chdir(tmp_path)
    fingerprint.save("fp.locard")
    Path("victim").mkdir()
    Path("victim/model.json").write_text(json.dumps({
        "locard_model": 1, "architecture": "mlp", "arguments": {"shape": [1, 8, 8], "classes": 5},
        "mean": None, "std": None,
        "domain": toy_domain().to_json(), "classes": [], "lineage": {}, "accuracy": None,
    }))  # fmt: skip
    Path("victim/model.safetensors").write_bytes(b"")
    Path("table.parquet").write_bytes(b"PAR1")
    Path("pictures/a").mkdir(parents=True)
    Path("pictures/a/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(words) == 2
    message = capsys.readouterr().err
    assert f"pip install 'locard[{extra}]'" in message
    assert message.count("\n") == 1
