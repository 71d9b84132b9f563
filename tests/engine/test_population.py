"""Models that choose queries do nothing else."""

from dataclasses import replace

import pytest

import locard
from locard.engine.extract import extract
from locard.errors import AccessError, ArtefactError, CalibrationError, ParameterError
from locard.fingerprint import Fingerprint
from locard.models import restrict
from locard.queries import Population
from locard.records import Access, Domain
from locard.testing import toy_model


def views(*models):
    return tuple(restrict(model, Access.LABELS) for model in models)


@pytest.fixture
def choosers():
    return [toy_model(seed) for seed in range(50, 55)]


@pytest.fixture
def fp(victim, data, choosers):
    return extract(victim, data=data, params={"discount": True}, population=Population(independent=views(*choosers)))


def test_a_fingerprint_names_the_models_that_chose_its_queries(fp, choosers, tmp_path):
    assert fp.population == tuple(sorted(model.digest for model in choosers))
    again = Fingerprint.load(fp.save(tmp_path / "fp.locard"))
    assert again.population == fp.population
    assert again.content == fp.content != replace(fp, population=()).content


def test_whoever_was_given_is_named_whether_the_scheme_looked_or_not(victim, data, choosers):
    """Some schemes use a population where there is one and do without where there is none."""
    fp = extract(victim, data=data, population=Population(independent=views(*choosers)))
    assert len(fp.population) == 5
    assert extract(victim, data=data).population == ()


def test_no_model_counts_twice(victim, data, choosers):
    for others in (Population(independent=views(*choosers, choosers[0])),
                   Population(derived=views(choosers[0]), independent=views(*choosers))):  # fmt: skip
        with pytest.raises(ParameterError, match=r"holds the same model twice \(toy-50, toy-50\)"):
            extract(victim, data=data, params={"discount": True}, population=others)


def test_a_population_of_another_task_is_named(victim, data):
    domain = victim.domain
    values = locard.load(lambda x: x.reshape(len(x), -1)[:, :2], domain=domain, outputs="values", name="values")
    fewer = locard.load(lambda x: x.reshape(len(x), -1)[:, :2], domain=domain, outputs="logits", classes=2, name="two")
    table = Domain(kind="tabular", shape=(6,))
    other = locard.load(lambda x: x, domain=table, outputs="logits", classes=6, name="rows")
    for model, error, message in [
        (restrict(values, Access.VALUES), AccessError, "need labels of a population's models; values gives values"),
        (restrict(fewer, Access.LABELS), ParameterError, "with the victim's 5 classes; two has 2: leave it out"),
        (restrict(other, Access.LABELS), ParameterError, "takes the victim's inputs, .*; rows takes tabular"),
    ]:
        others = Population(independent=(*views(*(toy_model(seed) for seed in range(50, 53))), model))
        with pytest.raises(error, match=message):
            extract(victim, data=data, params={"discount": True}, population=others)


def test_what_chose_may_not_calibrate(fp, choosers):
    with pytest.raises(CalibrationError, match=r"toy-52 helped to choose the queries of akh .*: give others"):
        locard.calibrate(fp, references=[toy_model(1), choosers[2]])
    with pytest.raises(CalibrationError, match="toy-50 helped to choose"):
        locard.calibrate(fp, references=[toy_model(1)], derived=[choosers[0]])


def test_a_suspect_that_chose_is_told(fp, choosers):
    verdict = locard.verify(locard.calibrate(fp, references=[toy_model(1)]), choosers[0])
    assert "suspect-chose-queries" in {notice.code for notice in verdict.warnings}


def test_the_victim_is_not_independent_of_itself(victim, data):
    others = Population(independent=views(victim, *(toy_model(seed) for seed in range(50, 54))))
    with pytest.raises(ParameterError, match="is among the models of its own population"):
        extract(victim, data=data, params={"discount": True}, population=others)


@pytest.mark.parametrize("digests", [("b", "a"), ("a", "a")])
def test_a_list_of_digests_that_is_none_is_refused(fp, tmp_path, digests):
    path = replace(fp, population=digests).save(tmp_path / "fp.locard")
    with pytest.raises(ArtefactError, match="'population' must be a list of digests, sorted, each once"):
        Fingerprint.load(path)


def test_compare_hands_the_population_on(data, choosers, independents):
    population = Population(
        derived=views(toy_model(0, noise=0.02), toy_model(0, noise=0.1)), independent=views(*choosers)
    )
    comparison = locard.compare(toy_model(0, gradients=True), toy_model(0, noise=0.05), data=data, queries=50,
                                references={"same-data": independents}, schemes=["irisfp", "akh"],
                                population=population)  # fmt: skip
    assert comparison.decision == "derived"
    assert [verdict.scheme for verdict in comparison.evidence] == ["irisfp", "akh"]


def test_a_scheme_that_a_reference_does_not_allow_is_skipped_with_the_reason(victim, data, independents):
    """Unless it was asked for by name."""
    labels = locard.load(lambda x: toy_model(9)._forward(x).argmax(axis=1), domain=victim.domain, outputs="labels",
                         classes=5, name="labels only")  # fmt: skip
    settings = {"data": data, "references": {"same-data": [*independents, labels]}, "queries": 20}
    comparison = locard.compare(victim, toy_model(0), **settings)
    assert "labels only gives LABELS" in comparison.skipped["sac"]
    assert "akh" in {verdict.scheme for verdict in comparison.evidence}
    with pytest.raises(locard.errors.AccessError, match="sac needs LOGITS"):
        locard.compare(victim, toy_model(0), schemes=["akh", "sac"], **settings)
