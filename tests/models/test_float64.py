"""A model whose domain is of float64 answers in float64; all others answer in float32, whatever they compute in."""

import numpy as np
import pytest
import torch

from locard.errors import ArtefactError, ParameterError
from locard.models import folder, load, restrict
from locard.models.callable import CallableModel
from locard.models.fitting import build
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain

ARGUMENTS = {"shape": [3], "classes": 2, "hidden": [4]}
EXACT, USUAL = (Domain(kind="tabular", shape=(3,), dtype=name) for name in ("float64", "float32"))
X = np.random.default_rng(0).normal(size=(5, 3))


def third(x):
    return np.full((len(x), 2), 1 / 3)


@pytest.mark.parametrize(("domain", "dtype"), [(EXACT, np.float64), (USUAL, np.float32)])
def test_a_callable_keeps_float64_where_its_inputs_are(domain, dtype):
    view = restrict(CallableModel(third, domain=domain, outputs="logits", name="third"), Access.LOGITS)
    assert view.logits(X).dtype == view.probabilities(X).dtype == dtype
    assert (view.logits(X) == dtype(1 / 3)).all()


def test_answers_in_float32_stay_so_whatever_the_inputs_are():
    model = CallableModel(lambda x: third(x).astype(np.float32), domain=EXACT, outputs="logits", name="third")
    assert restrict(model, Access.LOGITS).logits(X).dtype == np.float32


def test_a_module_of_float64_is_asked_and_answers_in_float64():
    module = build("mlp", ARGUMENTS, seed=0).double()
    view = restrict(TorchModel(module, domain=EXACT, mean=(0.5,), std=(0.1,)), Access.GRADIENTS)
    logits, slopes = view.input_gradient(X, lambda scores: scores[:, 0])
    assert view.logits(X).dtype == logits.dtype == slopes.dtype == np.float64
    with torch.no_grad():
        # The normalisation's own numbers are held in float32.
        scaled = (torch.from_numpy(X) - torch.tensor(0.5)) / torch.tensor(0.1)
        assert np.array_equal(view.logits(X), module(scaled).numpy())


def test_a_journal_keeps_what_float64_answers(tmp_path):
    model = CallableModel(third, domain=EXACT, outputs="logits", name="third")
    for asked in (len(X), 0):
        view = restrict(model, Access.LOGITS, journal=tmp_path / "journal.sqlite")
        assert (view.logits(X) == 1 / 3).all()
        assert view.asked == asked


def test_a_folder_of_float64_is_written_and_read(tmp_path):
    module = build("mlp", ARGUMENTS, seed=0).double()
    folder.save(tmp_path, module, architecture="mlp", arguments=ARGUMENTS, domain=EXACT)
    read = load(tmp_path)
    assert read.weights()["layers.0.weight"].dtype == np.float64
    assert np.array_equal(restrict(read, Access.LOGITS).logits(X), module(torch.from_numpy(X)).detach().numpy())


def test_weights_of_another_precision_than_the_domain_are_refused(tmp_path):
    module = build("mlp", ARGUMENTS, seed=0)
    with pytest.raises(ParameterError, match=r"'layers.0.weight' must be torch.float64 .* got torch.float32"):
        folder.save(tmp_path, module, architecture="mlp", arguments=ARGUMENTS, domain=EXACT)
    with pytest.raises(ParameterError, match=r"'layers.0.weight' must be torch.float32 .* got torch.float64"):
        folder.save(tmp_path, module.double(), architecture="mlp", arguments=ARGUMENTS, domain=USUAL)
    folder.save(tmp_path, module, architecture="mlp", arguments=ARGUMENTS, domain=EXACT)
    card = tmp_path / folder.CARD
    card.write_text(card.read_text("utf-8").replace("float64", "float32"), "utf-8")
    with pytest.raises(ArtefactError, match=r"'layers.0.weight' must be torch.float32 .* got torch.float64"):
        load(tmp_path)
