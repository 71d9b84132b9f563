"""Networks from both of torch's ONNX exporters, as modules again: against onnxruntime and the original."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from locard.models.onnx_graph import to_torch

pytestmark = [
    # What torch's exporters warn of is theirs.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Residual(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1)
        self.short = nn.Conv2d(channels, width, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(F.relu(self.norm(self.first(x)))) + self.short(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        parts = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*parts.unbind(0))
        return self.out(y.transpose(1, 2).reshape(n, tokens, width))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 5)
        self.token, self.place = nn.Parameter(torch.ones(1, 1, 16)), nn.Parameter(torch.ones(1, 17, 16) / 3)
        self.norm, self.attention = nn.LayerNorm(16), Attention(16, 2)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        x = x + self.attention(self.norm(x))
        return self.head((x + self.mlp(x))[:, 0])


class TextEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 16), nn.Linear(16, 5)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        padding = tokens == 0
        places = torch.arange(tokens.shape[1])[None, :, None] / torch.pow(100.0, torch.arange(16) / 16)
        x = self.layer(self.words(tokens) + torch.sin(places), src_key_padding_mask=padding)
        x = x.masked_fill(padding[..., None], 0)
        return self.head(x.sum(1) / (~padding).sum(1, keepdim=True).clamp(min=1))


class Oddities(nn.Module):
    """Operators that none of the others has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, 1)
        product = torch.einsum("bij,bkj->bik", left.flatten(2), right.flatten(2)) / 16
        parts = [
            torch.topk(product, 2, -1).values,
            F.interpolate(x, size=(20, 20), mode="bilinear").mean(3),
            F.interpolate(x, scale_factor=0.5, mode="nearest").logsumexp(3),
            F.interpolate(x, size=(9, 9), mode="bicubic", align_corners=True).amin(3),
            x.std(3),
            x.norm(dim=3),
            F.one_hot(x.argmax(1) % 3, 3).float().sum(1),
            torch.where(x > 0, x, x.exp()).cumsum(2),
            F.normalize(x)[..., ::3],
            torch.tril(product),
            x.flip(2)[:, :, :2],
            F.pixel_shuffle(x, 2),
            F.pad(x, (1, 2, 2, 1), mode="reflect"),
            torch.gather(x, 3, x.argmax(3, keepdim=True)),
            x.var(2),
            torch.roll(x, 1, 2),
        ]
        return torch.cat([part.flatten(1) for part in parts], 1)


def _mlp() -> nn.Module:
    layers = (nn.Linear(12, 16), nn.ReLU(), nn.Dropout(), nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU())
    return nn.Sequential(*layers, nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 5), nn.Softmax(-1))


def _cnn() -> nn.Module:
    first = (nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(), nn.MaxPool2d(3, 2, 1), nn.ConstantPad2d((1, 0, 0, 1), 0.5))
    second = (nn.Conv2d(8, 8, 3, 2, 1, 2), nn.PReLU(8), nn.AvgPool2d(3, 2, 1), nn.Upsample(scale_factor=2))
    third = (nn.ConvTranspose2d(8, 4, 3, 2, 1, 1), nn.InstanceNorm2d(4, affine=True), nn.Hardtanh())
    return nn.Sequential(*first, *second, *third, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def _resnet() -> nn.Module:
    stem = (nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(
        *stem, Residual(8, 8), Residual(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )


def _mobile() -> nn.Module:
    deep = (nn.Conv2d(8, 8, 5, 1, 2, groups=8), nn.BatchNorm2d(8), nn.SiLU(), SqueezeExcite(8), nn.Conv2d(8, 12, 1))
    last = (nn.ReLU6(), nn.GroupNorm(3, 12), nn.Hardsigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Dropout())
    stem = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
    return nn.Sequential(*stem, *deep, *last, nn.Linear(12, 5), nn.LogSoftmax(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "mobile": _mobile,
    "vit": VisionTransformer,
    "text": TextEncoder,
    "odd": Oddities,
}
SHAPES = {"mlp": (12,), "odd": (4, 16, 16)}
# (exporter is the newer one, opset); None is the exporter's own choice. Before 14 there is no attention and no tril.
EXPORTS = [(name, True, None) for name in NETWORKS] + [(name, False, None) for name in NETWORKS]
EXPORTS += [(name, True, 23) for name in ("mobile", "vit")]
EXPORTS += [(name, False, opset) for name in ("mlp", "cnn", "resnet", "mobile") for opset in (9, 11, 13)]
EXPORTS += [(name, False, 17) for name in ("vit", "text", "odd")]


def build(name: str) -> nn.Module:
    """A network in evaluation mode, with weights and batch-norm statistics as after training: all different."""
    generator = torch.Generator().manual_seed(len(name))
    module = NETWORKS[name]().eval()
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(
                    noise + 0.5 if "var" in key or value.dim() == 1 else (noise - 0.5) / math.sqrt(value[0].numel() / 4)
                )
    return module


def batch(name: str, n: int = 4) -> torch.Tensor:
    """Inputs of a network."""
    generator = torch.Generator().manual_seed(n)
    if name == "text":
        return torch.randint(1, 50, (n, 6), generator=generator) * (torch.arange(6) < torch.arange(3, 3 + n)[:, None])
    return torch.randn((n, *SHAPES.get(name, (3, 16, 16))), generator=generator)


def export(
    module: nn.Module, x: torch.Tensor, path: Path, *, dynamo: bool, opset: int | None = None, free: bool = True
) -> Path:
    """Write the module with one of torch's exporters, the batch size free."""
    axes: dict[str, Any] = {}
    if free:
        axes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    if not dynamo:
        axes["input_names"] = ["x"]
    torch.onnx.export(module, (x,), path, dynamo=dynamo, opset_version=opset, verbose=False, **axes)
    return path


def answers(path: Path, x: torch.Tensor) -> np.ndarray:
    """What onnxruntime says."""
    session = onnxruntime.InferenceSession(path)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.fixture(autouse=True)
def _quiet_exporters() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("name", "dynamo", "opset"), EXPORTS)
def test_an_exported_network_answers_as_onnxruntime_and_has_the_gradients_of_the_original(
    name: str, dynamo: bool, opset: int | None, tmp_path: Path
) -> None:
    original, x = build(name), batch(name)
    path = export(original, batch(name, 2), tmp_path / "model.onnx", dynamo=dynamo, opset=opset)
    module = to_torch(path)
    np.testing.assert_allclose(module(x).numpy(force=True), answers(path, x), rtol=1e-5, atol=1e-5)

    weigh = torch.linspace(-1, 1, original(x).numel())
    gradients: list[torch.Tensor] = []
    for network in (original, module):
        given = x.clone().requires_grad_(x.is_floating_point())
        loss = (network(given).reshape(-1) * weigh).sum()
        if loss.requires_grad:
            loss.backward()
        if given.grad is not None:
            gradients.append(given.grad)
    if x.is_floating_point():
        assert max(gradient.abs().max() for gradient in gradients) > 1e-4
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    same = dict(original.named_parameters())
    shared = [key for key, value in module.named_parameters() if key in same and torch.equal(same[key], value)]
    for key in shared:
        torch.testing.assert_close(module.get_parameter(key).grad, same[key].grad, rtol=1e-4, atol=1e-5)
    # Exporters fold batch norm into convolutions and transpose some matrices; the head stays as it was.
    assert name == "odd" or any(torch.count_nonzero(cast("Any", same[key].grad)) for key in shared)


def test_torch_exports_keep_their_names_and_files_beside_them(tmp_path: Path) -> None:
    original = build("cnn")
    path = export(original, batch("cnn"), tmp_path / "model.onnx", dynamo=True)
    assert (tmp_path / "model.onnx.data").exists()
    module = to_torch(path)
    kept = [key for key in original.state_dict() if key in module.state_dict()]
    assert kept == [
        "0.weight",
        "0.bias",
        "4.weight",
        "4.bias",
        "8.weight",
        "8.bias",
        "9.weight",
        "9.bias",
        "13.weight",
        "13.bias",
    ]
    for key in kept:
        assert module.onnx_names[key] == key
        torch.testing.assert_close(module.get_parameter(key).data, original.get_parameter(key).data, rtol=0, atol=0)


def test_a_module_is_one_like_any_other(tmp_path: Path) -> None:
    """Copied, moved to another type, given other weights, stacked under vmap, put in training mode: it stays right."""
    original, x = build("resnet"), batch("resnet")
    module = to_torch(export(original, x, tmp_path / "model.onnx", dynamo=False, opset=17))
    before = module(x).detach()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for value in twin.parameters():
            value.mul_(0.5)
    assert not torch.allclose(twin(x), before, atol=1e-3)
    torch.testing.assert_close(module.train()(x).detach(), before)
    torch.testing.assert_close(
        copy.deepcopy(module).double()(x.double()).float().detach(), before, rtol=1e-4, atol=1e-5
    )
    stacked, buffers = torch.func.stack_module_state([module, twin])
    both = torch.vmap(lambda p, b: torch.func.functional_call(module, (p, b), (x,)))(stacked, buffers)
    torch.testing.assert_close(both, torch.stack([module(x), twin(x)]), rtol=1e-4, atol=1e-5)
    twin.load_state_dict(module.state_dict())
    torch.testing.assert_close(twin(x).detach(), before)
