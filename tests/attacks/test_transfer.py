"""Transfer: a fresh head on the stolen body, judged by its own task, written in every form."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from locard import load
from locard.attacks import accept, build
from locard.attacks.transfer import afresh, classes_of, fresh_head, luck
from locard.cli import run
from locard.errors import ParameterError
from locard.models import fitting, folder, restrict
from locard.models.fitting import Recipe, fit
from locard.models.torch_module import TorchModel
from locard.records import Access, Data
from locard.seeds import derive as seed_of
from locard.seeds import generator

HEAD = {"dense2.weight", "dense2.bias"}


def odd(data):
    """The task of telling odd digits from even ones."""
    return Data(inputs=data.inputs, labels=data.labels % 2, domain=data.domain, name="odd")


def derive(victim, data, seed=0, progress=None, **params):
    attack = build("transfer", params)
    return attack.derive(restrict(victim, Access.MODULE), data, seed=seed, progress=progress)


def arrays(module):
    return {name.removeprefix("module."): t.detach().numpy() for name, t in module.state_dict().items()}


def right(module, data):
    with torch.no_grad():
        return float((module(torch.from_numpy(data.inputs)).argmax(dim=1).numpy() == data.labels).mean())


def test_a_fresh_head_on_the_victims_body(victim, parts):
    stolen = derive(victim, odd(parts["thief"]), layers="last", epochs=2)
    before, after = arrays(victim.module()), arrays(stolen.module)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == HEAD
    assert after["dense2.weight"].shape == (2, 32)
    assert stolen.arguments == {"classes": 2}
    assert stolen.lineage.architecture == "cnn"


def test_all_layers_learn_and_the_normalisation_stays(victim, parts):
    before, after = arrays(victim.module()), arrays(derive(victim, odd(parts["thief"]), epochs=1).module)
    assert {n for n in before if not np.array_equal(before[n], after[n])} == set(before) - {"shift", "scale"}


def test_it_begins_with_the_victims_body(victim, parts):
    # So small steps that what is learnt is lost in rounding.
    before, after = arrays(victim.module()), arrays(derive(victim, odd(parts["thief"]), epochs=1, lr=1e-9).module)
    assert all(np.abs(before[name] - after[name]).max() < 1e-6 for name in set(before) - HEAD)


def test_a_copy_is_a_theft_by_its_own_task(victim, parts):
    stolen = derive(victim, odd(parts["thief"]))
    model, held_out = TorchModel(stolen.module, domain=victim.domain), odd(parts["held out"])
    found = accept(build("transfer"), model, victim, held_out, floor=stolen.floor)
    assert found.accepted
    assert found.accuracy == right(stolen.module, held_out)
    assert found.victim_accuracy is None
    assert found.agreement is None


def test_a_copy_that_learns_less_than_a_fresh_network_is_none(victim, parts):
    # A body whose second convolution is 0 tells its head nothing of the input.
    body = fitting.build("cnn", {"shape": [1, 8, 8], "classes": 10, "width": 8}, seed=1)
    with torch.no_grad():
        body.get_parameter("conv2.weight").zero_()
    stolen = derive(TorchModel(body, domain=victim.domain), odd(parts["thief"]), layers="last", epochs=10, lr=1e-2)
    model = TorchModel(stolen.module, domain=victim.domain)
    found = accept(build("transfer"), model, victim, odd(parts["held out"]), floor=stolen.floor)
    assert not found.accepted
    assert found.reason == f"accuracy is {found.accuracy:.1%}; transfer counts as a theft from {stolen.floor:.1%}"


def test_the_floor_is_what_a_fresh_network_reaches(victim, parts):
    data = odd(parts["thief"])
    stolen = derive(victim, data, seed=5, epochs=3, layers="last", lr=5e-3)
    rows = generator(5, "transfer/aside").permutation(500)
    aside, rest = data.take(rows[:100]), rows[100:]
    module = copy.deepcopy(victim.module())
    fresh_head(module, 10, 2, seed=seed_of(5, "transfer/head"))
    afresh(module, seed=seed_of(5, "transfer/yardstick"))
    fit(module, data.inputs[rest], data.labels[rest], recipe=Recipe(epochs=3, lr=5e-3), seed=5)
    usual = right(module, aside)
    assert stolen.floor == pytest.approx(0.95 * usual)
    assert stolen.notes == (
        f"on 100 inputs set aside it is right on {right(stolen.module, aside):.1%}, the same network trained from "
        f"fresh weights on {usual:.1%}; it counts as a theft from {0.95 * usual:.1%}",
    )


@pytest.mark.parametrize("architecture", ["cnn", "resnet", "mlp"])
def test_fresh_weights_are_those_that_the_architecture_begins_with(architecture):
    arguments = {"shape": [1, 8, 8], "classes": 3}
    module = fitting.build(architecture, arguments, seed=1)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.fill_(7)
    # Layers draw in the order of definition, as they do when the network is made.
    afresh(module, seed=seed_of(2, "fit/weights"))
    fresh = fitting.build(architecture, arguments, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), fresh.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), fresh.buffers(), strict=True))


def test_tensors_that_no_layer_draws_keep_their_spread():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(3 + 0.5 * torch.randn(10_000, generator=torch.Generator().manual_seed(0)))

    module = Scaled()
    before = module.get_parameter("gain").detach().clone()
    after = afresh(module, seed=1).get_parameter("gain").detach()
    assert not torch.equal(before, after)
    # Five standard errors of 10,000 draws.
    assert after.mean().item() == pytest.approx(before.mean().item(), abs=5 * 0.5 / 100)
    assert after.std().item() == pytest.approx(before.std().item(), rel=5 / 141)


def test_the_head_keeps_its_form():
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 10, bias=False)))
    before, state = module.get_parameter("1.weight").detach().clone(), torch.get_rng_state()
    new = fresh_head(module, 10, 3, seed=0)
    assert module.get_submodule("2.1") is new
    assert (new.in_features, new.out_features, new.bias) == (6, 3, None)
    assert torch.equal(module.get_parameter("1.weight"), before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("ending", ["", ".pt2", ".onnx"])
def test_the_command_line_writes_it(victim, parts, tmp_path, monkeypatch, capsys, ending):
    monkeypatch.chdir(tmp_path)
    folder.save("victim", victim.module().module, architecture="cnn", domain=victim.domain, mean=(0.3,), std=(0.4,),
                arguments={"shape": [1, 8, 8], "classes": 10, "width": 8}, classes=parts["thief"].classes)  # fmt: skip
    for name in ("thief", "held out"):
        np.savez(f"{name}.npz", x=parts[name].inputs, y=parts[name].labels % 2)
    out = f"copy{ending}"
    words = ["--data", "thief.npz", "--check", "held out.npz", "--param", "epochs=5", "lr=5e-3"]
    assert run(["derive", "victim", "--attack", "transfer", "-o", out, *words]) == 0
    printed = capsys.readouterr().out
    assert "note: on 100 inputs set aside it is right on " in printed
    assert printed.endswith("on its own task: a theft\n")
    written = load(out, trust=True)
    assert written.classes == 2
    assert written.lineage.derived_by == "transfer"
    assert written.lineage.parent == load("victim").digest
    data = odd(parts["held out"])
    accuracy = float((restrict(written, Access.LABELS).labels(data.inputs) == data.labels).mean())
    assert f"accuracy {accuracy:.1%}, on its own task" in printed
    if not ending:
        card = folder.read_card(out)
        assert card.classes == ()
        assert card.accuracy == pytest.approx(accuracy)


def test_classes_are_those_that_are_named_or_counted(parts):
    thief = parts["thief"]
    few = thief.take(np.flatnonzero(thief.labels < 4))
    assert classes_of(few) == 10
    assert classes_of(Data(inputs=few.inputs, labels=few.labels, domain=few.domain, name="few")) == 4


def test_epochs_of_both_networks_are_told(victim, parts):
    told = []
    stolen = derive(victim, odd(parts["thief"]), epochs=2, progress=lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert stolen.effort.epochs == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 10, "of two classes or more; a task has labels 0 to 0 of 1"),
        ([-1] + [1] * 9, "transfer needs labels from 0 to classes - 1.*a task has labels -1 to 1 of 2"),
        ([0, 1, 1], "transfer sets a fifth of the data aside; a task has 3 inputs in all"),
    ],
)
def test_what_is_no_task_is_refused(victim, parts, labels, message):
    data = Data(inputs=parts["thief"].inputs[: len(labels)], labels=np.array(labels), domain=victim.domain,
                name="a task")  # fmt: skip
    with pytest.raises(ParameterError, match=message):
        derive(victim, data)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), "must be dense with 10 outputs.*ends in Conv2d"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10)), "Sequential ends in BatchNorm1d"),
    ],
)
def test_a_victim_without_a_dense_head_is_refused(parts, module, message):
    with pytest.raises(ParameterError, match=message):
        derive(TorchModel(module, domain=parts["thief"].domain), odd(parts["thief"]))


def test_a_victim_that_is_all_head_is_refused():
    with pytest.raises(ParameterError, match=r"the whole network is one layer, Linear.*; nothing would be left of it"):
        fresh_head(nn.Linear(4, 10), 10, 2, seed=0)


def test_other_layers_are_refused():
    with pytest.raises(ParameterError, match="layers must be 'all' or 'last'; got 'body'"):
        build("transfer", {"layers": "body"})


def test_a_floor_lies_above_luck():
    # 3 of 4 are of one class: 0.75 and twice the square root of 0.75 * 0.25 / 16.
    assert luck(np.array([2] * 12 + [0] * 4)) == pytest.approx(0.75 + 2 * (0.75 * 0.25 / 16) ** 0.5)
    assert luck(np.array([1])) == 1.0
