"""`locard weights test`: verdicts, figures, pages and errors."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from locard.cli import run
from locard.engine import compare_weights
from locard.errors import CalibrationError


def state(seed):
    source = np.random.default_rng(seed)
    return {"layers.0.weight": source.normal(size=(64, 20)).astype(np.float32),
            "layers.1.weight": source.normal(size=(10, 64)).astype(np.float32)}  # fmt: skip


@pytest.fixture
def files(tmp_path):
    for seed in range(43):
        save_file(state(seed), tmp_path / f"{seed}.safetensors")
    order = np.random.default_rng(9).permutation(64)
    own = state(0)
    moved = {
        "layers.0.weight": own["layers.0.weight"][order],
        "layers.1.weight": own["layers.1.weight"][:, order].copy(),
    }
    save_file(moved, tmp_path / "moved.safetensors")
    noisy = {
        name: one + 0.2 * np.random.default_rng(3).normal(size=one.shape).astype(np.float32)
        for name, one in own.items()
    }
    save_file(noisy, tmp_path / "noisy.safetensors")
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def verdict(capsys, *words):
    code = run(["weights", "test", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_copy_in_the_victims_order_needs_no_references(files, capsys, tmp_path):
    page = tmp_path / "page.html"
    code, found = verdict(capsys, files["0"], files["noisy"], "--fail-if", "derived", "--html", str(page))
    assert code == 3
    assert (found["decision"], found["null"]["kind"], found["extent"]) == ("derived", "exact", "whole")
    assert found["p_value"] == found["p_value_floor"] == 1e-4
    assert found["modelled"]["order"] < -6
    assert found["blocks"][0]["name"] == "layers.0"
    assert "The weights come from the victim" in page.read_text()
    assert "<script" not in page.read_text()


def test_a_moved_copy_is_uncalibrated_until_there_are_references(files, capsys):
    _, found = verdict(capsys, files["0"], files["moved"])
    assert (found["decision"], found["matched_fraction"]) == ("uncalibrated", 1)
    references = [files[str(seed)] for seed in range(3, 43)]
    _, found = verdict(capsys, files["0"], files["moved"], "--references", *references)
    assert (found["decision"], found["null"]["kind"], found["null"]["n"]) == ("derived", "reference", 40)
    assert found["match_p"] == pytest.approx(1 / 41)
    assert found["p_value"] == pytest.approx(2 / 41)
    assert found["largest_reference"] < 0.2


def test_a_stranger_is_not_accused_and_what_this_cannot_see_is_said(files, capsys):
    assert run(["weights", "test", files["0"], files["1"]]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "No evidence of a common origin" in words
    assert "distilled or extracted copy shares no weights" in words


def test_errors_are_one_line(files, capsys, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)
    assert run(["weights", "test", files["0"], str(tmp_path / "cut.safetensors")]) == 2
    message = capsys.readouterr().err
    assert "its header is longer than the file" in message
    assert message.count("\n") == 1


def test_a_reference_that_is_a_party_or_of_another_shape_is_refused(files, tmp_path):
    with pytest.raises(CalibrationError, match="is the victim itself"):
        compare_weights(files["0"], files["1"], references=[files["0"]])
    with pytest.raises(CalibrationError, match="is the suspect itself"):
        compare_weights(files["0"], files["1"], references=[files["1"]])
    other = {"layers.0.weight": np.random.default_rng(0).normal(size=(8, 3)), "layers.1.weight": np.eye(10, 8)}
    save_file(
        {**other, "layers.1.weight": np.random.default_rng(1).normal(size=(10, 8))}, tmp_path / "other.safetensors"
    )
    with pytest.raises(CalibrationError, match="no block of the victim's shape"):
        compare_weights(files["0"], files["1"], references=[str(tmp_path / "other.safetensors")])
