"""The ONNX adapter on graphs written by hand, whose answers NumPy knows."""

import hashlib
import json
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import locard
from locard.errors import ArtefactError, LocardError, MissingExtraError, ParameterError
from locard.models import Session
from locard.models._onnx_wire import external_files, operator_of
from locard.models.onnx import export
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain, Lineage
from locard.testing import ADAPTER_LAWS, check_adapter, toy_data, toy_domain, toy_model

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
NODE = helper.make_node
TABLE = Domain(kind="tabular", shape=(3,))
RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
X = RNG.normal(size=(7, 3)).astype(np.float32)
LINEAR = NODE("Gemm", ["x", "w", "b"], ["y"])


def scores(x: np.ndarray = X) -> np.ndarray:
    return x @ W + B


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def info(name: str, kind: Any) -> onnx.ValueInfoProto:
    return kind if isinstance(kind, onnx.ValueInfoProto) else helper.make_tensor_value_info(name, *kind)


def load(source: Any, **options: Any) -> Any:
    """`locard.load`, whose adapters have more attributes than the type checker knows of."""
    return locard.load(source, **options)


@pytest.fixture
def write(tmp_path):
    """Write a graph, by default y = x w + b from (n, 3) to (n, 4)."""

    def write(
        *nodes,
        name="model.onnx",
        inputs=None,
        outputs=None,
        weights=None,
        metadata=None,
        opsets=None,
        size=3,
        batch="n",
    ):
        graph = helper.make_graph(
            nodes or [LINEAR],
            "g",
            [info(k, v) for k, v in (inputs or {"x": (FLOAT, [batch, size])}).items()],
            [info(k, v) for k, v in (outputs or {"y": (FLOAT, None)}).items()],
            [numpy_helper.from_array(v, k) for k, v in (weights or {"w": W, "b": B}).items()],
        )
        imports = [helper.make_opsetid(domain, version) for domain, version in ({"": 17} | (opsets or {})).items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        helper.set_model_props(model, metadata or {})
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write


def answers(model: Any, x: np.ndarray = X) -> np.ndarray:
    return Session(model, model.native).answer(x, model.native)


# Answers


def test_answers_are_the_graphs(write):
    path = write()
    model = load(path)
    assert model.domain == TABLE
    assert model.classes == 4
    assert model.native is Access.LOGITS
    assert model.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_allclose(answers(model), scores(), rtol=1e-5)


def write_toy(path, seed, noise=0.0):
    """`toy_model` as a file, without torch's exporter."""
    weights = toy_model(seed, gradients=True, noise=noise).weights()
    graph = helper.make_graph(
        [
            NODE("Flatten", ["x"], ["flat"]),
            NODE("Gemm", ["flat", "1.weight", "1.bias"], ["hidden"], transB=1),
            NODE("Relu", ["hidden"], ["active"]),
            NODE("Gemm", ["active", "3.weight"], ["y"], transB=1),
        ],
        "toy",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A victim, a noisy copy, a bit-for-bit copy of it under another name, and independents."""
    folder = tmp_path_factory.mktemp("toys")
    victim = write_toy(folder / "victim.onnx", 0)
    derived = write_toy(folder / "derived.onnx", 0, noise=0.02)
    others = [write_toy(folder / f"other{seed}.onnx", seed) for seed in range(100, 120)]
    return victim, derived, others


@pytest.mark.parametrize("law", ADAPTER_LAWS)
def test_conformance(toys, law):
    check_adapter(lambda: load(toys[0], like=toy_domain()), toy_data(20).inputs, law)


def test_extract_and_verify_between_files(toys):
    victim, derived, others = toys
    fp = locard.calibrate(locard.extract(victim, data=toy_data(), queries=60), references=others[1:])
    assert locard.verify(fp, victim).evidence.score == 1.0
    assert locard.verify(fp, derived).decision == "derived"
    assert locard.verify(fp, others[0]).decision == "no-evidence"
    # The same weights in torch are the same model to a label.
    assert locard.verify(fp, toy_model(0, gradients=True)).evidence.score == 1.0


def test_normalisation_is_the_adapters(write):
    model = load(write(), mean=(1.0, 2.0, 3.0), std=(2.0,))
    np.testing.assert_allclose(answers(model), scores((X - [1, 2, 3]) / 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4, 7, 9])
def test_a_fixed_batch_is_filled_up(write, batch):
    model = load(write(batch=batch))
    np.testing.assert_allclose(answers(model), scores(), rtol=1e-5)
    logits, gradients = model.input_gradient(X, lambda z: z[:, 2])
    np.testing.assert_allclose(logits, scores(), rtol=1e-5)
    np.testing.assert_allclose(gradients, np.broadcast_to(W[:, 2], X.shape), rtol=1e-5)


IMAGES = RNG.integers(0, 256, (5, 3, 2, 4)).astype(np.float32) / np.float32(255)
IMAGE = Domain(kind="image", shape=(3, 2, 4), bounds=(0.0, 1.0), quantum=1 / 255)
POOL = [NODE("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)]


@pytest.mark.parametrize("sizes", [[2, 4, 3], ["h", "w", 3], [2, "w", 3]])
def test_channels_last(write, sizes):
    path = write(*POOL, inputs={"x": (FLOAT, ["n", *sizes])})
    model = load(path, like=IMAGE)
    assert model.domain == IMAGE
    np.testing.assert_allclose(answers(model, IMAGES), IMAGES.mean((2, 3)), rtol=1e-5)
    gradients = model.input_gradient(IMAGES, lambda z: z[:, 1])[1]
    expected = np.zeros_like(IMAGES)
    expected[:, 1] = 1 / 8
    np.testing.assert_allclose(gradients, expected, rtol=1e-5)


def test_the_graph_alone_tells_a_domain(write):
    assert load(write(*POOL, inputs={"x": (FLOAT, ["n", 2, 4, 3])})).domain == Domain(kind="image", shape=(3, 2, 4))
    first = write(*POOL, inputs={"x": (FLOAT, ["n", 3, 2, 4])})
    assert load(first).domain == Domain(kind="image", shape=(3, 2, 4))
    double = write(NODE("Identity", ["x"], ["y"]), inputs={"x": (TensorProto.DOUBLE, ["n", 3])},
                   outputs={"y": (TensorProto.DOUBLE, None)})  # fmt: skip
    assert load(double).domain == Domain(kind="tabular", shape=(3,), dtype="float64")


def test_bytes_in(write):
    cast = [NODE("Cast", ["x"], ["f"], to=FLOAT), NODE("ReduceMean", ["f"], ["y"], axes=[2, 3], keepdims=0)]
    model = load(write(*cast, inputs={"x": (TensorProto.UINT8, ["n", 3, 2, 4])}))
    assert model.domain == IMAGE
    assert Access.GRADIENTS not in model.grants
    np.testing.assert_allclose(answers(model, IMAGES), IMAGES.mean((2, 3)) * 255, rtol=1e-5)
    with pytest.raises(ParameterError, match=r"takes uint8 \(n, 3, 2, 4\), to which no mean applies"):
        load(model.path, mean=(0.5,))


def test_tokens(write):
    gather = [NODE("Gather", ["w", "x"], ["e"]), NODE("ReduceMean", ["e"], ["y"], axes=[1], keepdims=0)]
    path = write(*gather, inputs={"x": (INT64, ["n", "length"])})
    domain = Domain(kind="tokens", shape=(6,), dtype="int64")
    x = RNG.integers(0, 3, (5, 6))
    model = load(path, like=domain)
    assert model.domain == domain
    np.testing.assert_allclose(answers(model, x), W[x].mean(1), rtol=1e-5)
    with pytest.raises(
        ParameterError, match=r"its input 'x' is int64 \(n, \?\), which does not say what an input is; give"
    ):
        load(path)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_floats(write, kind):
    w = W.astype(helper.tensor_dtype_to_np_dtype(kind))
    model = load(write(NODE("MatMul", ["x", "w"], ["y"]), inputs={"x": (kind, ["n", 3])}, outputs={"y": (kind, None)},
                       weights={"w": w}), domain=TABLE)  # fmt: skip
    np.testing.assert_allclose(answers(model), X @ W, atol=2e-2)
    np.testing.assert_allclose(model.input_gradient(X, lambda z: z[:, 0])[1], np.tile(W[:, 0], (7, 1)), atol=2e-2)


# What the outputs are


@pytest.mark.parametrize(
    ("nodes", "native"),
    [
        ([LINEAR], Access.LOGITS),
        ([LINEAR, NODE("Softmax", ["y"], ["z"])], Access.PROBABILITIES),
        ([LINEAR, NODE("Softmax", ["y"], ["p"]), NODE("Identity", ["p"], ["z"])], Access.PROBABILITIES),
        ([LINEAR, NODE("LogSoftmax", ["y"], ["z"])], Access.LOGITS),
        ([LINEAR, NODE("ArgMax", ["y"], ["z"], axis=1, keepdims=0)], Access.LABELS),
        ([LINEAR, NODE("ArgMax", ["y"], ["z"], axis=1, keepdims=1)], Access.LABELS),
    ],
)
def test_the_kind_of_answers_is_read_off_the_graph(write, nodes, native):
    last = nodes[-1].output[0]
    kind = INT64 if native is Access.LABELS else FLOAT
    model = load(write(*nodes, outputs={last: (kind, None)}))
    assert model.native is native
    labels = Session(model, Access.LABELS).answer(X, Access.LABELS)
    assert labels.tolist() == scores().argmax(1).tolist()
    assert (Access.GRADIENTS in model.grants) == (native is Access.LOGITS)
    assert Access.WEIGHTS in model.grants


def test_the_kind_can_be_said(write):
    assert load(write(), outputs="values").native is Access.VALUES
    assert load(write(metadata={"locard.outputs": '"values"'})).native is Access.VALUES
    with pytest.raises(
        ParameterError, match="outputs must be one of labels, probabilities, logits, values; got 'scores'"
    ):
        load(write(), outputs="scores")
    with pytest.raises(ParameterError, match="says it gives probabilities, but its answers are negative"):
        load(write(), outputs="probabilities")


def test_several_outputs(write):
    nodes = [LINEAR, NODE("Relu", ["y"], ["z"])]
    path = write(*nodes, outputs={"y": (FLOAT, None), "z": (FLOAT, None)})
    with pytest.raises(ParameterError, match=r"model\.onnx': it has the outputs 'y', 'z'; name one with output="):
        load(path)
    with pytest.raises(ParameterError, match="unknown output 'zz'; did you mean 'z'"):
        load(path, output="zz")
    model = load(path, output="z")
    np.testing.assert_allclose(answers(model), np.maximum(scores(), 0), rtol=1e-5)
    assert model.digest not in (load(path, output="y").digest, hashlib.sha256(path.read_bytes()).hexdigest())
    np.testing.assert_allclose(
        model.input_gradient(X, lambda z: z[:, 1])[1], W[:, 1] * (scores()[:, 1:2] > 0), rtol=1e-5
    )


CLASSIFIER = [LINEAR, NODE("Softmax", ["y"], ["p"]), NODE("ArgMax", ["p"], ["label"], axis=1, keepdims=0)]


def test_labels_beside_scores_as_scikit_learn_converters_write(write):
    path = write(*CLASSIFIER, outputs={"label": (INT64, None), "p": (FLOAT, None)})
    model = load(path)
    assert model.native is Access.PROBABILITIES
    np.testing.assert_allclose(answers(model), softmax(scores()), rtol=1e-4)
    labels = load(path, output="label")
    assert labels.native is Access.LABELS
    assert answers(labels).tolist() == scores().argmax(1).tolist()


@pytest.mark.parametrize("names", [{"classlabels_int64s": [0, 1, 2, 3]}, {"classlabels_strings": ["a", "b", "c", "d"]}])
def test_probabilities_as_maps(write, names):
    zipped = NODE("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", **names)
    key = INT64 if "classlabels_int64s" in names else TensorProto.STRING
    maps = helper.make_value_info(
        "maps",
        helper.make_sequence_type_proto(helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, []))),
    )
    path = write(*CLASSIFIER, zipped, outputs={"label": (INT64, None), "maps": maps}, opsets={"ai.onnx.ml": 1})
    model = load(path)
    assert model.classes == 4
    np.testing.assert_allclose(answers(model), softmax(scores()), rtol=1e-4)
    with pytest.raises(ArtefactError, match=r"ai\.onnx\.ml::ZipMap"):
        model.weights()


def test_words_are_no_labels(write):
    words = NODE("LabelEncoder", ["label"], ["word"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2, 3],
                 values_strings=list("abcd"))  # fmt: skip
    path = write(*CLASSIFIER, words, outputs={"word": (TensorProto.STRING, None)}, opsets={"ai.onnx.ml": 2})
    with pytest.raises(ArtefactError, match="its output 'word' answers words; expected numbers"):
        load(path)


# What the inputs are


def test_whose_word_on_the_domain_counts(write):
    bounded = Domain(kind="tabular", shape=(3,), bounds=(-9.0, 9.0), columns=("a", "b", "c"))
    path = write()
    assert load(path, like=bounded).domain == bounded
    assert load(path, like=IMAGE).domain == TABLE
    assert load(path, like=Domain(kind="text", shape=(), dtype="str")).domain == TABLE
    noted = write(metadata={"locard.domain": json.dumps(bounded.to_json())})
    assert load(noted, like=TABLE).domain == bounded
    assert load(noted, domain=TABLE).domain == TABLE
    assert load(write(size="columns"), like=bounded).domain == bounded


@pytest.mark.parametrize(
    ("graph", "options", "message"),
    [
        ({"size": "k"}, {}, r"its input 'x' is float32 \(n, \?\), which does not say what an input is; give domain="),
        ({}, {"domain": IMAGE}, r"its input 'x' is float32 \(n, 3\), which cannot be the image .* of domain="),
        ({"batch": 2}, {"domain": IMAGE}, r"float32 \(2, 3\), which cannot be"),
        ({}, {"domain": Domain(kind="text", shape=(), dtype="str")}, "which cannot be the text str of domain="),
        ({}, {"mean": (1.0, 2.0)}, r"mean must be 1 or 3 finite numbers, std positive; got \(1\.0, 2\.0\)"),
        ({}, {"std": (0.0,)}, r"std must be 1 or 3 finite numbers, std positive; got \(0\.0,\)"),
        ({}, {"std": (float("nan"),)}, "std must be 1 or 3 finite"),
        ({}, {"batch_size": 0}, "batch_size must be a whole number >= 1; got 0"),
        ({}, {"threads": 0.5}, "threads must be a whole number >= 1; got 0.5"),
        ({}, {"output_name": "y"}, "unknown option of an ONNX file 'output_name'; did you mean 'output'"),
    ],
)
def test_options_that_do_not_fit(write, graph, options, message):
    with pytest.raises(ParameterError, match=message):
        load(write(**graph), **options)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"domain": "{"}, "its metadata entry 'locard.domain' is wrong: Expecting property name"),
        ({"domain": "[" * 99_999}, "its metadata entry 'locard.domain' is wrong"),
        ({"domain": '{"kind": "sound"}'}, "'locard.domain' is wrong: domain.kind must be"),
        ({"domain": json.dumps(IMAGE.to_json())}, "which cannot be the image .* of its metadata"),
        ({"outputs": "7"}, "'locard.outputs' is wrong: expected a word; got 7"),
        ({"mean": '["a"]'}, "'locard.mean' is wrong: expected a list of numbers"),
        ({"std": "[true]"}, "'locard.std' is wrong: expected a list of numbers"),
        ({"lineage": '{"seed": "a"}'}, r"'locard.lineage' is wrong: lineage\.seed must be int"),
    ],
)
def test_metadata_that_lie(write, metadata, message):
    with pytest.raises(ArtefactError, match=message):
        load(write(metadata={f"locard.{key}": value for key, value in metadata.items()}))


def test_several_inputs(write):
    path = write(NODE("Add", ["x", "z"], ["y"]), inputs={"x": (FLOAT, ["n", 3]), "z": (FLOAT, ["n", 3])})
    with pytest.raises(
        ArtefactError, match=r"it has 2 inputs \('x', 'z'\); expected one: export it with the others as"
    ):
        load(path)


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (TensorProto.STRING, ["n", 1], r"its input 'x' is a tensor\(string\); expected one of tensor\(float\)"),
        (FLOAT, [], "its input 'x' is a single number; expected a batch"),
    ],
)
def test_inputs_of_another_kind(write, kind, shape, message):
    with pytest.raises(ArtefactError, match=message):
        load(write(NODE("Identity", ["x"], ["y"]), inputs={"x": (kind, shape)}, outputs={"y": (kind, None)}))


def test_an_input_larger_than_memory_is_not_tried(write):
    path = write(
        NODE("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0), inputs={"x": (FLOAT, ["n", 3, 1 << 20, 1 << 20])}
    )
    with pytest.raises(
        ArtefactError, match="one input would hold 3,298,534,883,328 numbers; at most 268,435,456 are taken"
    ):
        load(path)


# Files that are not what they should be


def damaged(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "onnxruntime does not take it: Failed to load model because protobuf"),
        (lambda _: b"hello", "onnxruntime does not take it: Failed to load model because protobuf"),
        (lambda _: b"", "it is empty"),
        (lambda _: np.random.default_rng(0).bytes(5000), "onnxruntime does not take it"),
        (lambda content: b"\x3a\xff\xff\xff\xff\x0flocation" + content, "a field is longer than the file"),
    ],
)
def test_damaged_files_end_in_one_line(write, change, message, capfd):
    path = write()
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ArtefactError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_files_folders_and_size(tmp_path, monkeypatch, write):
    with pytest.raises(ArtefactError, match=r"none\.onnx': there is no such file"):
        load(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ArtefactError, match="it is not a file"):
        load(str(tmp_path / "folder.onnx"))
    monkeypatch.setattr("locard.models._onnx_file.MAX_BYTES", 100)
    with pytest.raises(ArtefactError, match=r"bytes; at most 100 are read: keep its tensors in a file beside it"):
        load(write())


def test_custom_operators_are_not_looked_for(write, capfd):
    path = write(NODE("Run", ["x"], ["y"], domain="evil.ops"), opsets={"evil.ops": 1})
    with pytest.raises(ArtefactError, match=r"onnxruntime does not take it: .*evil\.ops:Run.* is not a registered"):
        load(path)
    assert capfd.readouterr() == ("", "")


def test_errors_while_running_are_one_line(write, capfd):
    """A graph that fails on every batch: shapes that only clash when it runs."""
    nodes = [NODE("Reshape", ["x", "s"], ["r"]), NODE("Gemm", ["r", "w", "b"], ["y"])]
    path = write(*nodes, weights={"w": W, "b": B, "s": np.array([5, 3])}, size="k")
    with pytest.raises(ParameterError, match=r"model\.onnx fails on a batch of shape \(1, 3\): .*Reshape") as caught:
        load(path, domain=TABLE)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def external(path, location, length=W.nbytes):
    """Move the tensor w of a file into another file, or say that it is there."""
    model = onnx.load(path)
    (tensor,) = (t for t in model.graph.initializer if t.name == "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_tensors_beside_the_file(write, tmp_path):
    path = external(write(), "w.bin")
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    model = load(path)
    np.testing.assert_allclose(answers(model), scores(), rtol=1e-5)
    np.testing.assert_allclose(model.input_gradient(X, lambda z: z[:, 0])[1], np.tile(W[:, 0], (7, 1)), rtol=1e-5)
    (tmp_path / "w.bin").write_bytes((W + 1).tobytes())
    assert load(path).digest != model.digest


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "link.bin", "sub/../../w.bin"])
def test_tensors_elsewhere(write, tmp_path, location):
    (tmp_path / "inner").mkdir()
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    (tmp_path / "inner" / "link.bin").symlink_to(tmp_path / "w.bin")
    path = external(write(name="inner/model.onnx"), location)
    with pytest.raises(
        ArtefactError, match=r"it keeps tensors in .*, outside its own folder; save the model in one file"
    ):
        load(path)


def test_tensors_missing_or_short(write, tmp_path):
    path = external(write(), "w.bin")
    with pytest.raises(
        ArtefactError, match=r"it keeps tensors in 'w\.bin', which is not beside it; put that file back"
    ):
        load(path)
    (tmp_path / "w.bin").write_bytes(W.tobytes()[:-4])
    with pytest.raises(ArtefactError, match=r"onnxruntime does not take it: .*w"):
        load(path)


def sound_bytes():
    graph = helper.make_graph(
        [LINEAR, NODE("Softmax", ["y"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("z", FLOAT, ["n", 4])],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(B, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"locard.domain": json.dumps(TABLE.to_json()), "location": "nowhere"})
    return model.SerializeToString()


SOUND = sound_bytes()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(SOUND) - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_told_or_harmless(tmp_path, at, bit, cut):
    raw = bytearray(SOUND)
    raw[at] ^= 1 << bit
    (tmp_path / "model.onnx").write_bytes(raw[:at] if cut else raw)
    told = ""
    try:
        model = load(tmp_path / "model.onnx", like=TABLE)
        model.domain.check(model._probe(2))
    except LocardError as error:
        told = str(error)
    assert "\n" not in told


@given(content=st.binary(max_size=200))
def test_the_scanner_only_ever_raises_value_errors(content):
    for scan in (external_files, lambda c: operator_of(c, "y")):
        try:
            scan(b"location" + content)
        except ValueError as error:
            assert type(error) is ValueError  # noqa: PT017


def test_the_scanner_looks_into_subgraphs_and_is_not_led_too_deep():
    def tensor(location):
        t = TensorProto(name=location, data_type=FLOAT, data_location=TensorProto.EXTERNAL)
        t.external_data.add(key="location", value=location)
        return t

    inner = helper.make_graph([NODE("Constant", [], ["c"], value=tensor("b"))], "inner", [], [], [tensor("a")])
    outer = helper.make_graph(
        [NODE("If", ["x"], ["y"], then_branch=inner, else_branch=inner)], "outer", [], [], [tensor("c")]
    )
    model = helper.make_model(outer)
    model.functions.add(name="f").node.append(NODE("Constant", [], ["c"], value=tensor("d")))
    assert external_files(model.SerializeToString()) == ["a", "b", "c", "d"]
    assert operator_of(model.SerializeToString(), "y") == "If"
    assert operator_of(model.SerializeToString(), "none") == ""
    loop = helper.make_model(helper.make_graph([NODE("Identity", ["y"], ["y"])], "g", [], []))
    assert operator_of(loop.SerializeToString(), "y") == ""

    nested = b"location"
    for _ in range(60):
        for tag in (6 << 3 | 2, 5 << 3 | 2, 1 << 3 | 2):
            length = len(nested)
            size = bytes([length & 127 | 128, length >> 7]) if length > 127 else bytes([length])
            nested = bytes([tag]) + size + nested
    with pytest.raises(ValueError, match="nested too deeply"):
        external_files(b"\x3a" + bytes([len(nested) & 127 | 128, len(nested) >> 7]) + nested)


# Gradients and weights


def test_gradients_and_weights_are_those_of_the_torch_model(toys):
    model, original = load(toys[0], like=toy_domain()), toy_model(0, gradients=True)
    x = toy_data(30).inputs
    loss = lambda z: z.square().sum(1)  # noqa: E731
    for got, expected in zip(model.input_gradient(x, loss), original.input_gradient(x, loss), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    weights = model.weights()
    assert weights.keys() == original.weights().keys()
    assert all(np.array_equal(weights[name], value) for name, value in original.weights().items())
    with torch.inference_mode():
        np.testing.assert_allclose(model.module()(torch.from_numpy(x)), answers(model, x), rtol=1e-3, atol=1e-3)


def test_the_module_has_the_normalisation_in_front(write):
    model = load(write(), mean=(0.5,), std=(2.0,))
    with torch.inference_mode():
        np.testing.assert_allclose(model.module()(torch.from_numpy(X)), answers(model), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.input_gradient(X, lambda z: z[:, 0])[1], np.tile(W[:, 0] / 2, (7, 1)), rtol=1e-5)


def test_a_conversion_that_answers_otherwise_is_not_trusted(write, monkeypatch):
    model = load(write())
    monkeypatch.setattr("locard.models.onnx_graph.to_torch", lambda *_, **__: torch.nn.Linear(3, 4))
    for ask in (lambda: model.input_gradient(X, lambda z: z[:, 0]), model.module):
        with pytest.raises(ArtefactError, match="converted to torch answers otherwise than in onnxruntime"):
            ask()


def test_rounding_stops_gradients_and_that_is_said(write):
    nodes = [NODE("QuantizeLinear", ["x", "s", "o"], ["q"]), NODE("DequantizeLinear", ["q", "s", "o"], ["d"]),
             NODE("Gemm", ["d", "w", "b"], ["y"])]  # fmt: skip
    model = load(write(*nodes, weights={"w": W, "b": B, "s": np.float32(0.1), "o": np.int8(0)}))
    np.testing.assert_allclose(answers(model), scores(np.rint(X / np.float32(0.1)) * np.float32(0.1)), rtol=1e-4)
    with pytest.raises(ArtefactError, match="has no gradients by its inputs: an operator in it stops them"):
        model.input_gradient(X, lambda z: z[:, 0])


def test_operators_that_are_not_mapped_show_when_gradients_are_asked(write):
    nodes = [LINEAR, NODE("Unique", ["y"], ["i"]), NODE("Shape", ["i"], ["s"]), NODE("Cast", ["s"], ["f"], to=FLOAT),
             NODE("ReduceSum", ["f"], ["r"], keepdims=0), NODE("Add", ["y", "r"], ["z"])]  # fmt: skip
    model = load(write(*nodes, outputs={"z": (FLOAT, ["n", 4])}))
    np.testing.assert_allclose(answers(model), scores() + 28, rtol=1e-5)
    with pytest.raises(ArtefactError, match="not supported are Unique"):
        model.input_gradient(X, lambda z: z[:, 0])


def test_without_torch_there_are_answers_alone(write, monkeypatch):
    monkeypatch.setattr("locard.models.onnx.find_spec", lambda name: None if name == "torch" else True)
    model = load(write())
    assert model.grants == Access.LOGITS.implied
    np.testing.assert_allclose(answers(model), scores(), rtol=1e-5)
    for ask in (lambda: model.input_gradient(X, lambda z: z[:, 0]), model.weights, model.module):
        with pytest.raises(locard.errors.AccessError, match="gives LOGITS and"):
            ask()


def test_answering_imports_neither_torch_nor_onnx(toys):
    code = (
        "import sys, numpy as np; from locard.models import load; from locard.records import Access\n"
        "from locard.models import Session\n"
        f"model = load({str(toys[0])!r})\n"
        "print(Session(model, Access.LABELS).answer(np.zeros((2, 1, 8, 8), np.float32), Access.LABELS).shape)\n"
        "print(sorted({'torch', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(2,)", "[]"]
    assert done.stderr == ""


# Writing


@pytest.fixture(scope="module")
def network():
    torch_rng = torch.Generator().manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(16, 5),
    )
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=torch_rng) / 2)
    lineage = Lineage(architecture="small", seed=7)
    return TorchModel(module.train(), domain=toy_domain(), mean=(0.25,), std=(0.5,), lineage=lineage)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    return export(network, tmp_path_factory.mktemp("export") / "network.onnx")


def test_export_and_load_is_the_same_model(network, exported):
    model = load(exported)
    assert (model.domain, model.lineage) == (network.domain, network.lineage)
    assert (model.mean, model.std) == (network.mean, network.std)
    assert network._module.training
    x = toy_data(9).inputs
    np.testing.assert_allclose(answers(model, x), answers(network, x), rtol=1e-4, atol=1e-5)
    loss = lambda z: z[:, 0] - z[:, 1]  # noqa: E731
    np.testing.assert_allclose(
        model.input_gradient(x, loss)[1], network.input_gradient(x, loss)[1], rtol=1e-3, atol=1e-6
    )
    weights = model.weights()
    kept = {name: value for name, value in network.weights().items() if not name.endswith("num_batches_tracked")}
    assert weights.keys() == kept.keys()
    assert all(np.array_equal(weights[name], value) for name, value in kept.items())
    proto = onnx.load(exported)
    assert not any(node.metadata_props for node in proto.graph.node)
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_export_is_quiet_and_repeats_its_bytes(network, exported, tmp_path, capfd):
    assert export(network, tmp_path / "again.onnx").read_bytes() == exported.read_bytes()
    assert capfd.readouterr() == ("", "")


def test_export_that_fails_leaves_nothing(network, tmp_path, monkeypatch):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ArtefactError, match="torch cannot write torch module Odd as ONNX: "):
        export(TorchModel(Odd(), domain=TABLE), tmp_path / "odd.onnx")
    with pytest.raises(ArtefactError, match=r"cannot write .*: No such file or directory"):
        export(network, tmp_path / "none" / "a.onnx")
    monkeypatch.setattr("locard.models.onnx._program", lambda *_: SOUND)
    with pytest.raises(
        ArtefactError, match=r"would answer otherwise than torch module Linear \(by up to .*\); not written"
    ):
        export(TorchModel(torch.nn.Linear(3, 4), domain=TABLE), tmp_path / "b.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_needs_its_extra(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"an ONNX export needs the package 'onnxscript'.*locard\[onnx\]"):
        export(network, tmp_path / "a.onnx")
