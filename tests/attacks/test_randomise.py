"""Boundary randomisation: what may change and what may not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from locard.attacks import bare, build
from locard.attacks._wrappers import Field, Randomised, keyed
from locard.attacks.randomise import amplitude, boundary_points, clearance, nearest
from locard.errors import ParameterError
from locard.models import exported, load, onnx, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access, Data, Domain
from locard.seeds import generator


def derive(victim, data, seed=0, progress=None, **params) -> Any:
    attack = build("randomise", params)
    return attack.derive(restrict(victim, attack.needs), data, seed=seed, progress=progress)


def logits(module, x):
    with torch.inference_mode():
        return module(torch.from_numpy(x)).numpy()


def lead(answers):
    two = np.sort(answers, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def field_by_hand(field, x):
    waves, phases, mix = (t.numpy().astype(float) for t in (field.waves, field.phases, field.mix))
    return np.tanh(np.cos(x.reshape(len(x), -1).astype(float) @ waves + phases) @ mix)


@pytest.fixture(scope="module")
def anything(victim):
    """Inputs of no meaning, where the victim is unsure."""
    return victim.domain.deliver(generator(0, "test").random((500, *victim.domain.shape), np.float32))


@pytest.mark.parametrize("fade", [0.0, 0.5])
@pytest.mark.parametrize("loss", [0.05, 0.5])
def test_no_answer_changes_that_leads_by_more_than_twice_the_amplitude(victim, parts, anything, loss, fade):
    module = derive(victim, parts["thief"], loss=loss, fade=fade).module
    changed = 0
    for x in (parts["thief"].inputs, parts["held out"].inputs, anything):
        before, after = logits(victim.module(), x), logits(module, x)
        other = before.argmax(1) != after.argmax(1)
        assert not other[lead(before) > 2 * module.amplitude].any()
        changed += other.sum()
    # On so many inputs of no meaning the copy must differ, or nothing was moved.
    assert changed > 10


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.1, 0.5])
def test_at_most_the_allowed_share_of_the_thiefs_labels_can_change(victim, parts, loss):
    x = parts["thief"].inputs
    module = derive(victim, parts["thief"], loss=loss).module
    before, after = logits(victim.module(), x), logits(module, x)
    assert (lead(before) <= 2 * module.amplitude).sum() == int(loss * len(x))
    assert (before.argmax(1) != after.argmax(1)).mean() <= loss


def test_boundaries_off_the_data_move_more_than_labels_on_them(victim, parts):
    module = derive(victim, parts["thief"], loss=0.2).module
    between = boundary_points(victim.module(), parts["held out"].inputs, 500, seed=3)
    moved, lost = ((logits(victim.module(), x).argmax(1) != logits(module, x).argmax(1)).mean()
                   for x in (between, parts["held out"].inputs))  # fmt: skip
    # A point on the boundary changes its label when the field says so, that is half of the time.
    assert 0.3 < moved < 0.8
    assert lost < 0.1


def test_without_amplitude_the_wrapper_is_the_victim(victim, parts):
    field = keyed(parts["thief"].inputs, 10, share=0.25, seed=0, name="test")
    x = parts["held out"].inputs
    assert np.array_equal(logits(Randomised(victim.module(), field, 0.0, 0.0), x), logits(victim.module(), x))


@pytest.mark.parametrize("fade", [0.0, 0.5])
def test_the_answers_are_the_definition(victim, parts, fade):
    module, x = derive(victim, parts["thief"], fade=fade).module, parts["held out"].inputs
    before = logits(victim.module(), x).astype(float)
    shift = module.amplitude * field_by_hand(module.field, x)
    if fade:
        shift *= np.exp(-lead(before) / (2 * module.amplitude * fade))[:, None]
    assert np.abs(logits(module, x) - (before + shift)).max() < 1e-4
    assert np.abs(shift).max() < module.amplitude


def test_the_same_query_has_the_same_answer(victim, parts):
    module, x = derive(victim, parts["thief"], loss=0.3).module, parts["held out"].inputs[:50]
    together = logits(module, x)
    assert np.array_equal(together, logits(module, x))
    alone = np.concatenate([logits(module, x[i : i + 1]) for i in range(len(x))])
    assert np.abs(together - alone).max() < 1e-5


def test_the_field_has_the_covariance_it_promises():
    points = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 1.5], [3.0, 4.0]])
    inner = []
    for key in range(400):
        field = Field((2,), 8, length=1.3, source=torch.Generator().manual_seed(key))
        inner.append(torch.atanh(field(points).double()).numpy())
    found = np.einsum("kpo,kqo->pq", np.array(inner), np.array(inner)) / (400 * 8)
    wanted = np.exp(-(cdist(points, points) ** 2) / (2 * 1.3**2))
    # A product of two unit Gaussians deviates by at most sqrt(2); five standard errors of 3,200, and what tanh rounds.
    assert np.abs(found - wanted).max() < 5 * np.sqrt(2 / 3200)


def test_its_length_is_a_share_of_the_usual_distance(parts):
    x = parts["thief"].inputs
    field = keyed(x, 1, share=0.5, seed=0, name="test")
    flat = x.reshape(len(x), -1)
    usual = np.median(cdist(flat, flat)[np.triu_indices(len(flat), 1)])
    assert 1 / float(field.waves.std()) == pytest.approx(0.5 * usual, rel=0.05)


def test_amplitude_counts_the_leads():
    answers = np.array([[0.0, 4.0], [2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    assert amplitude(answers, 0.0) == pytest.approx(0.5, rel=2e-3)
    assert amplitude(answers, 0.25) == pytest.approx(1.0, rel=2e-3)
    assert amplitude(answers, 0.5) == pytest.approx(1.5, rel=2e-3)
    assert amplitude(answers, 0.25) < 1.0


def test_bisection_ends_on_the_boundary():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2))
    x = generator(0, "test").standard_normal((80, 6)).astype(np.float32)
    found = boundary_points(module, x, 300, seed=1)
    margins = logits(module, x) @ [1, -1]
    # On a line the lead of a linear model changes evenly, so ten halvings leave a 2048th of the widest change.
    assert np.abs(logits(module, found) @ [1, -1]).max() <= np.ptp(margins) / 2**11 + 1e-5
    assert 100 < len(found) < 200


def test_distances_are_those_of_scipy(parts):
    points, x = parts["held out"].inputs[:40], parts["thief"].inputs
    far = cdist(points.reshape(40, -1), x.reshape(len(x), -1))
    assert np.abs(nearest(points, x) - far.min(1)).max() < 1e-3
    own = cdist(x.reshape(len(x), -1), x.reshape(len(x), -1))
    np.fill_diagonal(own, np.inf)
    assert clearance(x, seed=0) == pytest.approx(np.median(own.min(1)) / 2, rel=1e-3)


@pytest.fixture(scope="module")
def trained(victim, parts):
    calls = []
    stolen = derive(victim, parts["thief"], seed=5, form="trained", epochs=2, lr=3e-3, weight=1.0, loss=0.2,
                    progress=lambda *step: calls.append(step))  # fmt: skip
    return stolen, calls


def test_training_moves_the_victims_boundaries_where_the_key_says(victim, parts, trained):
    stolen, calls = trained
    between = boundary_points(victim.module(), parts["held out"].inputs, 600, seed=9)
    before, after = (logits(module, between) for module in (victim.module(), stolen.module))
    two = np.argsort(-before, axis=1)[:, :2]
    field = keyed(parts["thief"].inputs, 10, share=1.0, seed=5, name="randomise")
    keys = field_by_hand(field, between)
    wanted = two[np.arange(len(two)), np.take_along_axis(keys, two, axis=1).argmax(1)]
    # The two first classes are level at such a point, so the victim obeys a key it does not know half of the time.
    assert abs((before.argmax(1) == wanted).mean() - 0.5) < 0.12
    assert (after.argmax(1) == wanted).mean() > 0.65
    assert calls == [(1, 2), (2, 2)]


def test_training_keeps_the_labels_of_data(victim, parts, trained):
    stolen, _ = trained
    order = generator(5, "randomise/aside").permutation(500)
    aside = parts["thief"].inputs[order[:100]]
    assert (logits(victim.module(), aside).argmax(1) != logits(stolen.module, aside).argmax(1)).mean() <= 0.2
    assert stolen.effort.epochs == 2
    assert not stolen.unnamed
    assert stolen.lineage.architecture == "cnn"
    assert type(bare(stolen.module)) is type(bare(victim.module()))


def test_training_that_costs_too_much_is_undone(victim, parts):
    told = []
    stolen = derive(victim, parts["thief"], progress=lambda *one: told.append(one), form="trained", epochs=3, lr=0.1,
                    loss=0.0)  # fmt: skip
    # It was trained, and paid for.
    assert stolen.effort.epochs == 1
    assert told[-1] == (3, 3)
    (note,) = stolen.notes
    assert note.startswith("epoch 1 of 3 was undone: it changed ")
    assert note.endswith("% of the labels, 0.0% were allowed")
    ours, theirs = victim.module().state_dict(), stolen.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_too_few_inputs_are_refused(victim, parts):
    with pytest.raises(ParameterError, match=r"form=trained needs 5 inputs or more; 4 were given"):
        derive(victim, parts["thief"].take(np.arange(4)), form="trained")
    with pytest.raises(ParameterError, match="half of the pairs of them, or more, are equal"):
        derive(victim, parts["thief"].take(np.zeros(10, np.int64)))
    # Distances of 1e-37 have no frequency in float32.
    close = TorchModel(victim.module(), domain=replace(victim.domain, bounds=None, quantum=None))
    tiny = replace(parts["thief"], inputs=parts["thief"].inputs * np.float32(1e-37), domain=close.domain)
    with pytest.raises(ParameterError, match="are equal or nearly so"):
        derive(close, tiny)


def test_a_victim_that_never_changes_its_label_has_no_boundary(parts):
    layer = torch.nn.Linear(64, 3)
    torch.nn.init.zeros_(layer.weight)
    constant = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), layer), domain=parts["thief"].domain)
    data = Data(inputs=parts["thief"].inputs, labels=None, domain=parts["thief"].domain, name="bare")
    with pytest.raises(ParameterError, match="no boundary point was found far enough from the thief's inputs"):
        derive(constant, data, form="trained")


def test_words_and_single_classes_are_refused(parts):
    domain = Domain(kind="tokens", shape=(2,), dtype="int64")
    module = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    data = Data(inputs=np.zeros((6, 2), np.int64), labels=None, domain=domain, name="tokens")
    with pytest.raises(ParameterError, match=r"randomise needs a victim of images or tables in float32; .* tokens"):
        derive(TorchModel(module, domain=domain), data)
    single = TorchModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1)), domain=parts["thief"].domain)
    with pytest.raises(ParameterError, match=r"randomise needs a victim of two classes or more; .* has one"):
        derive(single, parts["thief"].take(np.flatnonzero(parts["thief"].labels == 0)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"form": "both"}, "form must be 'wrapper' or 'trained'; got 'both'"),
        ({"loss": 1.0}, r"loss must lie in \[0, 1\)"),
        ({"length": 0.0}, "length must lie in"),
        ({"fade": -1.0}, "fade must lie in"),
        ({"weight": -1.0}, "weight must lie in"),
        ({"epochs": 0}, "epochs must lie in"),
        ({"lr": 0.0}, "lr must lie in"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("randomise", wrong)


def test_the_wrapper_can_be_written_and_read(victim, parts, tmp_path):
    stolen, x = derive(victim, parts["thief"], loss=0.2, fade=1.0), parts["held out"].inputs
    copy = TorchModel(stolen.module, domain=victim.domain)
    exported.save(copy, tmp_path / "copy.pt2")
    onnx.export(copy, tmp_path / "copy.onnx")
    for name in ("copy.pt2", "copy.onnx"):
        again = restrict(load(tmp_path / name, trust=True), Access.LOGITS).logits(x)
        assert np.abs(again - logits(stolen.module, x)).max() < 1e-4
