"""A population in a folder: built, opened, paired, and refused where it is not what it says."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from locard.errors import ArtefactError, ParameterError
from locard.models import load
from locard.zoo import build_zoo, open_zoo, parse
from locard.zoo.population import Workshop

SMALL = Path(__file__).with_name("small.toml").read_text()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return build_zoo(parse(SMALL, "small"), tmp_path_factory.mktemp("zoo") / "small", processes=1)


def test_what_was_built_can_be_opened(zoo):
    assert open_zoo(zoo.path) == zoo
    for name, one in zoo.built.items():
        assert load(one.path).digest == one.model, name


def test_pairs_are_all_but_the_copies_of_another_victim(zoo):
    pairs = list(zoo.pairs())
    assert {pair.suspect.role for pair in pairs} == {"calibration", "evaluation"}
    for victim in zoo.victims:
        kinds = Counter((pair.suspect.role, pair.kind) for pair in pairs if pair.victim == victim)
        assert kinds == {
            ("evaluation", "finetune"): 1, ("calibration", "finetune"): 2,
            ("calibration", "same-architecture"): 2, ("calibration", "same-data"): 1,
            ("calibration", "disjoint"): 3, ("calibration", "foreign-theft"): 7, ("evaluation", "disjoint"): 1,
        }  # fmt: skip
    assert all(pair.derived == (pair.suspect.victim == pair.victim.name) for pair in pairs)


def test_those_who_choose_are_judged_nowhere(zoo):
    judged = {pair.suspect.name for pair in zoo.pairs()}
    for victim in zoo.victims:
        derived, strangers = zoo.choosers(victim)
        assert [one.name for one in derived] == [f"copies/selection/{victim.name[8:]}/finetune-0"]
        assert not judged & {one.name for one in (*derived, *strangers)}


def test_queries_are_those_that_no_model_has_seen(zoo):
    queries = zoo.data("queries")
    assert len(queries) == 300
    assert queries.digest == zoo.parts["queries"]["digest"]


def test_a_build_that_had_no_time_goes_on(tmp_path, zoo, monkeypatch):
    recipe = parse(SMALL, "small")
    assert build_zoo(recipe, tmp_path / "zoo", processes=1, seconds=0) is None
    with pytest.raises(ArtefactError, match="holds no finished population: build one with `locard zoo build"):
        open_zoo(tmp_path / "zoo")
    shutil.copytree(zoo.path, tmp_path / "zoo", dirs_exist_ok=True)
    monkeypatch.setattr(Workshop, "make", None)
    assert build_zoo(recipe, tmp_path / "zoo", processes=1, seconds=0) is not None


def test_a_build_that_has_begun_anew_says_nothing_of_the_old_models(tmp_path, zoo):
    shutil.copytree(zoo.path, tmp_path / "zoo")
    changed = SMALL.replace("epochs = 10, lr", "epochs = 11, lr")
    assert build_zoo(parse(changed, "small"), tmp_path / "zoo", processes=1, seconds=0) is None
    with pytest.raises(ArtefactError, match="holds no finished population"):
        open_zoo(tmp_path / "zoo")


def test_a_folder_holds_one_population(zoo):
    with pytest.raises(ParameterError, match="holds the population 'small'; give 'other' a folder of its own"):
        build_zoo(parse(SMALL, "other"), zoo.path)


def test_a_folder_in_which_another_population_was_begun_is_refused(tmp_path):
    assert build_zoo(parse(SMALL, "small"), tmp_path, processes=1, seconds=0) is None
    with pytest.raises(ParameterError, match="holds the population 'small'; give 'other' a folder of its own"):
        build_zoo(parse(SMALL, "other"), tmp_path, processes=1, seconds=0)


def test_a_manifest_with_one_model_in_two_roles_is_refused(zoo, tmp_path):
    shutil.copytree(zoo.path, tmp_path / "zoo")
    manifest = json.loads((tmp_path / "zoo" / "manifest.json").read_text())
    rows = {row["member"]["role"]: row for row in manifest["models"]}
    rows["evaluation"]["built"]["model"] = rows["calibration"]["built"]["model"]
    (tmp_path / "zoo" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ParameterError, match="are the same model, and have the roles"):
        open_zoo(tmp_path / "zoo")


def test_what_a_copy_learnt_from_is_written_down(zoo):
    for name, one in zoo.members.items():
        theirs = () if one.victim is None else zoo.members[one.victim].learnt
        taken = {"owner" if one.victim and zoo.members[one.victim].role == "victim" and one.role != "evaluation"
                 and one.kind == "finetune" else "thief"} if one.victim else set()  # fmt: skip
        assert set(one.learnt) == {one.data, *theirs, *taken}, name


def test_one_model_in_two_roles_is_refused(tmp_path):
    text = SMALL.replace("[thefts.finetune]", "[thefts.quantise]\nvictims = { evaluation = 1, calibration = 1 }\n\n"
                         "[thefts.finetune]")  # fmt: skip
    with pytest.raises(ParameterError, match="are the same model, and have the roles 'evaluation' and 'calibration'"):
        build_zoo(parse(text, "small"), tmp_path, processes=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda manifest: manifest.update(locard_population=1), "holds a population of another version"),
        (lambda manifest: manifest["models"][0].pop("built"), "the manifest of .* is damaged"),
        (lambda manifest: manifest["models"][-1]["member"].update(victim="nobody"), "the manifest of .* is damaged"),
        (lambda manifest: manifest["models"].append(manifest["models"][0]), "the manifest of .* is damaged"),
        (lambda manifest: manifest["parts"].clear(), "the manifest of .* is damaged"),
        (lambda manifest: manifest["models"][0]["member"].update(colour="red"), "the manifest of .* is damaged"),
        (
            lambda manifest: manifest["models"][0]["built"].update(path="../../elsewhere"),
            "the manifest of .* is damaged",
        ),
    ],
)
def test_a_damaged_manifest_is_told(zoo, tmp_path, damage, message):
    for name in ("manifest.json", "recipe.toml"):
        shutil.copy(zoo.path / name, tmp_path / name)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    damage(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=message):
        open_zoo(tmp_path)


def test_data_that_have_changed_are_told(zoo, tmp_path):
    for name in ("manifest.json", "recipe.toml"):
        shutil.copy(zoo.path / name, tmp_path / name)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["parts"]["queries"]["digest"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=r"digits:queries is not what .* was built with"):
        open_zoo(tmp_path).data("queries")
