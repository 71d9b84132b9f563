"""Any sampler with any representation and any distance; a published scheme is such a composition."""

import numpy as np
import pytest

from locard import engine
from locard.errors import ParameterError
from locard.schemes import build
from locard.testing import SCHEME_LAWS, check_scheme, toy_data, toy_model

SAME = {
    "akh": ("negative+labels+hamming", {}, {}),
    "sac": ("cutmix+correlation+l1", {"answers": "labels"}, {"representation.answers": "labels"}),
    "ipguard": (
        "boundary+labels+hamming",
        {"margin": 0.2, "lr": 0.02, "steps": 400, "target": "least-likely"},
        {"sampler.margin": 0.2, "sampler.lr": 0.02, "sampler.steps": 400, "sampler.target": "least-likely"},
    ),
    "zest": (
        "segments+local-explanations+flat-cosine",
        {"masks": 20, "pieces": 5, "answers": "logits"},
        {"sampler.masks": 20, "sampler.pieces": 5, "representation.answers": "logits"},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_a_scheme_is_the_composition_of_its_parts(name):
    composed, params, parts = SAME[name]
    model, suspect = toy_model(0, gradients=name == "ipguard"), toy_model(1)
    ours = engine.extract(model, scheme=name, data=toy_data(), params=params, queries=20)
    theirs = engine.extract(model, scheme=composed, data=toy_data(), params=parts, queries=20)
    assert ours.queries.keys() == theirs.queries.keys()
    assert all(np.array_equal(ours.queries[key], theirs.queries[key]) for key in ours.queries)
    scores = [build(fp.scheme, fp.params).similarity(fp, engine.respond(fp, suspect)) for fp in (ours, theirs)]
    assert scores[0] == scores[1]


FREE = {
    "random+labels+hamming": {},
    "random+probabilities+l2": {},
    "negative+logits+cosine": {},
    "cutmix+correlation+l1": {},
    "boundary+labels+hamming": {"queries": 20},
    "segments+local-explanations+aligned-cosine": {"queries": 640, "params": {"sampler.masks": 64}},
}


@pytest.mark.parametrize("law", SCHEME_LAWS)
@pytest.mark.parametrize("name", FREE)
def test_compositions_keep_every_law(name, law):
    check_scheme(name, law, **FREE[name])


def test_labels_are_refused_by_what_compares_scores_and_scores_by_what_compares_labels():
    fp = engine.extract(toy_model(0), scheme="random+logits+hamming", data=toy_data())
    with pytest.raises(ParameterError, match="hamming compares discrete entries"):
        build(fp.scheme, fp.params).similarity(fp, engine.respond(fp, toy_model(1)))


def test_a_parts_wrong_parameter_is_refused_by_name():
    with pytest.raises(ParameterError, match=r"parameter of sampler 'cutmix': 'patches'; did you mean 'patch'"):
        build("cutmix+logits+l2", {"sampler.patches": "corner"})
