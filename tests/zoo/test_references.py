"""References for an owner who has none: like the victim, made without it, and honest about what they buy."""

from pathlib import Path

import numpy as np
import pytest

from locard import calibrate, extract
from locard.cli import run
from locard.data import read, split
from locard.errors import ParameterError
from locard.models import exported, folder, load
from locard.models.fitting import Recipe
from locard.records import Data
from locard.zoo import Original, train_many
from locard.zoo.references import train_references

QUICK = Recipe(epochs=10, lr=1e-2, batch=50)


@pytest.fixture(scope="module")
def parts():
    return split(read("digits"), {"victim": 200, "other": 200, "queries": 300}, seed=0)


@pytest.fixture(scope="module")
def victim(parts, tmp_path_factory):
    job = Original(name="victim", data="victim", architecture="mlp", arguments={"hidden": [16]}, recipe=QUICK, seed=0,
                   mean=(0.3,), std=(0.4,))  # fmt: skip
    out = tmp_path_factory.mktemp("references")
    return load(train_many([job], parts, out, held_out="queries", processes=1)["victim"].path)


def train(victim, data, n, out, **changed):
    return train_references(victim, data, n, out, training=QUICK, processes=1, **changed)


def test_they_are_like_the_victim_and_none_of_them_is_it(victim, parts, tmp_path):
    found = train(victim, parts["victim"], 3, tmp_path)
    assert len({victim.digest, *(one.model for one in found.built)}) == 4
    assert (found.stratum, found.made, found.floor) == ("same-architecture", 3, 0.25)
    for one in found.built:
        card = folder.read_card(one.path)
        assert (card.architecture, card.arguments["hidden"], card.mean, card.std) == ("mlp", [16], (0.3,), (0.4,))
        assert card.lineage.parent is None


@pytest.mark.parametrize(
    ("part", "architecture", "stratum"),
    [("victim", "", "same-architecture"), ("victim", "cnn", "same-data"), ("victim", "mlp", "same-architecture"),
     ("other", "", "disjoint"), ("other", "cnn", "disjoint")],
)  # fmt: skip
def test_their_stratum_is_the_one_that_calibrate_finds(victim, parts, tmp_path, part, architecture, stratum):
    found = train(victim, parts[part], 1, tmp_path, architecture=architecture)
    assert found.stratum == stratum
    fp = calibrate(extract(victim, data=parts["queries"], queries=20), references=[str(tmp_path)])
    assert [one.stratum for one in fp.calibration.references] == [stratum]


def test_more_of_them_keep_those_that_are_there(victim, parts, tmp_path):
    first = train(victim, parts["other"], 2, tmp_path)
    again = train(victim, parts["other"], 3, tmp_path)
    assert (again.made, again.built[:2]) == (1, first.built)
    assert train(victim, parts["other"], 3, tmp_path).made == 0
    over = train(victim, parts["other"], 9, tmp_path, seconds=0)
    assert (len(over.built), over.wanted, over.made, over.floor) == (3, 9, 0, 0.25)


def test_other_weights_come_from_another_seed(victim, parts, tmp_path):
    models = {train(victim, parts["other"], 1, tmp_path / str(seed), seed=seed).built[0].model for seed in (0, 1)}
    assert len(models) == 2


def test_what_cannot_be_trained_like_is_refused(victim, parts, tmp_path):
    bare = Data(inputs=parts["other"].inputs, labels=None, domain=parts["other"].domain, name="bare")
    with pytest.raises(ParameterError, match="references are trained on true labels; bare has none"):
        train(victim, bare, 1, tmp_path)
    with pytest.raises(ParameterError, match=r"n must lie in \[1"):
        train(victim, parts["other"], 0, tmp_path)
    exported.save(victim, tmp_path / "victim.pt2")
    nameless = load(tmp_path / "victim.pt2", trust=True)
    with pytest.raises(ParameterError, match=r"does not say its architecture.*\(--architecture cnn\)"):
        train(nameless, parts["other"], 1, tmp_path)
    assert len(train(nameless, parts["other"], 1, tmp_path, architecture="mlp").built) == 1


@pytest.fixture
def home(tmp_path, monkeypatch, parts):
    for name in ("other", "queries"):
        np.savez(tmp_path / f"{name}.npz", x=parts[name].inputs, y=parts[name].labels)
    monkeypatch.chdir(tmp_path)


def test_the_command_says_what_they_cost_and_buy(victim, home, capsys):
    words = ["references", "--like", str(Path(victim.source)), "--data", "other.npz", "-o", "refs", "--processes", "1"]
    assert run([*words, "-n", "2", "--check", "queries.npz", "--param", "epochs=2", "batch=50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("refs: 2 of 2 references, 2 made now in ")
    assert "queries.npz; the victim's is " in lines[1]
    assert lines[2] == ("stratum: disjoint, as the cards say; if the victim has seen some of these data, give them as "
                        "--references same-data=refs")  # fmt: skip
    assert lines[3] == "smallest p 0.333: alpha 0.333 or more can be reached"
    assert run([*words, "-n", "5", "--time", "0s", "--param", "epochs=2", "batch=50"]) == 0
    assert "2 of 5 references, 0 made now" in capsys.readouterr().out
    assert run([*words, "-n", "1", "--param", "epochs=2", "batch=50"]) == 0
    assert "note: refs holds 1 other models, which would count as references too" in capsys.readouterr().out
    assert run([*words, "-n", "5", "--time", "soon"]) == 2
    assert (
        "--time takes a number of seconds, minutes or hours, as 90s, 20m or 2h; got 'soon'" in capsys.readouterr().err
    )
