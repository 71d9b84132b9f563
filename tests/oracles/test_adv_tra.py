"""ADV-TRA's walks against what they are said to be, and its score in plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import ArtefactError, ParameterError
from locard.models import restrict
from locard.models.torch_module import TorchModel
from locard.queries.base import unit_means
from locard.queries.trajectory import Trajectory, walk
from locard.records import Access, Data, Domain
from locard.schemes import build
from locard.testing import toy_data, toy_model

POINTS = 1 + 4 * 4
SCHEME = build("adv-tra")


@pytest.fixture(scope="module")
def victim():
    return toy_model(0, gradients=True)


@pytest.fixture(scope="module")
def fp(victim):
    # Without labels: the toy labels are another network's, so the victim rarely has them right.
    return engine.extract(victim, scheme="adv-tra", data=replace(toy_data(), labels=None), queries=12 * POINTS)


def test_of_the_steps_towards_a_class_only_the_last_arrives(fp):
    labels = fp.record["labels"].reshape(12, POINTS)
    for walked in labels:
        seen = {walked[0]}
        for stage in range(4):
            first, last = walked[1 + 4 * stage], walked[2 + 4 * stage]
            assert first != last
            seen.add(last)
        assert len(seen) == 5


def test_steps_shrink_towards_the_boundary_and_are_mirrored_beyond_it():
    source = np.random.default_rng(0)
    layer = torch.nn.Linear(6, 3)
    model = TorchModel(layer, domain=Domain(kind="tabular", shape=(6,)))
    data = Data(inputs=source.normal(size=(60, 6)).astype(np.float32), labels=None, domain=model.domain, name="noise")
    sampler = Trajectory(length=6, classes=2, decay=0.8)
    drawn = sampler.draw(restrict(model, Access.GRADIENTS), data, n=70, default=70, seed=0, population=None)
    walks = drawn.inputs.reshape(10, 7, 6)
    span = data.inputs.std(axis=0, dtype=np.float64)
    sizes = (np.abs(np.diff(walks, axis=1)) / span).max(axis=2)
    assert sizes[:, 1:3] / sizes[:, :2] == pytest.approx(0.8, rel=1e-3)
    assert sizes[:, 3:] == pytest.approx(sizes[:, 2::-1], rel=1e-3)
    labels = restrict(model, Access.LABELS).labels(drawn.inputs).reshape(10, 7)
    assert (labels[:, 2] != labels[:, 3]).all()


def test_walking_together_is_walking_one_by_one(victim):
    asked, x = restrict(victim, Access.GRADIENTS), toy_data(6).inputs
    targets, sizes = np.arange(6) % 5, np.linspace(0.01, 0.06, 6)[:, None] * np.array([1, 0.9, 0.8])
    points, labels = walk(asked, x, targets, sizes, 1.0, victim.domain)
    for row in range(6):
        alone, said = walk(asked, x[row : row + 1], targets[row : row + 1], sizes[row : row + 1], 1.0, victim.domain)
        assert np.abs(alone[0] - points[row]).max() <= 1e-6
        assert np.array_equal(said[0], labels[row])


def test_the_score_is_the_share_of_walks_that_keep_half_of_their_labels(fp):
    for seed in (1, 2):
        record = engine.respond(fp, toy_model(seed, gradients=True))
        matched = 0
        for number in range(12):
            here = slice(number * POINTS, (number + 1) * POINTS)
            mutated = np.mean(fp.record["labels"][here] != record.record["labels"][here])
            matched += mutated < 0.5
        assert SCHEME.similarity(fp, record) == matched / 12
    assert SCHEME.similarity(fp, engine.respond(fp, toy_model(0, gradients=True))) == 1


def test_a_symmetric_copy_walks_alike(fp, victim):
    weights = {name: torch.from_numpy(array.copy()) for name, array in victim.weights().items()}
    order, scale = torch.randperm(24, generator=torch.Generator().manual_seed(0)), 2.0 ** (torch.arange(24) % 5 - 2)
    copy = toy_model(0, gradients=True)
    copy.module().load_state_dict(
        {
            "1.weight": (weights["1.weight"] * scale[:, None])[order],
            "1.bias": (weights["1.bias"] * scale)[order],
            "3.weight": (weights["3.weight"] / scale)[:, order],
        }
    )
    assert SCHEME.similarity(fp, engine.respond(fp, copy)) == 1


def test_derived_models_match_more_walks_than_random_ones(fp):
    derived = [SCHEME.similarity(fp, engine.respond(fp, toy_model(0, noise=noise))) for noise in (0.02, 0.05)]
    others = [SCHEME.similarity(fp, engine.respond(fp, toy_model(seed))) for seed in range(1, 30)]
    assert min(derived) > max(others)


def test_what_cannot_be_walked_is_refused(victim):
    data = replace(toy_data(40), labels=None)
    with pytest.raises(ParameterError, match="has 17 points, so --queries must be a multiple of 17; got 20"):
        engine.extract(victim, scheme="adv-tra", data=data, queries=20)
    with pytest.raises(
        ParameterError, match=r"200 trajectories are needed; .* of 40 inputs .* gave one: give more data"
    ):
        engine.extract(victim, scheme="adv-tra", data=data, queries=200 * POINTS)
    with pytest.raises(ParameterError, match=r"length must be even: .* got 3"):
        build("adv-tra", {"length": 3})
    texts = Data(inputs=np.array(["a"], dtype=object), labels=None, name="texts",
                 domain=Domain(kind="text", shape=(), dtype="str"))  # fmt: skip
    with pytest.raises(ParameterError, match="trajectories need inputs that can be moved by a gradient"):
        Trajectory().draw(restrict(victim, Access.GRADIENTS), texts, n=None, default=17, seed=0, population=None)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (None, "units must be whole numbers, one for each of 4 queries; got none"),
        (np.zeros(3, np.int64), r"got int64 \(3,\)"),
        (np.zeros(4), r"got float64 \(4,\)"),
        (np.array([0, 0, -1, 1]), "numbered from 0 to 3; got -1 to 1"),
        (np.array([0, 0, 2**40, 1]), "numbered from 0 to 3"),
        (np.array([0, 0, 2, 2]), "unit 1 has no query"),
    ],
)
def test_a_strangers_units_are_checked(units, message):
    with pytest.raises(ArtefactError, match=message):
        unit_means({} if units is None else {"units": units}, np.ones(4, bool))


def test_units_have_their_own_means():
    assert unit_means({"units": np.array([1, 0, 1, 1])}, np.array([True, False, False, True])).tolist() == [0, 2 / 3]
