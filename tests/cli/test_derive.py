"""`locard attacks` and `locard derive`, as a user runs them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import locard
from locard.attacks import Attack
from locard.cli import run
from locard.data import read
from locard.models import exported, folder, restrict
from locard.models.fitting import Recipe, build, fit
from locard.models.torch_module import TorchModel
from locard.records import Access
from locard.testing import toy_domain

ARGUMENTS = {"shape": [1, 8, 8], "classes": 10}


def command(*words):
    return run([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a trained victim and labelled data."""
    home, digits = tmp_path_factory.mktemp("derive"), read("digits")
    module = build("mlp", ARGUMENTS, seed=0)
    assert digits.labels is not None
    fit(module, digits.inputs[:800], digits.labels[:800], recipe=Recipe(epochs=5, lr=1e-2), seed=0)
    folder.save(home / "victim", module, architecture="mlp", arguments=ARGUMENTS, domain=digits.domain)
    for name, rows in (("thief", slice(800, 1200)), ("check", slice(1200, 1500))):
        np.savez(home / f"{name}.npz", x=digits.inputs[rows], y=digits.labels[rows])
    return home


@pytest.fixture(autouse=True)
def home(made, monkeypatch, tmp_path):
    monkeypatch.chdir(made)
    return tmp_path


def test_attacks_are_listed(capsys):
    assert command("attacks") == 0
    printed = capsys.readouterr().out
    assert "needs module of the victim; fraction=0.5 recovery=0" in printed
    assert command("attacks", "--json") == 0
    rows = {row["attack"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["extraction"]["needs"] == "PROBABILITIES"
    assert rows["prune"]["params"]["fraction"] == 0.5
    assert not rows["noise"]["needs_data"]


@pytest.mark.parametrize("ending", ["", ".pt2", ".onnx"])
def test_a_copy_is_written_with_its_lineage(home, capsys, ending):
    out = home / f"copy{ending}"
    assert (
        command("derive", "victim", "--attack", "prune", "--param", "fraction=0.3", "-o", out, "--check", "check.npz")
        == 0
    )
    printed = capsys.readouterr().out
    assert "prune, 0 queries, 0 epochs" in printed
    assert "agreement" in printed
    assert printed.strip().endswith(": a theft")
    copy, victim = locard.load(out, trust=True), locard.load("victim")
    assert (copy.lineage.parent, copy.lineage.derived_by) == (victim.digest, "prune")
    x = read("check.npz").inputs
    same = restrict(copy, Access.LABELS).labels(x) == restrict(victim, Access.LABELS).labels(x)
    assert 0.8 < same.mean() <= 1


def test_an_extraction_takes_another_architecture_and_stops_at_its_budget(home, capsys):
    words = [
        "derive",
        "victim",
        "--attack",
        "extraction",
        "--data",
        "thief.npz",
        "--access",
        "labels",
        "-o",
        home / "copy",
    ]
    settings = ["--param", "answers=labels", "architecture=cnn", "epochs=1"]
    assert command(*words, "--budget", 300, *settings) == 0
    printed = capsys.readouterr().out
    assert "extraction, 300 queries, 1 epochs" in printed
    assert "note: 300 of 400 queries were answered: the budget of 300" in printed
    assert folder.read_card(home / "copy").architecture == "cnn"


def test_a_failed_theft_is_called_one(home, capsys):
    words = ["--attack", "noise", "--param", "share=5", "-o", home / "copy", "--check", "check.npz"]
    assert command("derive", "victim", *words) == 0
    assert "a failed theft: accuracy fell from" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack", "quantis"], "unknown attack 'quantis'; did you mean 'quantise'"),
        (
            ["--attack", "extraction", "--access", "labels", "--data", "thief.npz"],
            "needs PROBABILITIES of the victim; LABELS was granted: --param answers=labels needs no more than LABELS",
        ),
        (["--attack", "finetune"], "finetune needs data of the thief's own; none were given"),
        (["--attack", "prune", "--param", "fraction=much"], "parameter 'fraction' must be float; got 'much'"),
        (["--attack", "prune", "--access", "everything"], "unknown access 'everything'"),
    ],
)
def test_what_cannot_be_done_is_one_line(home, capsys, words, message):
    assert command("derive", "victim", *words, "-o", home / "copy") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path(home / "copy").exists()


def test_a_victim_that_shows_too_little_is_refused_by_what_the_attack_needs(home, capsys):
    from sklearn.linear_model import LogisticRegression

    skops = pytest.importorskip("skops.io")
    digits = read("check.npz")
    assert digits.labels is not None
    skops.dump(LogisticRegression().fit(digits.inputs.reshape(len(digits), -1), digits.labels), home / "rows.skops")
    np.savez(home / "rows.npz", x=digits.inputs.reshape(len(digits), -1), y=digits.labels)
    words = ["--data", home / "rows.npz", "-o", home / "copy.pt2"]
    assert command("derive", home / "rows.skops", "--attack", "finetune", *words) == 2
    assert "finetune needs MODULE of the victim; " in capsys.readouterr().err


def test_what_is_there_is_not_written_over(home, capsys):
    (home / "copy").mkdir()
    assert command("derive", "victim", "--attack", "noise", "-o", home / "copy") == 2
    assert "is there already; name another, or remove it" in capsys.readouterr().err


@pytest.fixture
def unasked(monkeypatch):
    """The attack itself must not begin."""
    monkeypatch.setattr(Attack, "derive", lambda *_, **__: pytest.fail("the attack began"))


def test_a_model_without_a_named_architecture_goes_to_a_file(home, capsys, unasked):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    exported.save(TorchModel(module, domain=toy_domain()), home / "bare.pt2")
    words = ["derive", home / "bare.pt2", "--trust", "--attack", "noise", "-o"]
    assert command(*words, home / "copy") == 2
    assert f"does not say its own: write a file with -o {home}/copy.pt2 or" in capsys.readouterr().err


@pytest.mark.parametrize("attack", ["answer", "ensemble", "lie", "preprocess", "randomise", "smooth"])
def test_what_is_wrapped_goes_to_a_file(home, capsys, unasked, attack):
    assert command("derive", "victim", "--attack", attack, "--data", "thief.npz", "-o", home / "copy") == 2
    assert f"what {attack} makes is of no named architecture, as a folder needs: write" in capsys.readouterr().err


def test_an_extraction_from_a_model_without_a_named_architecture_goes_to_a_folder(home):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    exported.save(TorchModel(module, domain=toy_domain()), home / "bare.pt2")
    words = ["--trust", "--attack", "extraction", "--data", "thief.npz", "--param", "epochs=1", "-o", home / "copy"]
    assert command("derive", home / "bare.pt2", *words) == 0
    assert folder.read_card(home / "copy").architecture == "cnn"


def test_what_turns_out_to_have_no_named_architecture_is_kept_in_the_folder(home, capsys):
    words = ["--attack", "prune-channels", "--param", "recovery=0", "-o", home / "copy"]
    assert command("derive", "victim", *words) == 0
    assert f"{home}/copy/model.pt2: prune-channels" in capsys.readouterr().out
    assert locard.load(home / "copy/model.pt2", trust=True).lineage.derived_by == "prune-channels"


def test_what_the_copy_is_judged_by_is_read_before_anything_is_asked(home, capsys):
    assert command("derive", "victim", "--attack", "noise", "-o", home / "copy.pt2", "--check", "nofile.npz") == 2
    assert "nofile.npz" in capsys.readouterr().err
    assert not (home / "copy.pt2").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [("copy.pth", "a copy is a folder, or a .pt2 or .onnx file; 'copy.pth' ends in '.pth'"),
     ("nowhere/copy.onnx", "there is no folder 'nowhere' to write 'copy.onnx' to")],
)  # fmt: skip
def test_where_a_copy_goes_is_looked_at_before_anything_is_asked(home, capsys, output, message):
    assert command("derive", "victim", "--attack", "noise", "-o", output) == 2
    assert message in capsys.readouterr().err
