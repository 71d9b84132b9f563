"""The docs' examples run in the folder that `make demo` leaves, built once, beside what README's readers have."""

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.models.fake_server import FakeServer, Output
from tests.models.test_huggingface import distilbert, save, save_tokenizer

import locard
from locard.models import onnx
from locard.models.torch_module import TorchModel

ROOT = Path(__file__).resolve().parents[2]
REVIEWS = [f"{a} {b} {c}" for a in ("the", "a") for b in ("good", "bad", "very good") for c in ("film", "book")]


def load_tables():
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    from locard.cli import run

    folder = tmp_path_factory.mktemp("demo")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run(["demo", "--out", "locard-demo"]) == 0
    finally:
        os.chdir(before)
    save(distilbert(), folder / "my-classifier")
    save_tokenizer(folder / "my-classifier", model_max_length=12)
    (folder / "reviews.txt").write_text("\n".join(REVIEWS))
    suspect = locard.load(folder / "locard-demo/models/suspects/prune")
    assert isinstance(suspect, TorchModel)
    onnx.export(suspect, folder / "suspect.onnx")
    return folder


@pytest.fixture
def workplace(demo, tmp_path, monkeypatch):
    """A fresh copy, so that examples of one page don't help those of another."""
    shutil.copytree(demo, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="session")
def endpoint(demo):
    """URL of a server that answers as the demo's victim does."""
    victim = locard.load(demo / "locard-demo/models/victim")
    view = locard.models.restrict(victim, locard.Access.PROBABILITIES)
    scores = Output(compute=lambda x: view.probabilities(x.astype(np.float32)), shape=(-1, 10))
    with FakeServer(inputs={"x": ("FP32", (-1, *victim.domain.shape))}, outputs={"scores": scores}) as server:
        yield server.url
