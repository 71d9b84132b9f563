"""Randomised smoothing against its definition, one noisy version at a time."""

from typing import Any

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.attacks._wrappers import Smoothed
from locard.errors import ParameterError
from locard.models import exported, load, onnx, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain
from locard.seeds import generator


def derive(victim, seed=0, **params) -> Any:
    attack = build("smooth", params)
    return attack.derive(restrict(victim, attack.needs), seed=seed)


def logits(module, x):
    with torch.inference_mode():
        return module(torch.from_numpy(x)).numpy()


def softmax(scores):
    powers = np.exp(scores.astype(float) - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def linear(weight):
    """Logits W x, without a bias."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = torch.from_numpy(weight.astype(np.float32))
    return layer


@pytest.mark.parametrize("combine", ["labels", "probabilities"])
def test_without_noise_it_is_the_victim(victim, parts, combine):
    x = parts["held out"].inputs
    smoothed, before = (
        logits(derive(victim, sigma=0.0, copies=3, combine=combine).module, x),
        logits(victim.module(), x),
    )
    assert np.array_equal(smoothed.argmax(1), before.argmax(1))
    if combine == "probabilities":
        assert np.abs(softmax(smoothed) - softmax(before)).max() < 1e-6


def test_votes_are_counted_one_version_at_a_time(victim, parts):
    module, x = derive(victim, sigma=0.2, copies=7).module, parts["held out"].inputs[:200]
    bank = module.bank.numpy()
    answers = np.stack([logits(victim.module(), x + noise) for noise in bank])
    counts = np.stack([(answers.argmax(2) == k).sum(0) for k in range(10)], axis=1)
    mean = softmax(answers).mean(0)
    wanted = (counts + mean) / 8
    assert np.abs(softmax(logits(module, x)) - wanted).max() < 1e-5
    assert np.abs(wanted.sum(1) - 1).max() < 1e-9
    two = np.sort(counts, axis=1)[:, -2:]
    clear = two[:, 1] > two[:, 0]
    assert 0 < (~clear).sum() < 100
    assert np.array_equal(logits(module, x).argmax(1)[clear], counts.argmax(1)[clear])
    # Noise must have changed some votes, or this shows nothing.
    assert (two[:, 1] < 7).sum() > 20


def test_probabilities_are_averaged(victim, parts):
    module, x = derive(victim, sigma=0.2, copies=5, combine="probabilities").module, parts["held out"].inputs[:100]
    answers = np.stack([softmax(logits(victim.module(), x + noise)) for noise in module.bank.numpy()])
    assert np.abs(softmax(logits(module, x)) - answers.mean(0)).max() < 1e-6


def test_the_extra_vote_breaks_ties_and_overturns_no_majority():
    # Two sure votes for class 0, three narrow ones for class 1: the mean is all for class 0.
    bank = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 0.1], [0.0, 0.1], [0.0, 0.1]])
    nothing = torch.zeros(1, 2)
    assert Smoothed(torch.nn.Identity(), bank, votes=True)(nothing).argmax() == 1
    assert Smoothed(torch.nn.Identity(), bank, votes=False)(nothing).argmax() == 0
    assert Smoothed(torch.nn.Identity(), bank[1:4:2], votes=True)(nothing).argmax() == 0


def test_the_noise_is_gaussian_of_that_size(victim):
    bank = derive(victim, sigma=0.3, copies=400).module.bank
    draws = bank.numpy().ravel()
    assert bank.shape == (400, 1, 8, 8)
    assert abs(draws.mean()) < 5 * 0.3 / np.sqrt(len(draws))
    assert draws.std() == pytest.approx(0.3, rel=5 / np.sqrt(2 * len(draws)))
    # Of a Gaussian 4.55 % lie beyond two deviations.
    assert (np.abs(draws) > 0.6).mean() == pytest.approx(0.0455, abs=5 * np.sqrt(0.0455 / len(draws)))


def test_sigma_is_a_share_of_the_range():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    banks = [derive(TorchModel(module, domain=Domain(kind="image", shape=(1, 8, 8), bounds=bounds)), sigma=0.1)
             for bounds in ((0.0, 1.0), (-1.0, 1.0), None)]  # fmt: skip
    unit, wide, free = (stolen.module.bank for stolen in banks)
    assert torch.allclose(wide, 2 * unit)
    assert torch.equal(free, unit)


def test_a_binary_linear_model_keeps_its_labels():
    source = generator(0, "test")
    weight, x = source.standard_normal((2, 5)), source.standard_normal((300, 5)).astype(np.float32)
    bank = torch.from_numpy(source.standard_normal((2000, 5)).astype(np.float32))
    before = x @ (weight[1] - weight[0]) / np.linalg.norm(weight[1] - weight[0])
    after = logits(Smoothed(linear(weight), bank, votes=True), x).argmax(1)
    # Votes for the right side come with probability Phi(lead): beyond 0.1 the majority of 2000 errs once in 10^4.
    clear = np.abs(before) > 0.1
    assert clear.sum() > 200
    assert np.array_equal(after[clear], (before > 0)[clear].astype(int))


def test_a_linear_model_of_three_classes_need_not():
    # Class 0 wins in a thin slab between two others, which nearly all noise leaves.
    weight = np.array([[0.0, 1.0], [10.0, 0.0], [-10.0, 0.0]])
    x = np.array([[0.0, 1.0]], np.float32)
    bank = torch.from_numpy(np.stack([generator(0, "test").standard_normal(500), np.zeros(500)], axis=1).astype("f4"))
    assert logits(linear(weight), x).argmax() == 0
    assert logits(Smoothed(linear(weight), bank, votes=True), x).argmax() != 0


def test_the_same_query_has_the_same_answer(victim, parts):
    module, x = derive(victim).module, parts["held out"].inputs[:40]
    together = logits(module, x)
    assert np.array_equal(together, logits(module, x))
    assert np.abs(together - np.concatenate([logits(module, row[None]) for row in x])).max() < 1e-5


def test_a_little_noise_is_still_a_theft(victim, parts):
    attack = build("smooth", {"sigma": 0.05})
    x, y = parts["held out"].inputs, parts["held out"].labels
    ours, theirs = (logits(module, x).argmax(1) for module in (victim.module(), derive(victim, sigma=0.05).module))
    assert attack.judge(ours, theirs, y).accepted
    assert not attack.judge(ours, logits(derive(victim, sigma=1.0).module, x).argmax(1), y).accepted


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": -0.1}, "sigma must lie in"),
        ({"copies": 0}, "copies must lie in"),
        ({"combine": "votes"}, "combine must be 'labels' or 'probabilities'; got 'votes'"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("smooth", wrong)


def test_tokens_are_refused():
    module = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    domain = Domain(kind="tokens", shape=(2,), dtype="int64")
    with pytest.raises(ParameterError, match=r"smooth needs a victim of images or tables in float32; .* tokens"):
        derive(TorchModel(module, domain=domain))


def test_it_can_be_written_and_read(victim, parts, tmp_path):
    stolen, x = derive(victim, sigma=0.1), parts["held out"].inputs[:130]
    copy = TorchModel(stolen.module, domain=victim.domain)
    exported.save(copy, tmp_path / "copy.pt2")
    onnx.export(copy, tmp_path / "copy.onnx")
    for name in ("copy.pt2", "copy.onnx"):
        again = restrict(load(tmp_path / name, trust=True), Access.LOGITS).logits(x)
        assert np.abs(again - logits(stolen.module, x)).max() < 1e-3
