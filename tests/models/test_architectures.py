"""Small networks by name, from plain arguments that may come from a stranger's file."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from locard.errors import MissingExtraError, ParameterError  # noqa: E402
from locard.models import exported, load, onnx, restrict  # noqa: E402
from locard.models.architectures import architectures, build  # noqa: E402
from locard.models.architectures.cnn import CNN  # noqa: E402
from locard.models.architectures.resnet import Block  # noqa: E402
from locard.models.torch_module import TorchModel  # noqa: E402
from locard.records import Access, Domain  # noqa: E402

FASHION = {"shape": [1, 28, 28], "classes": 10}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# Counted by hand: a 3 x 3 convolution has 9 a b weights, batch norm 2 b, a dense layer a b + b.
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("mlp", {}, 784 * 128 + 128 + 128 * 10 + 10),
        ("mlp", {"hidden": []}, 784 * 10 + 10),
        ("mlp", {"hidden": [32, 16]}, 784 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10),
        ("cnn", {}, 9 * 16 + 16 + 9 * 16 * 32 + 32 + 32 * 49 * 64 + 64 + 64 * 10 + 10),
        ("cnn", {"width": 4}, 9 * 4 + 4 + 9 * 4 * 8 + 8 + 8 * 49 * 16 + 16 + 16 * 10 + 10),
        ("resnet", {}, 77_754),
        ("vgg", {}, 9 * (16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 4 * (16 + 32 + 64) + 64 * 10 + 10),
        # Pieces, places, two blocks (norms, attention, dense layers), norm, head.
        (
            "transformer",
            {},
            16 * 32
            + 32
            + 49 * 32
            + 2 * (4 * 32 + 4 * 32 * 32 + 3 * 32 + 32 * 128 + 128 + 128 * 32 + 32)
            + 2 * 32
            + 32 * 10
            + 10,
        ),
    ],
)
def test_number_of_parameters(name, arguments, expected):
    assert parameters(build(name, **FASHION, **arguments)) == expected


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet", "transformer", "vgg"])
@pytest.mark.parametrize("shape", [[1, 8, 8], [1, 28, 28], [3, 9, 13], [3, 32, 32]])
def test_answers_one_row_of_logits_an_input(name, shape):
    module = build(name, shape=shape, classes=7)
    assert module(torch.rand(5, *shape)).shape == (5, 7)
    assert module.train()(torch.rand(5, *shape)).shape == (5, 7)


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet", "transformer", "vgg"])
def test_arguments_survive_json(name):
    arguments = json.loads(json.dumps({"shape": (1, 8, 8), "classes": 3}))
    assert build(name, **arguments).state_dict().keys() == build(name, shape=(1, 8, 8), classes=3).state_dict().keys()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 11, 14)])
def test_cnn_pools_before_relu_and_gives_the_bits_of_the_usual_order(shape):
    torch.manual_seed(0)
    module = CNN(shape=shape, classes=10, width=4)
    # Zeros give ties between all numbers of a window.
    x = torch.rand(7, *shape).mul_(torch.rand(7, *shape) < 0.3)
    x.requires_grad_()

    def usual(x):
        for convolution in (module.conv1, module.conv2):
            x = torch.nn.functional.max_pool2d(torch.relu(convolution(x)), 2)
        return module.dense2(torch.relu(module.dense1(x.flatten(1))))

    wanted = [x, *module.parameters()]
    ours, theirs = module(x), usual(x)
    assert torch.equal(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), wanted) for y in (ours, theirs)), strict=True):
        assert a.abs().sum() > 0
        assert torch.equal(a, b)


def test_mlp_is_linear_without_hidden_layers():
    module = build("mlp", shape=[4], classes=2, hidden=[])
    x, y = torch.rand(3, 4), torch.rand(3, 4)
    # f(x) + f(y) = f(x + y) + f(0), which no rectifier in between would keep.
    zero = module(torch.zeros(3, 4))
    assert torch.allclose(module(x) + module(y), module(x + y) + zero, atol=1e-5)


def test_residual_blocks_pass_their_input_on():
    block = Block(16, 16, 1).eval()
    with torch.no_grad():
        block.norm2.weight.zero_()
    x = torch.rand(2, 16, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("shape", "patch", "pieces"), [([9], 4, 3), ([1, 8, 8], 4, 4), ([3, 9, 13], 4, 12), ([5], 9, 1)]
)
def test_transformer_cuts_all_of_its_input_into_pieces(shape, patch, pieces):
    module = build("transformer", shape=shape, classes=2, patch=patch, width=8)
    assert module.places.shape == (pieces, 8)
    x = torch.rand(1, *shape, requires_grad=True)
    module(x)[0, 0].backward()
    assert (x.grad != 0).all()


def test_transformer_attends_as_torch_does():
    module: Any = build("transformer", shape=[6], classes=2, patch=1, width=8, heads=2).eval()
    block = module.blocks[0]
    x = torch.rand(3, 6, 8)
    query, key, value = (one(x).reshape(3, 6, 2, 4).transpose(1, 2) for one in (block.query, block.key, block.value))
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(3, 6, 8)
    assert torch.allclose(block._attend(x), block.out(wanted), atol=1e-6)


def test_transformer_gives_second_derivatives():
    module = build("transformer", shape=[4], classes=2, patch=1, width=8)
    x = torch.rand(1, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(module(x)[0, 0], x, create_graph=True)
    (curve,) = torch.autograd.grad(slope.sum(), x)
    assert (curve != 0).any()


@pytest.mark.parametrize("shape", [[1, 8, 8], [7]])
@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_transformer_survives_both_exports(shape, ending, tmp_path):
    model = TorchModel(build("transformer", shape=shape, classes=3, width=8).eval(),
                       domain=Domain(kind="image" if len(shape) == 3 else "tabular", shape=tuple(shape)))  # fmt: skip
    path = tmp_path / f"model{ending}"
    (exported.save if ending == ".pt2" else onnx.export)(model, path)
    x = np.random.default_rng(0).random((5, *shape), np.float32)
    ours, theirs = (restrict(one, Access.LOGITS).logits(x) for one in (model, load(path, trust=True)))
    assert np.allclose(ours, theirs, atol=1e-5)


def test_names_are_the_files():
    assert architectures.names() == ["bag", "cnn", "mlp", "resnet", "transformer", "vgg"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cnm", FASHION, "unknown architecture 'cnm'; did you mean 'cnn'"),
        ("cnn", {**FASHION, "widht": 3}, "unknown argument of cnn 'widht'; did you mean 'width'"),
        ("cnn", {"classes": 10}, "cnn needs the argument 'shape'"),
        ("mlp", {}, "mlp needs the argument 'shape' and 'classes'"),
        ("cnn", {**FASHION, "classes": 0}, r"classes must be a whole number in \[1, 65536\]; got 0"),
        ("cnn", {**FASHION, "classes": True}, "classes must be a whole number .* got True"),
        ("cnn", {**FASHION, "width": 1e3}, "width must be a whole number .* got 1000.0"),
        ("cnn", {**FASHION, "width": 10**9}, r"width must be a whole number in \[1, 4096\]"),
        ("cnn", {**FASHION, "shape": [1, 7, 28]}, r"shape must be \(channels, height, width\) with sides >= 8"),
        ("resnet", {**FASHION, "shape": [28, 28]}, r"shape must be \(channels, height, width\)"),
        ("mlp", {**FASHION, "shape": "1x28x28"}, "shape must be a list of at most 8 whole numbers; got '1x28x28'"),
        (
            "mlp",
            {**FASHION, "shape": []},
            r"shape must hold 1 to 4,194,304 numbers; got \[\]: texts, .* take the architecture bag",
        ),
        ("bag", FASHION, r"bag takes texts, whose shape is \[\]; got \[1, 28, 28\]"),
        ("bag", {"shape": [], "classes": 2, "grams": 9}, r"grams must be a whole number in \[1, 8\]; got 9"),
        ("bag", {"shape": [], "classes": 2, "buckets": 0}, "buckets must be a whole number"),
        ("mlp", {**FASHION, "shape": [60000, 60000]}, "shape must hold 1 to 4,194,304 numbers"),
        ("transformer", {**FASHION, "heads": 5}, "heads must divide the width; got 5 heads, width 32"),
        ("transformer", {**FASHION, "shape": [2, 3]}, r"shape must be \(channels, height, width\)"),
        ("transformer", {**FASHION, "patch": 0}, "patch must be a whole number"),
        ("mlp", {**FASHION, "hidden": [8] * 1000}, "hidden must be a list of at most 16 whole numbers"),
        ("mlp", {**FASHION, "hidden": [8, -1]}, r"hidden\[1\] must be a whole number"),
    ],
)
def test_what_is_wrong_is_named(name, arguments, message):
    with pytest.raises(ParameterError, match=message):
        build(name, **arguments)


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"the architecture 'cnn' needs .* pip install 'locard\[torch\]'"):
        build("cnn", **FASHION)


def test_the_registry_of_adapters_leaves_torch_alone():
    code = "import sys; from locard.models import adapters; adapters.names(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
