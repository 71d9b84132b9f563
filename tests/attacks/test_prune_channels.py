"""Structured pruning against its definition: cut by hand, set to 0 by hand, and exported."""

import copy

import numpy as np
import pytest
import torch
from tests.attacks.derived import answers, arrays, derive

from locard.attacks._channels import streams
from locard.attacks.base import bare
from locard.errors import ParameterError
from locard.models import exported, onnx
from locard.models.fitting import build
from locard.models.torch_module import TorchModel
from locard.records import Domain

IMAGE = Domain(kind="image", shape=(1, 8, 8))
TABLE = Domain(kind="tabular", shape=(6,))


def lived_in(module, seed=0):
    """A module whose every tensor is random, batch norm included."""
    source = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=source) if name.endswith("running_var")
                         else 0.3 * torch.randn(tensor.shape, generator=source))  # fmt: skip
    return module.eval()


def some(domain, n=40):
    return np.random.default_rng(0).random((n, *domain.shape), np.float32)


def model_of(module, domain):
    return TorchModel(lived_in(module), domain=domain)


def both(model, **params):
    """The copy that is cut, and the one whose channels are 0."""
    return [derive("prune-channels", model, recovery=0, cut=cut, **params) for cut in (True, False)]


def strongest(norms, fraction):
    lost = min(round(fraction * len(norms)), len(norms) - 1)
    return np.sort(np.argsort(norms, kind="stable")[lost:])


def norms(weight):
    return np.abs(weight).reshape(len(weight), -1).sum(axis=1)


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.99])
def test_a_plain_chain_is_cut_as_by_hand(victim, parts, fraction):
    x = parts["held out"].inputs
    before, cut = arrays(victim.module()), derive("prune-channels", victim, fraction=fraction, recovery=0)
    a, b, c = (strongest(norms(before[f"{name}.weight"]), fraction) for name in ("conv1", "conv2", "dense1"))
    dense1 = before["dense1.weight"].reshape(32, 16, 2, 2)
    expected = {
        "shift": before["shift"], "scale": before["scale"],
        "conv1.weight": before["conv1.weight"][a], "conv1.bias": before["conv1.bias"][a],
        "conv2.weight": before["conv2.weight"][b][:, a], "conv2.bias": before["conv2.bias"][b],
        "dense1.weight": dense1[c][:, b].reshape(len(c), -1), "dense1.bias": before["dense1.bias"][c],
        "dense2.weight": before["dense2.weight"][:, c], "dense2.bias": before["dense2.bias"],
    }  # fmt: skip
    after = arrays(cut.module)
    assert after.keys() == expected.keys()
    assert all(np.array_equal(after[name], expected[name]) for name in expected)
    assert [len(a), len(b), len(c)] == [max(n - round(fraction * n), 1) for n in (8, 16, 32)]
    assert cut.unnamed
    assert cut.lineage.architecture is None
    assert cut.notes == ()
    # Answers, written out.
    w = {name: torch.from_numpy(array) for name, array in expected.items()}
    f = torch.nn.functional
    z = (torch.from_numpy(x) - w["shift"]) / w["scale"]
    for name in ("conv1", "conv2"):
        z = f.max_pool2d(f.relu(f.conv2d(z, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)), 2)
    z = f.relu(z.flatten(1) @ w["dense1.weight"].T + w["dense1.bias"]) @ w["dense2.weight"].T + w["dense2.bias"]
    assert np.abs(answers(cut.module, x) - z.numpy()).max() < 1e-5 * z.abs().max()


def test_layers_state_the_sizes_that_they_have(victim):
    cut = bare(derive("prune-channels", victim, fraction=0.5, recovery=0).module)
    assert str(cut.conv2) == "Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))"
    assert str(cut.dense1) == "Linear(in_features=32, out_features=16, bias=True)"
    assert cut.get_parameter("conv2.weight").is_contiguous(memory_format=torch.channels_last)


def test_residual_streams_lose_the_same_channels_everywhere():
    model = model_of(build("resnet", {"shape": [1, 8, 8], "classes": 10, "width": 6}, seed=0), IMAGE)
    before = arrays(model.module())
    # What writes each stream, and the batch norms behind which it is whole.
    written = [
        (["stem", "block1.conv2"], ["norm", "block1.norm2"]),
        (["block1.conv1"], ["block1.norm1"]),
        (["block2.conv1"], ["block2.norm1"]),
        (["block2.conv2", "block2.shortcut.0"], ["block2.norm2", "block2.shortcut.1"]),
        (["block3.conv1"], ["block3.norm1"]),
        (["block3.conv2", "block3.shortcut.0"], ["block3.norm2", "block3.shortcut.1"]),
    ]
    masked = copy.deepcopy(model.module())
    kept = {}
    for layers, behind in written:
        rows = strongest(sum(norms(before[f"{layer}.weight"]) for layer in layers), 0.4)
        mask = torch.zeros(len(before[f"{layers[0]}.weight"]), 1, 1)
        mask[rows] = 1
        for name in behind:
            kept[name] = rows
            masked.get_submodule(name).register_forward_hook(lambda _module, _x, y, mask=mask: y * mask)
    x = some(IMAGE)
    wanted = answers(masked, x)
    assert np.abs(wanted - answers(model.module(), x)).max() > 0.01 * np.abs(wanted).max()
    for stolen in both(model, fraction=0.4):
        assert np.abs(answers(stolen.module, x) - wanted).max() < 1e-5 * np.abs(wanted).max()
    after = arrays(both(model, fraction=0.4)[0].module)
    for name, rows in kept.items():
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            assert np.array_equal(after[f"{name}.{leaf}"], before[f"{name}.{leaf}"][rows])


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_zeros_are_where_the_cut_would_be(victim, parts, fraction):
    x = parts["held out"].inputs
    cut, zeros = both(victim, fraction=fraction)
    assert not zeros.unnamed
    assert zeros.lineage.architecture == "cnn"
    assert {name: a.shape for name, a in arrays(zeros.module).items()} == {
        name: a.shape for name, a in arrays(victim.module()).items()}  # fmt: skip
    for name, array in arrays(zeros.module).items():
        assert np.array_equal(array[array != 0], arrays(cut.module)[name].ravel())
    assert np.abs(answers(cut.module, x) - answers(zeros.module, x)).max() < 1e-4


@pytest.mark.parametrize("cut", [True, False])
def test_pruning_nothing_gives_the_victim(victim, parts, cut):
    stolen = derive("prune-channels", victim, fraction=0.0, recovery=0, cut=cut)
    assert not stolen.unnamed
    x = parts["held out"].inputs
    assert np.array_equal(answers(stolen.module, x), answers(victim.module(), x))


@pytest.mark.parametrize("cut", [True, False])
def test_what_was_pruned_stays_so_while_the_rest_recovers(victim, parts, cut):
    thief, held_out = parts["thief"], parts["held out"]
    raw = derive("prune-channels", victim, fraction=0.5, recovery=0, cut=cut)
    healed = derive("prune-channels", victim, thief, fraction=0.5, recovery=3, cut=cut)
    assert healed.effort.epochs == 3
    assert healed.unnamed is cut
    before, after = arrays(raw.module), arrays(healed.module)
    for name in before.keys() - {"shift", "scale"}:
        assert after[name].shape == before[name].shape
        # A cut network has no zeros, and one with zeros has its zeros alone.
        assert np.array_equal(after[name] == 0, before[name] == 0)
        assert (after[name] != before[name]).any()
    right = [(answers(one.module, held_out.inputs).argmax(1) == held_out.labels).mean() for one in (raw, healed)]
    assert right[1] > right[0]


@pytest.mark.parametrize("architecture", ["cnn", "mlp", "resnet"])
def test_copies_survive_both_exports(architecture, tmp_path):
    arguments = {"shape": [1, 8, 8], "classes": 10} | ({} if architecture == "mlp" else {"width": 8})
    model = TorchModel(lived_in(build(architecture, arguments, seed=0)), domain=IMAGE, mean=(0.3,), std=(0.4,))
    stolen = derive("prune-channels", model, recovery=0)
    small, x = TorchModel(stolen.module, domain=IMAGE), some(IMAGE)
    wanted = answers(stolen.module, x)
    exported.save(small, tmp_path / "copy.pt2")
    onnx.export(small, tmp_path / "copy.onnx")
    for read in (exported.read(tmp_path / "copy.pt2", trust=True), onnx.OnnxModel(tmp_path / "copy.onnx")):
        got = np.concatenate([part for _, part in sorted(read.stream(x), key=lambda part: part[0].start)])
        assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()
    # A file's own graph is pruned as the module is.
    again = derive("prune-channels", exported.read(tmp_path / "copy.pt2", trust=True), recovery=0)
    twice = derive("prune-channels", small, recovery=0)
    assert again.unnamed
    assert np.abs(answers(again.module, x) - answers(twice.module, x)).max() < 1e-4 * np.abs(wanted).max()


class Net(torch.nn.Module):
    """Layers by name and what to do with them."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


class Scale(torch.nn.Module):
    """A factor for each channel."""

    def __init__(self, *shape):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(*shape))

    def forward(self, x):
        return x * self.gain


def conv(a, b, **other):
    return torch.nn.Conv2d(a, b, 3, padding=1, **other)


def dense(a, b, **other):
    return torch.nn.Linear(a, b, **other)


def test_a_module_that_names_its_sizes_gets_zeros_and_says_so():
    net = Net(lambda m, x: m.b(torch.relu(m.a(x)).view(-1, 8 * 64)), a=conv(1, 8), b=dense(8 * 64, 4))
    stolen, zeros = both(model_of(net, IMAGE))
    assert stolen.notes == ("Net names its own sizes, so channels were set to 0 and not cut out",)
    assert not stolen.unnamed
    assert zeros.notes == ()
    assert all(np.array_equal(array, arrays(zeros.module)[name]) for name, array in arrays(stolen.module).items())
    assert (arrays(stolen.module)["a.weight"] == 0).sum() == 2 * 9


# By name: the network, the widths that all its streams have after losing half, and what is said of those left whole.
KEPT = {
    "depthwise": (
        Net(lambda m, x: m.d(m.c(torch.relu(m.n(m.b(m.a(x))))).mean((2, 3))), a=conv(1, 8), b=conv(8, 8, groups=8),
            n=torch.nn.BatchNorm2d(8), c=conv(8, 6), d=dense(6, 4)), IMAGE, {"a": 4, "c": 3, "d": 4}, None),
    "two chains that meet": (
        Net(lambda m, x: m.c(torch.sigmoid(m.a(x)) * m.b(x)), a=dense(6, 8), b=dense(6, 8), c=dense(8, 4)),
        TABLE, {"a, b": 4, "c": 4}, None),
    "a factor for each channel": (
        Net(lambda m, x: m.b(m.s(m.a(x)).flatten(1)), a=conv(1, 8), s=Scale(8, 1, 1), b=dense(512, 4)),
        IMAGE, {"a": 4, "b": 4}, None),
    "a factor of all channels": (
        Net(lambda m, x: m.b(m.s(m.a(x)).flatten(1)), a=conv(1, 8), s=Scale(1), b=dense(512, 4)),
        IMAGE, {"a": 4, "b": 4}, None),
    "a norm behind the flattening": (
        Net(lambda m, x: m.b(m.n(torch.nn.functional.avg_pool2d(m.a(x), 4).flatten(1))), a=conv(1, 8),
            n=torch.nn.BatchNorm1d(32), b=dense(32, 4)), IMAGE, {"a": 4, "b": 4}, None),
    "a plain product": (
        Net(lambda m, x: torch.relu(x @ m.a.gain + m.c.gain) @ m.b.gain.T, a=Scale(6, 8), b=Scale(4, 8), c=Scale(8)),
        TABLE, {"a.gain": 4, "b.gain": 4}, None),
    "a bias of two axes": (
        Net(lambda m, x: m.b(torch.addmm(m.c.gain, x, m.a.gain)), a=Scale(6, 8), b=dense(8, 4), c=Scale(1, 8)),
        TABLE, {"a.gain": 4, "b": 4}, None),
    "a grouped convolution": (
        Net(lambda m, x: m.d(m.c(m.b(m.a(x))).mean((2, 3))), a=conv(1, 8), b=conv(8, 8, groups=2), c=conv(8, 6),
            d=dense(6, 4)), IMAGE, {"a": 8, "b": 8, "c": 3, "d": 4},
        "left whole: a (meets a grouped convolution); b (meets a grouped convolution)"),
    "a layer norm": (
        Net(lambda m, x: m.c(m.b(m.n(m.a(x)))), a=dense(6, 8), n=torch.nn.LayerNorm(8), b=dense(8, 6), c=dense(6, 4)),
        TABLE, {"a": 8, "b": 3, "c": 4}, "left whole: a (meets layer_norm)"),
    "a concatenation": (
        Net(lambda m, x: m.c(m.b(torch.cat([m.a(x), x], 1))), a=dense(6, 8), b=dense(14, 6), c=dense(6, 4)),
        TABLE, {"a": 8, "b": 3, "c": 4}, "left whole: a (meets cat)"),
    "an addition of the inputs": (
        Net(lambda m, x: m.c(m.b(m.a(x) + x)), a=dense(6, 6), b=dense(6, 6), c=dense(6, 4)),
        TABLE, {"a": 6, "b": 3, "c": 4}, "left whole: a (meets add)"),
    "a weight used twice": (
        Net(lambda m, x: m.c(m.b(m.a(m.a(x)))), a=dense(6, 6), b=dense(6, 6), c=dense(6, 4)),
        TABLE, {"a": 6, "b": 3, "c": 4}, "left whole: a (meets a second use of its weight)"),
    "an average over the channels": (
        Net(lambda m, x: m.c(m.b(m.a(x).mean(1).flatten(1))), a=conv(1, 8), b=dense(64, 6), c=dense(6, 4)),
        IMAGE, {"a": 8, "b": 3, "c": 4}, "left whole: a (meets mean)"),
    "a dense layer across the pixels": (
        Net(lambda m, x: m.c(m.b(m.a(x)).mean((2, 3))), a=conv(1, 8), b=dense(8, 8), c=dense(8, 4)), IMAGE, None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, row in KEPT.items() if row[2]])
def test_channels_are_told_apart(name):
    net, domain, widths, note = KEPT[name]
    model = model_of(net, domain)
    cut, zeros = both(model, fraction=0.5)
    found = streams(net, domain)
    after = arrays(cut.module)
    assert {one.layers: after[one.writers[0].tensor].shape[one.writers[0].axis] for one in found} == widths
    assert cut.unnamed
    assert cut.notes == zeros.notes == ((note,) if note else ())
    x = some(domain)
    wanted = answers(zeros.module, x)
    assert np.abs(answers(cut.module, x) - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert np.abs(wanted - answers(model.module(), x)).max() > 0.01 * np.abs(wanted).max()


def test_channels_that_nothing_sums_stay():
    net, domain, *_ = KEPT["a dense layer across the pixels"]
    message = "no channels of Net may be pruned: a meets linear; b meets mean; c meets the output"
    with pytest.raises(ParameterError, match=message):
        derive("prune-channels", model_of(net, domain), recovery=0)


def test_a_network_without_layers_is_refused():
    model = TorchModel(torch.nn.Flatten(), domain=TABLE)
    with pytest.raises(ParameterError, match="no channels of Flatten may be pruned: it has no layer of weights"):
        derive("prune-channels", model, recovery=0)


def test_a_module_without_a_graph_is_refused():
    net = Net(lambda m, x: m.a(x) if x.sum() > 0 else m.a(-x), a=dense(6, 4))
    message = "channels are told apart by a module's graph, and torch cannot export Net: "
    with pytest.raises(ParameterError, match=message):
        derive("prune-channels", model_of(net, TABLE), recovery=0)


def test_recovery_needs_the_thiefs_data(victim):
    with pytest.raises(ParameterError, match="prune-channels needs data of the thief's own"):
        derive("prune-channels", victim)
