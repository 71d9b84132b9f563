import pytest
import torch

from locard.data import read, split
from locard.models.fitting import Recipe, build, fit
from locard.models.torch_module import TorchModel
from locard.records import Lineage

ARGUMENTS = {"shape": [1, 8, 8], "classes": 10, "width": 8}


@pytest.fixture(autouse=True)
def same_networks():
    """The fresh layers that a test makes are the same, whichever tests ran before it."""
    torch.manual_seed(0)  # noqa: TID251 - fresh layers draw from the global state


@pytest.fixture(scope="session")
def parts():
    """Digits: what the victim saw, what the thief has, what nobody saw."""
    return split(read("digits"), {"victim": 500, "thief": 500, "held out": 500}, seed=0)


@pytest.fixture(scope="session")
def victim(parts):
    """A trained network, with its normalisation in front."""
    own = parts["victim"]
    module = build("cnn", ARGUMENTS, seed=0)
    model = TorchModel(module, domain=own.domain, mean=(0.3,), std=(0.4,), lineage=Lineage(architecture="cnn", seed=0))
    fit(model.module(), own.inputs, own.labels, recipe=Recipe(epochs=20, lr=1e-2, batch=50), seed=0)
    return model
