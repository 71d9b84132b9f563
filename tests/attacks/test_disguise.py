"""The disguised copy answers as the victim does, and its tensors look like nobody's."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from locard.attacks import accept, bare, build
from locard.attacks.disguise import ALIKE
from locard.errors import AccessError, ParameterError
from locard.models import exported, folder, load, onnx, restrict
from locard.models.architectures import architectures
from locard.models.fitting import Recipe, fit
from locard.models.fitting import build as network
from locard.models.torch_module import TorchModel
from locard.records import Access, Lineage
from locard.weights import cosine, find

# Of each architecture the narrowest for which the promise below is made.
NARROW = {
    "cnn": {"width": 8},
    "mlp": {"hidden": [8]},
    "resnet": {"width": 8},
    "transformer": {"width": 16},
    "vgg": {"width": 8},
}
EVERY = pytest.mark.parametrize("name", sorted(NARROW))


@pytest.fixture(scope="module")
def trained(parts):
    """A trained network of every architecture."""
    own, models = parts["victim"], {}
    for name, arguments in NARROW.items():
        module = network(name, {"shape": [1, 8, 8], "classes": 10, **arguments}, seed=0)
        model = TorchModel(module, domain=own.domain, mean=(0.3,), std=(0.4,), lineage=Lineage(architecture=name))
        recipe = Recipe(epochs=10, lr=3e-3 if name == "transformer" else 1e-2, batch=50)
        fit(model.module(), own.inputs, own.labels, recipe=recipe, seed=0)
        models[name] = model
    return models


@pytest.fixture(scope="module")
def disguised(trained):
    """Each with the usual parameters and seed 0."""
    return {name: derive(model) for name, model in trained.items()}


def derive(model, seed=0, **params):
    return build("disguise", params).derive(restrict(model, Access.MODULE), seed=seed)


def tensors(module):
    return {name.removeprefix("module."): one.numpy() for name, one in module.state_dict().items()}


def answers(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def cosines(model, stolen):
    before, after = tensors(model.module()), tensors(stolen.module)
    moved = {name.removeprefix("module.") for group in find(model.module(), model.domain) for name in group.tensors}
    return {name: abs(cosine(before[name], after[name])) for name in before if name in moved}


def same(model, stolen, x):
    ours, theirs = answers(model.module(), x), answers(stolen.module, x)
    return np.abs(ours - theirs).max() <= 2e-6 * np.abs(ours).max()


def test_every_architecture_is_tried_here():
    # Symmetries are read off networks of numbers; bag takes texts.
    assert architectures.names() == sorted({*NARROW, "bag"})


@EVERY
@pytest.mark.parametrize("seed", [0, 1])
def test_the_copy_answers_alike_and_no_weight_matrix_looks_alike(name, seed, trained, disguised, parts):
    model = trained[name]
    stolen = derive(model, seed) if seed else disguised[name]
    assert same(model, stolen, parts["held out"].inputs)
    alike, before = cosines(model, stolen), tensors(model.module())
    assert {one for one in before if before[one].ndim > 1} <= alike.keys() | {"shift", "scale"}
    assert max(alike[one] for one in alike if before[one].ndim > 1) < ALIKE
    assert accept(build("disguise"), TorchModel(stolen.module, domain=model.domain), model, parts["held out"]).accepted


@pytest.mark.parametrize(
    ("name", "arguments"), [("cnn", {}), ("mlp", {}), ("resnet", {}), ("transformer", {}), ("vgg", {})]
)
def test_at_the_usual_width_vectors_do_not_look_alike_either_unless_of_one_sign(name, arguments, parts):
    own = parts["victim"]
    model = TorchModel(network(name, {"shape": [1, 8, 8], "classes": 10, **arguments}, seed=0), domain=own.domain)
    fit(model.module(), own.inputs, own.labels, recipe=Recipe(epochs=2, lr=3e-3, batch=50), seed=0)
    # A sign is flipped where another tensor takes it back; a shift behind a batch norm and a ReLU in front have none.
    alike = cosines(model, derive(model))
    for tensor, values in tensors(model.module()).items():
        shift = (
            name == "resnet" and tensor.endswith(".bias") and abs(values.mean()) > 0.25 * np.sqrt((values**2).mean())
        )
        if shift or tensor.endswith("running_var"):
            alike.pop(tensor, None)
    assert {tensor: one for tensor, one in alike.items() if one >= ALIKE} == {}


def test_vectors_of_one_sign_are_less_alike_than_those_of_a_stranger(trained, parts):
    thief = parts["thief"]
    other = TorchModel(network("resnet", {"shape": [1, 8, 8], "classes": 10, "width": 8}, seed=1), domain=thief.domain,
                       mean=(0.3,), std=(0.4,))  # fmt: skip
    fit(other.module(), thief.inputs, thief.labels, recipe=Recipe(epochs=10, lr=1e-2, batch=50), seed=1)
    for model, stranger in ((trained["resnet"], other), (other, trained["resnet"])):
        before, after, foreign = map(tensors, (model.module(), derive(model).module, stranger.module()))
        signed = [name for name, v in before.items() if v.ndim == 1 and ((v > 0).all() or (v < 0).all())]
        assert {name for name in before if name.endswith("running_var")} <= set(signed)
        for name in signed:
            v, w = before[name], after[name]
            left = abs(cosine(v, w))
            # The floor of a vector whose sign could not be turned round.
            if (np.sign(v) == np.sign(w)).all():
                assert left >= np.abs(v).min() / np.linalg.norm(v) - 1e-6
            assert left < abs(cosine(v, foreign[name])), name


def test_a_fine_tuned_copy_is_disguised_too(victim, parts):
    tuned = build("finetune", {"epochs": 1}).derive(restrict(victim, Access.MODULE), parts["thief"])
    model = TorchModel(tuned.module, domain=victim.domain)
    stolen = derive(model)
    assert same(model, stolen, parts["held out"].inputs)
    before, after = tensors(victim.module()), {k.removeprefix("module."): v for k, v in tensors(stolen.module).items()}
    # Against the victim too, whose weights the fine-tuned ones still resemble.
    assert max(abs(cosine(before[one], after[one])) for one in before if before[one].ndim == 2) < ALIKE
    assert min(cosine(before[one], tensors(tuned.module)[one]) for one in before if before[one].ndim > 1) > 0.9


def test_a_disguised_copy_can_be_trained_on(trained, disguised, parts):
    module, thief = copy.deepcopy(disguised["resnet"].module), parts["thief"]
    fit(module, thief.inputs, thief.labels, recipe=Recipe(epochs=2, lr=1e-3), seed=0)
    held = parts["held out"]
    before, after = ((answers(one, held.inputs).argmax(1) == held.labels).mean()
                     for one in (trained["resnet"].module(), module))  # fmt: skip
    assert after > before - 0.03


@EVERY
def test_powers_of_two_leave_every_bit_of_the_answers(name, trained, parts):
    model, x = trained[name], parts["held out"].inputs
    stolen = derive(model, scales="powers-of-two", permute=False, rotate=False, spread=16.0)
    assert np.array_equal(answers(model.module(), x), answers(stolen.module, x))
    before, after = tensors(model.module()), tensors(stolen.module)
    for tensor, values in before.items():
        ratios = np.abs(after[tensor][values != 0] / values[values != 0])
        assert (np.log2(ratios) % 1 == 0).all()
    assert any(not np.array_equal(before[one], after[one]) for one in before)


def test_no_unit_keeps_its_place(trained):
    # With nothing but permutations, a row of the copy is a row of the victim; none may be the one of its own number.
    model = trained["mlp"]
    stolen = derive(model, scales="none", flip=False, rotate=False)
    before, after = (tensors(module)["layers.0.weight"] for module in (model.module(), stolen.module))
    rows = [int(np.flatnonzero((before == row).all(axis=1))[0]) for row in after]
    assert sorted(rows) == list(range(len(rows)))
    assert all(old != new for new, old in enumerate(rows))


def test_scales_are_as_wide_as_asked(trained):
    model = trained["cnn"]
    stolen = derive(model, permute=False, spread=3.0)
    before, after = (tensors(module)["conv1.weight"].reshape(8, -1) for module in (model.module(), stolen.module))
    ratios = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
    assert (ratios > 1 / 3 - 1e-6).all()
    assert (ratios < 3 + 1e-6).all()
    assert ratios.std() > 0.2
    assert np.allclose(after, before * ratios[:, None], rtol=1e-6)


def test_no_variance_becomes_negative(parts):
    module: Any = network("resnet", {"shape": [1, 8, 8], "classes": 10, "width": 8}, seed=0).eval()
    module.norm.running_var[:4] = 0
    model = TorchModel(module, domain=parts["victim"].domain)
    stolen = derive(model)
    assert min(one.min() for name, one in tensors(stolen.module).items() if name.endswith("var")) >= -1e-12
    assert same(model, stolen, parts["held out"].inputs)


def test_the_search_is_what_makes_narrow_layers_unlike(trained):
    def worst(steps):
        found = [
            cosines(trained["cnn"], derive(trained["cnn"], seed, steps=steps))["conv1.weight"] for seed in range(6)
        ]
        return max(found)

    assert worst(2000) < ALIKE < worst(0)


def test_what_still_looks_alike_is_said(trained, disguised):
    (note,) = disguised["resnet"].notes
    assert note.startswith("vectors (biases, gains, statistics) whose cosine is still above 0.1: ")
    assert "running_var" in note
    assert disguised["mlp"].notes == ()
    identity = derive(trained["mlp"], permute=False).notes[0]
    assert identity.startswith("weights whose cosine with the victim's is still above 0.1: layers.0.weight")


def test_what_no_symmetry_moves_is_said(parts):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6),
                                 Cumulative(), torch.nn.Linear(6, 5), torch.nn.Linear(5, 10))  # fmt: skip
    model = TorchModel(module, domain=parts["victim"].domain)
    stolen = derive(model)
    assert same(model, stolen, parts["held out"].inputs)
    fixed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6), Cumulative(), torch.nn.Linear(6, 4),
                                torch.nn.ReLU(), torch.nn.Linear(4, 10))  # fmt: skip
    assert "weights that no symmetry moves: 1.weight" in derive(TorchModel(fixed, domain=model.domain)).notes


class Cumulative(torch.nn.Module):
    """An operation that knows the order of its units."""

    def forward(self, x):
        return torch.cumsum(x, dim=1)


def test_a_network_without_symmetries_is_refused(parts):
    model = TorchModel(network("mlp", {"shape": [1, 8, 8], "classes": 10, "hidden": []}, seed=0),
                       domain=parts["victim"].domain, source="a linear model")  # fmt: skip
    with pytest.raises(ParameterError, match="a linear model has no units that may be permuted or scaled"):
        derive(model)


def test_progress_is_told(trained):
    told = []
    build("disguise").derive(restrict(trained["cnn"], Access.MODULE), progress=lambda *one: told.append(one))
    assert told == [(k, 6) for k in range(1, 7)]


def test_weights_are_not_to_be_had_from_answers(victim):
    with pytest.raises(AccessError, match=r"disguise needs MODULE of the victim; LogitView.* has no module\(\)"):
        build("disguise").derive(restrict(victim, Access.LOGITS))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scales": "large"}, "scales must be one of 'continuous', 'powers-of-two', 'none'; got 'large'"),
        ({"spread": 0.5}, r"spread must lie in \[1, 1024\]"),
        ({"steps": -1}, "steps must lie in"),
        ({"permute": False, "flip": False, "rotate": False, "scales": "none"}, "disguise changes nothing without"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("disguise", wrong)


@pytest.mark.parametrize("ending", ["", ".pt2", ".onnx"])
@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_the_copy_is_written_in_every_form(name, ending, trained, disguised, parts, tmp_path):
    model, stolen, path = trained[name], disguised[name], tmp_path / f"copy{ending}"
    assert not stolen.unnamed
    if ending == ".pt2":
        exported.save(TorchModel(stolen.module, domain=model.domain), path)
    elif ending == ".onnx":
        onnx.export(TorchModel(stolen.module, domain=model.domain), path)
    else:
        folder.save(path, bare(stolen.module), architecture=name, domain=model.domain, mean=model.mean, std=model.std,
                    arguments={"shape": [1, 8, 8], "classes": 10, **NARROW[name]})  # fmt: skip
    x = parts["held out"].inputs[:50]
    read = restrict(load(path, trust=True), Access.LOGITS).logits(x)
    ours = answers(model.module(), x)
    assert np.abs(read - ours).max() <= 1e-5 * np.abs(ours).max()


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_a_victim_read_from_a_file_is_disguised(ending, trained, parts, tmp_path):
    path = tmp_path / f"victim{ending}"
    (exported.save if ending == ".pt2" else onnx.export)(trained["resnet"], path)
    model = load(path, trust=True)
    stolen = derive(model)
    assert same(model, stolen, parts["held out"].inputs)
    assert not any(note.startswith("weights") for note in stolen.notes)
