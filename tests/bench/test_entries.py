"""What takes part, by name."""

import pytest

from locard.bench import parse, standard, within
from locard.errors import ParameterError
from locard.records import Access
from locard.schemes import schemes


def test_every_scheme_takes_part():
    assert [one.scheme for one in {entry.scheme: entry for entry in standard()}.values()] == schemes.names()
    names = [entry.name for entry in standard()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("level", ["labels", "probabilities", "logits", "gradients", "module"])
def test_access_bounds_what_takes_part(level):
    granted = Access.parse(level).implied
    names = {entry.name for entry in standard(level)}
    assert names == {entry.name for entry in standard() if entry.build().suspect_access in granted}
    assert ("modelgif" in names) == (level in ("gradients", "module"))
    assert "sac(answers=labels)" in names


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("akh", ["akh"]),
        ("sac", ["sac", "sac(answers=probabilities)", "sac(answers=labels)", "sac(answers=labels, variant=normal)"]),
        ("sac:answers=labels,variant=w", ["sac(answers=labels, variant=w)"]),
        ("sac:variant=w,answers=labels", ["sac(answers=labels, variant=w)"]),
        ("akh:discount=true", ["akh(discount=True)"]),
        ("negative+labels+hamming", ["negative+labels+hamming"]),
    ],
)
def test_words_name_entries(word, names):
    assert [entry.name for entry in parse(word)] == names


def test_an_entry_of_other_parameters_asks_as_many_queries_as_its_scheme():
    assert parse("modeldiff:steps=3")[0].queries == parse("modeldiff")[0].queries == 100


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ahk", "unknown scheme 'ahk'; did you mean 'akh'"),
        ("akh:discount", "a scheme's parameters are written NAME:KEY=VALUE,KEY=VALUE; got 'akh:discount'"),
        ("akh:discont=true", "unknown parameter of scheme 'akh': 'discont'"),
        ("akh:discount=maybe", "parameter 'discount' must be bool; got 'maybe'"),
    ],
)
def test_words_that_name_none_are_refused(word, message):
    with pytest.raises(ParameterError, match=message):
        parse(word)


def test_no_entry_left_is_told():
    with pytest.raises(ParameterError, match="none of modelgif can do with LABELS"):
        within(parse("modelgif"), "labels")
