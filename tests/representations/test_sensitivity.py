"""Sensitivity against closed forms and plain loops, and the gradients by the weights that it rests on."""

import numpy as np
import pytest
import torch

from locard import engine
from locard.errors import AccessError, BudgetError, ParameterError
from locard.models import Session, _gradients, view
from locard.models.torch_module import TorchModel
from locard.queries import Queries
from locard.queries._adversarial import cross_entropy
from locard.records import Access, Domain
from locard.representations.sensitivity import Sensitivity, cosines
from locard.schemes import build
from locard.testing import SCHEME_LAWS, check_scheme, toy_data, toy_domain, toy_model

FREE = Domain(kind="tabular", shape=(6,))


def owned(model):
    return view(Session(model, model.grants), Access.MODULE)


def own_logit(logits):
    return logits.amax(dim=1)


def plain(module, x, of="logit", *, by="weights"):
    """(n, entries) gradients of the model's own score, one backward pass an input."""
    rows = []
    for one in x:
        at = torch.from_numpy(one[None].copy()).requires_grad_()
        logits = module(at)[0]
        own = (logits if of == "logit" else logits.log_softmax(dim=0))[logits.argmax()]
        wanted = list(module.parameters()) if by == "weights" else [at]
        rows.append(np.concatenate([part.numpy().ravel() for part in torch.autograd.grad(own, wanted)]))
    return np.stack(rows).astype(np.float64)


def linear(weight, bias=None):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))
    return TorchModel(layer, domain=FREE)


class Crooked(torch.nn.Module):
    """Trains, works in place, branches on what it sees, ties and freezes weights, and leaves some unused."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(6)
        self.first = torch.nn.Linear(6, 6)
        self.second = torch.nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.unused = torch.nn.Linear(3, 3)
        self.out = torch.nn.Linear(6, 4)
        self.out.bias.requires_grad_(False)

    def forward(self, x):
        x.mul_(2)
        x = self.second(torch.relu_(self.first(self.norm(x))))
        if bool((x < 0).any()):
            x.clamp_(min=0)
        return self.out(x)


@pytest.mark.parametrize("of", ["logit", "log-probability"])
@pytest.mark.parametrize("by", ["inputs", "weights"])
def test_it_is_the_cosine_of_gradients_taken_one_by_one(by, of):
    model, x = toy_model(0, gradients=True, batch_size=7), toy_data(30).inputs
    found = Sensitivity(by=by, of=of).record(owned(model), Queries(inputs=x))["sensitivity"]
    rows = plain(model.module(), x, of, by=by)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert found == pytest.approx(rows @ rows.T, abs=1e-5)
    assert found.dtype == np.float32
    assert np.array_equal(found, found.T)
    assert np.array_equal(np.diagonal(found), np.ones(30))
    # Neither all alike nor all unrelated.
    assert found[~np.eye(30, dtype=bool)].std() > 0.05


def test_of_a_linear_model_it_is_known():
    source = np.random.default_rng(0)
    weight, bias = source.normal(size=(4, 6)).astype(np.float32), source.normal(size=4).astype(np.float32)
    x = source.normal(size=(20, 6)).astype(np.float32)
    own, model = (x @ weight.T + bias).argmax(axis=1), linear(weight, bias)
    # By the weights of class k the gradient of its logit is (x, 1).
    expected = (own[:, None] == own) * (x.astype(np.float64) @ x.T + 1)
    assert owned(model).weight_gram(x, own_logit) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    ways = weight[own].astype(np.float64)
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    found = Sensitivity().record(owned(model), Queries(inputs=x))["sensitivity"]
    assert found == pytest.approx(ways @ ways.T, abs=1e-6)


@pytest.mark.parametrize("by", ["inputs", "weights"])
def test_the_order_of_neurons_and_classes_changes_nothing(by):
    victim, x = toy_model(0, gradients=True), toy_data(40).inputs
    weights = {name: torch.from_numpy(array.copy()) for name, array in victim.weights().items()}
    source = np.random.default_rng(1)
    neurons, classes = torch.from_numpy(source.permutation(24)), torch.from_numpy(source.permutation(5))
    copy = toy_model(0, gradients=True)
    copy.module().load_state_dict({
        "1.weight": weights["1.weight"][neurons],
        "1.bias": weights["1.bias"][neurons],
        "3.weight": weights["3.weight"][classes][:, neurons],
    })  # fmt: skip
    asked, part = Queries(inputs=x), Sensitivity(by=by)
    before, after, other = (
        part.record(owned(model), asked)["sensitivity"] for model in (victim, copy, toy_model(1, gradients=True))
    )
    assert after == pytest.approx(before, abs=1e-5)
    assert np.abs(other - before).max() > 0.3


def test_a_positive_factor_on_the_logits_changes_nothing():
    model, x = toy_model(0, gradients=True), toy_data(20).inputs
    before = Sensitivity().record(owned(model), Queries(inputs=x))["sensitivity"]
    with torch.no_grad():
        model.module().get_parameter("3.weight").mul_(8)
    assert Sensitivity().record(owned(model), Queries(inputs=x))["sensitivity"] == pytest.approx(before, abs=1e-6)


def test_blocks_and_batches_change_nothing(monkeypatch):
    x, labels = toy_data(23).inputs, np.arange(23) % 5
    whole = owned(toy_model(0, gradients=True)).weight_gram(x, cross_entropy(labels))
    entries = 64 * 24 + 24 + 24 * 5
    # Five inputs a block, and columns that end inside a tensor.
    monkeypatch.setattr(_gradients, "HELD", 4 * entries * 5 + 3)
    monkeypatch.setattr(_gradients, "COLUMNS", 100)
    parts = owned(toy_model(0, gradients=True, batch_size=4)).weight_gram(x, cross_entropy(labels))
    assert parts == pytest.approx(whole, rel=1e-5, abs=1e-4)
    assert parts.dtype == np.float64
    assert np.linalg.eigvalsh(whole).min() > -1e-6 * np.linalg.eigvalsh(whole).max()
    # A gradient larger than a block is still taken.
    monkeypatch.setattr(_gradients, "HELD", 1)
    assert owned(toy_model(0, gradients=True)).weight_gram(x, cross_entropy(labels)) == pytest.approx(whole, rel=1e-5)


def test_a_crooked_module_is_followed_and_left_as_it_was():
    module = Crooked().train()
    model = TorchModel(module, domain=FREE, mean=(0.5,), std=(2.0,))
    x = np.random.default_rng(2).normal(size=(25, 6)).astype(np.float32)
    before = {name: array.copy() for name, array in model.weights().items()}
    found = owned(model).weight_gram(x, own_logit)
    assert module.training
    assert [name for name, one in module.named_parameters() if not one.requires_grad] == ["out.bias"]
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(np.array_equal(array, before[name]) for name, array in model.weights().items())
    module.eval()
    module.out.bias.requires_grad_(True)
    rows = []
    for one in (x - np.float32(0.5)) / np.float32(2.0):
        module.zero_grad()
        module(torch.from_numpy(one[None].copy())).max().backward()
        parts = [np.zeros(one.numel()) if one.grad is None else one.grad.numpy().ravel() for one in module.parameters()]
        rows.append(np.concatenate(parts))
    assert all(parameter.grad is None for parameter in module.unused.parameters())
    rows = np.stack(rows).astype(np.float64)
    assert found == pytest.approx(rows @ rows.T, rel=1e-5, abs=1e-6)


def test_by_the_weights_inputs_need_not_move():
    module = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Flatten(), torch.nn.Linear(12, 3))
    tokens = TorchModel(module, domain=Domain(kind="tokens", shape=(3,), dtype="int64"))
    asked = Queries(inputs=np.random.default_rng(3).integers(0, 9, (10, 3)))
    found = Sensitivity(by="weights").record(owned(tokens), asked)["sensitivity"]
    rows = [torch.autograd.grad(module(torch.from_numpy(one[None])).max(), list(module.parameters()))
            for one in asked.inputs]  # fmt: skip
    flat = np.stack([np.concatenate([part.numpy().ravel() for part in row]) for row in rows]).astype(np.float64)
    assert found == pytest.approx(cosines(flat @ flat.T), abs=1e-5)
    with pytest.raises(
        ParameterError, match=r"needs inputs that a gradient can move; .* takes tokens .* set by=weights"
    ):
        Sensitivity().record(owned(tokens), asked)


def test_silent_inputs_are_alike_and_unrelated_to_others():
    gram = np.zeros((3, 3))
    gram[2, 2] = 4.0
    assert np.array_equal(cosines(gram), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("by", ["inputs", "weights"])
def test_copies_score_above_strangers(by):
    name, params = "random+sensitivity+l2", {"representation.by": by}
    fp = engine.extract(toy_model(0, gradients=True), scheme=name, data=toy_data(), queries=60, params=params)
    scheme = build(name, params)

    def score(model):
        return scheme.similarity(fp, engine.respond(fp, model))

    assert fp.cost == 60
    assert score(toy_model(0, gradients=True)) == pytest.approx(1, abs=1e-6)
    near = [score(toy_model(0, noise=noise, gradients=True)) for noise in (0.02, 0.05)]
    assert min(near) > max(score(toy_model(seed, gradients=True)) for seed in range(1, 30))
    # The score once more, in the plainest way.
    rows = [plain(toy_model(seed, gradients=True).module(), fp.queries["inputs"], by=by) for seed in (0, 3)]
    rows = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
    apart = np.sqrt(((rows[0] @ rows[0].T - rows[1] @ rows[1].T) ** 2).mean())
    assert score(toy_model(3, gradients=True)) == pytest.approx(1 - apart, abs=1e-5)


@pytest.mark.parametrize("law", SCHEME_LAWS)
@pytest.mark.parametrize("by", ["inputs", "weights"])
def test_composed_it_keeps_every_law(law, by):
    check_scheme("random+sensitivity+l2", law, queries=40, params={"representation.by": by})


def test_each_input_counts_as_one_query():
    session = Session(toy_model(0, gradients=True), Access.MODULE, budget=30)
    asked, x = view(session, Access.MODULE), toy_data(20).inputs
    asked.weight_gram(x, own_logit)
    assert session.asked == 20
    with pytest.raises(BudgetError, match="20 were asked and 20 more are needed"):
        asked.weight_gram(x, own_logit)


def test_what_cannot_be_followed_is_refused():
    x = toy_data(4).inputs
    with pytest.raises(AccessError, match="gives LOGITS and no gradients by its weights"):
        toy_model(0).weight_gram(x, own_logit)
    with pytest.raises(AccessError, match="gradients by the weights are asked of a view that grants GRADIENTS"):
        Session(toy_model(0, gradients=True), Access.GRADIENTS).weight_gram(x, own_logit)
    labels = TorchModel(torch.nn.Flatten(), domain=toy_domain(), outputs="values")
    with pytest.raises(AccessError, match="no gradients by its weights"):
        labels.weight_gram(x, own_logit)
    empty = TorchModel(torch.nn.Flatten(), domain=toy_domain(), source="a flat one")
    with pytest.raises(ParameterError, match="a flat one has no weights that gradients can be taken by"):
        owned(empty).weight_gram(x, own_logit)
    with pytest.raises(ParameterError, match=r"the loss must have shape \(4,\); got \(4, 5\)"):
        owned(toy_model(0, gradients=True)).weight_gram(x, lambda logits: logits)

    class Deaf(torch.nn.Linear):
        def forward(self, input):
            return super().forward(input.flatten(1)).detach()

    with pytest.raises(ParameterError, match="a deaf one gives no gradient by its weights"):
        owned(TorchModel(Deaf(64, 5), domain=toy_domain(), source="a deaf one")).weight_gram(x, own_logit)

    class Choosy(torch.nn.Linear):
        def forward(self, input):
            if len(input) == 1 and input.sum() > 1:
                raise RuntimeError("one is too few")
            return super().forward(input.flatten(1))

    with pytest.raises(ParameterError, match=r"a choosy one fails on a batch .*RuntimeError: one is too few"):
        owned(TorchModel(Choosy(64, 5), domain=toy_domain(), source="a choosy one")).weight_gram(x, own_logit)
    with pytest.raises(ParameterError, match="unknown sensitivity by 'input'; did you mean 'inputs'"):
        Sensitivity(by="input")
    with pytest.raises(ParameterError, match="unknown sensitivity of 'logits'; did you mean 'logit'"):
        Sensitivity(of="logits")
