"""MetaV against the oracles of its card, and its score computed in plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import AccessError, ArtefactError, ParameterError
from locard.fingerprint import Fingerprint
from locard.models import Session, restrict, view
from locard.models.torch_module import TorchModel
from locard.queries import Population
from locard.queries.meta import Meta, log_odds, verifier_of
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.schemes.metav import MetaV
from locard.seeds import generator
from locard.testing import toy_data, toy_domain, toy_model

SCHEME = MetaV()
# Copies so far from the victim that natural inputs do not tell all of them from strangers.
POOL = tuple(round(0.7 + 0.004 * step, 3) for step in range(24))
HELD_OUT = tuple(noise + 0.002 for noise in POOL)
STRANGERS, OTHERS = range(50, 74), range(100, 160)


def toy(seed=0, noise=0.0):
    return toy_model(seed, noise=noise, gradients=True)


def owned(model):
    return view(Session(model, model.grants), Access.MODULE)


def population(derived, independent):
    return Population(derived=tuple(map(owned, derived)), independent=tuple(map(owned, independent)))


def extract(others, *, victim=None, data=None, queries=8, seed=0, **params):
    return engine.extract(victim or toy(), scheme="metav", data=data or toy_data(), population=others, queries=queries,
                          seed=seed, params={"verifier_lr": 0.005, **params})  # fmt: skip


def said(fp, models, answers="probabilities"):
    """The verifier's log-odds for each, not cut off at the victim's."""
    verifier = verifier_of(fp.queries, fp.record[answers].size)
    access = Access[answers.upper()]
    told = [getattr(restrict(model, access), answers)(fp.queries["inputs"]) for model in models]
    return log_odds(np.stack(told).reshape(len(told), -1).astype(np.float64), verifier)


def auc(above, below):
    above, below = np.asarray(above)[:, None], np.asarray(below)[None]
    return float(np.mean((above > below) + 0.5 * (above == below)))


@pytest.fixture(scope="module")
def pool():
    return population([toy(noise=noise) for noise in POOL], [toy(seed) for seed in STRANGERS])


@pytest.fixture(scope="module")
def held_out():
    return [toy(noise=noise) for noise in HELD_OUT], [toy(seed) for seed in OTHERS]


@pytest.fixture(scope="module")
def fp(pool):
    return extract(pool)


def test_the_verifier_is_sure_of_the_victim(fp):
    own = SCHEME.similarity(fp, engine.respond(fp, toy()))
    assert 1 / (1 + np.exp(-own)) > 0.95
    assert own == pytest.approx(SCHEME.similarity(fp, fp), abs=1e-5)


def test_models_it_has_not_seen_are_told_apart(fp, held_out):
    assert auc(said(fp, held_out[0]), said(fp, held_out[1])) > 0.9


def test_with_shuffled_truth_nothing_is_learnt(held_out):
    models = [*(toy(noise=noise) for noise in POOL[:16]), *(toy(seed) for seed in STRANGERS[:16])]
    rates = []
    for trial in range(12):
        source = generator(trial, "test/shuffle")
        # Half of each kind on each side, and a victim that is neither.
        sides = [source.permutation(16) + start for start in (0, 16)]
        mixed = population(
            [models[i] for side in sides for i in side[:8]], [models[i] for side in sides for i in side[8:]]
        )
        fp = extract(mixed, victim=toy(999), seed=trial)
        rates.append(auc(said(fp, held_out[0]), said(fp, held_out[1])))
    assert np.mean(rates) == pytest.approx(0.5, abs=0.15)


def test_natural_queries_tell_less_than_learnt_ones(pool, held_out):
    def rates(lr):
        fps = [extract(pool, seed=seed, lr=lr, queries=4) for seed in range(4)]
        return [auc(said(fp, held_out[0]), said(fp, held_out[1])) for fp in fps], fps

    (natural, frozen), (learnt, moved) = rates(0.0), rates(0.02)
    assert np.mean(natural) < np.mean(learnt) - 0.02
    seeds = {image.tobytes() for image in toy_data().inputs}
    assert all(image.tobytes() in seeds for one in frozen for image in one.queries["inputs"])
    assert not any(image.tobytes() in seeds for one in moved for image in one.queries["inputs"])


def linear(weight, domain):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.astype(np.float32)))
    return TorchModel(layer, domain=domain)


@pytest.mark.parametrize("seed", range(3))
def test_one_query_of_two_linear_models_goes_along_their_difference(seed):
    source = np.random.default_rng(seed)
    domain = Domain(kind="tabular", shape=(16,))
    plus, minus = source.normal(size=(2, 1, 16))
    data = Data(inputs=source.normal(size=(50, 16)).astype(np.float32), labels=None, domain=domain, name="noise")
    near = [[linear(w * (1 + shift), domain) for shift in (1e-3, 2e-3)] for w in (plus, minus)]
    others = population(*near)
    fp = extract(others, victim=linear(plus, domain), data=data, queries=1, answers="logits", lr=0.2)
    (x,), apart = fp.queries["inputs"].astype(np.float64), (plus - minus)[0]
    assert abs(x @ apart) / np.linalg.norm(x) / np.linalg.norm(apart) > 0.75
    assert said(fp, [linear(plus, domain)], "logits")[0] > 0 > said(fp, [linear(minus, domain)], "logits")[0]


def widened(seed, noise):
    """The network of a toy with each hidden unit in two halves, all weights blurred: another architecture."""
    weights = {name: array.astype(np.float64) for name, array in toy(seed).weights().items()}
    source = generator(0, f"test/wide/{seed}/{noise}")

    def blurred(array):
        return torch.from_numpy((array + noise * source.normal(size=array.shape)).astype(np.float32))

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 5))
    module.load_state_dict({
        "1.weight": blurred(np.repeat(weights["1.weight"], 2, axis=0)),
        "1.bias": blurred(np.repeat(weights["1.bias"], 2)),
        "3.weight": blurred(np.repeat(weights["3.weight"], 2, axis=1) / 2),
        "3.bias": torch.zeros(5),
    })  # fmt: skip
    return TorchModel(module, domain=toy_domain())


def test_an_architecture_it_has_not_seen_is_judged_on_its_own(fp):
    wide = [widened(0, 0.5 + step / 1000) for step in range(20)], [widened(seed, 0.5) for seed in OTHERS]
    assert auc(said(fp, wide[0]), said(fp, wide[1])) > 0.9
    # No architecture detector: strangers of the victim's own architecture do not come out above the wide copies.
    assert auc(said(fp, wide[0]), said(fp, [toy(seed) for seed in OTHERS])) > 0.9


def test_the_score_is_the_log_odds_of_a_network_of_one_hidden_layer_cut_off_at_the_victims(fp):
    def plain(record):
        total = float(fp.queries["out_bias"][0])
        inputs = record["probabilities"].astype(np.float64).ravel().tolist()
        for unit in range(SCHEME.hidden):
            column = fp.queries["hidden_weight"][:, unit].tolist()
            before = fp.queries["hidden_bias"][unit] + sum(a * w for a, w in zip(inputs, column, strict=True))
            total += max(float(before), 0.0) * float(fp.queries["out_weight"][unit])
        return total

    own = plain(fp.record)
    for model in (toy(noise=0.3), toy(7)):
        record = engine.respond(fp, model)
        assert SCHEME.similarity(fp, record) == pytest.approx(min(own, plain(record.record)), abs=1e-9)
    # One that the verifier is surer of than of the victim: the answers moved along the verifier's slope.
    active = (fp.record["probabilities"].reshape(-1) @ fp.queries["hidden_weight"] + fp.queries["hidden_bias"]) > 0
    slope = fp.queries["hidden_weight"][:, active] @ fp.queries["out_weight"][active]
    surer = (fp.record["probabilities"] + 1e-3 * slope.reshape(8, 5) / np.linalg.norm(slope)).astype(np.float32)
    assert plain({"probabilities": surer}) > own
    assert SCHEME.similarity(fp, replace(fp, record={"probabilities": surer})) == SCHEME.similarity(fp, fp)


def test_the_weights_make_up_for_a_pool_of_many_strangers():
    many = population([toy(noise=noise) for noise in POOL[:4]], [toy(seed) for seed in range(200, 240)])
    fp = extract(many)
    assert said(fp, [toy(noise=noise) for noise in HELD_OUT[:4]]).mean() > 0
    assert said(fp, [toy(seed) for seed in OTHERS]).mean() < 0


def test_a_share_of_each_side_is_kept_for_validation_and_never_the_victim():
    truth = np.repeat([True, False], [1 + 8, 5])
    held = np.array([Meta(validation=0.25)._held(truth, seed) for seed in range(50)])
    assert not held[:, 0].any()
    assert (held[:, 1:9].sum(axis=1) == 2).all()
    assert (held[:, 9:].sum(axis=1) == 1).all()
    assert held[:, 1:].any(axis=0).all()
    # One is left to learn from, whatever the share.
    assert Meta(validation=0.99)._held(np.array([True, True, True, False, False]), 0).sum() == 2


def test_a_regression_network_is_told_by_its_values():
    def network(seed, noise=0.0):
        source = generator(seed, "test/regression")
        module = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Tanh(), torch.nn.Linear(20, 2))
        blur = generator(seed, f"test/regression/{noise}")
        state = {
            name: torch.from_numpy((source.normal(size=tensor.shape) * 10 + noise * blur.normal(size=tensor.shape))
                                   .astype(np.float32))
            for name, tensor in module.state_dict().items()
        }  # fmt: skip
        module.load_state_dict(state)
        return TorchModel(module, domain=Domain(kind="tabular", shape=(6,)))

    domain = Domain(kind="tabular", shape=(6,))
    inputs = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    data = Data(inputs=inputs, labels=None, domain=domain, name="table")
    others = population([network(0, noise) for noise in (0.1, 0.2, 0.3, 0.4)], [network(seed) for seed in range(1, 9)])
    fp = extract(others, victim=network(0), data=data, answers="logits")
    scheme = build("metav", {"answers": "logits"})
    copies = [scheme.similarity(fp, engine.respond(fp, network(0, noise))) for noise in (0.15, 0.25, 0.35)]
    assert min(copies) > 0
    assert min(copies) > max(scheme.similarity(fp, engine.respond(fp, network(seed))) for seed in range(20, 40))


def test_the_verifier_survives_a_file_and_queries_are_on_the_grid(fp, tmp_path):
    again = Fingerprint.load(fp.save(tmp_path / "fp.locard"))
    assert again.to_bytes() == fp.to_bytes()
    assert np.array_equal(toy_domain().deliver(again.queries["inputs"]), again.queries["inputs"])
    assert SCHEME.similarity(again, engine.respond(again, toy(7))) == SCHEME.similarity(fp, engine.respond(fp, toy(7)))


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("hidden_weight", lambda a: a[:-1], r"\(40, 64\); got float64 \(39, 64\)"),
        ("hidden_weight", lambda a: a.astype(np.int64), r"\(40, 64\); got int64 \(40, 64\)"),
        ("hidden_bias", lambda a: a[:0], r"\(40, 0\); got float64 \(40, 64\)"),
        ("out_weight", lambda a: a[None], r"\(64,\); got float64 \(1, 64\)"),
        ("out_bias", lambda _: None, r"\(1,\); got none"),
    ],
)
def test_a_strangers_verifier_is_checked(fp, name, change, found):
    queries = {**fp.queries, name: change(fp.queries[name])}
    bent = replace(fp, queries={key: array for key, array in queries.items() if array is not None})
    with pytest.raises(ArtefactError, match=f"the verifier's .* must be floating-point {found}"):
        SCHEME.similarity(bent, fp)


def test_records_must_hold_the_answers(fp):
    for record in ({}, {"probabilities": fp.record["probabilities"][:-1]}, {"logits": fp.record["probabilities"]}):
        with pytest.raises(ArtefactError, match="two records must hold probabilities of one shape"):
            SCHEME.similarity(fp, replace(fp, record=record))


def test_a_suspect_of_other_classes_is_refused(fp):
    other = TorchModel(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), domain=toy_domain(), source="it"
    )
    with pytest.raises(ParameterError, match=r"the victim has 5 of them, it has 3\. Use a scheme"):
        engine.respond(fp, other)


def test_what_cannot_be_learnt_is_said(pool):
    # What is called independent answers as the victim does.
    twins = population([toy(seed) for seed in range(1, 5)], [toy(noise=noise) for noise in (1e-6, 2e-6, 3e-6, 4e-6)])
    with pytest.raises(ParameterError, match=r"the verifier does not know .* itself"):
        extract(twins)
    with pytest.raises(ParameterError, match="queries of a meta-verifier need a population of 2 derived and 2 indep"):
        extract(replace(pool, derived=pool.derived[:1]))
    with pytest.raises(ParameterError, match="500 inputs to start from are needed, the data hold 400; give more data"):
        extract(pool, queries=500)
    blind = restrict(toy_model(9), Access.LOGITS)
    with pytest.raises(AccessError, match="need MODULE of every model of the population; toy-9 gives less"):
        extract(replace(pool, derived=(*pool.derived, blind)))
    text = Data(inputs=np.array(["a", "b"], object), labels=None, name="texts",
                domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="need inputs that can be moved by a gradient"):
        Meta().draw(owned(toy()), text, n=2, default=2, seed=0, population=pool)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden", 0), ("steps", 0), ("models", 1), ("lr", -0.1), ("verifier_lr", 0.0), ("validation", 0.0),
     ("validation", 1.0)],
)  # fmt: skip
def test_ranges_are_checked(name, value):
    with pytest.raises(ParameterError, match=f"{name} must lie in"):
        build("metav", {name: value})


def test_answers_are_of_a_known_kind():
    with pytest.raises(ParameterError, match="unknown kind of answers 'logit'; did you mean 'logits'"):
        build("metav", {"answers": "logit"})
