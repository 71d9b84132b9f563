"""Networks in the key layout of torchvision's weights, built from a state dictionary: its shapes say every width.

What a shape cannot say (strides, paddings, where pooling is) is as published for ResNet18, MobileNetV2, VGG13 without
and VGG16 with batch norm, and DenseNet121. Fine-pruned weights come as `weight_orig` with `weight_mask`, as torch's
pruning keeps them. MobileNetV2 may come cut into `layer1` to `layer5`, as ModelDiff's authors have it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from locard.errors import ArtefactError

State = Mapping[str, Tensor]
_CUTS = (0, 4, 7, 11, 17)
_STRIDES = (2, 1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
_STAGES = {"vgg13": ((2, 2, 2, 2, 2), False), "vgg16_bn": ((2, 2, 3, 3, 3), True)}
_SIDE = 7


def from_state(architecture: str, state: State) -> nn.Module:
    """The network of these weights, in evaluation mode.

    Args:
        architecture: one of `LAYOUTS`.
        state: as it was published.

    Raises:
        ArtefactError: the weights are not in this layout.
    """
    plain = _plain(state)
    try:
        module = LAYOUTS[architecture](plain)
        module.load_state_dict(plain)
    except KeyError as error:
        raise ArtefactError(f"the weights are none of {architecture}: the tensor {error} is missing") from error
    except (RuntimeError, ValueError, IndexError) as error:
        raise ArtefactError(f"the weights are none of {architecture}: {str(error).splitlines()[0]}") from error
    return module.eval()


def _plain(state: State) -> dict[str, Tensor]:
    """The tensors under torchvision's names, with masks carried out."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("_mask"):
            continue
        if key.endswith("_orig"):
            key, value = key.removesuffix("_orig"), value * state[f"{key.removesuffix('_orig')}_mask"]
        cut = re.match(r"layer([1-5])\.(\d+)\.(?=conv\.|\d)", key) if "classifier.1.weight" in state else None
        if cut:
            key = f"features.{_CUTS[int(cut[1]) - 1] + int(cut[2])}.{key[cut.end() :]}"
        found[key] = value
    return found


def _conv(state: State, name: str, *, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    out, into, side, _ = state[f"{name}.weight"].shape
    # In these networks, one channel to read is a depthwise convolution.
    groups = out if into == 1 else 1
    return nn.Conv2d(into * groups, out, side, stride, side // 2 if padding is None else padding, groups=groups,
                     bias=f"{name}.bias" in state)  # fmt: skip


def _norm(state: State, name: str) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(len(state[f"{name}.weight"]))


def _dense(state: State, name: str) -> nn.Linear:
    out, into = state[f"{name}.weight"].shape
    return nn.Linear(into, out)


class _Residual(nn.Module):
    def __init__(self, state: State, name: str, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(state, f"{name}.conv1", stride=stride), _norm(state, f"{name}.bn1")
        self.conv2, self.bn2 = _conv(state, f"{name}.conv2"), _norm(state, f"{name}.bn2")
        self.downsample = nn.Sequential()
        if f"{name}.downsample.0.weight" in state:
            around = f"{name}.downsample"
            self.downsample = nn.Sequential(_conv(state, f"{around}.0", stride=stride), _norm(state, f"{around}.1"))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.downsample(x))


class _ResNet18(nn.Module):
    def __init__(self, state: State) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(state, "conv1", stride=2), _norm(state, "bn1")
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_Residual(state, f"layer{n}.0", 1 if n == 1 else 2), _Residual(state, f"layer{n}.1", 1))
            for n in range(1, 5)
        )
        self.fc = _dense(state, "fc")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


def _unit(state: State, name: str, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(state, f"{name}.0", stride=stride), _norm(state, f"{name}.1"), nn.ReLU6())


class _Inverted(nn.Module):
    def __init__(self, state: State, name: str, stride: int) -> None:
        super().__init__()
        last = 2 if f"{name}.conv.3.weight" in state else 1
        units = [_unit(state, f"{name}.conv.{n}", stride if n == last - 1 else 1) for n in range(last)]
        end, norm = _conv(state, f"{name}.conv.{last}"), _norm(state, f"{name}.conv.{last + 1}")
        self.conv = nn.Sequential(*units, end, norm)
        first = units[0][0]
        self.around = stride == 1 and isinstance(first, nn.Conv2d) and first.in_channels == end.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.around else self.conv(x)


class _MobileNetV2(nn.Module):
    def __init__(self, state: State) -> None:
        super().__init__()
        blocks = [_Inverted(state, f"features.{n}", _STRIDES[n]) for n in range(1, 18)]
        self.features = nn.Sequential(_unit(state, "features.0", 2), *blocks, _unit(state, "features.18"))
        self.classifier = nn.Sequential(nn.Identity(), _dense(state, "classifier.1"))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))


class _VGG(nn.Module):
    def __init__(self, state: State, stages: tuple[int, ...], normed: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for depth in stages:
            for _ in range(depth):
                layers.append(_conv(state, f"features.{len(layers)}"))
                if normed:
                    layers.append(_norm(state, f"features.{len(layers)}"))
                layers.append(nn.ReLU())
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        first, second, third = (_dense(state, f"classifier.{n}") for n in (0, 3, 6))
        self.classifier = nn.Sequential(first, nn.ReLU(), nn.Identity(), second, nn.ReLU(), nn.Identity(), third)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        # torchvision brings any image to 7 x 7; of what is left of 32 x 32 pixels, one, that makes 49 copies.
        x = x.expand(-1, -1, _SIDE, _SIDE) if x.shape[2:] == (1, 1) else nn.functional.adaptive_avg_pool2d(x, _SIDE)
        return self.classifier(x.flatten(1))


class _DenseLayer(nn.Module):
    def __init__(self, state: State, name: str) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(state, f"{name}.norm1"), _conv(state, f"{name}.conv1")
        self.norm2, self.conv2 = _norm(state, f"{name}.norm2"), _conv(state, f"{name}.conv2")

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(inner)))], dim=1)


class _Transition(nn.Module):
    def __init__(self, state: State, name: str) -> None:
        super().__init__()
        self.norm, self.conv = _norm(state, f"{name}.norm"), _conv(state, f"{name}.conv")

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.conv(torch.relu(self.norm(x))), 2)


class _DenseNet(nn.Module):
    def __init__(self, state: State, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", _conv(state, "features.conv0", stride=2))
        self.features.add_module("norm0", _norm(state, "features.norm0"))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        for number, depth in enumerate(depths, 1):
            block, name = nn.Sequential(), f"denseblock{number}"
            for layer in range(1, depth + 1):
                block.add_module(f"denselayer{layer}", _DenseLayer(state, f"features.{name}.denselayer{layer}"))
            self.features.add_module(name, block)
            if number < len(depths):
                self.features.add_module(f"transition{number}", _Transition(state, f"features.transition{number}"))
        self.features.add_module("norm5", _norm(state, "features.norm5"))
        self.classifier = _dense(state, "classifier")

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.features(x)).mean(dim=(2, 3)))


LAYOUTS: dict[str, Callable[[State], nn.Module]] = {
    "densenet121": lambda state: _DenseNet(state, (6, 12, 24, 16)),
    "mobilenet_v2": _MobileNetV2,
    "resnet18": _ResNet18,
    "vgg13": lambda state: _VGG(state, *_STAGES["vgg13"]),
    "vgg16_bn": lambda state: _VGG(state, *_STAGES["vgg16_bn"]),
}
