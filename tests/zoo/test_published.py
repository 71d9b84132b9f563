"""Published weights become a population; the folders are generated, since the real ones were not at hand."""

import numpy as np
import pytest
import torch
from tests.zoo import hub

from locard.bench import parse, processes, run_bench
from locard.bench.run import read_bench
from locard.cli import run
from locard.errors import ArtefactError, ParameterError
from locard.models import load, restrict
from locard.zoo import open_zoo
from locard.zoo._layouts import LAYOUTS, from_state
from locard.zoo.published import import_zoo, modelreuse, sacbench

SMALL = {
    "densenet121": lambda: hub.densenet121(10, growth=2),
    "mobilenet_v2": lambda: hub.mobilenet_v2(10, part=8, last=16),
    "resnet18": lambda: hub.resnet18(10, width=4),
    "vgg13": lambda: hub.vgg("vgg13", 10, width=2, hidden=8),
    "vgg16_bn": lambda: hub.vgg("vgg16_bn", 10, width=2, hidden=8),
}
# With 1,000 classes, as torchvision's documentation has them.
PARAMETERS = {
    "densenet121": (hub.densenet121(1000), 7_978_856),
    "mobilenet_v2": (hub.mobilenet_v2(1000), 3_504_872),
    "resnet18": (hub.resnet18(1000), 11_689_512),
    "vgg13": (hub.vgg("vgg13", 1000), 133_047_848),
    "vgg16_bn": (hub.vgg("vgg16_bn", 1000), 138_365_992),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    source = np.random.default_rng(0)
    np.savez(path, x=source.integers(0, 256, (240, 3, 32, 32), dtype=np.uint8), y=source.integers(0, 10, 240))
    return str(path)


def served(folder, benchmark, chosen):
    """The chosen models: strangers at random, copies near their victim."""
    prefix = {"sacbench": "SACBenchmark", "modelreuse": "ModelReuse"}[benchmark]
    for number, one in enumerate(chosen):
        shapes = SMALL[one.network]()
        state = hub.weights(shapes, number)
        if one.parent and one.network in ("vgg16_bn", "resnet18"):
            base = hub.weights(shapes, next(n for n, other in enumerate(chosen) if other.lineage == one.parent))
            state = {k: v + 0.01 * (state[k] - v) if v.is_floating_point() else v for k, v in base.items()}
        if one.kind == "fineprune":
            mask = (torch.rand(state["features.40.weight"].shape) < 0.9).float()
            state["features.40.weight_orig"] = state.pop("features.40.weight")
            state["features.40.weight_mask"] = mask
        if benchmark == "modelreuse" and one.network == "mobilenet_v2":
            state = hub.cut(state)
        hub.serve(folder, f"{prefix}-{one.hub}", state, side=32, classes=10)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_networks_are_as_large_as_torchvisions(name):
    shapes, count = PARAMETERS[name]
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        module = from_state(name, state)
    assert sum(one.numel() for one in module.parameters()) == count


def test_names_are_those_of_the_hub():
    names = {one.hub for one in sacbench()}
    assert {"train.vgg_model.CIFAR10.base", "train.densenet121.CIFAR10.14", "train.vgg_model.CIFAR10.base-finetune.3",
            "train.vgg_model.CIFAR10.base-transfer.CIFAR10C.9",
            "train.vgg_model.CIFAR10.base-adv_label_extraction.mobilenet_v2.19"} <= names  # fmt: skip
    assert len(names) == 1 + 30 + 40 + 60
    names = {one.hub for one in modelreuse("SDog120")}
    assert {"pretrain.mbnetv2.imagenet-1k-transfer.SDog120.0_1-prune.0_2", "train.resnet18.SDog120-distill",
            "pretrain.resnet18.imagenet-1k-transfer.SDog120.1_0-steal.mbnetv2"} <= names  # fmt: skip
    # 68 less two quantised copies of each of the six that are grown from ImageNet.
    assert len(names) == 68 - 12


@pytest.mark.slow
def test_sacbench_is_imported_and_judged(tmp_path, data):
    wanted = ("base)", "finetune(0)", "fineprune(1)", "label_extraction(resnet18,5)", "train(vgg16_bn,CIFAR10C,0)",
              "train(densenet121,CIFAR10,10)", "train(mobilenet_v2,CIFAR10,15)", "train(vgg13,CIFAR10,0)",
              "transfer(CIFAR100,0)")  # fmt: skip
    chosen = [one for one in sacbench() if one.lineage.endswith(wanted) and "adv" not in one.lineage]
    served(tmp_path / "hub", "sacbench", chosen)
    words = ["zoo", "import", "sacbench", str(tmp_path / "hub"), "-o", str(tmp_path / "zoo"), "--data", data]
    assert run(words) == 0
    zoo = open_zoo(tmp_path / "zoo")
    assert [one.lineage for one in chosen] == [one.how for one in zoo.members.values()]
    (victim,) = zoo.victims
    pairs = {pair.suspect.how.split("->")[-1]: (pair.derived, pair.kind) for pair in zoo.pairs()}
    assert pairs == {
        "finetune(0)": (True, "finetune"),
        "fineprune(1)": (True, "fineprune"),
        "transfer(CIFAR100,0)": (True, "transfer-CIFAR100"),
        "label_extraction(resnet18,5)": (True, "label_extraction"),
        "train(vgg16_bn,CIFAR10C,0)": (False, "disjoint"),
        "train(densenet121,CIFAR10,10)": (False, "same-data"),
        "train(mobilenet_v2,CIFAR10,15)": (False, "same-data"),
        "train(vgg13,CIFAR10,0)": (False, "same-data"),
    }
    # What is kept answers as the weights do, with the published normalisation in front.
    x = zoo.data("queries").inputs[:8]
    module = from_state("vgg16_bn", hub.weights(SMALL["vgg16_bn"](), 0))
    with torch.no_grad():
        expected = module(torch.from_numpy((x - 0.5) / 0.25)).numpy()
    kept = load(zoo.built[victim.name].path)
    np.testing.assert_allclose(restrict(kept, kept.native).logits(x), expected, rtol=1e-3, atol=1e-4)

    entries = [*parse("akh"), *parse("dataset-inference")]
    run_bench(zoo, tmp_path / "bench", entries, runner=processes(1))
    rows, _ = read_bench(tmp_path / "bench")
    akh = rows.where(rows["scheme"] == "akh")
    scores = dict(zip(akh["kind"].tolist(), akh["score"].tolist(), strict=True))
    assert scores["finetune"] > scores["disjoint"]
    told = set(rows["reason"][rows["scheme"] == "dataset-inference"].tolist())
    assert told == {"what the victim was trained on, CIFAR10, is not among the data of the population"}


@pytest.mark.slow
def test_modelreuse_takes_one_root_as_victims(tmp_path, data):
    first = "pretrain(resnet18,imagenet-1k)->transfer(Flower102,0.1)"
    others = ("train(resnet18,Flower102)->prune(0.2)", "pretrain(mbnetv2,imagenet-1k)->transfer(Flower102,1.0)")
    chosen = [
        one
        for one in modelreuse()
        if one.lineage in others or (one.network == "resnet18" and (one.parent in (None, first)))
    ] + [one for one in modelreuse() if one.lineage == "train(mbnetv2,Flower102)"]
    served(tmp_path / "hub" / "maurice-fp", "modelreuse", chosen)
    zoo = import_zoo("modelreuse", tmp_path / "hub", tmp_path / "zoo", data=data, root="pretrain-resnet18")
    assert [one.how for one in zoo.victims] == [
        f"pretrain(resnet18,imagenet-1k)->transfer(Flower102,{share})" for share in ("0.1", "0.5", "1.0")
    ]
    first = [pair for pair in zoo.pairs() if pair.victim == zoo.victims[0]]
    assert {pair.kind for pair in first if pair.derived} == {"prune-0.2", "prune-0.5", "prune-0.8", "steal-resnet18",
                                                             "distill"}  # fmt: skip
    strangers = {(pair.suspect.how, pair.kind) for pair in first if not pair.derived}
    assert ("train(resnet18,Flower102)", "same-architecture") in strangers
    assert ("train(mbnetv2,Flower102)", "same-data") in strangers
    assert ("train(resnet18,Flower102)->prune(0.2)", "foreign-theft") in strangers
    assert not any(name.startswith("pretrain(resnet18") for name, _ in strangers)


def test_the_hubs_cache_is_read(tmp_path, data):
    victim = sacbench()[0]
    served(tmp_path / "plain", "sacbench", [victim])
    cache = tmp_path / "cache" / f"models--maurice-fp--SACBenchmark-{victim.hub}" / "snapshots"
    cache.mkdir(parents=True)
    (tmp_path / "plain" / f"SACBenchmark-{victim.hub}").rename(cache / "0a1b")
    zoo = import_zoo("sacbench", tmp_path / "cache", tmp_path / "zoo", data=data)
    assert len(zoo.members) == 1


def spoil(path, what):
    if what == "config":
        (path / "config.json").write_text("{}")
    elif what == "sizes":
        text = (path / "config.json").read_text()
        (path / "config.json").write_text(text.replace("[0.5, 0.5, 0.5]", "[0.5]"))
    elif what == "weights":
        (path / "model.safetensors").write_bytes(b"none")
    else:
        hub.save_file(hub.weights(SMALL["resnet18"](), 0), path / "model.safetensors")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("config", "is no config.json of timm: KeyError"),
        ("sizes", "input_size, mean and std do not go together"),
        ("weights", "model.safetensors' cannot be read"),
        ("layout", "the weights are none of vgg16_bn: the tensor 'features.0.weight' is missing"),
    ],
)
def test_damaged_repositories_are_refused(tmp_path, data, what, message):
    victim = sacbench()[0]
    served(tmp_path, "sacbench", [victim])
    spoil(tmp_path / f"SACBenchmark-{victim.hub}", what)
    with pytest.raises(ArtefactError, match=message):
        import_zoo("sacbench", tmp_path, tmp_path / "zoo", data=data)


def test_what_cannot_be_imported_is_refused(tmp_path, data):
    with pytest.raises(ParameterError, match="unknown published benchmark 'sac'"):
        import_zoo("sac", tmp_path, tmp_path / "zoo", data=data)
    with pytest.raises(ParameterError, match="unknown root 'resnet18'"):
        import_zoo("modelreuse", tmp_path, tmp_path / "zoo", data=data, root="resnet18")
    with pytest.raises(ParameterError, match="unknown data set of modelreuse 'MIT67'"):
        import_zoo("modelreuse", tmp_path, tmp_path / "zoo", data=data, dataset="MIT67")
    with pytest.raises(ArtefactError, match="lacks the victim maurice-fp/SACBenchmark-train"):
        import_zoo("sacbench", tmp_path, tmp_path / "zoo", data=data)
    served(tmp_path, "sacbench", sacbench()[:1])
    with pytest.raises(ParameterError, match="image"):
        import_zoo("sacbench", tmp_path, tmp_path / "zoo", data="digits")
    import_zoo("sacbench", tmp_path, tmp_path / "zoo", data=data)
    with pytest.raises(ArtefactError, match="holds a population already"):
        import_zoo("sacbench", tmp_path, tmp_path / "zoo", data=data)
