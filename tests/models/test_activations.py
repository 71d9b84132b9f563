"""What a torch model shows of its layers."""

import numpy as np
import pytest
import torch

from locard.errors import AccessError, BudgetError, ParameterError
from locard.models import Session, restrict, view
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain
from locard.testing import toy_data, toy_model


@pytest.fixture
def asked():
    return restrict(toy_model(0, gradients=True, batch_size=7), Access.MODULE)


def test_the_layers_come_in_the_order_they_run(asked):
    assert list(asked.layers().items()) == [("0", (64,)), ("1", (24,)), ("2", (24,)), ("3", (5,))]


def test_the_activations_are_those_of_the_forward_pass(asked):
    x = toy_data(20).inputs
    seen = asked.activations(x, ["1", "2", "3"])
    assert list(seen) == ["1", "2", "3"]
    assert np.array_equal(seen["2"], np.maximum(seen["1"], 0))
    assert seen["3"] == pytest.approx(asked.logits(x), abs=1e-5)
    assert seen["3"].dtype == np.float32


def test_a_layer_that_works_in_place_leaves_what_came_before_alone():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(inplace=True), torch.nn.Linear(4, 2))
    asked = restrict(TorchModel(module, domain=Domain(kind="tabular", shape=(3,))), Access.MODULE)
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert (asked.activations(x, ["0"])["0"] < 0).any()


def test_each_input_counts_as_one_query():
    session = Session(toy_model(0, gradients=True), Access.MODULE, budget=30)
    asked, x = view(session, Access.MODULE), toy_data(20).inputs
    asked.activations(x, ["1"])
    assert session.asked == 20
    with pytest.raises(BudgetError, match="20 were asked and 20 more are needed"):
        asked.activations(x, ["1"])


def test_what_cannot_be_shown_is_refused(asked):
    x = toy_data(2).inputs
    with pytest.raises(ParameterError, match="unknown layer of torch module Sequential: 'fc'; known"):
        asked.activations(x, ["fc"])
    with pytest.raises(AccessError, match="does not show its layers"):
        toy_model(0).layers()
    with pytest.raises(AccessError, match="does not show its layers"):
        toy_model(0).activations(x, ["1"])
    with pytest.raises(AccessError, match="activations are asked of a view that grants GRADIENTS"):
        Session(toy_model(0, gradients=True), Access.GRADIENTS).activations(x, ["1"])
