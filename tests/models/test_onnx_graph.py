"""ONNX graphs as torch modules: what becomes of names and weights, and how bad files and unknown operators end."""

from __future__ import annotations

import random
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from scipy.special import softmax
from torch.utils._python_dispatch import TorchDispatchMode

from locard.errors import ArtefactError, MissingExtraError, ParameterError
from locard.models.onnx_graph import to_torch

FLOAT, NODE = TensorProto.FLOAT, helper.make_node


def model(
    nodes: list[onnx.NodeProto],
    *,
    inputs: dict[str, tuple[int, list[int | str | None]]] | None = None,
    outputs: tuple[str, ...] = ("y",),
    weights: dict[str, np.ndarray] | None = None,
    opsets: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of some nodes from x, (n, 3) floats, to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in (inputs or {"x": (FLOAT, ["n", 3])}).items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_every_name_has_one_key_and_the_map_leads_back() -> None:
    names = [
        "a",
        "a.b",
        "onnx::MatMul_1",
        "/layer/w",
        "x y",
        "x_y",
        "training",
        "source.forward",
        "..",
        "é",
        "d" * 9 + ".d" * 99,
    ]
    weights = {name: np.full(3, i, np.float32) for i, name in enumerate(names)}
    module = to_torch(model([NODE("Sum", ["x", *names], ["y"])], weights=weights))
    keys = list(module.state_dict())
    assert len(keys) == len(names)
    assert {module.onnx_names[key] for key in keys} == set(names)
    for key in keys:
        assert module.state_dict()[key][0] == names.index(module.onnx_names[key])
    assert {"a", "a_.b", "onnx__MatMul_1", "training_", "source_.forward_"} <= set(keys)
    np.testing.assert_array_equal(module(torch.zeros(2, 3)).numpy(force=True), np.full((2, 3), sum(range(len(names)))))


def test_weights_are_parameters_and_the_rest_are_buffers() -> None:
    nodes = [
        NODE("Constant", [], ["middle"], value=numpy_helper.from_array(np.array(0.5, np.float32))),
        NODE("Constant", [], ["rows"], value=numpy_helper.from_array(np.ones((1, 3), np.float32))),
        NODE("BatchNormalization", ["x", "scale", "shift", "mean", "var"], ["a"]),
        NODE("Clip", ["a", "low", "middle"], ["b"]),
        NODE("Mul", ["b", "middle"], ["c"]),
        NODE("Add", ["c", "rows"], ["d"]),
        NODE("DequantizeLinear", ["q", "step"], ["w"]),
        NODE("MatMul", ["d", "w"], ["e"]),
        NODE("Pow", ["e", "two"], ["f"]),
        NODE("Reshape", ["f", "shape"], ["y"]),
    ]
    floats = {name: np.full(3, 0.5, np.float32) for name in ("scale", "shift", "mean", "var")}
    scalars = {
        name: np.array(value, np.float32) for name, value in (("low", -1), ("step", 0.1), ("two", 2), ("unread", 3))
    }
    others = {"q": np.eye(3, dtype=np.int8), "shape": np.array([-1, 3])}
    module = to_torch(model(nodes, weights=floats | scalars | others))
    assert [name for name, _ in module.named_parameters()] == ["scale", "shift", "rows", "w"]
    assert set(module.state_dict()) == {
        "scale",
        "shift",
        "rows",
        "w",
        "mean",
        "var",
        "low",
        "step",
        "two",
        "q",
        "shape",
    }
    assert {name for name, _ in module.named_buffers()} - set(module.state_dict()) == {"middle"}
    module(torch.ones(2, 3)).sum().backward()
    assert all(value.grad is not None for value in module.parameters())


def test_what_depends_on_nothing_is_computed_once() -> None:
    nodes = [
        NODE("Shape", ["w"], ["shape"]),
        NODE("Gather", ["shape", "zero"], ["rows"]),
        NODE("ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        NODE("Cast", ["rows"], ["count"], to=FLOAT),
        NODE("Identity", ["w"], ["v"]),
        NODE("MatMul", ["x", "v"], ["a"]),
        NODE("MatMul", ["a", "ones"], ["b"]),
        NODE("Div", ["b", "count"], ["y"]),
    ]
    proto = model(nodes, weights={"w": np.eye(3, dtype=np.float32), "zero": np.array(0)})
    module = to_torch(proto)
    assert "3 nodes" in repr(module)
    np.testing.assert_allclose(module(torch.ones(2, 3)).numpy(force=True), np.ones((2, 3)))


def test_values_are_dropped_after_their_last_use() -> None:
    steps = 40
    nodes = [NODE("Tanh", ["x" if i == 0 else f"t{i}"], ["y" if i == steps - 1 else f"t{i + 1}"]) for i in range(steps)]
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal most
            result = func(*args, **(kwargs or {}))
            alive.append(weakref.ref(result))
            most = max(most, sum(reference() is not None for reference in alive))
            return result

    with torch.no_grad(), Watch():
        to_torch(model(nodes))(torch.ones(1, 3))
    assert len(alive) >= steps
    assert most <= 3


def test_several_inputs_and_outputs_come_in_the_files_order() -> None:
    nodes = [NODE("Sub", ["x", "z"], ["a"]), NODE("Mul", ["x", "z"], ["b"]), NODE("Identity", ["x"], ["c"])]
    inputs: Any = {"x": (FLOAT, ["n"]), "z": (FLOAT, ["n"])}
    proto = model(nodes, inputs=inputs, outputs=("a", "b", "c"))
    x, z = torch.tensor([5.0, 7.0]), torch.tensor([2.0, 3.0])
    assert [value.tolist() for value in to_torch(proto)(x, z)] == [[3, 4], [10, 21], [5, 7]]
    assert to_torch(proto, outputs=["b"])(x, z).tolist() == [10, 21]
    with pytest.raises(ParameterError, match=r"unknown output of the ONNX model 'd'; .*a, b, c"):
        to_torch(proto, outputs=["d"])
    with pytest.raises(ParameterError, match=r"takes 2 inputs \('x', 'z'\); got 1"):
        to_torch(proto)(x)


def test_a_scikit_learn_classifier_gives_its_probabilities() -> None:
    """skl2onnx writes the network in plain operators and only the choice of the label in those for trees and tables."""
    nodes = [
        NODE("MatMul", ["x", "coefficient"], ["m"]),
        NODE("Add", ["m", "intercept"], ["score"]),
        NODE("Softmax", ["score"], ["probabilities"], axis=1),
        NODE("ArgMax", ["probabilities"], ["best"], axis=1),
        NODE("ArrayFeatureExtractor", ["classes", "best"], ["label"], "labels", domain="ai.onnx.ml"),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "coefficient": rng.normal(size=(3, 4)).astype(np.float32),
        "intercept": rng.normal(size=4).astype(np.float32),
    }
    proto = model(
        nodes,
        outputs=("label", "probabilities"),
        weights=weights | {"classes": np.arange(4)},
        opsets={"": 17, "ai.onnx.ml": 1},
    )
    x = rng.normal(size=(5, 3)).astype(np.float32)
    found = to_torch(proto, outputs=["probabilities"])(torch.from_numpy(x)).numpy(force=True)
    np.testing.assert_allclose(found, softmax(x @ weights["coefficient"] + weights["intercept"], axis=1), rtol=1e-5)
    with pytest.raises(
        ArtefactError, match=r"ai\.onnx\.ml::ArrayFeatureExtractor \(opset 1\) at 'labels'.*name the outputs"
    ):
        to_torch(proto)


def test_all_unsupported_operators_are_listed_at_once() -> None:
    branch = helper.make_graph(
        [NODE("Identity", ["x"], ["r"])], "b", [], [helper.make_tensor_value_info("r", FLOAT, ["n", 3])]
    )
    nodes = [
        NODE("If", ["flag"], ["a"], "choose", then_branch=branch, else_branch=branch),
        NODE("LSTM", ["a", "w", "r"], ["b"], "first", hidden_size=2),
        NODE("FusedConv", ["b"], ["c"], "fast", domain="com.microsoft"),
        NODE("Invented", ["c"], ["d"], domain="other"),
        NODE("LSTM", ["d", "w", "r"], ["y"], "second", hidden_size=2),
    ]
    with pytest.raises(ArtefactError) as caught:
        to_torch(model(nodes, opsets={"": 17, "com.microsoft": 1}))
    for part in (
        "If (opset 17, a subgraph) at 'choose'",
        "LSTM (opset 17) at 'first', 'second'",
        "com.microsoft::FusedConv (opset 1) at 'fast'",
        "other::Invented (no opset imported) at 'd'",
        "Verifying needs no gradients",
        "load the torch model",
    ):
        assert part in str(caught.value)


def test_a_strangers_names_send_nothing_to_the_terminal() -> None:
    with pytest.raises(ArtefactError, match=r"not supported are Bad\?\[31m\?Op \(opset 17\) at 'y\\n\\x1b'") as caught:
        to_torch(model([NODE("Bad\x1b[31m\nOp", ["x"], ["y"], "y\n\x1b")]))
    assert str(caught.value).isprintable()


def test_all_unsupported_forms_of_operators_are_listed_at_once() -> None:
    image: Any = {"x": (FLOAT, ["n", 3, 8, 8])}
    nodes = [
        NODE("MaxPool", ["x"], ["a", "where"], "pool", kernel_shape=[2, 2]),
        NODE("Resize", ["a", "", "scales"], ["b"], "shrink", mode="linear", antialias=1),
        NODE("BatchNormalization", ["b", "s", "s", "s", "s"], ["c", "m", "v"], "train", training_mode=1),
        NODE("Dropout", ["c", "rate", "yes"], ["y"], "drop"),
    ]
    weights = {
        "scales": np.ones(4, np.float32),
        "s": np.ones(3, np.float32),
        "rate": np.float32(0.5),
        "yes": np.array(True),
    }
    proto = model(nodes, inputs=image, outputs=("y", "where", "m"), weights=weights, opsets={"": 18})
    listed = (
        r"MaxPool \(opset 18, the Indices output\) at 'pool'; Resize \(opset 18, antialias 1\) at 'shrink'; "
        r"BatchNormalization \(opset 18, training_mode 1\) at 'train'; Dropout \(opset 18, training_mode\) at 'drop'"
    )
    with pytest.raises(ArtefactError, match=listed):
        to_torch(proto)


@pytest.mark.parametrize("opset", [6, 99])
def test_an_opset_outside_the_range_is_refused(opset: int) -> None:
    with pytest.raises(
        ArtefactError, match=rf"uses ONNX opset {opset}; expected 7 to 28\. Export it with an opset_version"
    ):
        to_torch(model([NODE("Relu", ["x"], ["y"])], opsets={"": opset}))


def test_an_opset_that_the_installed_onnx_does_not_know_asks_for_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 20)
    with pytest.raises(ArtefactError, match=r"knows opsets to 20; upgrade it: pip install"):
        to_torch(model([NODE("Relu", ["x"], ["y"])], opsets={"": 21}))


@pytest.mark.parametrize("package", ["onnx", "torch"])
def test_a_missing_package_names_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtraError, match=rf"ONNX graph as a torch module needs the package '{package}'.*locard\[torch\]"
    ):
        to_torch("model.onnx")


def test_an_input_of_another_shape_or_kind_is_refused() -> None:
    inputs: Any = {"image": (FLOAT, ["n", 3, 4])}
    module = to_torch(model([NODE("Relu", ["image"], ["y"])], inputs=inputs))
    assert module(torch.ones(7, 3, 4)).shape == (7, 3, 4)
    for bad in (torch.ones(7, 3, 5), torch.ones(3, 4), torch.ones(7, 3, 4, dtype=torch.int64)):
        with pytest.raises(
            ParameterError, match=r"floating-point numbers of shape \(n, 3, 4\) as 'image'; got torch\.\w+ of"
        ):
            module(bad)
    strings: Any = {"x": (TensorProto.STRING, ["n"])}
    with pytest.raises(ArtefactError, match=r"input 'x' is no tensor of numbers"):
        to_torch(model([NODE("Identity", ["x"], ["y"])], inputs=strings))


def test_a_node_that_cannot_run_is_named() -> None:
    weights = {"w": np.ones((4, 2), np.float32)}
    module = to_torch(model([NODE("MatMul", ["x", "w"], ["y"], "project")], weights=weights))
    with pytest.raises(ArtefactError, match=r"MatMul at 'project' fails on inputs \(2, 3\), \(4, 2\): mat1"):
        module(torch.ones(2, 3))
    with pytest.raises(ArtefactError, match=r"Reshape at 'y' makes no sense"):
        to_torch(model([NODE("Reshape", ["c", "s"], ["y"])], weights={"c": np.arange(3), "s": np.array([7, 7])}))


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Write a file without any check."""
    path.write_bytes(proto.SerializeToString())
    return path


def external(location: str) -> onnx.ModelProto:
    """A model whose weight of three floats lies in a file."""
    proto = model([NODE("Add", ["x", "w"], ["y"])], weights={"w": np.ones(3, np.float32)})
    tensor = proto.graph.initializer[0]
    set_external_data(tensor, location, 0, 12)
    tensor.ClearField("raw_data")
    return proto


def test_external_data_are_read_beside_the_model_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    data = np.array([1, 2, 3], np.float32).tobytes()
    secret = tmp_path / "secret"
    for path in (folder / "w.bin", folder / "sub" / "w.bin", secret):
        path.write_bytes(data)
    (folder / "link").symlink_to(secret)
    for location in ("w.bin", "sub/w.bin"):
        module = to_torch(save(external(location), folder / "m.onnx"))
        assert module(torch.zeros(1, 3)).tolist() == [[1, 2, 3]]
    for location in ("../secret", str(secret), "link", "sub/../../secret", "missing", "", "sub"):
        with pytest.raises(ArtefactError, match=r"keeps tensor 'w' in '.*'; expected a file in the model's own folder"):
            to_torch(save(external(location), folder / "m.onnx"))
    (folder / "w.bin").write_bytes(data[:5])
    with pytest.raises(ArtefactError, match=r"tensor 'w' (cannot be read from 'w.bin'|is damaged)"):
        to_torch(save(external("w.bin"), folder / "m.onnx"))
    with pytest.raises(
        ArtefactError, match=r"keeps tensor 'w' in another file, 'w.bin'; give the path of the .onnx file"
    ):
        to_torch(external("w.bin"))


@pytest.mark.parametrize("content", [b"", b"no model", bytes(range(256)) * 9, b"\x80\x04\x95"])
def test_wrong_bytes_are_no_onnx_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"is no ONNX file"):
        to_torch(path)


def test_a_missing_file_and_a_folder_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ArtefactError, match=r"cannot be read: .*; give the path of an .onnx file"):
            to_torch(path)


def test_a_damaged_graph_is_refused() -> None:
    with pytest.raises(ArtefactError, match=r"is no valid ONNX model: .*; export it again"):
        to_torch(model([NODE("Add", ["x", "nothing"], ["y"])]))
    with pytest.raises(ArtefactError, match=r"nothing in the graph computes 'y'|no valid ONNX model"):
        to_torch(model([NODE("Relu", ["x"], ["a"])]))
    short = model([NODE("Add", ["x", "w"], ["y"])], weights={"w": np.ones(3, np.float32)})
    short.graph.initializer[0].dims[0] = 2**40
    with pytest.raises(ArtefactError, match=r"tensor 'w' is damaged|no valid ONNX model"):
        to_torch(short)
    with pytest.raises(ArtefactError, match=r"Cast .opset 19, element type number 19. at 'y'"):
        to_torch(model([NODE("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E5M2)], opsets={"": 19}))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["flip", "cut", "copy"]))
def test_a_damaged_file_ends_in_one_clear_error_or_still_runs(
    seed: int, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dice = random.Random(seed)
    content = bytearray(_some_file())
    if kind == "flip":
        for _ in range(dice.randint(1, 3)):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif kind == "cut":
        del content[dice.randrange(len(content)) :]
    else:
        start, source, length = dice.randrange(len(content)), dice.randrange(len(content)), dice.randint(1, 30)
        content[start : start + length] = content[source : source + length]
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content)
    said = ""
    try:
        to_torch(path)(torch.ones(2, 3))
    except (ArtefactError, ParameterError) as error:
        said = str(error)
    assert "\n" not in said


def _some_file() -> bytes:
    nodes = [
        NODE("Shape", ["x"], ["shape"]),
        NODE("Slice", ["shape", "zero", "one"], ["rows"]),
        NODE("Concat", ["rows", "minus"], ["target"], axis=0),
        NODE("Gemm", ["x", "w", "b"], ["a"], transB=1, alpha=0.5),
        NODE("LayerNormalization", ["a", "b"], ["n"], epsilon=1e-3),
        NODE("Softmax", ["n"], ["p"], axis=-1),
        NODE("Split", ["p", "sizes"], ["l", "r"], axis=1),
        NODE("Transpose", ["r"], ["t"], perm=[0, 1]),
        NODE("Concat", ["l", "t"], ["c"], axis=1),
        NODE("Reshape", ["c", "target"], ["y"]),
    ]
    weights = {"w": np.eye(4, 3, dtype=np.float32), "b": np.ones(4, np.float32), "sizes": np.array([1, 3])}
    weights |= {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])}
    return model(nodes, weights=weights).SerializeToString()


def test_the_undamaged_file_runs() -> None:
    module = to_torch(onnx.load_from_string(_some_file()))
    np.testing.assert_allclose(module(torch.ones(2, 3)).sum(1).numpy(force=True), 1, rtol=1e-6)
