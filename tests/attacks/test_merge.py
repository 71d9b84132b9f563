"""Merging against its definitions, written a second time in NumPy, entry by entry."""

import copy
import math

import numpy as np
import pytest
import torch

from locard.attacks import accept, build
from locard.attacks.merge import average, dare, slerp, ties
from locard.errors import ArtefactError, ParameterError
from locard.models import fitting, folder, restrict
from locard.models.fitting import Recipe, fit
from locard.models.torch_module import TorchModel
from locard.records import Access, Data
from locard.seeds import derive as seed_of
from locard.seeds import generator

ARGUMENTS = {"shape": [1, 8, 8], "classes": 10, "width": 8}
METHODS = pytest.mark.parametrize("method", ["average", "slerp", "ties", "dare"])


def derive(victim, data=None, seed=0, progress=None, **params):
    attack = build("merge", params)
    return attack.derive(restrict(victim, Access.MODULE), data, seed=seed, progress=progress)


def arrays(module):
    return {name.removeprefix("module."): t.detach().numpy() for name, t in module.state_dict().items()}


def shaken(module, share, seed):
    """A relative: each weight moved by some noise."""
    module, source = copy.deepcopy(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight += share * torch.randn(weight.shape, generator=source)
    return module


@pytest.fixture(scope="module")
def relatives(victim, tmp_path_factory):
    """Folders of two relatives of the victim, and their tensors."""
    home, inner = tmp_path_factory.mktemp("relatives"), victim.module().module
    made = {}
    for name, seed in (("other", 1), ("base", 2)):
        module = shaken(inner, 0.05, seed)
        folder.save(home / name, module, architecture="cnn", arguments=ARGUMENTS, domain=victim.domain, mean=(0.3,),
                    std=(0.4,))  # fmt: skip
        made[name] = (str(home / name), arrays(module))
    return made


def ties_entry_by_entry(rows, keep):
    """Lists of numbers in, a list out."""
    kept = []
    for row in rows:
        k = max(round(keep * len(row)), 1)
        largest = sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))[:k]
        kept.append([value if i in largest else 0.0 for i, value in enumerate(row)])
    merged = []
    for column in zip(*kept, strict=True):
        total = sum(column)
        agree = [value for value in column if value * total > 0]
        merged.append(sum(agree) / len(agree) if agree else 0.0)
    return merged


def flat(tensors, like):
    return np.concatenate([tensors[name].ravel().astype(np.float64) for name in like])


@METHODS
def test_two_models_are_merged_as_defined(victim, relatives, method):
    (path, other), (ancestor, base) = relatives["other"], relatives["base"]
    settings = {"base": ancestor} if method in ("ties", "dare") else {}
    stolen = derive(victim, seed=3, method=method, other=path, share=0.3, keep=0.4, drop=0.6, scale=0.7, **settings)
    ours, got = arrays(victim.module()), arrays(stolen.module)
    for name in other:
        a, b = (tensors[name].astype(np.float64) for tensors in (ours, other))
        if method == "average":
            wanted = 0.3 * a + 0.7 * b
        elif method == "slerp":
            angle = math.acos((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))
            wanted = (math.sin(0.3 * angle) * a + math.sin(0.7 * angle) * b) / math.sin(angle)
        else:
            break
        assert np.abs(got[name] - wanted).max() < 1e-6
    if method in ("ties", "dare"):
        origin = flat(base, other)
        rows = [flat(ours, other) - origin, flat(other, other) - origin]
        if method == "ties":
            moved = np.array(ties_entry_by_entry([row.tolist() for row in rows], 0.4))
        else:
            source = torch.Generator().manual_seed(seed_of(3, "merge/dropped"))
            kept = torch.rand(2, len(origin), generator=source, dtype=torch.float64).numpy() >= 0.6
            moved = 0.3 * rows[0] * kept[0] / 0.4 + 0.7 * rows[1] * kept[1] / 0.4
        assert np.abs(flat(got, other) - (origin + 0.7 * moved)).max() < 1e-6
    assert stolen.notes == (f"the other parent is {path}, of digest {folder.read(path).digest}",)
    assert stolen.effort.epochs == 0
    assert stolen.lineage.data is None


@pytest.mark.parametrize("method", ["average", "slerp"])
def test_at_its_ends_a_merge_is_a_parent(victim, relatives, method):
    path, other = relatives["other"]
    ours = arrays(victim.module())
    whole, none = (arrays(derive(victim, method=method, other=path, share=share).module) for share in (1.0, 0.0))
    assert all(np.array_equal(whole[name], ours[name]) for name in ours)
    assert all(np.array_equal(none[name], other[name]) for name in other)


@METHODS
def test_a_merge_with_oneself_is_oneself(victim, tmp_path, method):
    folder.save(tmp_path / "self", victim.module().module, architecture="cnn", arguments=ARGUMENTS,
                domain=victim.domain, mean=(0.3,), std=(0.4,))  # fmt: skip
    ours, got = arrays(victim.module()), arrays(derive(victim, method=method, other=str(tmp_path / "self")).module)
    assert all(np.array_equal(got[name], ours[name]) for name in ours)


def test_without_an_ancestor_the_others_difference_is_merged_in(victim, relatives):
    path, other = relatives["other"]
    ours = flat(arrays(victim.module()), other)
    difference = flat(other, other) - ours
    k = round(0.2 * len(difference))
    difference[np.argsort(-np.abs(difference), kind="stable")[k:]] = 0
    got = flat(arrays(derive(victim, method="ties", other=path).module), other)
    assert np.abs(got - (ours + difference)).max() < 1e-6


def test_the_arc_keeps_length_and_halves_the_angle():
    a, b = torch.tensor([2.0, 0, 0]).double(), torch.tensor([0, 2.0, 0]).double()
    half, third = slerp(a, b, 0.5), slerp(a, b, 1 / 3)
    assert torch.allclose(half, torch.tensor([math.sqrt(2), math.sqrt(2), 0]).double())
    assert third.norm().item() == pytest.approx(2)
    # A third of a right angle from b.
    assert third[0].item() == pytest.approx(2 * math.sin(math.pi / 6))


def test_an_arc_without_a_direction_is_a_line():
    a = torch.tensor([1.0, 2.0]).double()
    for b in (3 * a, -a, torch.zeros(2).double()):
        assert torch.allclose(slerp(a, b, 0.25), average(a, b, 0.25))
    # Where it goes over to the line nothing jumps.
    near = torch.tensor([1.0, 2.0 + 1e-3]).double()
    assert torch.allclose(slerp(a, near, 0.25), average(a, near, 0.25), atol=1e-6)


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 1.0])
def test_signs_are_elected_as_in_plain_python(keep):
    # Halves, so that sums are exact: some columns balance, some entries are equal in size.
    rows = np.random.default_rng(0).integers(-4, 5, (3, 60)) / 2
    got = ties(torch.from_numpy(rows), keep).numpy()
    assert np.allclose(got, ties_entry_by_entry(rows.tolist(), keep), atol=1e-12)


def test_what_disagrees_is_left_out():
    rows = torch.tensor([[4.0, 1.0, -2.0, 0.0], [2.0, -3.0, 2.0, 1.0], [-1.0, -5.0, 0.0, 2.0]]).double()
    # 3 = (4 + 2) / 2; -4 = (-3 - 5) / 2; signs balance; 1.5 = (1 + 2) / 2.
    assert ties(rows, 1.0).tolist() == [3.0, -4.0, 0.0, 1.5]


def test_dropping_keeps_the_mean():
    difference = torch.tensor([[1.0, -2.0, 0.5]]).double()
    source = torch.Generator().manual_seed(0)
    draws = torch.stack([dare(difference, 0.9, source)[0] for _ in range(20_000)])
    # An entry is 10 with probability 0.1: deviation 3 of its size, five standard errors.
    assert ((draws.mean(dim=0) - difference[0]).abs() < 5 * 3 / math.sqrt(20_000) * difference[0].abs()).all()
    assert ((draws == 0) | torch.isclose(draws, 10 * difference)).all()
    assert (draws == 0).double().mean().item() == pytest.approx(0.9, abs=0.005)
    assert torch.equal(dare(difference, 0.0, source), difference)


@METHODS
def test_siblings_are_made_where_none_is_given(victim, parts, method):
    thief, seed, own = parts["thief"], 4, arrays(victim.module().module)
    stolen = derive(victim, thief, seed=seed, method=method, epochs=2, share=0.25, drop=0.5)
    rows = generator(seed, "merge/halves").permutation(len(thief))
    halves = (rows,) if method in ("average", "slerp") else (rows[::2], rows[1::2])
    siblings = [
        flat(
            arrays(fit(copy.deepcopy(victim.module()), thief.inputs[half], thief.labels[half],
                       recipe=Recipe(epochs=2, lr=1e-3), seed=seed_of(seed, f"merge/sibling/{number}"))),
            own,
        )
        for number, half in enumerate(halves)
    ]  # fmt: skip
    ours, got = (flat(arrays(module), own) for module in (victim.module(), stolen.module))
    if method == "average":
        assert np.abs(got - (0.25 * ours + 0.75 * siblings[0])).max() < 1e-6
    if method == "slerp":
        # Near relatives: the arc is close to the line.
        line = 0.25 * ours + 0.75 * siblings[0]
        assert 0 < np.abs(got - line).max() < 0.1 * np.abs(siblings[0] - ours).max()
    if method == "ties":
        wanted = ties_entry_by_entry([(one - ours).tolist() for one in siblings], 0.2)
        assert np.abs(got - ours - wanted).max() < 1e-6
    if method == "dare":
        # Half of a half is dropped twice.
        assert np.mean(got == ours) == pytest.approx(0.25, abs=0.02)
    assert stolen.effort.epochs == 2
    assert stolen.lineage.data == thief.digest
    assert stolen.notes == ()


@METHODS
def test_a_merge_of_siblings_is_a_theft(victim, parts, method):
    model = TorchModel(derive(victim, parts["thief"], method=method).module, domain=victim.domain)
    attack = build("merge", {"method": method})
    assert accept(attack, model, victim, parts["held out"]).accepted
    assert attack.margin == (0.03 if method in ("average", "slerp") else 0.05)


def test_running_statistics_are_averaged_and_counts_stay(parts, tmp_path):
    arguments = {"shape": [1, 8, 8], "classes": 10, "width": 4}
    modules = [fitting.build("resnet", arguments, seed=seed) for seed in (0, 1)]
    for module, epochs in zip(modules, (1, 2), strict=True):
        fit(module, parts["thief"].inputs, parts["thief"].labels, recipe=Recipe(epochs=epochs), seed=0)
    folder.save(
        tmp_path / "other", modules[1], architecture="resnet", arguments=arguments, domain=parts["thief"].domain
    )
    model = TorchModel(modules[0], domain=parts["thief"].domain)
    got = arrays(derive(model, other=str(tmp_path / "other"), share=0.75).module)
    ours, theirs = (arrays(module) for module in modules)
    for name in ours:
        if name.endswith("num_batches_tracked"):
            assert got[name] == ours[name] != theirs[name]
        else:
            assert np.allclose(got[name], 0.75 * ours[name] + 0.25 * theirs[name], atol=1e-6)


def test_epochs_of_both_siblings_are_told(victim, parts):
    told = []
    derive(victim, parts["thief"], method="ties", epochs=2, progress=lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_siblings_take_labelled_data(victim, parts):
    with pytest.raises(ParameterError, match="merge needs data of the thief's own; none were given"):
        derive(victim)
    thief = parts["thief"]
    bare = Data(inputs=thief.inputs, labels=None, domain=thief.domain, name="bare")
    with pytest.raises(ParameterError, match="merge needs data with true labels; bare has none"):
        derive(victim, bare)


def test_a_model_of_another_form_is_refused(victim, tmp_path):
    arguments = {**ARGUMENTS, "width": 4}
    folder.save(tmp_path / "narrow", fitting.build("cnn", arguments, seed=0), architecture="cnn", arguments=arguments,
                domain=victim.domain, mean=(0.3,), std=(0.4,))  # fmt: skip
    message = r"the tensor 'conv1.bias' is \(8,\) in the victim and \(4,\) in .*narrow"
    with pytest.raises(ParameterError, match=message):
        derive(victim, other=str(tmp_path / "narrow"))


@pytest.mark.parametrize("mean", [None, (0.2,)])
def test_a_model_that_normalises_otherwise_is_refused(victim, tmp_path, mean):
    folder.save(tmp_path / "else", victim.module().module, architecture="cnn", arguments=ARGUMENTS,
                domain=victim.domain, mean=mean, std=None if mean is None else (0.4,))  # fmt: skip
    with pytest.raises(ParameterError, match="else normalises its inputs otherwise than the victim"):
        derive(victim, other=str(tmp_path / "else"))


@pytest.mark.parametrize("name", ["nowhere", "model.pt2"])
def test_only_model_folders_are_read(victim, tmp_path, name):
    if name == "model.pt2":
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ArtefactError, match=f"the model folder .*{name}.*: model.json cannot be read"):
        derive(victim, other=str(tmp_path / name))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "soup"}, "method must be one of average, slerp, ties, dare; got 'soup'"),
        ({"share": 1.5}, r"share must lie in \[0, 1\]"),
        ({"keep": 0.0}, "keep must lie in"),
        ({"drop": 1.0}, r"drop must lie in \[0, 1\)"),
        ({"scale": 0.0}, "scale must lie in"),
        ({"epochs": 0}, "epochs must lie in"),
        ({"base": "a", "method": "ties"}, "base is the ancestor of the victim and other, for ties and dare"),
        ({"base": "a", "other": "b"}, "base is the ancestor of the victim and other, for ties and dare"),
    ],
)
def test_parameters_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("merge", wrong)
