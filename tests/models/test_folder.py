"""Our model folder: a round trip, the same bytes, and what a stranger may have put in it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from locard.errors import ArtefactError, MissingExtraError, ParameterError  # noqa: E402
from locard.models import adapters, folder, load  # noqa: E402
from locard.models.architectures import build  # noqa: E402
from locard.models.torch_module import TorchModel  # noqa: E402
from locard.records import Access, Domain, Lineage  # noqa: E402
from locard.testing import ADAPTER_LAWS, check_adapter  # noqa: E402

DOMAIN = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0), quantum=1 / 16)
ARGUMENTS = {"shape": (1, 8, 8), "classes": 3, "width": 4}
LINEAGE = Lineage(data="d" * 64, seed=7, parent="p" * 64, derived_by="finetune")
X = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)


def network(name="resnet", **arguments):
    """Weights and statistics that no freshly built network has."""
    generator = torch.Generator().manual_seed(1)
    module = build(name, **(arguments or ARGUMENTS))
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    return module


def write(path, module=None, **options):
    said = {"architecture": "resnet", "arguments": ARGUMENTS, "domain": DOMAIN, **options}
    return folder.save(path, module or network(), **said)


@pytest.fixture
def saved(tmp_path):
    return write(tmp_path / "model", mean=(0.5,), std=(0.25,), classes=("a", "b", "c"), lineage=LINEAGE, accuracy=0.75)


def edit(path, **fields):
    card = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({**card, **fields}))


def test_what_was_saved_is_loaded(saved):
    module = network()
    model, before = load(saved), TorchModel(module, domain=DOMAIN, mean=(0.5,), std=(0.25,))
    assert isinstance(model, TorchModel)
    assert model.digest == before.digest
    assert np.array_equal(model._forward(X), before._forward(X))
    assert model.domain == DOMAIN
    assert model.classes == 3
    assert model.lineage == Lineage(
        architecture="resnet", data="d" * 64, seed=7, parent="p" * 64, derived_by="finetune"
    )
    assert model.grants == Access.MODULE.implied | Access.MODULE
    for name, value in module.state_dict().items():
        assert np.array_equal(model.weights()[name], value.numpy())


def test_its_card_keeps_accuracy_and_class_names_without_torch(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    card = folder.read_card(saved)
    assert (card.accuracy, card.classes, card.architecture) == (0.75, ("a", "b", "c"), "resnet")
    assert card.arguments == {"shape": [1, 8, 8], "classes": 3, "width": 4}
    assert (card.mean, card.std, card.lineage.seed) == ((0.5,), (0.25,), 7)


@pytest.mark.parametrize("law", ADAPTER_LAWS)
def test_keeps_the_laws_of_adapters(saved, law):
    check_adapter(lambda: load(saved), X, law)


def test_the_same_model_gives_the_same_bytes(saved, tmp_path):
    again = write(tmp_path / "again", mean=[0.5], std=[0.25], classes=["a", "b", "c"], lineage=LINEAGE, accuracy=0.75)
    for name in ("model.json", "model.safetensors"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]
    assert (saved / "model.json").read_text().startswith('{\n  "locard_model": 1,\n  "architecture": "resnet",\n')


def test_saving_leaves_the_module_as_it_is(tmp_path):
    module = network().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    write(tmp_path / "model", module)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_loaded_weights_can_be_changed_and_do_not_reach_the_file(saved):
    model = load(saved)
    with torch.no_grad():
        for parameter in model.module().parameters():
            parameter.zero_()
    assert load(saved).digest != model.digest


def test_tied_weights_are_saved_twice(tmp_path):
    module = network("mlp", shape=[4], classes=4, hidden=[4, 4])
    module.get_submodule("layers.1").weight = module.get_parameter("layers.0.weight")
    path = folder.save(tmp_path / "m", module, architecture="mlp", domain=Domain(kind="tabular", shape=(4,)),
                       arguments={"shape": [4], "classes": 4, "hidden": [4, 4]})  # fmt: skip
    weights = load(path).weights()
    assert np.array_equal(weights["layers.0.weight"], weights["layers.1.weight"])


def test_overwriting_replaces_both_files(saved):
    write(saved, network(), accuracy=0.5)
    assert folder.read_card(saved).accuracy == 0.5
    assert folder.read_card(saved).classes == ()
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]


def test_a_failed_write_leaves_the_old_model(saved, monkeypatch):
    before = load(saved).digest
    real = Path.write_text

    def full(self, *args, **kwargs):
        if self.name == "model.json":
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ArtefactError, match=r"cannot write the model folder .*: No space left on device"):
        write(saved, accuracy=0.1)
    assert load(saved).digest == before
    assert folder.read_card(saved).accuracy == 0.75
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]


def test_a_crash_between_the_files_leaves_no_mixture(saved, monkeypatch):
    real = Path.replace

    def dies(self, target):
        if self.name == "model.json":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        write(saved, accuracy=0.1)
    with pytest.raises(ArtefactError, match="no model at"):
        load(saved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"architecture": "cnn"},
            "the module is no cnn with these arguments: the tensor 'block1.conv1.weight' is none of",
        ),
        (
            {"arguments": {**ARGUMENTS, "width": 8}},
            r"the tensor 'stem.weight' must be torch.float32 \(8, 1, 3, 3\); got",
        ),
        ({"arguments": {**ARGUMENTS, "width": {1}}}, "arguments must be plain JSON values"),
        ({"mean": (0.1, 0.2)}, r"mean must be 1 or 1 finite numbers, or null; got \[0.1, 0.2\]"),
        ({"mean": (float("nan"),)}, "mean must be 1 or 1 finite numbers"),
        ({"std": (0.0,)}, r"std must be positive; got \[0.0\]"),
        ({"accuracy": 1.5}, r"accuracy must lie in \[0, 1\] or be null; got 1.5"),
        ({"classes": (1, 2, 3)}, r"classes must be a list of names; got \[1, 2, 3\]"),
        ({"domain": Domain(kind="image", shape=())}, "domain must be of numbers with a shape, or of texts; got image"),
        ({"domain": Domain(kind="text", shape=(), dtype="str")}, "ResNet takes no texts: a network for them has"),
    ],
)
def test_a_wrong_field_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ParameterError, match=message):
        write(tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_half_precision_is_refused_at_saving(tmp_path):
    with pytest.raises(ParameterError, match=r"must be torch.float32 .* got torch.float16"):
        write(tmp_path / "model", network().half())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"locard_model": 2}, r"schema 2 is newer than this Locard reads \(1\)"),
        ({"locard_model": "1"}, "locard_model must be a positive whole number; got '1'"),
        ({"acuracy": 1}, "unknown field 'acuracy'; did you mean 'accuracy'"),
        ({"architecture": ["resnet"]}, r"architecture must be a name; got \['resnet'\]"),
        ({"architecture": "resnett"}, "unknown architecture 'resnett'; did you mean 'resnet'"),
        ({"architecture": "os.system"}, "unknown architecture 'os.system'"),
        ({"arguments": [1]}, r"arguments must be a JSON object; got \[1\]"),
        ({"arguments": {**ARGUMENTS, "code": "x"}}, "unknown argument of resnet 'code'"),
        ({"arguments": {**ARGUMENTS, "width": 10**12}}, "width must be a whole number"),
        ({"arguments": {**ARGUMENTS, "width": 4096}}, r"'stem.weight' must be torch.float32 \(4096, 1, 3, 3\); got"),
        ({"domain": {"kind": "image", "shape": [1, 8, 8], "bound": 1}}, "domain has an unknown field 'bound'"),
        ({"domain": {"kind": "image", "shape": []}}, "all else has numbers and a shape; got image"),
        ({"domain": {"kind": "image", "shape": [1, 10**5, 10**5]}}, "domain.shape must hold at most 4,194,304 numbers"),
        ({"domain": {"kind": "image", "shape": [3, 8, 8]}}, "fails on a batch of shape"),
        ({"mean": 0.5}, "mean must be a list; got 0.5"),
        ({"mean": [0.1, "b"]}, "mean must be 1 or 1 finite numbers"),
        ({"std": [-1]}, "std must be positive"),
        ({"classes": None}, "classes must be a list; got None"),
        ({"classes": ["a"]}, "names 1 classes; the model answers 3"),
        ({"lineage": {"sed": 1}}, "lineage has an unknown field 'sed'"),
        ({"lineage": {"seed": "1"}}, "lineage.seed must be int or null; got '1'"),
        ({"accuracy": "0.9"}, "accuracy must lie in"),
        ({"accuracy": True}, "accuracy must lie in .* got True"),
    ],
)
def test_a_wrong_field_of_a_file_is_named(saved, fields, message):
    edit(saved, **fields)
    with pytest.raises(ArtefactError, match=message) as caught:
        load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(saved):
    card = json.loads((saved / "model.json").read_text())
    del card["mean"]
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(ArtefactError, match=r"model.json is wrong: the field 'mean' is missing"):
        load(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"locard_model": 1', "model.json is no JSON"),
        ('["locard_model"]', "model.json is wrong: it must hold a JSON object; got list"),
        ('{"locard_model": NaN}', "NaN is no JSON number"),
        ('{"locard_model": ' + "[" * 200_000, "model.json is no JSON"),
        ('{"locard_model": 1, "x": "' + "x" * (1 << 20) + '"}', "of more than 1,048,576 bytes"),
        ("\xff\xfe locard", None),
    ],
)
def test_a_damaged_card(saved, text, message):
    (saved / "model.json").write_text(text, "utf-8")
    if message is None:
        with pytest.raises(ArtefactError, match="no model at"):
            load(saved)
        return
    with pytest.raises(ArtefactError, match=message):
        load(saved)


def test_missing_weights(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"model.safetensors cannot be read: No such file"):
        load(saved)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_truncated_weights(saved, cut):
    raw = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(raw[:cut])
    with pytest.raises(ArtefactError, match=r"model.safetensors is damaged"):
        load(saved)


def test_weights_that_claim_to_be_larger_than_their_file(saved):
    claim = json.dumps({"stem.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}})
    (saved / "model.safetensors").write_bytes(struct.pack("<Q", len(claim)) + claim.encode())
    with pytest.raises(ArtefactError, match=r"model.safetensors is damaged"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("dense.bias"), "does not fit model.json: the tensor 'dense.bias' is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "the tensor 'extra' is none of the architecture"),
        (lambda state: state.update({"dense.bias": torch.zeros(4)}), r"'dense.bias' must be torch.float32 \(3,\); got"),
        (lambda state: state.update({"dense.bias": torch.zeros(3).half()}), "got torch.float16"),
        (lambda state: state.update({"dense.bias": torch.zeros(3, dtype=torch.uint8)}), "got None"),
    ],
)
def test_weights_that_are_not_the_architectures(saved, change, message):
    state = load_file(saved / "model.safetensors")
    change(state)
    save_file(state, saved / "model.safetensors")
    with pytest.raises(ArtefactError, match=message):
        load(saved)


def test_a_pickle_in_the_place_of_the_weights_is_not_run(saved, tmp_path):
    canary = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    torch.save({"stem.weight": Payload()}, saved / "model.safetensors")
    with pytest.raises(ArtefactError, match=r"model.safetensors is damaged"):
        load(saved, trust=True)
    assert not canary.exists()


def test_options(saved):
    assert load(saved, batch_size=2).batch_size == 2
    with pytest.raises(ParameterError, match="unknown option of a model folder, which says the rest itself, 'mean'"):
        load(saved, mean=(0.0,))
    with pytest.raises(ParameterError, match="batch_size must be a whole number >= 1; got 0"):
        load(saved, batch_size=0)


def test_recognises_only_our_own(saved, tmp_path):
    recognises = adapters.get("folder").recognises
    assert recognises(str(saved))
    assert recognises(saved)
    (tmp_path / "empty").mkdir()
    shutil.copytree(saved, tmp_path / "other")
    (tmp_path / "other" / "model.json").write_text('{"model_type": "bert"}')
    for other in (tmp_path / "empty", tmp_path / "other", saved / "model.json", tmp_path / "absent", "a\0b", 3, None):
        assert not recognises(other)


def test_without_torch_the_extra_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"the model folder .* needs .* pip install 'locard\[torch\]'"):
        load(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_told_at_once(saved, name):
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(ArtefactError, match=r"not a file|no model at"):
        load(str(saved))
