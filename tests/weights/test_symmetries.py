"""Symmetry groups: every element leaves the answers as they are, none that could be found by hand is missing."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from locard.errors import ParameterError  # noqa: E402
from locard.models.fitting import build, reproducible  # noqa: E402
from locard.records import Domain  # noqa: E402
from locard.weights import Group, Overlap, Place, Scaling, apply, cosine, factors_of, find, is_matrix  # noqa: E402
from locard.weights._powers import solutions  # noqa: E402

IMAGE, ROW, WORDS = (2, 8, 8), (4,), (5, 4)


class Net(nn.Module):
    """A forward pass over named parts."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def attention(net, x, turn=lambda q: q, groups=None):
    """Heads of 4 coordinates; with groups, each key and value head serves several query heads."""
    hidden = net.inp(x)
    query, key, value = (layer(hidden).unflatten(2, (-1, 4)).transpose(1, 2) for layer in (net.q, net.k, net.v))
    if groups is not None:
        query, key, value = query.unflatten(1, (groups, -1)), key[:, :, None], value[:, :, None]
    mixed = torch.softmax(turn(query) @ turn(key).transpose(-1, -2), -1) @ value
    return net.out(mixed.flatten(1, -3).transpose(1, 2).flatten(2)).mean(1)


def rotary(query):
    angle = torch.arange(5.0, dtype=query.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=query.dtype)
    first, second = query[..., :2], query[..., 2:]
    return torch.cat([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], -1)


def heads(**options):
    keys = 8 if "groups" in options else 16
    return Net(lambda net, x: attention(net, x, **options), inp=nn.Linear(4, 6), q=nn.Linear(6, 16),
               k=nn.Linear(6, keys), v=nn.Linear(6, keys), out=nn.Linear(16, 3))  # fmt: skip


def gated():
    def run(net, x):
        hidden = net.inp(x)
        normal = net.norm(hidden)
        return net.out(net.last(hidden + net.down(nn.functional.silu(net.gate(normal)) * net.up(normal))))

    return Net(run, inp=nn.Linear(4, 6), norm=nn.RMSNorm(6), gate=nn.Linear(6, 8), up=nn.Linear(6, 8),
               down=nn.Linear(8, 6), last=nn.RMSNorm(6), out=nn.Linear(6, 3))  # fmt: skip


def tied():
    net: Any = Net(lambda net, x: net.out(torch.relu(net.two(torch.relu(net.one(torch.relu(net.inp(x))))))),
              inp=nn.Linear(4, 6), one=nn.Linear(6, 6), two=nn.Linear(6, 6), out=nn.Linear(6, 3))  # fmt: skip
    net.two.weight = net.one.weight
    return net


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
    return Net(lambda net, x: net.out(net.layer(net.inp(x)).mean(1)), inp=nn.Linear(4, 8), layer=layer,
               out=nn.Linear(8, 3))  # fmt: skip


def mobile():
    return nn.Sequential(
        nn.Conv2d(2, 6, 1), nn.BatchNorm2d(6), nn.ReLU6(inplace=True), nn.Conv2d(6, 6, 3, groups=6, padding=1),
        nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2), nn.PReLU(8), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 4),
    )  # fmt: skip


NETS = {
    "mlp": (lambda: build("mlp", {"shape": [2, 8, 8], "classes": 5, "hidden": [12, 7]}, seed=0), IMAGE, 2),
    "cnn": (lambda: build("cnn", {"shape": [2, 8, 8], "classes": 5, "width": 4}, seed=0), IMAGE, 3),
    "resnet": (lambda: build("resnet", {"shape": [2, 8, 8], "classes": 5, "width": 4}, seed=0), IMAGE, 6),
    "transformer": (lambda: build("transformer", {"shape": [2, 8, 8], "classes": 5, "width": 8}, seed=0), IMAGE, 9),
    "rows": (lambda: build("transformer", {"shape": [4], "classes": 5, "patch": 3, "width": 8}, seed=0), ROW, 9),
    "tanh": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)), ROW, 2),
    "linear": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), ROW, 1),
    "bn": (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5, bias=False),
                                 nn.BatchNorm1d(5, affine=False), nn.ReLU(), nn.Linear(5, 3)), ROW, 2),
    "mobile": (mobile, IMAGE, 4),
    "transposed": (lambda: nn.Sequential(nn.Conv2d(2, 6, 1), nn.ELU(), nn.ConvTranspose2d(6, 4, 3, groups=2),
                                         nn.LeakyReLU(0.1), nn.ConvTranspose2d(4, 3, 3), nn.ReLU(),
                                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)), IMAGE, 4),
    "gated": (gated, ROW, 2),
    "heads": (heads, WORDS, 4),
    "rotary": (lambda: heads(turn=rotary), WORDS, 3),
    "grouped queries": (lambda: heads(groups=2), WORDS, 5),
    "fused": (encoder, WORDS, 4),
    "tied": (tied, ROW, 1),
    "square": (lambda: Net(lambda net, x: net.out((h := torch.relu(net.inp(x))) + torch.relu(net.w(h))),
                           inp=nn.Linear(4, 6), w=nn.Linear(6, 6), out=nn.Linear(6, 3)), ROW, 1),
    "outer": (lambda: Net(lambda net, x: net.out(torch.einsum("ni,nj->nij", h := torch.relu(net.inp(x)), h).flatten(1)),
                          inp=nn.Linear(4, 5), out=nn.Linear(25, 3)), ROW, 1),
    "pairs of heads": (lambda: Net(lambda net, x: net.out(torch.einsum("nhi,nki->nhk", h := net.inp(x).unflatten(
        1, (3, 4)), h).flatten(1)), inp=nn.Linear(4, 12), out=nn.Linear(9, 3)), ROW, 2),
    "concatenated": (lambda: Net(lambda net, x: net.out(torch.cat([torch.relu(net.a(x)), x], 1)), a=nn.Linear(4, 6),
                                 out=nn.Linear(10, 3)), ROW, 0),
    "table": (lambda: Net(lambda net, x: net.out(torch.relu(net.inp(x)) * torch.arange(6)), inp=nn.Linear(4, 6),
                          out=nn.Linear(6, 3)), ROW, 0),
}  # fmt: skip


def network(name):
    """In float64, every tensor shaken, so that no gain is 1 and no mean 0."""
    made, shape, _ = NETS[name]
    with reproducible(3):
        module = made().double().eval()
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand_like(tensor)
                tensor.copy_(tensor * (0.5 + noise) if key.endswith("var") else tensor + 0.3 * (noise - 0.5))
    return module, domain(shape)


def domain(shape):
    return Domain(kind="image" if len(shape) == 3 else "tabular", shape=shape, dtype="float64")


def state(module):
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def answers(module, tensors, shape):
    changed = copy.deepcopy(module)
    for name, tensor in changed.state_dict().items():
        tensor.copy_(torch.from_numpy(np.asarray(tensors[name])))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(6, *shape)))
    with torch.no_grad():
        return changed(x).numpy()


def off(module, tensors, shape):
    before = answers(module, state(module), shape)
    return float(np.abs(answers(module, tensors, shape) - before).max() / np.abs(before).max())


def element(group, source) -> dict[str, Any]:
    shape = (group.copies, group.size)
    return {
        "permutation": np.stack([source.permutation(group.size) for _ in range(group.copies)]),
        "scales": [np.exp(source.uniform(-1, 1, shape)) if one.kind == "magnitude" else source.choice([-1.0, 1], shape)
                   for one in group.scalings],
        "matrix": source.normal(size=(*shape, group.size)) if group.linear else None,
    }  # fmt: skip


def places(group):
    return {(place.tensor, place.axis) for place in group.places}


@pytest.mark.parametrize("name", NETS)
def test_no_element_of_any_group_changes_the_answers(name):
    module, inputs = network(name)
    groups, source = find(module, inputs), np.random.default_rng(1)
    assert len(groups) == NETS[name][2]
    together = state(module)
    for group in groups:
        for _ in range(3):
            assert off(module, apply(state(module), group, **element(group, source)), inputs.shape) < 1e-10
        together = apply(together, group, **element(group, source))
        assert any(not np.array_equal(together[t], state(module)[t]) for t in group.tensors)
    assert off(module, together, inputs.shape) < 1e-10


def test_a_residual_stage_has_one_group_for_its_stream():
    groups = find(
        build("resnet", {"shape": [1, 8, 8], "classes": 5, "width": 4}, seed=0), Domain(kind="image", shape=(1, 8, 8))
    )
    norms = {(f"{norm}.{part}", 0) for norm in ("norm", "block1.norm2")
             for part in ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    assert places(groups[0]) == norms | {
        ("stem.weight", 0), ("block1.conv2.weight", 0), ("block1.conv1.weight", 1), ("block2.conv1.weight", 1),
        ("block2.shortcut.0.weight", 1),
    }  # fmt: skip
    assert [place.tensor for place in groups[0].places if place.role == "reads"] == [
        "block1.conv1.weight", "block2.conv1.weight", "block2.shortcut.0.weight"
    ]  # fmt: skip
    assert [group.size for group in groups] == [4, 4, 8, 8, 16, 16]


def powers(group, kind):
    """Each scaling as {tensor: power}, without the zeros."""
    return [{place.tensor: power for place, power in zip(group.places, one.powers, strict=True) if power}
            for one in group.scalings if one.kind == kind]  # fmt: skip


def test_batch_norm_is_scaled_before_and_behind():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    (group,) = find(net, domain32(ROW))
    assert powers(group, "magnitude") == [
        {"1.weight": 1, "1.bias": 1, "3.weight": -1},
        {"0.weight": 1, "0.bias": 1, "1.running_mean": 1, "1.running_var": 2},
    ]
    assert powers(group, "sign") == [{"0.weight": 1, "0.bias": 1, "1.weight": 1, "1.running_mean": 1}]
    assert [place.offset for place in group.places if place.offset] == [1e-5]


@pytest.mark.parametrize("name", ["bn", "resnet"])
def test_batch_statistics_follow(name):
    """In training a batch norm divides by what its inputs are, not by what its buffers say."""
    module, inputs = network(name)
    together, source = state(module), np.random.default_rng(7)
    for group in find(module, inputs):
        together = apply(together, group, **element(group, source))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(6, *inputs.shape)))
    changed = copy.deepcopy(module)
    changed.load_state_dict({key: torch.from_numpy(np.asarray(one)) for key, one in together.items()})
    with torch.no_grad():
        ours, theirs = module.train()(x), changed.train()(x)
    # The epsilon, which is not scaled, is what remains.
    assert (ours - theirs).abs().max() < 1e-3 * ours.abs().max()


def domain32(shape):
    return Domain(kind="tabular", shape=shape)


def test_what_may_be_scaled_depends_on_the_activation():
    def group(activation):
        return find(nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3)), domain32(ROW))[0]

    both = {"0.weight": 1, "0.bias": 1, "2.weight": 1}
    assert powers(group(nn.ReLU()), "magnitude") == [{**both, "2.weight": -1}]
    assert powers(group(nn.ReLU()), "sign") == []
    assert powers(group(nn.Tanh()), "magnitude") == []
    assert powers(group(nn.Tanh()), "sign") == [both]
    assert group(nn.GELU()).scalings == ()
    assert [group(one).linear for one in (nn.ReLU(), nn.Tanh(), nn.GELU(), nn.Identity())] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("operation", "magnitudes", "signs"),
    [
        (lambda x: nn.functional.leaky_relu(x, 0.2).neg(), 1, 0),
        (lambda x: torch.atan(torch.sin(x)) / 3, 0, 1),
        (lambda x: x - 0.3, 0, 0),
        (lambda x: x * x, 1, 1),
        (lambda x: torch.div(x, 0.1, rounding_mode="floor"), 0, 0),
        (lambda x: (10 * x).to(torch.int64).to(x.dtype), 0, 0),
        (lambda x: torch.stack([x, torch.relu(x)]).amax(0), 1, 0),
        (lambda x: x - x.mean(1, keepdim=True), 0, 0),
        (lambda x: x.softmax(1), 0, 0),
        (lambda x: torch.where(x > 0.1, x, 0.0), 0, 0),
        (lambda x: nn.functional.interpolate(x[:, :, None], scale_factor=2)[:, :, 0], 1, 1),
        (lambda x: nn.functional.max_pool1d(x[:, :, None].expand(-1, -1, 2), 2).flatten(1), 1, 0),
        (lambda x: nn.functional.pad(x[:, :, None], (1, 1), value=0.5).sum(2), 0, 0),
        (lambda x: nn.functional.layer_norm(x, (6,)), 0, 0),
        (lambda x: nn.functional.rms_norm(x, (6,)), 0, 1),
    ],
)
def test_each_operation_passes_what_it_can(operation, magnitudes, signs):
    with reproducible(4):
        net = Net(lambda net, x: net.out(operation(net.inp(x))), inp=nn.Linear(4, 6), out=nn.Linear(6, 3)).double()
    (group,) = find(net, domain(ROW))
    assert [sum(one.kind == kind for one in group.scalings) for kind in ("magnitude", "sign")] == [magnitudes, signs]
    assert off(net, apply(state(net), group, **element(group, np.random.default_rng(8))), ROW) < 1e-10


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.cumsum(1),
        lambda x: x.flip(1),
        lambda x: x.sort(1)[0],
        lambda x: x[:, [1, 0, 2, 3, 4, 5]],
        lambda x: torch.cat([one + k for k, one in enumerate(x.split(2, 1))], 1),
        lambda x: nn.functional.pad(x, (1, 0))[:, :6],
        lambda x: x + torch.arange(6),
    ],
)
def test_what_knows_the_order_of_its_units_leaves_no_group(operation):
    net = Net(lambda net, x: net.out(operation(net.inp(x))), inp=nn.Linear(4, 6), out=nn.Linear(6, 3))
    assert find(net, domain32(ROW)) == ()


def test_a_flattened_image_moves_in_blocks_of_a_channels_pixels():
    groups = find(
        build("cnn", {"shape": [1, 8, 12], "classes": 5, "width": 4}, seed=0), Domain(kind="image", shape=(1, 8, 12))
    )
    assert groups[1].places[-1] == Place(tensor="dense1.weight", axis=1, outer=1, inner=6, role="reads")


def test_heads_move_as_blocks_and_each_heads_inside_in_its_own_way():
    module, inputs = network("heads")
    stream, blocks, keys, values = find(module, inputs)
    assert (stream.size, stream.copies, stream.linear) == (6, 1, True)
    assert (blocks.size, blocks.copies, blocks.linear) == (4, 1, False)
    assert {(place.tensor, place.inner) for place in blocks.places} == {
        (name, 4) for name in ("q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias", "out.weight")
    }  # fmt: skip
    for group, reads in ((keys, []), (values, ["out.weight"])):
        assert (group.size, group.copies, group.linear) == (4, 4, True)
        assert {place.outer for place in group.places} == {4}
        assert [place.tensor for place in group.places if place.role == "reads"] == reads


def test_the_products_of_a_head_are_what_no_element_changes():
    module, inputs = network("heads")
    groups, source, before = find(module, inputs), np.random.default_rng(2), state(module)
    after = apply(apply(before, groups[2], **element(groups[2], source)), groups[3], **element(groups[3], source))

    def products(tensors):
        q, k, v = (tensors[f"{one}.weight"].reshape(4, 4, 6) for one in "qkv")
        out = tensors["out.weight"].reshape(3, 4, 4).transpose(1, 0, 2)
        return q.transpose(0, 2, 1) @ k, out @ v

    for ours, theirs in zip(products(before), products(after), strict=True):
        assert np.abs(ours - theirs).max() < 1e-12 * np.abs(ours).max() * 100
    assert np.abs(after["q.weight"] - before["q.weight"]).max() > 0.1


def test_rotary_positions_forbid_what_plain_heads_allow():
    module, inputs = network("rotary")
    groups = find(module, inputs)
    assert {place.tensor for group in groups if group.linear for place in group.places} >= {"v.weight", "out.weight"}
    assert not any("q.weight" in group.tensors and group.size == 4 and group.copies == 4 for group in groups)
    # Negative control: the head's inside may indeed not be turned there.
    plain, turn = find(network("heads")[0], inputs)[2], np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    assert off(module, apply(state(module), plain, matrix=turn), inputs.shape) > 1e-3


def test_a_query_head_stays_with_its_key():
    module, inputs = network("grouped queries")
    groups = find(module, inputs)
    inside = next(group for group in groups if group.copies == 2)
    assert places(inside) == {("q.weight", 0), ("q.bias", 0), ("out.weight", 1)}
    # Negative control: two query heads of different keys may not change places.
    across = Group(size=4, copies=1, places=(Place(tensor="q.weight", axis=0, inner=4),
                                             Place(tensor="q.bias", axis=0, inner=4),
                                             Place(tensor="out.weight", axis=1, inner=4)))  # fmt: skip
    assert off(module, apply(state(module), across, permutation=np.array([2, 1, 0, 3])), inputs.shape) > 1e-3
    assert off(module, apply(state(module), across, permutation=np.array([1, 0, 2, 3])), inputs.shape) < 1e-10


def test_gates_and_streams_behind_rmsnorm_have_signs():
    module, inputs = network("gated")
    stream, hidden = find(module, inputs)
    assert {"inp.weight": 1, "inp.bias": 1, "down.weight": 1, "down.bias": 1} in [
        {k: v for k, v in one.items() if "norm" not in k and "last" not in k} for one in powers(stream, "sign")
    ]
    assert powers(hidden, "magnitude") == [{"up.weight": 1, "up.bias": 1, "down.weight": -1}]
    assert powers(hidden, "sign") == [{"up.weight": 1, "up.bias": 1, "down.weight": 1}]


def test_names_that_share_memory_move_together():
    module, inputs = network("tied")
    (group,) = find(module, inputs)
    both = {(name, axis) for name in ("one.weight", "two.weight") for axis in (0, 1)}
    assert both < places(group)


def test_views_of_one_memory_that_differ_stay_as_they_are():
    net: Any = Net(lambda net, x: torch.relu(net.out(torch.relu(net.a(torch.relu(net.inp(x)))))), inp=nn.Linear(4, 6),
                   a=nn.Linear(6, 5), out=nn.Linear(5, 6))  # fmt: skip
    assert len(find(net, domain32(ROW))) == 2
    net.out.weight = nn.Parameter(net.a.weight.T)
    assert find(net, domain32(ROW)) == ()
    net.out.weight = nn.Parameter(net.a.weight.detach().T.clone())
    net.inp.bias = nn.Parameter(net.a.weight.detach()[2])
    assert [places(group) for group in find(net, domain32(ROW))] == []


def test_an_unknown_operation_costs_the_groups_it_touches_and_no_others():
    net = Net(lambda net, x: net.out(torch.cumsum(torch.relu(net.a(torch.relu(net.b(x)))), 1)), b=nn.Linear(4, 5),
              a=nn.Linear(5, 6), out=nn.Linear(6, 3))  # fmt: skip
    (group,) = find(net, domain32(ROW))
    assert places(group) == {("b.weight", 0), ("b.bias", 0), ("a.weight", 1)}


def test_the_module_is_left_as_it_is():
    module = build("resnet", {"shape": [1, 8, 8], "classes": 5, "width": 4}, seed=0).train()
    before = state(module)
    find(module, Domain(kind="image", shape=(1, 8, 8)))
    assert module.training
    assert all(np.array_equal(before[name], after) for name, after in state(module).items())


def test_apply_against_the_plainest_way():
    module, inputs = network("mlp")
    group, source = find(module, inputs)[0], np.random.default_rng(4)
    order, scale, before = source.permutation(12), np.exp(source.normal(size=12)), state(module)
    after = apply(before, group, permutation=order, scales=[scale])
    for unit, old in enumerate(order):
        assert np.allclose(after["layers.0.weight"][unit], before["layers.0.weight"][old] * scale[unit], rtol=1e-14)
        assert np.allclose(after["layers.0.bias"][unit], before["layers.0.bias"][old] * scale[unit], rtol=1e-14)
        assert np.allclose(after["layers.1.weight"][:, unit], before["layers.1.weight"][:, old] / scale[unit],
                           rtol=1e-14)  # fmt: skip
    assert after["layers.1.bias"] is before["layers.1.bias"]
    assert off(module, before, inputs.shape) == 0
    back = apply(apply(after, group, scales=[1 / scale[np.newaxis]]), group, permutation=np.argsort(order))
    assert all(np.allclose(back[name], before[name], rtol=1e-14, atol=0) for name in before)


def test_a_variance_is_scaled_with_its_epsilon():
    (group,) = find(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, eps=0.5), nn.ReLU(), nn.Linear(2, 3)),
                    domain32(ROW))  # fmt: skip
    number = next(k for k, one in enumerate(group.scalings) if 2 in one.powers)
    before = {name: np.ones(shape) for name, shape in (
        ("0.weight", (2, 4)), ("0.bias", 2), ("1.weight", 2), ("1.bias", 2), ("3.weight", (3, 2)),
        ("1.running_mean", 2), ("1.running_var", 2))}  # fmt: skip
    after = apply(before, group, scales=[np.array([2.0, 3.0]) if k == number else None for k in range(number + 1)])
    assert after["1.running_var"].tolist() == [1.5 * 4 - 0.5, 1.5 * 9 - 0.5]
    assert after["1.running_mean"].tolist() == after["0.bias"].tolist() == [2, 3]
    assert after["1.weight"].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["mlp", "resnet", "heads"])
def test_overlap_tells_the_cosines_without_touching_the_tensors(name):
    module, inputs = network(name)
    source, reference = np.random.default_rng(5), state(module)
    other = {key: one + 0.1 * source.normal(size=one.shape) for key, one in reference.items()}
    for group in find(module, inputs):
        one = element(group, source)
        one["matrix"] = None
        overlap = Overlap(group, reference, other)
        got = overlap.cosines(one["permutation"], factors_of(group, one["scales"])[overlap.places])
        after = apply(other, group, **one)
        tensors = [group.places[k].tensor for k in overlap.places]
        wanted = [cosine(reference[tensor], after[tensor]) for tensor in tensors]
        # The epsilon of batch norm is a hundred-thousandth of its variance.
        assert np.allclose(got, wanted, atol=1e-4)
        assert overlap.matrices.tolist() == [reference[tensor].ndim > 1 for tensor in tensors]


def test_the_cosine_of_nothing_is_zero():
    assert cosine(np.zeros(3), np.ones(3)) == 0
    assert [is_matrix(np.zeros(shape)) for shape in ((3, 2), (3, 1, 1), (4,), (2, 1, 3))] == [True, False, False, True]
    assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(24 / 25)


@pytest.mark.parametrize("signs", [False, True])
def test_exponents_against_every_small_vector(signs):
    source = np.random.default_rng(6)
    for _ in range(30):
        matrix = source.integers(-1, 2, size=(2, 4))
        found = solutions([{k: int(c) for k, c in enumerate(row) if c} for row in matrix], range(4), signs=signs)
        values = range(2) if signs else range(-2, 3)
        true = {v for v in itertools.product(values, repeat=4)
                if not ((matrix @ v) % 2 if signs else matrix @ v).any()}  # fmt: skip
        assert all((((matrix @ one) % 2) if signs else matrix @ one).any() == 0 for one in np.array(found, int))
        if signs:
            spanned = {tuple(int(c) % 2 for c in np.array(pick) @ np.array(found).reshape(-1, 4))
                       for pick in itertools.product(range(2), repeat=len(found))}  # fmt: skip
            assert spanned == true
        else:
            rank = np.linalg.matrix_rank(np.array(found).reshape(-1, 4)) if found else 0
            assert rank == len(found) == 4 - np.linalg.matrix_rank(matrix)
            assert np.linalg.matrix_rank(np.array([*found, *true])) == rank


def test_unknowns_that_are_not_kept_are_eliminated():
    # a - b = 0, b + c = 0: c is a's inverse, whatever b.
    assert solutions([{"a": 1, "b": -1}, {"b": 1, "c": 1}], ["a", "c"], signs=False) == [(-1, 1)]
    assert solutions([{"a": 1}, {"b": 1}], ["a"], signs=False) == []


GROUP = Group(size=3, copies=1, places=(Place(tensor="w", axis=0),),
              scalings=(Scaling(powers=(1,), kind="magnitude"), Scaling(powers=(1,), kind="sign")))  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"permutation": np.array([0, 1])}, r"permutation must have shape \(1, 3\) for w\[0\] of 3 units; got \(2,\)"),
        ({"permutation": np.array([0, 1, 1])}, r"permutation must hold each of 0 to 2 once for w\[0\]"),
        ({"scales": [np.ones(3)] * 3}, r"w\[0\] of 3 units has 2 scalings; got scales for 3"),
        ({"scales": [np.zeros(3)]}, "scales of the kind magnitude must be positive and finite"),
        ({"scales": [None, np.full(3, 2.0)]}, "scales of the kind sign must be -1 or 1"),
        ({"matrix": np.eye(3)}, r"w\[0\] of 3 units may be permuted and scaled; no other matrix acts on it"),
    ],
)
def test_what_is_no_element_is_refused(given, message):
    with pytest.raises(ParameterError, match=message):
        apply({"w": np.ones((3, 2))}, GROUP, **given)


def test_a_state_of_another_network_is_refused():
    with pytest.raises(ParameterError, match=r"the state has no tensor 'w', on which w\[0\] of 3 units acts"):
        apply({"v": np.ones(3)}, GROUP)
    with pytest.raises(ParameterError, match=r"acts on axis 0 of 'w', of 3 entries; the tensor has shape \(4, 2\)"):
        apply({"w": np.ones((4, 2))}, GROUP)


def test_what_has_no_graph_is_refused():
    with pytest.raises(ParameterError, match="takes numbers; this one takes text"):
        find(nn.Linear(2, 2), Domain(kind="text", shape=(), dtype="str"))

    def branch(net, x):
        return net.a(x) if x.sum() > 0 else x

    with pytest.raises(ParameterError, match="torch cannot export this module"):
        find(Net(branch, a=nn.Linear(4, 4)), domain32(ROW))


def test_shapes_that_depend_on_the_inputs_are_refused():
    class Kept(nn.Module):
        def forward(self, x):
            return x[x > 0].sum().reshape(1, 1) + x[:, :1]

    with pytest.raises(ParameterError, match="this one computes a shape from its inputs"):
        find(Kept(), domain32(ROW))
