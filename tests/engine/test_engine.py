"""The verbs, on toy models whose truth is known."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

import locard
from locard.engine.calibrate import calibrate_all, stratum
from locard.engine.compare import compare_fingerprints
from locard.engine.respond import Battery
from locard.errors import AccessError, ArtefactError, BudgetError, CalibrationError, ParameterError
from locard.fingerprint import Fingerprint
from locard.models.callable import CallableModel
from locard.records import Access, Calibration, Cost, Data, Domain, Lineage
from locard.testing import toy_domain, toy_model


def codes(notices):
    return {notice.code for notice in notices}


def test_a_copy_a_derived_model_and_a_stranger(victim, data, independents):
    fp = locard.calibrate(locard.extract(victim, data=data), references={"same-data": independents})
    for suspect, decision in [
        (toy_model(0), "derived"),
        (toy_model(0, noise=0.05), "derived"),
        (toy_model(7), "no-evidence"),
    ]:
        verdict = locard.verify(fp, suspect)
        assert verdict.decision == decision
        assert verdict.evidence.p_value == pytest.approx(0.05) or decision == "no-evidence"
        assert verdict.queries == Cost(asked=100, from_journal=0)
        assert verdict.access_needed == verdict.access_used == "LABELS"
        assert verdict.power is None
        assert "--derived" in str(verdict.power_reason)


def test_without_references_nothing_is_claimed(victim, data):
    verdict = locard.verify(locard.extract(victim, data=data), victim)
    assert (verdict.decision, verdict.evidence.p_value, verdict.evidence.score) == ("uncalibrated", None, 1.0)
    assert codes(verdict.warnings) == {"uncalibrated"}


def test_power_of_known_thefts(victim, data, independents):
    thefts = {"noise": [toy_model(0, noise=n) for n in (0.01, 0.02)], "ruin": [toy_model(0, noise=9.0)]}
    fp = locard.calibrate(locard.extract(victim, data=data), references={"same-data": independents}, derived=thefts)
    rows = locard.verify(fp, toy_model(3)).power
    assert [(row.kind, row.flagged, row.n) for row in rows] == [("noise", 2, 2), ("ruin", 0, 1)]


def test_a_record_can_be_judged_without_the_model(victim, data, independents):
    fp = locard.calibrate(locard.extract(victim, data=data), references={"same-data": independents})
    record = locard.respond(fp, toy_model(0, noise=0.05))
    asked, judged = locard.verify(fp, toy_model(0, noise=0.05)), locard.verify(fp, record)
    assert judged.evidence == asked.evidence
    assert judged.queries == Cost(asked=0, from_journal=0)
    other = locard.extract(victim, data=data, seed=1)
    with pytest.raises(ParameterError, match="answers other queries"):
        locard.verify(other, record)
    with pytest.raises(ParameterError, match="record of akh cannot be held against a fingerprint of random"):
        locard.verify(locard.extract(victim, scheme="random+labels+hamming", data=data), record)


def test_a_file_is_as_good_as_the_object(victim, data, independents, tmp_path):
    fp = locard.calibrate(locard.extract(victim, data=data), references={"same-data": independents})
    path = fp.save(tmp_path / "fp.locard")
    assert locard.verify(path, toy_model(4)).evidence == locard.verify(fp, toy_model(4)).evidence


def test_the_seed_decides(victim, data):
    one, two = locard.extract(victim, data=data, seed=1), locard.extract(victim, data=data, seed=2)
    assert one.content != two.content
    assert one.content == locard.extract(victim, data=data, seed=1).content


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"scheme": "ahk"}, ParameterError, "did you mean 'akh'"),
        ({"scheme": "negative+labels"}, ParameterError, r"sampler\+representation\+distance"),
        ({"scheme": "negative+labels+haming"}, ParameterError, "did you mean 'hamming'"),
        ({"params": {"depth": 3}}, ParameterError, "unknown parameter of scheme 'akh': 'depth'"),
        ({"queries": 0}, ParameterError, r"queries must lie in \[1, inf\); got 0"),
        ({"queries": 5000}, ParameterError, "5000 inputs that the victim misclassifies are needed, the data hold"),
        ({"seed": -1}, ParameterError, "seed must be an integer >= 0"),
        ({"scheme": "no-such-room+labels+hamming"}, ParameterError, "unknown sampler"),
    ],
)
def test_extract_refuses(victim, data, arguments, error, match):
    with pytest.raises(error, match=match):
        locard.extract(victim, data=data, **arguments)


def test_data_that_do_not_fit(victim, data):
    with pytest.raises(ParameterError, match="needs data with true labels"):
        locard.extract(victim, data=replace(data, labels=None))
    with pytest.raises(ParameterError, match="has label 17; toy-0 has 5 classes"):
        locard.extract(victim, data=replace(data, labels=data.labels + 13))
    table = Data(
        inputs=np.zeros((5, 3), np.float32),
        labels=np.zeros(5, int),
        domain=Domain(kind="tabular", shape=(3,)),
        name="t",
    )
    with pytest.raises(ParameterError, match=r"toy-0 takes image \(1, 8, 8\).*t holds tabular \(3,\)"):
        locard.extract(victim, data=table)
    loud = replace(data, domain=replace(data.domain, bounds=(0.0, 255.0)))
    with pytest.raises(ParameterError, match="before its own normalisation"):
        locard.extract(victim, data=loud)
    right = CallableModel(
        lambda x: np.eye(5)[data.labels[: len(x)]], domain=toy_domain(), name="oracle", batch_size=10_000
    )
    with pytest.raises(
        ParameterError, match="10 inputs that the victim misclassifies are needed, the data hold 0; give more"
    ):
        locard.extract(right, data=data)


def test_access_is_refused_by_name(victim, data):
    labels = CallableModel(
        lambda x: np.zeros(len(x), int), domain=toy_domain(), outputs="labels", classes=5, name="api"
    )
    with pytest.raises(AccessError, match=r"boundary.* needs GRADIENTS of the victim; api gives LABELS"):
        locard.extract(labels, scheme="boundary+labels+hamming", data=data)
    with pytest.raises(ParameterError, match="unknown access"):
        locard.verify(locard.extract(victim, data=data), victim, access="root")


def test_a_suspect_of_another_kind(victim, data):
    other = CallableModel(lambda x: x, domain=Domain(kind="tabular", shape=(5,)), outputs="logits", name="table")
    with pytest.raises(ParameterError, match="cannot be compared by their answers"):
        locard.verify(locard.extract(victim, data=data), other)


def test_budget(victim, data):
    fp = locard.extract(victim, data=data)
    with pytest.raises(BudgetError, match="budget of 60 queries to toy-1 is spent; 40 more are needed"):
        locard.verify(fp, toy_model(1), budget=60)
    assert locard.verify(fp, toy_model(1), budget=100).queries.asked == 100


def test_a_spent_budget_loses_nothing(victim, data, tmp_path):
    fp = locard.extract(victim, data=data)
    journal = tmp_path / "journal.sqlite"
    with pytest.raises(BudgetError):
        locard.verify(fp, toy_model(1), budget=60, journal=journal)
    assert locard.verify(fp, toy_model(1), budget=40, journal=journal).queries == Cost(asked=40, from_journal=60)
    assert locard.verify(fp, toy_model(1), journal=journal).queries == Cost(asked=0, from_journal=100)
    assert locard.verify(fp, toy_model(2), journal=journal).queries == Cost(asked=100, from_journal=0)


@pytest.mark.parametrize(
    ("lineage", "expected"),
    [
        (Lineage(), "unstated"),
        (Lineage(data="a"), "same-data"),
        (Lineage(data="a", architecture="cnn"), "same-architecture"),
        (Lineage(data="b", architecture="cnn"), "disjoint"),
        (Lineage(data="b", parent="someone"), "foreign-theft"),
        (Lineage(derived_by="prune"), "foreign-theft"),
    ],
)
def test_strata_follow_from_lineage(victim, data, lineage, expected):
    fp = replace(locard.extract(victim, data=data), lineage=Lineage(architecture="cnn", data="a"))
    assert stratum(fp, lineage) == expected


def test_calibration_refuses(victim, data, independents):
    fp = locard.extract(victim, data=data)
    with pytest.raises(CalibrationError, match="at least one reference"):
        locard.calibrate(fp, references=[])
    with pytest.raises(CalibrationError, match="toy-0 is the victim itself"):
        locard.calibrate(fp, references=[toy_model(0)])
    with pytest.raises(CalibrationError, match=r"given 2 times \(toy-100, toy-100\)"):
        locard.calibrate(fp, references=[independents[0], independents[0]])
    child = toy_model(50)
    child.lineage = Lineage(parent=victim.digest, derived_by="prune")
    with pytest.raises(CalibrationError, match=r"derived from the victim \(prune\); give it as --derived"):
        locard.calibrate(fp, references=[child])


def test_a_theft_among_the_references_twice_over_is_told(victim, data, independents):
    fp = locard.calibrate(locard.extract(victim, data=data), references={"same-data": independents})
    assert "suspect-is-reference" in codes(locard.verify(fp, independents[3]).warnings)


def test_suspects_that_answer_at_random_or_always_the_same(victim, data, independents):
    fp = locard.calibrate(locard.extract(victim, data=data), references={"same-data": independents})
    noise = np.random.default_rng(0)
    drunk = CallableModel(
        lambda x: noise.integers(0, 5, len(x)), domain=toy_domain(), outputs="labels", classes=5, name="drunk"
    )
    assert "random-answers" in codes(locard.verify(fp, drunk).warnings)
    stuck = CallableModel(lambda x: np.full(len(x), 2), domain=toy_domain(), outputs="labels", classes=5, name="stuck")
    assert "constant-answers" in codes(locard.verify(fp, stuck).warnings)
    assert codes(locard.verify(fp, toy_model(5)).warnings) == {"missing-stratum"}


def test_logits_that_are_probabilities_are_told_whatever_the_scheme_asks(victim, data):
    def soft(x):
        score = np.exp(x.reshape(len(x), -1)[:, :5])
        return score / score.sum(axis=1, keepdims=True)

    suspect = CallableModel(soft, domain=toy_domain(), outputs="logits", classes=5, name="soft")
    fp = locard.extract(victim, data=data)
    assert "logits-are-probabilities" in codes(locard.verify(fp, suspect).warnings)
    assert "logits-are-probabilities" not in codes(locard.verify(fp, suspect, access="labels").warnings)
    assert "logits-are-probabilities" not in codes(locard.verify(fp, toy_model(3)).warnings)


def test_one_pass_for_many_fingerprints(victim, data, independents, monkeypatch):
    names = ["akh", "random+labels+hamming", "negative+labels+hamming"]
    fps = calibrate_all(
        [locard.extract(victim, scheme=n, data=data) for n in names], references={"same-data": independents}
    )
    asked = []
    model = toy_model(0, noise=0.05)
    forward = model._forward
    monkeypatch.setattr(model, "_forward", lambda x: asked.append(len(x)) or forward(x))
    found = compare_fingerprints(fps, model)
    distinct = len(np.unique(np.concatenate([fp.queries["inputs"] for fp in fps]), axis=0))
    assert asked[0] == distinct == found.queries.asked  # the first call asked everything; the others only repeat a few
    assert sum(v.queries.asked for v in found.evidence) == distinct
    assert [v.queries.asked + v.queries.from_journal for v in found.evidence] == [100, 100, 100]
    assert found.evidence[2].queries.asked == 0  # akh had asked the same
    assert (found.decision, found.method) == ("derived", "conformal rank")
    alone = [locard.verify(fp, toy_model(0, noise=0.05)).evidence for fp in fps]
    assert [v.evidence for v in found.evidence] == alone


def test_compare(victim, data, independents):
    found = locard.compare(victim, toy_model(9), data=data, references={"same-data": independents}, schemes=["akh"])
    assert found.decision == "no-evidence"
    assert found.p_value == found.evidence[0].evidence.p_value
    every = locard.compare(victim, toy_model(0), data=data, queries=20)
    assert every.decision == "uncalibrated"
    assert every.p_value is None
    assert "ipguard" in every.skipped
    assert "GRADIENTS" in every.skipped["ipguard"]
    with pytest.raises(AccessError, match="ipguard needs GRADIENTS"):
        locard.compare(victim, toy_model(9), data=data, schemes=["ipguard"])


def test_fingerprints_of_two_victims_do_not_mix(victim, data):
    fps = [locard.extract(model, data=data) for model in (victim, toy_model(1))]
    with pytest.raises(ParameterError, match="several victims"):
        compare_fingerprints(fps, toy_model(2))
    with pytest.raises(ParameterError, match="no scheme can run"):
        compare_fingerprints([], toy_model(2), skipped={"akh": "why"})


def test_the_check_inputs_tell_weak_references(victim, data):
    fp = locard.extract(victim, data=data)
    assert fp.accuracy == pytest.approx(np.mean(fp.check["labels"] == _labels(victim, fp.check["inputs"])))
    oracle = replace(fp, accuracy=0.99)
    calibrated = locard.calibrate(oracle, references=[toy_model(seed) for seed in range(100, 119)])
    assert "weak-references" in codes(locard.verify(calibrated, toy_model(3)).warnings)


def test_the_exhibit_shows_what_few_references_share(victim, data, independents):
    fp = locard.calibrate(locard.extract(victim, data=data), references={"same-data": independents})
    exhibit = locard.verify(fp, toy_model(0)).exhibit
    assert exhibit.inputs.shape == (12, 1, 8, 8)
    assert exhibit.victim == exhibit.suspect
    assert list(exhibit.share) == sorted(exhibit.share)
    assert exhibit.share[0] == min(fp.calibration.agreement or ())


def test_battery_refuses_what_was_not_granted(victim, data):
    fp = locard.extract(victim, data=data)
    gated = CallableModel(lambda x: x, domain=toy_domain(), outputs="values", name="regressor")
    with pytest.raises(AccessError, match="akh needs LABELS of the suspect; regressor gives VALUES"):
        Battery([fp], gated)
    assert Battery([fp], toy_model(1), access=Access.GRADIENTS).records()


def _labels(model, x):
    return locard.models.restrict(model, Access.LABELS).labels(x)


def test_a_strangers_fingerprint_that_does_not_fit_itself(victim, data, independents):
    fp = locard.calibrate(locard.extract(victim, data=data), references={"same-data": independents})
    odd = fp.with_calibration(replace(fp.calibration or Calibration(), agreement=(0.5,) * 3))
    with pytest.raises(ArtefactError, match=r"100 queries, 100 answers and a calibration\.agreement of 3"):
        locard.verify(odd, toy_model(3))
    for inputs in (np.full((), 0.5, np.float32), np.zeros((0, 1, 8, 8), np.float32)):
        with pytest.raises(ParameterError, match="must hold 'inputs', at least one"):
            locard.verify(replace(fp, queries={"inputs": inputs}), toy_model(3))
    with pytest.raises(ParameterError, match="parameter 'margin' must be float"):
        locard.verify(replace(fp, scheme="ipguard", params={"margin": 10**400}), toy_model(3))


def test_a_child_of_a_known_theft_is_no_reference(victim, data, independents):
    theft, child = toy_model(0, noise=0.05), toy_model(0, noise=0.1)
    theft.lineage = Lineage(parent=victim.digest, derived_by="finetune")
    child.lineage = Lineage(parent=theft.digest, derived_by="prune")
    with pytest.raises(CalibrationError, match="is made from toy-0, which is derived from the victim"):
        locard.calibrate(locard.extract(victim, data=data), references=[*independents, child], derived=[theft])


def test_one_model_stands_for_a_list_of_one(victim, data):
    fp = locard.extract(victim, data=data)
    given: Any
    for given in (toy_model(3), {"unstated": toy_model(3)}):
        assert [row.name for row in locard.calibrate(fp, references=given).calibration.references] == ["toy-3"]
    with pytest.raises(ParameterError, match="no adapter reads a NoneType"):
        locard.calibrate(fp, references=cast("Any", None))


def test_schemes_that_cannot_compare_the_suspect_are_skipped(victim, data):
    three = CallableModel(
        lambda x: x.reshape(len(x), -1)[:, :3], domain=toy_domain(), outputs="logits", classes=3, name="three"
    )
    found = locard.compare(victim, three, data=data)
    assert "the victim has 5 of them, three has 3" in found.skipped["zest"]
    assert "akh compares answers class by class" in found.skipped["akh"]
    assert "sac" in {verdict.scheme for verdict in found.evidence}
    with pytest.raises(ParameterError, match="three has 3"):
        locard.compare(victim, three, data=data, schemes=["zest"])


def test_a_file_that_lies_about_its_cost_is_refused(victim, data):
    fp = replace(locard.extract(victim, data=data), cost=1)
    with pytest.raises(ArtefactError, match="says that it asks 1 queries, and its queries are 100: take it anew"):
        locard.verify(fp, toy_model(1))


def test_a_score_that_is_no_number_is_refused(victim, data, monkeypatch):
    fp = locard.extract(victim, data=data)
    monkeypatch.setattr("locard.schemes.akh.AKH.similarity", lambda *_: float("nan"))
    with pytest.raises(ArtefactError, match="the score of akh is nan: the fingerprint or the record holds numbers out"):
        locard.verify(fp, toy_model(1))
    with pytest.raises(ArtefactError, match="the score of akh is nan"):
        locard.calibrate(fp, references=[toy_model(1)])


@pytest.mark.parametrize("changes", [
    {"bounds": (0, 1)}, {"bounds": (np.float32(0), np.float32(1))}, {"quantum": np.float32(1 / 255)},
    {"shape": [1, 8, 8]}, {"shape": (np.int64(1), 8, 8)},
])  # fmt: skip
def test_a_domain_of_any_numbers_makes_a_file_that_can_be_read(data, tmp_path, changes):
    domain = replace(toy_domain(), **changes)
    model = CallableModel(lambda x: toy_model(0)._forward(x), domain=domain, outputs="logits", classes=5, name="m")
    fp = locard.extract(model, data=Data(inputs=data.inputs, labels=data.labels, domain=domain, name="d"))
    assert Fingerprint.load(fp.save(tmp_path / "fp.locard")).content == fp.content


def test_a_seed_of_numpy_is_a_seed(victim, data):
    one, two = (locard.extract(victim, data=data, seed=seed) for seed in (cast("int", np.int64(3)), 3))
    assert one.content == two.content


@pytest.mark.parametrize("change", [lambda y: y.astype(float), lambda y: y - 1, lambda y: y[:5], lambda y: y[:, None]])
def test_labels_that_are_no_class_indices(victim, data, change):
    with pytest.raises(ParameterError, match="one class index, a whole number from 0, for each of its 400 inputs"):
        locard.extract(victim, data=replace(data, labels=change(data.labels)))


def test_labels_of_any_whole_dtype_make_a_file_that_can_be_read(victim, data, tmp_path):
    fp = locard.extract(victim, data=replace(data, labels=data.labels.astype(np.uint64)))
    assert Fingerprint.load(fp.save(tmp_path / "fp.locard")).check["labels"].dtype == np.int64


def test_inputs_of_another_range_are_refused_not_answered(victim, data):
    fp = locard.extract(victim, data=data)
    loud = CallableModel(
        lambda x: x.reshape(len(x), -1)[:, :5],
        domain=replace(toy_domain(), bounds=(0.0, 255.0), quantum=1.0),
        outputs="logits",
        classes=5,
        name="loud",
    )
    for ask in (lambda: locard.verify(fp, loud), lambda: locard.calibrate(fp, references=[loud])):
        with pytest.raises(
            ParameterError, match=r"loud takes inputs in \[0\.0, 255\.0\], the fingerprint asks in \[0\.0, 1"
        ):
            ask()


def test_a_claim_that_the_scheme_does_not_support(victim, data):
    fp = replace(locard.extract(victim, data=data), claim="identical")
    with pytest.raises(ArtefactError, match="claims 'identical', but akh supports 'derived' only"):
        locard.verify(fp, victim)


def test_names_that_are_no_utf8_are_written_out(victim, data, tmp_path):
    fp = locard.extract(victim, data=replace(data, name="caf\udce9.npz"))
    assert Fingerprint.load(fp.save(tmp_path / "fp.locard")).data_name == "caf\\udce9.npz"


def test_a_folder_without_models(victim, data, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(CalibrationError, match="no model in the folder"):
        locard.calibrate(locard.extract(victim, data=data), references=tmp_path)
