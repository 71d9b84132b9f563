"""Two published benchmarks as populations, from a folder with their weights.

QuRD [1] serves the models of ModelReuse [2] and SACBench [3] one to a hub repository, `maurice-fp/ModelReuse-NAME` and
`maurice-fp/SACBenchmark-NAME`, each with timm's `config.json` and `model.safetensors`. NAME is the lineage, such as
"train(vgg_model,CIFAR10,base)->finetune(3)", with ">" and ")" left out, "." written as "_", "(" and "," as ".".
Names and formats are read off QuRD's code; the weights themselves were not at hand. Quantised copies are not served.

The folder holds the repositories under their names, or as the hub's cache keeps them. Each model is written as ONNX,
since its architecture is none of ours. The published negatives are too few for a calibrated test at alpha 0.05 in any
stratum, so all of them are judged and none is a reference. A population has disjoint roles, so of ModelReuse it takes
one root at a time: what grew from it, in one data set, are victims and copies, and everything else are strangers.

[1] Godinot et al. Queries, Representation & Detection: The Next 100 Model Fingerprinting Schemes. AAAI 2025.
[2] Li et al. ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection. ISSTA 2021.
[3] Guan, Liang, He. Are You Stealing My Model? Sample Correlation for Fingerprinting DNNs. NeurIPS 2022.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from locard.data import read
from locard.errors import ArtefactError, LocardError, ParameterError, need, unknown
from locard.models import load, restrict
from locard.models.torch_module import TorchModel
from locard.records import Data, Domain, Lineage
from locard.zoo.members import Member
from locard.zoo.population import GRAPH, Built, file_digest
from locard.zoo.recipe import parse_setting
from locard.zoo.zoo import MANIFEST, Zoo, keep

if TYPE_CHECKING:
    from locard.models.session import Progress

OWNER, CONFIG, WEIGHTS = "maurice-fp", "config.json", "model.safetensors"
PREFIXES = {"modelreuse": "ModelReuse", "sacbench": "SACBenchmark"}
DATASETS = ("Flower102", "SDog120")
ROOTS = ("pretrain-mbnetv2", "pretrain-resnet18", "train-mbnetv2", "train-resnet18")
_MBNET = {"mbnetv2": "mobilenet_v2", "resnet18": "resnet18"}
_SAC = ("vgg13", "resnet18", "densenet121", "mobilenet_v2")
_VICTIM = "train(vgg_model,CIFAR10,base)"
_MOST_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A model as it was published.

    Args:
        lineage: its name there.
        network: a layout of its weights.
        data: what it, or what it was grown from, was trained on.
        root: what all its relatives share.
        parent: lineage of the model it was made from; None where that is no model of the benchmark.
        kind: of a copy, how it was made.
        family: of a copy, the kinds that are alike.
    """

    lineage: str
    network: str
    data: str
    root: str
    parent: str | None = None
    kind: str = ""
    family: str = ""

    @property
    def hub(self) -> str:
        """The name that its repository ends with."""
        name = self.lineage.replace(">", "").replace(".", "_").replace("(", ".").replace(",", ".")
        return name.replace(")", "").strip("-.")


def sacbench() -> list[Published]:
    """The victim, 30 strangers and 110 copies."""
    found = [Published(lineage=_VICTIM, network="vgg16_bn", data="CIFAR10", root=_VICTIM)]
    for networks, data in ((_SAC, "CIFAR10"), (("vgg16_bn", "resnet18"), "CIFAR10C")):
        for number, network in enumerate(one for one in networks for _ in range(5)):
            name = f"train({network},{data},{number})"
            found.append(Published(lineage=name, network=network, data=data, root=name))

    def copy(way: str, kind: str, family: str, network: str = "vgg16_bn") -> None:
        found.append(Published(lineage=f"{_VICTIM}->{way}", network=network, data="CIFAR10", root=_VICTIM,
                               parent=_VICTIM, kind=kind, family=family))  # fmt: skip

    for number in range(10):
        copy(f"finetune({number})", "finetune", "fine-tuning")
        copy(f"fineprune({number})", "fineprune", "fine-pruning")
        for data in ("CIFAR100", "CIFAR10C"):
            copy(f"transfer({data},{number})", f"transfer-{data}", "transfer")
    for kind, family in (("label_extraction", "label extraction"), ("adv_label_extraction", "label extraction"),
                         ("probit_extraction", "probability extraction")):  # fmt: skip
        for number, network in enumerate(one for one in _SAC for _ in range(5)):
            copy(f"{kind}({network},{number})", kind, family, network)
    return found


def modelreuse(dataset: str = "Flower102") -> list[Published]:
    """The 56 models of a data set that are served: eight sources, each pruned, distilled and stolen.

    Raises:
        ParameterError: an unknown data set.
    """
    if dataset not in DATASETS:
        raise unknown("data set of modelreuse", dataset, DATASETS)
    sources = [(f"pretrain({one},imagenet-1k)->transfer({dataset},{share})", one, f"pretrain-{one}")
               for one in _MBNET for share in ("0.1", "0.5", "1.0")]  # fmt: skip
    sources += [(f"train({one},{dataset})", one, f"train-{one}") for one in _MBNET]
    ways = [(f"prune({share})", "", f"prune-{share}", "compression") for share in ("0.2", "0.5", "0.8")]
    # Published as stolen labels; the benchmark's own training code learns from probabilities.
    ways += [(f"steal({one})", one, f"steal-{one}", "probability extraction") for one in _MBNET]
    ways += [("distill()", "", "distill", "feature distillation")]
    found: list[Published] = []
    for source, own, root in sources:
        found.append(Published(lineage=source, network=_MBNET[own], data=dataset, root=root))
        found += [Published(lineage=f"{source}->{way}", network=_MBNET[into or own], data=dataset, root=root,
                            parent=source, kind=kind, family=family) for way, into, kind, family in ways]  # fmt: skip
    return found


def import_zoo(
    benchmark: str,
    folder: Path,
    out: Path,
    *,
    data: str,
    dataset: str = "Flower102",
    root: str = "pretrain-mbnetv2",
    progress: Progress | None = None,
) -> Zoo:
    """Make a population of published models.

    Args:
        benchmark: "modelreuse" or "sacbench".
        folder: holds the repositories; those that are missing are left out, but not the victims.
        out: folder of the population.
        data: what `read` takes: labelled inputs that no model has seen, two in three for queries, others for accuracy.
        dataset: of modelreuse, "Flower102" or "SDog120".
        root: of modelreuse, whose family are the victims and copies; one of `ROOTS`.
        progress: called with (done, wanted) models.

    Raises:
        ParameterError: an unknown name, or data that the models do not take.
        ArtefactError: a victim is missing, its files are damaged or of another layout, or `out` is taken.
    """
    if benchmark not in PREFIXES:
        raise unknown("published benchmark", benchmark, PREFIXES)
    if root not in ROOTS:
        raise unknown("root", root, ROOTS)
    listed = sacbench() if benchmark == "sacbench" else modelreuse(dataset)
    root = _VICTIM if benchmark == "sacbench" else root
    there = {one.lineage: path for one in listed if (path := _find(folder, f"{PREFIXES[benchmark]}-{one.hub}"))}
    lacking = next((one for one in listed if one.root == root and not one.parent and one.lineage not in there), None)
    if lacking is not None:
        raise ArtefactError(f"{str(folder)!r} lacks the victim {OWNER}/{PREFIXES[benchmark]}-{lacking.hub}: download "
                            f"that repository into the folder, with its {CONFIG} and {WEIGHTS}")  # fmt: skip
    if (out / MANIFEST).exists():
        raise ArtefactError(f"{str(out)!r} holds a population already; import into a folder of its own")
    name = benchmark if benchmark == "sacbench" else f"{benchmark}-{dataset}-{root}"
    setting = parse_setting(_text(benchmark, data, len(read(data))), name)
    parts = setting.parts()
    taken = [one for one in listed if one.lineage in there and (one.parent is None or one.parent in there)]
    names = {one.lineage: one.hub for one in taken}
    members: dict[str, Member] = {}
    built: dict[str, Built] = {}
    for number, one in enumerate(taken):
        victim = None if one.parent is None else names[one.parent]
        role = "victim" if one.root == root and victim is None else "evaluation"
        network = one.network if victim is None else members[victim].network
        learnt = tuple(dict.fromkeys([*(() if victim is None else members[victim].learnt), one.data]))
        members[one.hub] = Member(name=one.hub, role=role, network=network, data=one.data, learnt=learnt, victim=victim,
                                  kind=one.kind, family=one.family, how=one.lineage)  # fmt: skip
        built[one.hub] = _keep(one, there[one.lineage], out, parts["check"], built.get(victim or ""))
        if progress is not None:
            progress(number + 1, len(taken))
    return keep(setting, out, members, built, {key: {"n": len(part), "digest": part.digest}
                                               for key, part in parts.items()})  # fmt: skip


def _find(folder: Path, repository: str) -> Path | None:
    """Where a repository lies: under its name, under its owner's, or in the hub's cache."""
    cached = folder / f"models--{OWNER}--{repository}" / "snapshots"

    def places() -> Iterator[Path]:
        yield folder / repository
        yield folder / OWNER / repository
        yield from sorted(cached.iterdir()) if cached.is_dir() else ()

    return next((path for path in places() if (path / WEIGHTS).is_file()), None)


def _keep(one: Published, source: Path, out: Path, check: Data, victim: Built | None) -> Built:
    from locard.models import onnx
    from locard.zoo._layouts import from_state

    safetensors = need("safetensors.torch", extra="torch", why="reading published weights")
    shape, mean, std = _config(source / CONFIG)
    try:
        state = safetensors.load_file(source / WEIGHTS)
    # The package's errors share no class of their own.
    except Exception as error:
        raise ArtefactError(f"{str(source / WEIGHTS)!r} cannot be read: {error}") from error
    domain = Domain(kind="image", shape=shape, bounds=(0.0, 1.0), quantum=1 / 255)
    lineage = Lineage(architecture=one.network, parent=victim.model if victim else None, derived_by=one.kind or None)
    try:
        model = TorchModel(from_state(one.network, state), domain=domain, mean=mean, std=std, lineage=lineage)
    except LocardError as error:
        raise ArtefactError(f"{str(source)!r}: {error}") from error
    check = check.taken_by(domain, one.lineage)
    check.check_labels(model.classes, one.lineage)
    path = out / "models" / one.hub / GRAPH
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.export(model, path)
    kept = load(path)
    right = restrict(kept, kept.native).labels(check.inputs) == check.labels
    notes = ("its own task has other labels than those it was measured on",) if one.kind == "transfer-CIFAR100" else ()
    return Built(name=one.hub, path=path, job=file_digest(source / WEIGHTS), model=kept.digest,
                 accuracy=float(right.mean()), notes=notes)  # fmt: skip


def _config(path: Path) -> tuple[tuple[int, int, int], tuple[float, ...], tuple[float, ...]]:
    """Shape, mean and standard deviation from timm's `config.json`."""
    try:
        if path.stat().st_size > _MOST_CONFIG:
            raise ArtefactError(f"{str(path)!r} has more than {_MOST_CONFIG:,} bytes")
        raw: Any = json.loads(path.read_bytes())
        said = raw.get("pretrained_cfg", raw)
        shape = tuple(int(one) for one in said["input_size"])
        mean, std = (tuple(float(one) for one in said[key]) for key in ("mean", "std"))
    except OSError as error:
        raise ArtefactError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtefactError(f"{str(path)!r} is no config.json of timm: {error!r}") from error
    if len(shape) != 3 or len(mean) != shape[0] or len(std) != shape[0] or min(*shape, *std) <= 0:
        raise ArtefactError(f"{str(path)!r}: input_size, mean and std do not go together: {shape}, {mean}, {std}")
    return (shape[0], shape[1], shape[2]), mean, std


def _text(benchmark: str, data: str, n: int) -> str:
    check = n // 3
    if check < 1:
        raise ParameterError(f"{data} has {n} inputs; queries and accuracy take 3 or more")
    source = str(Path(data).resolve()) if Path(data).exists() else data
    return (
        f'about = "the published weights of {PREFIXES[benchmark]}"\nqueries = "queries"\nheld_out = "check"\n\n'
        f"[[data]]\nsource = {json.dumps(source)}\nparts = {{ queries = {n - check}, check = {check} }}\n"
    )
