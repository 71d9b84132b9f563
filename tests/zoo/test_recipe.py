"""A recipe says who is made of what for which role, and is refused where it makes no sense."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from locard.attacks import attacks, build
from locard.errors import ArtefactError, ParameterError
from locard.evidence.conformal import STRATA
from locard.models.architectures import architectures
from locard.zoo import Theft, build_zoo, parse, read_recipe, shipped
from locard.zoo.population import digests_of
from locard.zoo.recipe import SHIPPED

SMALL = Path(__file__).with_name("small.toml").read_text()


def edited(**changes):
    text = SMALL
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def small():
    return parse(SMALL, "small")


def test_every_model_has_its_role_and_its_place(small):
    rows = {job.name: (job, member) for job, member in small.jobs()}
    roles = Counter(member.role for _, member in rows.values())
    assert roles == {"victim": 2, "evaluation": 2 + 1, "selection": 2, "calibration": 4 + 3 + 3 + 7}
    job, member = rows["copies/evaluation/plain-1/finetune-0"]
    assert isinstance(job, Theft)
    assert (job.victim, job.data, job.params) == ("victims/plain-1", "thief", {"epochs": 1})
    assert (member.victim, member.kind, member.family, member.how) == (
        "victims/plain-1", "finetune", "finetune", "fine-tuned",
    )  # fmt: skip
    assert rows["copies/selection/plain-1/finetune-0"][0].data == "owner", "the owner has not the thief's data"
    assert rows["strangers/calibration/other-cnn-finetune-000"][0].data == "thief"
    # Of this group's strangers in turn, and only of those that the theft is meant for.
    victims = [job.victim for job, member in rows.values() if member.kind == "cut"]
    assert victims == [f"strangers/calibration/other-cnn-00{n}" for n in (0, 1, 0)]
    assert {job.architecture for job, member in rows.values() if member.network == "plain" and not member.kind} == {
        "mlp"
    }


def test_strata_are_relative_to_the_victim(small):
    members = {member.name: member for _, member in small.jobs()}
    victim = members["victims/plain-0"]
    found = Counter(
        one.stratum(victim) for one in members.values() if one.role == "calibration" and "copies" not in one.name
    )
    assert found == {"same-architecture": 2, "same-data": 1, "disjoint": 3, "foreign-theft": 7}


def test_more_of_them_change_none_of_the_others(small):
    more = parse(edited(a=("networks = { plain = 2, cnn = 1 }", "networks = { plain = 5, cnn = 1 }"),
                        b=("selection = 1", "selection = 3")), "small")  # fmt: skip
    before, after = (dict((job.name, job) for job, _ in one.jobs()) for one in (small, more))
    assert before.items() <= after.items()


def test_parts_are_disjoint_and_as_large_as_asked(small):
    parts = small.parts()
    assert {name: len(part) for name, part in parts.items()} == tomllib.loads(SMALL)["data"][0]["parts"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('about = "a test"', "about = 3", "recipe 'small': about must be a text; got 3"),
        ("seed = 3", "seeds = 3", "unknown field of recipe 'small': 'seeds'; did you mean 'seed'"),
        ("seed = 3", 'name = "x"', "'name' is not for the file to say"),
        ('queries = "queries"', "", "recipe 'small' lacks 'queries'"),
        ('queries = "queries"', 'queries = "quries"', "unknown part of the data 'quries'; did you mean 'queries'"),
        ('queries = "queries"', 'queries = "thief"', "the part 'thief' is for judging, and models are trained on it"),
        ("victim = 200", "victim = 2e2", r"data\[0\]: parts.victim must be a whole number; got 200.0"),
        ("queries = 300, check", "other = 300, check", "no TOML"),
        ("epochs = 10, lr", "epochs = 0, lr", r"networks.plain: training: epochs must lie in \[1"),
        ("training = { epochs = 5 }", "training = { epoch = 5 }", "unknown field of .*training: 'epoch'; did you mean"),
        ("mean = [0.3]", "mean = 0.3", "networks.cnn: mean must be a list; got 0.3"),
        ("networks = { plain = 2 }\n", "networks = { plane = 2 }\n", "unknown network 'plane'; did you mean 'plain'"),
        ("networks = { plain = 2 }\n", "networks = { plain = 0 }\n", "a population needs a victim"),
        ("networks = { plain = 2 }\n", "networks = { plain = -1 }\n", "the number of plain must lie in"),
        ('role = "evaluation"', 'role = "judge"', r"strangers\[2\]: role must be one of 'selection', .*; got 'judge'"),
        ("thefts = { finetune = 4, cut", "thefts = { finetun = 4, cut", "unknown theft 'finetun'"),
        ("networks = { plain = 1, cnn = 2 }\n", "networks = { plain = 1 }\n",
         "cut steals cnn, and no such stranger is trained on 'other' for calibration"),
        ('of = ["cnn"]', 'of = ["cmn"]', "unknown network 'cmn'"),
        ("evaluation = 1, sel", "evalution = 1, sel", "each name in .*'selection', .*; got 'evalution'"),
        ("evaluation = 1, sel", "victim = 1, sel", "one of 'selection', 'calibration', 'evaluation'; got 'victim'"),
        ("[networks.plain]", '[[data]]\nsource = "digits"\nparts = { more = 10 }\n\n[networks.plain]',
         "'digits' is named twice, and its parts would overlap"),
        ("selection = 1, c", "selection = -1, c", "the number of copies by finetune for selection must lie in"),
        ("[thefts.cut]", '[thefts."../cut"]', r"names are made of letters, digits, .*got '\.\./cut'"),
        ('attack = "prune-channels"', "attack = ", "no TOML"),
        ("[victims]\n", "[[victims]]\n", "victims must be a table; got"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(old, new, message):
    with pytest.raises((ParameterError, ArtefactError), match=message):
        parse(edited(a=(old, new)), "small")


def test_a_recipe_is_a_shipped_name_or_a_file(tmp_path):
    (tmp_path / "mine.toml").write_text(SMALL)
    assert read_recipe(str(tmp_path / "mine.toml")).name == "mine"
    with pytest.raises(ParameterError, match="unknown recipe 'digits-smal'; did you mean 'digits-small'"):
        read_recipe("digits-smal")
    with pytest.raises(ArtefactError, match="cannot read the recipe"):
        read_recipe(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_are_whole(name):
    recipe = read_recipe(name)
    rows = recipe.jobs()
    parts = {part: f"{source.source}:{part}" for source in recipe.data for part in source.parts}
    # Names, attacks and their parameters, victims: all that can be checked without the data.
    assert len(digests_of([job for job, _ in rows], parts, recipe.held_out)) == len(rows)
    assert len({job.seed for job, _ in rows}) == len(rows)
    assert recipe.about
    for job, _ in rows:
        if isinstance(job, Theft):
            assert build(job.attack, job.params).needs_data == (job.data is not None), job.name
        else:
            assert job.architecture in architectures.names()
    references = [one for _, one in rows if one.role == "calibration" and not one.name.startswith("copies")]
    for _, victim in rows:
        if victim.role == "victim":
            assert {one.stratum(victim) for one in references} == set(STRATA), victim.name


def cut_down(name):
    """A recipe with one model of each kind, few inputs and one epoch."""
    text = (SHIPPED / f"{name}.toml").read_text("utf-8")
    before, mark, strangers = text.partition("[[strangers]]")
    before = re.sub(r"evaluation = \d+", "evaluation = 1", before)
    before = re.sub(r"(?<=networks = \{).*(?=\})", lambda found: re.sub(r"\d+", "1", found[0]), before)
    text = before + mark + re.sub(r"= \d+(?=[ ,])", "= 1", strangers)
    text = re.sub(r"(epochs|recovery) = \d+", r"\1 = 1", text)
    text = re.sub(r"(victim|other|thief|owner|queries|budget) = \d\d_000", r"\1 = 1_000", text)
    return parse(text.replace("queries = 7_000, check = 3_000", "queries = 500, check = 500"), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modelreuse", "sacbench"])
def test_the_published_structures_can_be_built(name, tmp_path):
    recipe = cut_down(name)
    zoo = build_zoo(recipe, tmp_path)
    assert zoo is not None
    assert len(zoo.members) == len(recipe.jobs())
    kinds = {theft for theft, one in read_recipe(name).thefts.items() if one.victims.get("evaluation")}
    assert {pair.kind for pair in zoo.pairs() if pair.derived} == kinds


@pytest.mark.parametrize(("name", "victims"), [("emoji", 2), ("letters", 4), ("reviews", 4)])
def test_each_victim_has_references_for_alpha_0_05_and_strangers_to_be_judged(name, victims):
    recipe = read_recipe(name)
    members = [member for _, member in recipe.jobs()]
    found = [one for one in members if one.role == "victim"]
    assert len(found) == victims
    assert len({one.network for one in found}) == 2
    for victim in found:
        for role, least in (("calibration", 19), ("evaluation", 5)):
            strangers = [one for one in members if one.role == role and not one.name.startswith("copies")]
            strata = Counter(one.stratum(victim) for one in strangers)
            assert min(strata[stratum] for stratum in STRATA) >= least, (victim.name, role, strata)
    for theft in recipe.thefts.values():
        if theft.victims.get("selection"):
            assert (theft.owner or theft.data) in (None, "owner")


def test_digits_small_tries_every_attack_but_those_that_fit_no_network_of_it():
    tried = {job.attack for job, _ in read_recipe("digits-small").jobs() if isinstance(job, Theft)}
    assert set(attacks.names()) - tried == {"relu", "datafree", "transfer"}
