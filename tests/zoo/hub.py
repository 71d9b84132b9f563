"""Folders as QuRD serves the published models: names and shapes written down here, apart from what reads them."""

import json

import torch
from safetensors.torch import save_file


def conv(name, out, into, side, bias=False):
    found = {f"{name}.weight": (out, into, side, side)}
    return found | ({f"{name}.bias": (out,)} if bias else {})


def norm(name, width):
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()
    }


def dense(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def resnet18(classes, width=64):
    found = conv("conv1", width, 3, 7) | norm("bn1", width)
    into = width
    for stage in range(4):
        out = width << stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            found |= conv(f"{name}.conv1", out, into, 3) | norm(f"{name}.bn1", out)
            found |= conv(f"{name}.conv2", out, out, 3) | norm(f"{name}.bn2", out)
            if into != out:
                found |= conv(f"{name}.downsample.0", out, into, 1) | norm(f"{name}.downsample.1", out)
            into = out
    return found | dense("fc", classes, into)


def mobilenet_v2(classes, part=1, last=1280):
    """`part` divides all widths; the rows are expansion, channels, blocks."""
    rows = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    into, number = 32 // part, 1
    found = conv("features.0.0", into, 3, 3) | norm("features.0.1", into)
    for expansion, channels, blocks in rows:
        for _ in range(blocks):
            name, inside, out, place = f"features.{number}.conv", into * expansion, channels // part, 0
            if expansion > 1:
                found |= conv(f"{name}.0.0", inside, into, 1) | norm(f"{name}.0.1", inside)
                place = 1
            found |= conv(f"{name}.{place}.0", inside, 1, 3) | norm(f"{name}.{place}.1", inside)
            found |= conv(f"{name}.{place + 1}", out, inside, 1) | norm(f"{name}.{place + 2}", out)
            into, number = out, number + 1
    found |= conv("features.18.0", last, into, 1) | norm("features.18.1", last)
    return found | dense("classifier.1", classes, last)


def cut(shapes):
    """As ModelDiff's authors have MobileNetV2: stages of their own for runs of blocks that end with a smaller image."""
    starts = (0, 4, 7, 11, 17)

    def renamed(key):
        head, number, rest = (*key.split(".", 2), "")[:3]
        if head != "features":
            return key
        stage = max(n for n, start in enumerate(starts) if start <= int(number))
        return f"layer{stage + 1}.{int(number) - starts[stage]}.{rest}"

    return {renamed(key): shape for key, shape in shapes.items()}


# Places of the convolutions, counted with every activation and pooling.
PLACES = {
    "vgg13": (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    "vgg16_bn": (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
}
WIDTHS = {"vgg13": (1, 1, 2, 2, 4, 4, 8, 8, 8, 8), "vgg16_bn": (1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8)}


def vgg(name, classes, width=64, hidden=4096):
    found, into = {}, 3
    for place, times in zip(PLACES[name], WIDTHS[name], strict=True):
        found |= conv(f"features.{place}", width * times, into, 3, bias=True)
        into = width * times
        if name.endswith("bn"):
            found |= norm(f"features.{place + 1}", into)
    found |= dense("classifier.0", hidden, 49 * into) | dense("classifier.3", hidden, hidden)
    return found | dense("classifier.6", classes, hidden)


def densenet121(classes, growth=32):
    into = 2 * growth
    found = conv("features.conv0", into, 3, 7) | norm("features.norm0", into)
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            found |= norm(f"{name}.norm1", into) | conv(f"{name}.conv1", 4 * growth, into, 1)
            found |= norm(f"{name}.norm2", 4 * growth) | conv(f"{name}.conv2", growth, 4 * growth, 3)
            into += growth
        if block < 4:
            name = f"features.transition{block}"
            found |= norm(f"{name}.norm", into) | conv(f"{name}.conv", into // 2, into, 1)
            into //= 2
    return found | norm("features.norm5", into) | dense("classifier", classes, into)


def weights(shapes, seed):
    """Random tensors whose activations neither die nor explode."""
    source = torch.Generator().manual_seed(seed)
    found = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            found[key] = torch.tensor(0)
        elif key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
            found[key] = torch.ones(shape)
        else:
            spread = (2 / max(1, torch.Size(shape[1:]).numel())) ** 0.5 if len(shape) > 1 else 0.1
            found[key] = spread * torch.randn(shape, generator=source)
    return found


def serve(folder, repository, state, *, side, classes, channels=3):
    """One repository, as timm pushes it."""
    path = folder / repository
    path.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in state.items()}, path / "model.safetensors")
    config = {
        "architecture": "?",
        "num_classes": classes,
        "pretrained_cfg": {"input_size": [channels, side, side], "mean": [0.5] * 3, "std": [0.25] * 3},
    }
    (path / "config.json").write_text(json.dumps(config))
    return path
