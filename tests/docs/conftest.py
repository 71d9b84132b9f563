"""The docs' examples run in the folder that `make demo` leaves, which is built once."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


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
    return folder


@pytest.fixture
def workplace(demo, tmp_path, monkeypatch):
    """A fresh copy, so that examples of one page don't help those of another."""
    shutil.copytree(demo, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"
