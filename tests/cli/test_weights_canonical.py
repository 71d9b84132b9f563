"""`locard weights canonical`, as a user runs it."""

import numpy as np
import torch
from safetensors.numpy import load_file

from locard.cli import run
from locard.data import read
from locard.models import folder, load
from locard.models.fitting import Recipe, build, fit
from locard.records import Domain

ARGUMENTS = {"shape": [1, 8, 8], "classes": 10, "width": 8}


def command(*words):
    return run([str(word) for word in words])


def test_a_disguised_copy_becomes_the_same_file(tmp_path, capsys):
    digits = read("digits")
    module = build("resnet", ARGUMENTS, seed=0)
    assert digits.labels is not None
    fit(module, digits.inputs[:600], digits.labels[:600], recipe=Recipe(epochs=2, lr=1e-2), seed=0)
    folder.save(tmp_path / "victim", module, architecture="resnet", arguments=ARGUMENTS, domain=digits.domain,
                mean=(0.3,), std=(0.5,), classes=tuple("0123456789"), accuracy=0.5)  # fmt: skip
    assert command("derive", tmp_path / "victim", "--attack", "disguise", "-o", tmp_path / "copy") == 0
    capsys.readouterr()
    for name in ("victim", "copy"):
        assert command("weights", "canonical", tmp_path / name, "-o", tmp_path / f"{name}-form") == 0
        printed = capsys.readouterr().out
        assert "6 groups of units in normal form" in printed
        assert float(printed.split("moved by ")[1].split()[0]) < 1e-5
    one, other, raw = (
        load_file(tmp_path / name / "model.safetensors") for name in ("victim-form", "copy-form", "copy")
    )
    assert max(np.abs(one[name] - other[name]).max() for name in one) < 1e-4
    assert max(np.abs(one[name] - raw[name]).max() for name in one) > 0.1
    first, second = (folder.read_card(tmp_path / name) for name in ("victim", "victim-form"))
    assert first == second
    x = digits.inputs[600:700]
    assert np.abs(load(tmp_path / "victim")._forward(x) - load(tmp_path / "victim-form")._forward(x)).max() < 1e-3


def test_what_is_undecided_is_printed(tmp_path, capsys):
    """Two heads turned into each other by what they know: equal singular values."""
    arguments = {"shape": [8], "classes": 3, "patch": 2, "width": 4, "heads": 1, "depth": 1}
    module = build("transformer", arguments, seed=0)
    with torch.no_grad():
        tensors = module.state_dict()
        for name in ("query", "key"):
            tensors[f"blocks.0.{name}.weight"].copy_(torch.eye(4))
        for name in ("query.bias", "value.weight"):
            tensors[f"blocks.0.{name}"].zero_()
    folder.save(tmp_path / "m", module, architecture="transformer", arguments=arguments,
                domain=Domain(kind="tabular", shape=(8,)))  # fmt: skip
    assert command("weights", "canonical", tmp_path / "m", "-o", tmp_path / "f") == 0
    assert "undecided: blocks.0.query.weight[0] of 4 units" in capsys.readouterr().out


def test_messages(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert command("weights", "canonical", tmp_path, "-o", tmp_path / "there") == 2
    assert "is there already" in capsys.readouterr().err
    assert command("weights", "canonical", tmp_path, "-o", tmp_path / "new") == 2
    assert "is no model folder of Locard's" in capsys.readouterr().err
