"""Exported programs: what they compute, at any batch size; and files made to do harm."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from locard.errors import ArtefactError, MissingExtraError, ParameterError  # noqa: E402
from locard.models import exported, load  # noqa: E402
from locard.models.architectures import build  # noqa: E402
from locard.models.torch_module import TorchModel  # noqa: E402
from locard.records import Access, Domain, Lineage  # noqa: E402
from locard.testing import ADAPTER_LAWS, check_adapter  # noqa: E402

DOMAIN = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0), quantum=1 / 255)
X = DOMAIN.deliver(np.random.default_rng(0).random((7, 1, 8, 8), np.float32))
SAVED, FIXED, RANGED = "saved", "fixed", "ranged"


class Odd(nn.Module):
    """A network with a parameter of its own, a constant, and a buffer that is not saved."""

    body: nn.Module

    def __init__(self):
        super().__init__()
        self.body = build("resnet", shape=[1, 8, 8], classes=3, width=4)
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.shift = torch.tensor([0.1, 0.2, 0.3])
        self.register_buffer("power", torch.tensor([1.5, 1.0, 0.5]), persistent=False)

    def forward(self, x):
        return (self.body(x) * self.scale + self.shift) * self.power


def odd():
    generator = torch.Generator().manual_seed(3)
    module = Odd().eval()
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) - 0.3 + 0.4 * (value == 1))
    return module


def write(path, module, example=None, **export):
    example = torch.zeros(4, 1, 8, 8) if example is None else example
    torch.export.save(torch.export.export(module.eval(), (example,), **export), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("programs"), odd()
    batch = torch.export.Dim("batch", min=3, max=5)
    return {
        SAVED: exported.save(module, folder / "saved.pt2", domain=DOMAIN),
        FIXED: write(folder / "fixed.pt2", module),
        RANGED: write(folder / "ranged.pt2", module, dynamic_shapes=({0: batch},)),
    }


@pytest.fixture
def reference():
    return TorchModel(odd(), domain=DOMAIN)


@pytest.mark.parametrize("kind", [SAVED, FIXED, RANGED])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 7])
def test_answers_gradients_and_weights_are_the_originals(files, reference, kind, n):
    model = load(files[kind], like=DOMAIN, trust=True)
    x = X[:n]
    assert np.allclose(model._forward(x), reference._forward(x), atol=1e-6)
    # A padded batch must not leak the gradients of its filling.
    logits, gradients = model.input_gradient(x, lambda z: z.logsumexp(1))
    expected = reference.input_gradient(x, lambda z: z.logsumexp(1))
    assert np.allclose(logits, expected[0], atol=1e-6)
    assert np.allclose(gradients, expected[1], atol=1e-6)
    assert np.abs(gradients).max() > 1e-3
    ours, theirs = model.weights(), reference.weights()
    assert set(ours) == set(theirs) | {"shift", "power"}
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert model.domain == DOMAIN


@pytest.mark.parametrize("kind", [SAVED, FIXED])
@pytest.mark.parametrize("law", ADAPTER_LAWS)
def test_keeps_the_laws_of_adapters(files, kind, law):
    check_adapter(lambda: load(files[kind], like=DOMAIN, trust=True), X, law)


def test_batches_suit_the_program(files):
    assert [load(files[kind], trust=True).batch_size for kind in (SAVED, FIXED, RANGED)] == [64, 64, 60]
    assert load(files[FIXED], trust=True, batch_size=3).batch_size == 3


def test_what_is_computed_is_the_identity(files, tmp_path):
    digests = {load(path, like=DOMAIN, trust=True).digest for path in files.values()}
    assert len(digests) == 1

    class Other(Odd):
        def forward(self, x):
            return super().forward(x).flip(1)

    other = Other()
    other.load_state_dict(odd().state_dict())
    changed = odd()
    changed.shift = changed.shift + 1
    for number, module in enumerate((other, changed)):
        path = write(tmp_path / f"{number}.pt2", module)
        assert load(path, like=DOMAIN, trust=True).digest not in digests


def test_the_identity_is_the_same_in_another_process(files):
    code = "import sys; from locard.models import load; print(load(sys.argv[1], trust=True).digest)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(files[SAVED])], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.stdout.strip() == load(files[SAVED], trust=True).digest


def test_a_copy_stands_alone(files, reference):
    model = load(files[FIXED], like=DOMAIN, trust=True)
    twin = copy.deepcopy(model.module())
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
        assert not twin(torch.from_numpy(X)).any()
    assert np.allclose(model._forward(X), reference._forward(X), atol=1e-6)
    twin.train()
    assert twin.training
    assert not model.module().training


def test_normalisation_goes_into_the_program(tmp_path):
    module = build("mlp", shape=[1, 8, 8], classes=3)
    model = TorchModel(module, domain=DOMAIN, mean=(0.5,), std=(0.25,), lineage=Lineage(seed=5, architecture="mlp"))
    again = load(exported.save(model, tmp_path / "m.pt2"), trust=True)
    assert np.allclose(again._forward(X), model._forward(X), atol=1e-6)
    assert again.domain == DOMAIN
    assert again.lineage == Lineage(seed=5, architecture="mlp")
    assert again.grants == Access.MODULE.implied | Access.MODULE


def test_saving_leaves_the_model_as_it_is(tmp_path):
    module = odd().train()
    module.body.get_submodule("block1").eval()
    module.scale.requires_grad_(False)
    modes = [part.training for part in module.modules()]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    exported.save(module, tmp_path / "m.pt2", domain=DOMAIN)
    assert [part.training for part in module.modules()] == modes
    assert not module.scale.requires_grad
    assert module.body.get_parameter("dense.weight").requires_grad
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]


def test_domains(tmp_path):
    table = write(tmp_path / "t.pt2", nn.Linear(6, 2), torch.zeros(2, 6))
    assert load(table, trust=True).domain == Domain(kind="tabular", shape=(6,))
    like = Domain(kind="tabular", shape=(6,), bounds=(-1.0, 1.0), columns=tuple("abcdef"))
    assert load(table, trust=True, like=like).domain == like
    assert load(table, trust=True, like=DOMAIN).domain == Domain(kind="tabular", shape=(6,))
    image = write(
        tmp_path / "i.pt2", nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double(), torch.zeros(2, 1, 8, 8).double()
    )
    assert load(image, trust=True).domain == Domain(kind="image", shape=(1, 8, 8), dtype="float64")
    # The bounds of the expected domain are kept, its dtype is the program's.
    assert load(image, trust=True, like=DOMAIN).domain.bounds == (0.0, 1.0)
    assert load(image, trust=True, like=DOMAIN).domain.dtype == "float64"
    tokens = write(tmp_path / "w.pt2", nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)),
                   torch.zeros((2, 3), dtype=torch.int64))  # fmt: skip
    assert load(tokens, trust=True).domain == Domain(kind="tokens", shape=(3,), dtype="int64")
    with pytest.raises(ArtefactError, match=r"its inputs have shape \(n, 6\); the domain says image \(1, 8, 8\)"):
        load(table, trust=True, domain=DOMAIN)


def test_half_precision_is_cast_at_its_door(tmp_path):
    path = write(tmp_path / "h.pt2", nn.Linear(6, 2).bfloat16(), torch.zeros(2, 6, dtype=torch.bfloat16))
    model = load(path, trust=True)
    assert model.domain.dtype == "float32"
    assert model._forward(np.zeros((3, 6), np.float32)).dtype == np.float32


def test_free_axes_need_a_domain(tmp_path):
    module = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 2))
    side = torch.export.Dim("side", min=4, max=64)
    path = write(tmp_path / "f.pt2", module, dynamic_shapes=({0: torch.export.Dim("batch"), 2: side, 3: side},))
    with pytest.raises(ArtefactError, match=r"float32 \(n, 1, s\d+, s\d+\), leave open what one of them is"):
        load(path, trust=True)
    assert load(path, trust=True, like=DOMAIN).domain == DOMAIN


class Two(nn.Module):
    def forward(self, a, b):
        return a + b


class Pair(nn.Module):
    def forward(self, a):
        return {"x": a + 1, "y": a + 2}


class Halves(nn.Module):
    def forward(self, a):
        return a.reshape(-1, 2, 6).sum(1)


def test_programs_of_another_form_are_refused(tmp_path):
    x = torch.zeros(4, 6)
    torch.export.save(torch.export.export(Two(), (x, x)), tmp_path / "two.pt2")
    write(tmp_path / "pair.pt2", Pair(), x)
    write(tmp_path / "half.pt2", Halves(), x, dynamic_shapes=({0: 2 * torch.export.Dim("pairs")},))
    moving = {"d": nn.Dropout(0.5), "b": nn.Sequential(nn.Unflatten(1, (2, 3)), nn.BatchNorm1d(2))}
    for name, module in moving.items():
        torch.export.save(torch.export.export(module.train(), (x,)), tmp_path / f"{name}.pt2")
    for name, message in (
        ("two", "it takes 2 inputs and gives 1 outputs; expected one tensor in and one out"),
        ("pair", "it takes 1 inputs and gives 2 outputs"),
        ("half", r"its batch size is bound to be 2\*s\d+"),
        ("d", r"exported in training mode \(aten::dropout\)"),
        ("b", r"exported in training mode \(aten::batch_norm\)"),
    ):
        with pytest.raises(ArtefactError, match=message):
            load(tmp_path / f"{name}.pt2", trust=True)


def test_a_single_named_output_is_taken(tmp_path):
    class Named(nn.Module):
        def forward(self, a):
            return {"logits": a * 2}

    model = load(write(tmp_path / "n.pt2", Named(), torch.zeros(2, 6)), trust=True)
    assert np.array_equal(model._forward(np.ones((3, 6), np.float32)), np.full((3, 6), 2, np.float32))


def test_outputs_and_normalisation_are_options(tmp_path):
    path = write(tmp_path / "p.pt2", nn.Sequential(nn.Linear(6, 2), nn.Softmax(1)), torch.zeros(2, 6))
    model = load(path, trust=True, outputs="probabilities", mean=(1.0,), std=(2.0,))
    assert model.native is Access.PROBABILITIES
    assert Access.GRADIENTS not in model.grants
    plain = load(path, trust=True, outputs="probabilities")
    x = np.random.default_rng(0).random((3, 6), np.float32)
    assert np.allclose(model._forward(x), plain._forward((x - 1) / 2), atol=1e-6)
    with pytest.raises(ParameterError, match=r"unknown option of a .pt2 file 'output'; did you mean 'outputs'"):
        load(path, trust=True, output="logits")


def test_what_cannot_be_saved(tmp_path):
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ParameterError, match="torch cannot export this module: "):
        exported.save(Branching(), tmp_path / "b.pt2", domain=DOMAIN)
    with pytest.raises(ParameterError, match=r"must end in .pt2; got"):
        exported.save(nn.Flatten(), tmp_path / "b.pt", domain=DOMAIN)
    with pytest.raises(ParameterError, match="give domain=Domain"):
        exported.save(nn.Flatten(), tmp_path / "b.pt2")
    with pytest.raises(ArtefactError, match=r"cannot write .*: No such file"):
        exported.save(nn.Flatten(), tmp_path / "absent" / "b.pt2", domain=DOMAIN)
    assert list(tmp_path.iterdir()) == []


def test_without_torch_the_extra_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"the program .* needs .* pip install 'locard\[torch\]'"):
        load(files[SAVED], trust=True)


# Files made to do harm. Each payload makes a folder, which is the canary.


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def rebuilt(source, target, change):
    """A copy of an archive with `change` applied to its members, a dictionary of bytes by name without the root."""
    with zipfile.ZipFile(source) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"root/{name}", content)
    return target


def edit(members, name, change):
    value = json.loads(members[name])
    change(value)
    members[name] = json.dumps(value).encode()


def pickled(canary):
    stream = io.BytesIO()
    torch.save(Payload(canary), stream)
    return stream.getvalue()


def in_the_sample_inputs(members, canary):
    members["data/sample_inputs/model.pt"] = pickled(canary)


def in_a_weight(members, canary):
    members["data/weights/evil"] = pickled(canary)
    edit(members, "data/weights/model_weights_config.json",
         lambda config: next(iter(config["config"].values())).update(path_name="evil", use_pickle=True))  # fmt: skip


def in_the_old_weights(members, canary):
    members["data/weights/model.pt"] = pickled(canary)


def in_the_old_constants(members, canary):
    members["data/constants/model.pt"] = pickled(canary)


def in_a_constant(members, canary):
    members["data/constants/opaque_obj_0"] = pickle.dumps(Payload(canary))
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    edit(members, "data/constants/model_constants_config.json", lambda config: config["config"].update(evil=entry))


def in_the_size_of_a_tensor(members, canary):
    text = f"__import__('os').mkdir({str(canary)!r})"

    def change(program):
        for value in program["graph_module"]["graph"]["tensor_values"].values():
            value["sizes"] = [{"as_expr": {"expr_str": text, "hint": None}} for _ in value["sizes"]]

    edit(members, "models/model.json", change)


def in_the_guards(members, canary):
    edit(members, "models/model.json",
         lambda program: program.update(guards_code=[f"__import__('os').mkdir({str(canary)!r})"]))  # fmt: skip


LIVE = [
    in_the_sample_inputs,
    in_a_weight,
    in_the_old_weights,
    in_the_old_constants,
    in_a_constant,
    in_the_size_of_a_tensor,
    in_the_guards,
]


@pytest.mark.parametrize("place", LIVE)
def test_nothing_in_a_hostile_file_is_run_without_trust(files, tmp_path, place):
    canary = tmp_path / "ran"
    path = rebuilt(files[SAVED], tmp_path / "hostile.pt2", lambda members: place(members, canary))
    with pytest.raises(ArtefactError, match=r"can run code that is in it.*pass --trust") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


RUN = """
import sys, torch
for path in sys.argv[1:]:
    try:
        torch.export.load(path).module()(torch.zeros(4, 1, 8, 8))
    except Exception as error:
        print(path, error)
"""


def test_the_same_files_are_live_to_torch(files, tmp_path):
    """Each route is a real one, or the test above would show nothing; and it is why trust stays necessary."""
    paths = [
        rebuilt(files[SAVED], tmp_path / f"{place.__name__}.pt2",
                lambda members, place=place: place(members, tmp_path / place.__name__))
        for place in LIVE
    ]  # fmt: skip
    subprocess.run([sys.executable, "-W", "ignore", "-c", RUN, *map(str, paths)], capture_output=True, check=True)
    assert [place.__name__ for place in LIVE if not (tmp_path / place.__name__).is_dir()] == []


def test_compiled_code_is_refused_even_with_trust(files, tmp_path):
    path = rebuilt(files[SAVED], tmp_path / "a.pt2",
                   lambda members: members.update({"data/aotinductor/model/model.so": b"\x7fELF"}))  # fmt: skip
    with pytest.raises(ArtefactError, match="holds compiled machine code; export the program itself"):
        load(path, trust=True)


def test_a_file_that_unpacks_to_far_more_than_its_size(tmp_path):
    path = tmp_path / "bomb.pt2"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("root/data/weights/w", "w") as member,
    ):
        for _ in range(100):
            member.write(bytes(1 << 20))
    with pytest.raises(ArtefactError, match=r"unpacks to 104,857,600 in 1 members; at most 100 times its size"):
        load(path, trust=True)


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "root/../../outside", "C:/outside", "..\\outside"])
def test_members_that_lead_out_of_the_archive(tmp_path, name):
    path = tmp_path / "out.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(ArtefactError, match="that leads out of the archive"):
        load(path, trust=True)


def test_two_members_of_one_name(tmp_path):
    path = tmp_path / "twice.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("root/a", b"x")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("root/a", b"y")
    with pytest.raises(ArtefactError, match="has two members of one name"):
        load(path, trust=True)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
def test_truncated_files(files, tmp_path, part, capfd):
    raw = files[SAVED].read_bytes()
    path = tmp_path / "short.pt2"
    path.write_bytes(raw[: int(part * len(raw))])
    # The last cut leaves a sound archive inside, of sample inputs, that Python's reader takes for the whole.
    with pytest.raises(ArtefactError, match=r"is truncated or no zip archive|is damaged or no exported program"):
        load(path, trust=True)
    assert capfd.readouterr() == ("", "")


DAMAGE = {
    "no program": lambda members: members.pop("models/model.json"),
    "no format": lambda members: members.pop("archive_format"),
    "another version": lambda members: members.update(archive_version=b"99"),
    "a program that is no JSON": lambda members: members.update({"models/model.json": b"{"}),
    "a program that is empty": lambda members: members.update({"models/model.json": b"{}"}),
    "weights of another size": lambda members: members.update({"data/weights/weight_0": b"abc"}),
    "no call": lambda members: edit(
        members, "models/model.json", lambda program: program["graph_module"].update(module_call_graph=[])
    ),
    "no weights": lambda members: members.pop("data/weights/weight_0"),
    "an unknown operator": lambda members: members.update(
        {"models/model.json": members["models/model.json"].replace(b"aten.conv2d.default", b"aten.conv9d.default")}
    ),
    "text": lambda members: members.clear(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_end_in_one_line(files, tmp_path, kind, capfd):
    path = rebuilt(files[SAVED], tmp_path / "damaged.pt2", DAMAGE[kind])
    with pytest.raises((ArtefactError, ParameterError), match=r"damaged\.pt2") as caught:
        load(path, trust=True)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (b"{", "its locard.json is wrong"),
        (b"[]", "its locard.json is wrong"),
        (b'{"domain": {"kind": "sound", "shape": [1]}}', "domain.kind must be image"),
        (
            b'{"domain": {"kind": "image", "shape": [1, 8, 8]}, "lineage": {}, "outputs": "odds"}',
            "outputs must be one of",
        ),
        (b'{"domain": {"kind": "image", "shape": [1, 9, 9]}, "lineage": {}, "outputs": "logits"}', "the domain says"),
    ],
)
def test_a_note_that_is_wrong(files, tmp_path, note, message):
    path = rebuilt(files[SAVED], tmp_path / "note.pt2", lambda members: members.update({"extra/locard.json": note}))
    with pytest.raises((ArtefactError, ParameterError), match=message):
        load(path, trust=True)


def test_missing_files(tmp_path):
    with pytest.raises(ArtefactError, match=r"the program .*absent\.pt2' is not there or no file"):
        load(tmp_path / "absent.pt2", trust=True)


def test_weights_with_channels_last_are_written_without_a_doubt(tmp_path):
    module = build("cnn", shape=[1, 8, 8], classes=3, width=4)
    assert not module.get_parameter("conv2.weight").is_contiguous()
    loaded = load(exported.save(module, tmp_path / "cnn.pt2", domain=DOMAIN), trust=True)
    assert not module.get_parameter("conv2.weight").is_contiguous(), "the caller's own weights were moved"
    for name, weight in loaded.weights().items():
        assert np.array_equal(weight, module.state_dict()[name].numpy())
