"""Victims whose inputs and weights are float64: copies of the weights stay so, and students become so."""

import numpy as np
import pytest
import torch

from locard.attacks import build
from locard.models import folder, load, restrict
from locard.models.fitting import build as network
from locard.models.torch_module import TorchModel
from locard.records import Data, Domain, Lineage

ARGUMENTS = {"shape": [6], "classes": 3, "hidden": [8]}
DOMAIN = Domain(kind="tabular", shape=(6,), dtype="float64")
STUDENT = {"architecture": "mlp", "epochs": 1}
TRIED = {
    "active": {**STUDENT, "queries": 60, "rounds": 2},
    "adversarial-training": {"epochs": 1, "steps": 2},
    "disguise": {},
    "distil": {"epochs": 1},
    "distil (features)": {"epochs": 1, "features": 1.0},
    "extraction": STUDENT,
    "finetune": {"epochs": 1},
    "jbda": {**STUDENT, "seeds": 20, "rounds": 1},
    "knockoff": {**STUDENT, "queries": 60, "stride": 20},
    "lora": {"rank": 2, "epochs": 1},
    "merge": {"epochs": 1},
    "noise": {},
    "prune": {"recovery": 1},
    "prune-channels": {"recovery": 1},
    "quantise": {},
    "transfer": {"epochs": 1},
}


@pytest.fixture(scope="module")
def victim():
    module = network("mlp", ARGUMENTS, seed=0, dtype="float64")
    return TorchModel(module, domain=DOMAIN, lineage=Lineage(architecture="mlp"))


@pytest.fixture(scope="module")
def data():
    """As a file gives them: in float32."""
    source = np.random.default_rng(0)
    return Data(inputs=source.normal(size=(80, 6)).astype(np.float32), labels=source.integers(0, 3, 80), name="table",
                domain=Domain(kind="tabular", shape=(6,)))  # fmt: skip


@pytest.mark.parametrize("name", sorted(TRIED))
def test_a_copy_computes_as_its_victim_does(victim, data, name):
    attack = build(name.partition(" ")[0], TRIED[name])
    stolen = attack.derive(restrict(victim, attack.needs), data)
    assert {tensor.dtype for tensor in stolen.module.parameters()} == {torch.float64}
    assert TorchModel(stolen.module, domain=DOMAIN)._forward(np.zeros((2, 6))).dtype == np.float64


def test_a_student_is_read_back_from_its_folder(victim, data, tmp_path):
    attack = build("extraction", STUDENT)
    stolen = attack.derive(restrict(victim, attack.needs), data)
    folder.save(tmp_path / "copy", stolen.module, architecture="mlp", arguments=stolen.arguments, domain=DOMAIN)
    assert load(tmp_path / "copy").digest == TorchModel(stolen.module, domain=DOMAIN).digest
