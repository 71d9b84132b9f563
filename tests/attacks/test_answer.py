"""Output processing against what a view tells of the victim."""

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks._wrappers import Answering
from locard.errors import ParameterError
from locard.models import exported, load, onnx, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain


def derive(victim, **params):
    attack = build("answer", params)
    return TorchModel(attack.derive(restrict(victim, attack.needs)).module, domain=victim.domain)


def probabilities(model, x, **view):
    return restrict(model, Access.PROBABILITIES, **view).probabilities(x)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("decimals", [0, 1, 2])
@pytest.mark.parametrize("top", [0, 1, 5])
def test_no_label_changes(victim, parts, top, decimals, temperature):
    x = parts["held out"].inputs
    copy = derive(victim, top=top, decimals=decimals, temperature=temperature)
    assert np.array_equal(*(restrict(model, Access.LABELS).labels(x) for model in (copy, victim)))


@pytest.mark.parametrize(("top", "decimals"), [(1, 0), (3, 0), (0, 1), (0, 2), (5, 2)])
def test_what_is_told_is_what_a_view_of_the_victim_tells(victim, parts, top, decimals):
    x = parts["held out"].inputs
    told = probabilities(victim, x, top_k=top or None, decimals=decimals or None).astype(float)
    told = told[told.sum(axis=1) > 0] / told.sum(axis=1, keepdims=True)[told.sum(axis=1) > 0]
    got = probabilities(derive(victim, top=top, decimals=decimals), x)
    assert len(told) == len(got)
    # Halves may be rounded the other way, here as there.
    assert np.quantile(np.abs(got - told).max(axis=1), 0.99) < 2e-5


def test_the_top_one_alone_is_a_label(victim, parts):
    x = parts["held out"].inputs
    got = probabilities(derive(victim), x)
    assert np.array_equal(got > 0.5, np.eye(10, dtype=bool)[restrict(victim, Access.LABELS).labels(x)])
    assert got.max(axis=1).min() > 1 - 1e-6


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_divides_the_logits(victim, parts, temperature):
    x = parts["held out"].inputs
    scores = restrict(victim, Access.LOGITS).logits(x).astype(float) / temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    wanted = powers / powers.sum(axis=1, keepdims=True)
    assert np.abs(probabilities(derive(victim, top=0, temperature=temperature), x) - wanted).max() < 2e-5


def test_a_tie_made_by_rounding_leaves_the_answered_class_first():
    scores = torch.log(torch.tensor([[0.42, 0.44, 0.14], [0.2, 0.38, 0.42]]))
    got = Answering(torch.nn.Identity(), temperature=1.0, top=0, decimals=1)(scores)
    assert got.argmax(1).tolist() == [1, 2]
    assert got.exp()[0].tolist() == pytest.approx([0.4, 0.4, 0.1], abs=1e-5)
    many = torch.linspace(0, 0.01, 30)[None]
    assert Answering(torch.nn.Identity(), temperature=1.0, top=0, decimals=1)(many).argmax() == 29


@pytest.mark.parametrize(
    ("scores", "top", "told"),
    [
        ([1.0, 1.0, 1.0, 1.0], 1, [0]),
        ([1.0, 1.0, 1.0, 1.0], 3, [0, 1, 2]),
        ([1.0, 2.0, 1.0, 3.0], 3, [0, 1, 3]),
        ([0.0, 2.0, 2.0, 2.0], 2, [1, 2]),
        ([1.0, 2.0, 3.0, 0.0], 4, [0, 1, 2, 3]),
    ],
)
def test_of_equal_probabilities_the_first_are_told(scores, top, told):
    got = Answering(torch.nn.Identity(), temperature=1.0, top=top, decimals=0)(torch.tensor([scores]))
    assert np.flatnonzero(got.exp()[0] > 1e-6).tolist() == told


def test_probabilities_that_a_temperature_makes_equal_leave_the_answered_class_first():
    got = Answering(torch.nn.Identity(), temperature=1e6, top=1, decimals=0)(torch.tensor([[0.0, 1e-3, 2e-3]]))
    assert np.flatnonzero(got.exp()[0] > 1e-6).tolist() == [2]


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_equal_probabilities_are_told_alike_from_a_file(suffix, tmp_path):
    domain = Domain(kind="tabular", shape=(4,))
    same = torch.nn.Linear(4, 4, bias=False)
    torch.nn.init.eye_(same.weight)
    copy = TorchModel(Answering(same, temperature=1.0, top=2, decimals=0), domain=domain)
    (exported.save if suffix == ".pt2" else onnx.export)(copy, tmp_path / f"copy{suffix}")
    x = np.array([[1, 1, 1, 1], [0, 2, 2, 2], [1, 3, 1, 1]], np.float32)
    here, there = (probabilities(one, x) for one in (copy, load(tmp_path / f"copy{suffix}", trust=True)))
    assert np.array_equal(here > 1e-6, [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(here, there, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top": -1}, "top must lie in"),
        ({"decimals": 7}, r"decimals must lie in \[0, 6\]"),
        ({"temperature": 0.0}, "temperature must lie in"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("answer", wrong)


def test_more_classes_than_there_are_cannot_be_told(victim):
    with pytest.raises(ParameterError, match=r"top must lie in .*10\]; got 11"):
        derive(victim, top=11)


def test_it_can_be_written_and_read(victim, parts, tmp_path):
    copy, x = derive(victim, top=3, decimals=2, temperature=2.0), parts["held out"].inputs[:130]
    exported.save(copy, tmp_path / "copy.pt2")
    onnx.export(copy, tmp_path / "copy.onnx")
    wanted = restrict(copy, Access.LOGITS).logits(x)
    for name in ("copy.pt2", "copy.onnx"):
        again = restrict(load(tmp_path / name, trust=True), Access.LOGITS).logits(x)
        assert (np.abs(again - wanted).max(axis=1) < 1e-3).mean() > 0.97
