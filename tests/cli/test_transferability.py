"""`locard transferability`, as a user runs it."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from locard.attacks.transferability import Way
from locard.cli import run
from locard.cli.transferability import share, shares
from locard.data import read
from locard.models import folder
from locard.models.fitting import Recipe, build, fit

ARGUMENTS = {"shape": [1, 8, 8], "classes": 10}


def command(*words):
    return run([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A victim, a copy of it with noise in its weights, a stranger of a library without gradients, and data."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    home, digits = tmp_path_factory.mktemp("transferability"), read("digits")
    assert digits.labels is not None
    module = build("mlp", ARGUMENTS, seed=0)
    fit(module, digits.inputs[:800], digits.labels[:800], recipe=Recipe(epochs=5, lr=1e-2), seed=0)
    folder.save(home / "victim", module, architecture="mlp", arguments=ARGUMENTS, domain=digits.domain)
    rows = slice(800, 1400)
    model = LogisticRegression(max_iter=500).fit(digits.inputs[rows].reshape(600, -1), digits.labels[rows])
    skops.io.dump(model, home / "stranger.skops")
    np.savez(home / "data.npz", x=digits.inputs[1400:], y=digits.labels[1400:])
    return home


@pytest.fixture(autouse=True)
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    if not (made / "copy").exists():
        assert command("derive", "victim", "--attack", "noise", "-o", "copy") == 0


WORDS = ["--data", "data.npz", "--eps", "2/16", "--examples", 100, "--steps", 5, "--aimed-steps", 10]


def test_both_ways_are_printed(capsys):
    capsys.readouterr()
    assert command("transferability", "victim", "copy", *WORDS) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("100 inputs that both classify correctly, eps 0.125 of the range\n\nvictim -> copy\n")
    assert "\ncopy -> victim\n" in printed
    assert printed.count("of these, the other too") == 4
    assert "mean cosine of the gradients 0.9" in printed


def test_json_holds_counts_shares_and_intervals(capsys):
    capsys.readouterr()
    assert command("transferability", "victim", "copy", *WORDS, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["eps"], found["steps"], found["aimed_steps"]) == (100, 0.125, 5, 10)
    assert (found["there"]["source"], found["there"]["target"]) == ("victim", "copy")
    assert (found["back"]["source"], found["back"]["target"]) == ("copy", "victim")
    row = found["there"]["transferred"]
    assert row["n"] == found["there"]["fooled"]["k"]
    assert row["share"] == row["k"] / row["n"] > 0.8
    exact = binomtest(row["k"], row["n"]).proportion_ci(0.95, method="exact")
    assert (row["low"], row["high"]) == pytest.approx((exact.low, exact.high))


def test_one_way_is_enough_for_a_model_of_labels(capsys):
    capsys.readouterr()
    assert command("transferability", "victim", "stranger.skops", *WORDS, "--json") == 0
    both = json.loads(capsys.readouterr().out)
    assert both["back"] is None
    assert both["cosine"] is None
    assert command("transferability", "victim", "copy", *WORDS, "--one-way", "--json") == 0
    assert json.loads(capsys.readouterr().out)["back"] is None
    assert command("transferability", "victim", "copy", *WORDS, "--one-way") == 0
    assert "copy -> victim" not in capsys.readouterr().out


def test_shares_of_nothing_are_none():
    rows = shares(Way(fooled=0, transferred=0, same_wrong=0, aimed=1, matched=1, shaken=0), 20)
    assert rows["transferred"] == {"k": 0, "n": 0, "share": None, "low": None, "high": None}
    assert rows["matched"]["high"] == 1


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.25", 0.25), ("1e-2", 0.01)])
def test_a_share_is_a_number_or_a_fraction(text, value):
    assert share(text) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["victim", "copy", "--eps", "8/0"], "--eps takes a number or a fraction, such as 0.03 or 8/255; got '8/0'"),
        (["victim", "copy", "--eps", "much"], "got 'much'"),
        (["victim", "copy", "--eps", "-1/255"], "eps must lie in (0, 1]"),
        (["stranger.skops", "copy", "--one-way"], "adversarial examples need gradients; neither"),
        (["victim", "copy", "--eps", "0.2", "--budget", "5"], "the budget of 5 queries to copy is spent"),
        (["victim", "copi"], "copi"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, words, message):
    capsys.readouterr()
    assert command("transferability", *words, "--data", "data.npz") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
