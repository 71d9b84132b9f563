"""Every mapped ONNX operator against onnxruntime where it has the operator, else against the reference code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from locard.models._onnx_operators import OPERATORS
from locard.models.onnx_graph import to_torch

Arrays = Sequence[np.ndarray | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One node to run, and how many outputs of it to compare."""

    op: str
    opset: int
    inputs: Arrays
    attributes: dict[str, Any]
    outputs: int = 1
    reference: bool = False
    tolerance: float = 1e-5

    def model(self, *, fixed: bool) -> onnx.ModelProto:
        """The node alone; with `fixed`, all inputs but the first are initialisers."""
        names = ["" if value is None else f"in.{i}" for i, value in enumerate(self.inputs)]
        outputs = [f"out{i}" for i in range(self.outputs)]
        operands = {i: value for i, value in enumerate(self.inputs) if value is not None}
        free = list(operands)[:1] if fixed else list(operands)
        graph = helper.make_graph(
            [helper.make_node(self.op, names, outputs, **self.attributes)],
            "one",
            [helper.make_tensor_value_info(names[i], *_kind(operands[i])) for i in free],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(value, names[i]) for i, value in operands.items() if i not in free],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)

    def feed(self, *, fixed: bool) -> dict[str, np.ndarray]:
        """What the model is given."""
        named = {f"in.{i}": value for i, value in enumerate(self.inputs) if value is not None}
        return dict(list(named.items())[:1]) if fixed else named


def _kind(array: np.ndarray) -> tuple[int, tuple[int, ...]]:
    return helper.np_dtype_to_tensor_dtype(array.dtype), array.shape


def expected(case: Case, model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> Sequence[Any]:
    """The oracle's outputs."""
    if case.reference:
        return list(ReferenceEvaluator(model).run(None, feed))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)


def agree(case: Case) -> None:
    """Compare with the oracle, once with every operand an input and once with all but the first fixed by the file."""
    for fixed in (False, True):
        model, feed = case.model(fixed=fixed), case.feed(fixed=fixed)
        answers = to_torch(model)(*(torch.from_numpy(value.copy()) for value in feed.values()))
        answers = answers if isinstance(answers, tuple) else (answers,)
        for got, want in zip(answers, expected(case, model, feed), strict=True):
            assert got.numpy(force=True).dtype == want.dtype
            assert got.shape == want.shape
            np.testing.assert_allclose(got.numpy(force=True), want, rtol=case.tolerance, atol=case.tolerance)


def _r(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Floats of a shape, the same each time, all different."""
    return np.random.default_rng(list(shape)).uniform(low, high, shape).astype(np.float32)


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _n(value: float, kind: type = np.float32) -> np.ndarray:
    return np.array(value, kind)


X, Y = _r(2, 3, 4), _r(3, 1)
IMAGE, SOUND, VOLUME = _r(2, 4, 7, 6), _r(2, 4, 9), _r(1, 2, 5, 4, 6)
WHOLE = np.arange(-12, 12).reshape(2, 3, 4).astype(np.int64)
TRUTH = X > 0
BYTES = (np.arange(24).reshape(2, 3, 4) * 10).astype(np.uint8)


def _elementwise() -> Iterator[tuple[Any, ...]]:
    for op in ("Abs", "Ceil", "Exp", "Floor", "Neg", "Relu", "Sigmoid", "Tanh", "Elu", "Selu", "LeakyRelu", "Softplus"):
        yield op, 7, [X]
        yield op, 22, [X]
    for op in (
        "Atan",
        "Cos",
        "Sin",
        "Tan",
        "Softsign",
        "HardSigmoid",
        "Identity",
        "Erf",
        "Sinh",
        "Asinh",
        "Cosh",
        "Sign",
    ):
        yield op, 13, [X]
    for op in ("Acos", "Asin", "Atanh"):
        yield op, 13, [X / 2.1]
    for op in ("Log", "Sqrt", "Reciprocal"):
        yield op, 13, [np.abs(X) + 0.1]
    yield "Acosh", 13, [np.abs(X) + 1]
    yield "Round", 11, [np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.3], np.float32)]
    yield "HardSigmoid", 13, [X], {"alpha": 0.3, "beta": 0.4}
    yield "Elu", 13, [X], {"alpha": 0.3}
    yield "Selu", 13, [X], {"alpha": 0.3, "gamma": 2.0}
    yield "LeakyRelu", 16, [X], {"alpha": 0.3}
    yield "Celu", 12, [X], {"alpha": 0.7}
    yield "ThresholdedRelu", 10, [X], {"alpha": 0.7}
    yield "Shrink", 9, [X], {"lambd": 0.7, "bias": 0.2}
    yield "HardSwish", 14, [X]
    yield "Mish", 18, [X]
    yield "Gelu", 20, [X]
    yield "Gelu", 20, [X], {"approximate": "tanh"}
    yield "Swish", 24, [X], {"alpha": 1.3}, {"reference": True}
    yield "Swish", 24, [X], {}, {"reference": True}
    special = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    yield "IsNaN", 13, [special]
    for negative, positive in ((1, 1), (0, 1), (1, 0), (0, 0)):
        yield "IsInf", 10, [special], {"detect_negative": negative, "detect_positive": positive}
    for op in ("Add", "Sub", "Mul", "Div", "PRelu"):
        yield op, 7, [X, Y]
        yield op, 16, [X, Y]
    for op in ("Add", "Sub", "Mul", "Div", "Mod"):
        yield op, 14, [WHOLE, _i(2, -3, 5, 7)]
    yield "Mod", 13, [X, Y], {"fmod": 1}
    for base, exponent in ((X, _n(3)), (np.abs(X), Y), (WHOLE, _n(2)), (np.abs(X), _n(0.5)), (X, _i(2))):
        yield "Pow", 13, [base, exponent]
    yield "Pow", 7, [X, _n(2)]
    for op in ("Greater", "Less", "Equal"):
        yield op, 9 if op != "Equal" else 11, [X, X.round()]
    for op in ("GreaterOrEqual", "LessOrEqual"):
        yield op, 16, [X.round(), Y.round()]
    yield "Equal", 7, [WHOLE, np.abs(WHOLE)]
    for op in ("And", "Or", "Xor"):
        yield op, 7, [TRUTH, Y > 0]
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield op, 18, [WHOLE, _i(6)]
    yield "Not", 7, [TRUTH]
    yield "BitwiseNot", 18, [WHOLE]
    for op in ("Max", "Min", "Sum", "Mean"):
        yield op, 8, [X, Y, _r(4)]
        yield op, 13, [X]
    yield "Where", 9, [TRUTH, X, Y]
    yield "Where", 16, [TRUTH, WHOLE, _i(0)]
    yield "Clip", 7, [X], {"min": -0.5, "max": 0.7}
    yield "Clip", 10, [X], {"max": 0.7}
    yield "Clip", 11, [X, _n(-0.5), _n(0.7)]
    yield "Clip", 13, [X, None, _n(0.7)]
    yield "Clip", 13, [X, _n(-0.1)]
    yield "Clip", 13, [X]
    yield "Clip", 12, [WHOLE, _n(-3, np.int64), _n(4, np.int64)]
    for opset in (7, 11, 13):
        for axis in (0, 1, 2):
            yield "Softmax", opset, [X], {"axis": axis}
            yield "LogSoftmax", opset, [X], {"axis": axis}
            yield "Hardmax", opset, [X], {"axis": axis}
        yield "Softmax", opset, [X]
    yield "Softmax", 11, [X], {"axis": -2}
    for code in (TensorProto.INT32, TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64):
        yield "Cast", 9, [X], {"to": code}
        yield "Cast", 19, [X], {"to": code}
    yield "CastLike", 19, [X, WHOLE], {}, {"reference": True}
    yield "Dropout", 7, [X], {"ratio": 0.4}
    yield "Dropout", 10, [X], {"ratio": 0.4}, {"outputs": 2, "reference": True}
    yield "Dropout", 13, [X], {}, {"outputs": 2}
    yield "Dropout", 12, [X]


def _reductions() -> Iterator[tuple[Any, ...]]:
    positive = np.abs(X) + 0.1
    for op in sorted(name for name in OPERATORS if name.startswith("Reduce")):
        old = 11 if op == "ReduceSum" else 13
        yield op, 7, [positive], {"axes": [1], "keepdims": 0}
        yield op, old, [positive], {"axes": [-1, 0]}
        yield op, old, [positive], {"keepdims": 0}
        yield op, 18, [positive, _i(1, -1)], {"keepdims": 0}
        yield op, 18, [positive], {}
        yield op, 18, [positive, _i()], {"noop_with_empty_axes": 0}
    yield "ReduceSum", 13, [X, _i()], {"noop_with_empty_axes": 1}
    for op in ("ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceLogSumExp"):
        yield op, 18, [X], {"noop_with_empty_axes": 1}
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare"):
        yield op, 18, [WHOLE.astype(np.int32), _i(1)]
    yield "ReduceMax", 20, [TRUTH, _i(1)]
    for op in ("ArgMax", "ArgMin"):
        ties = np.array([[1, 3, 3, 1], [2, 2, 2, 2]], np.float32)
        yield op, 7, [X], {"axis": 1, "keepdims": 0}
        yield op, 11, [ties], {"axis": -1}
        yield op, 13, [ties], {"axis": 1, "select_last_index": 1}
        yield op, 12, [ties], {"axis": 0, "select_last_index": 1, "keepdims": 0}
    yield "TopK", 9, [X], {"k": 2, "axis": 1}, {"outputs": 2}
    yield "TopK", 10, [X, _i(3)], {}, {"outputs": 2}
    yield "TopK", 11, [X, _i(2)], {"largest": 0, "axis": 1}, {"outputs": 2}
    yield "TopK", 11, [np.array([[1, 3, 3, 1, 3]], np.float32), _i(4)], {}, {"outputs": 2}
    for exclusive in (0, 1):
        for reverse in (0, 1):
            yield "CumSum", 11 + 3 * reverse, [X, _n(1, np.int64)], {"exclusive": exclusive, "reverse": reverse}


def _shapes() -> Iterator[tuple[Any, ...]]:
    yield "Shape", 7, [X]
    yield "Shape", 15, [X], {"start": 1}
    yield "Shape", 21, [X], {"start": -2, "end": -1}
    yield "Size", 13, [X]
    for opset in (7, 13, 19, 21):
        yield "Reshape", opset, [X, _i(0, -1)]
        yield "Reshape", opset, [X, _i(4, 0, -1)]
    yield "Reshape", 14, [np.zeros((0, 3), np.float32), _i(3, 0)], {"allowzero": 1}
    for axis in (0, 1, 3, -1):
        yield "Flatten", 11, [X], {"axis": axis}
    yield "Flatten", 7, [X]
    narrow = X.reshape(1, 2, 1, 12)
    yield "Squeeze", 7, [narrow], {"axes": [0, 2]}
    yield "Squeeze", 11, [narrow], {"axes": [-2]}
    yield "Squeeze", 11, [narrow]
    yield "Squeeze", 13, [narrow, _i(0, -2)]
    yield "Squeeze", 21, [narrow]
    yield "Unsqueeze", 7, [X], {"axes": [3, 0]}
    yield "Unsqueeze", 11, [X], {"axes": [-1, 1]}
    yield "Unsqueeze", 13, [X, _i(-1, 1, 0)]
    yield "Transpose", 7, [X]
    yield "Transpose", 13, [X], {"perm": [1, 2, 0]}
    yield "Concat", 7, [X, X[:, :1]], {"axis": 1}
    yield "Concat", 13, [WHOLE, WHOLE, WHOLE], {"axis": -1}
    yield "Split", 7, [X], {"axis": 2, "split": [1, 3]}, {"outputs": 2}
    yield "Split", 11, [X], {"axis": -1}, {"outputs": 2}
    yield "Split", 13, [X, _i(1, 2)], {"axis": 1}, {"outputs": 2}
    yield "Split", 13, [X], {"axis": 1}, {"outputs": 3}
    yield "Split", 18, [_r(7)], {"num_outputs": 3}, {"outputs": 3}
    yield "Expand", 8, [Y, _i(2, 1, 4)]
    yield "Expand", 13, [X, _i(1, 1)]
    yield "Tile", 13, [X, _i(1, 2, 3)]
    yield "ConstantOfShape", 9, [_i(2, 3)]
    yield "ConstantOfShape", 9, [_i(2, 3)], {"value": numpy_helper.from_array(np.array([7], np.int64))}
    yield "Range", 11, [_n(1), _n(7.5), _n(1.5)]
    yield "Range", 11, [_n(9, np.int64), _n(-2, np.int64), _n(-3, np.int64)]
    yield "Range", 11, [_n(3, np.int64), _n(1, np.int64), _n(1, np.int64)]
    yield "EyeLike", 9, [_r(3, 5)], {"k": 1}
    yield "EyeLike", 9, [_r(4, 2)], {"k": -1, "dtype": TensorProto.INT64}
    yield "Trilu", 14, [X]
    yield "Trilu", 14, [X, _n(-1, np.int64)], {"upper": 0}
    yield "DepthToSpace", 7, [_r(2, 8, 3, 2)], {"blocksize": 2}
    yield "DepthToSpace", 13, [_r(2, 8, 3, 2)], {"blocksize": 2, "mode": "CRD"}
    yield "SpaceToDepth", 13, [_r(2, 3, 4, 6)], {"blocksize": 2}


def _indexing() -> Iterator[tuple[Any, ...]]:
    top = np.iinfo(np.int64).max
    yield "Slice", 7, [X], {"starts": [1, -3], "ends": [2, 100], "axes": [1, 2]}
    yield "Slice", 9, [X], {"starts": [0, 1], "ends": [top, -1]}
    yield "Slice", 10, [X, _i(1), _i(top), _i(-1), _i(2)]
    yield "Slice", 13, [X, _i(-1, 2), _i(-top, 0), _i(1, 2), _i(-1, -2)]
    yield "Slice", 11, [X, _i(1), _i(3)]
    index = np.array([[0, -1], [2, 1]], np.int64)
    for axis in (0, 1, -1):
        yield "Gather", 11, [_r(3, 3, 4), index], {"axis": axis}
    yield "Gather", 13, [X, _n(-1, np.int64)], {"axis": 1}
    yield "Gather", 7, [X, _n(0, np.int32)], {}
    yield "GatherElements", 11, [X, np.array([[[0, -1, 1, 2]]], np.int64)], {"axis": 1}
    yield "GatherND", 11, [X, index[:, :1] * 0 + 1]
    yield "GatherND", 12, [X, np.array([[1], [-1]], np.int64)], {"batch_dims": 1}
    yield "GatherND", 13, [X, np.array([[0, 2], [1, -1]], np.int64)]
    places, news = np.array([[0, -1, 2]], np.int64), _r(1, 3)
    yield "Scatter", 9, [_r(3, 4), np.abs(places), news], {"axis": 1}
    yield "ScatterElements", 11, [_r(3, 4), places, news], {"axis": 1}
    for reduction in ("none", "add", "mul", "max", "min"):
        yield "ScatterElements", 18, [_r(3, 4), places, news], {"axis": 0, "reduction": reduction}
    yield "ScatterND", 11, [X, np.array([[1], [0]], np.int64), _r(2, 3, 4)]
    yield "ScatterND", 16, [X, np.array([[1, 1], [1, 1]], np.int64), _r(2, 4)], {"reduction": "add"}
    for axis in (-1, 0, 1):
        yield (
            "OneHot",
            11,
            [np.array([[0, -1], [5, 2]], np.int64), _n(4, np.int64), np.array([2, 5], np.float32)],
            {"axis": axis},
        )
    yield "NonZero", 9, [X.round()]


def _layers() -> Iterator[tuple[Any, ...]]:
    yield "MatMul", 9, [X, _r(2, 4, 5)]
    yield "MatMul", 13, [X, _r(4)]
    for opset in (7, 9, 13):
        yield "Gemm", opset, [_r(4, 3), _r(4, 5), _r(5)], {"transA": 1, "alpha": 0.5, "beta": 2.0}
        yield "Gemm", opset, [_r(2, 4), _r(5, 4), _r(2, 1)], {"transB": 1}
    yield "Gemm", 13, [_r(3, 4), _r(4, 5)], {"alpha": 0.5}
    yield "Einsum", 12, [X, _r(2, 5, 4)], {"equation": "bij, bkj -> bik"}
    yield "Einsum", 12, [X], {"equation": "...ij->...ji"}
    for opset in (7, 11, 22):
        yield "Conv", opset, [IMAGE, _r(6, 4, 3, 3), _r(6)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}
    yield "Conv", 11, [IMAGE, _r(6, 4, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    yield "Conv", 11, [IMAGE, _r(6, 4, 2, 3)], {"auto_pad": "SAME_LOWER"}
    yield "Conv", 11, [IMAGE, _r(4, 1, 3, 3)], {"auto_pad": "VALID", "group": 4, "dilations": [2, 1]}
    yield "Conv", 11, [SOUND, _r(5, 4, 3), _r(5)], {"pads": [1, 1]}
    yield "Conv", 11, [VOLUME, _r(3, 2, 3, 2, 3)], {"pads": [0, 1, 1, 1, 0, 1]}
    forms: tuple[dict[str, Any], ...] = (
        {},
        {"strides": [2, 3], "pads": [1, 1, 1, 1], "output_padding": [1, 2]},
        {"strides": [2, 2], "pads": [0, 1, 2, 0], "output_padding": [1, 1]},
        {"dilations": [2, 1], "group": 2},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [3, 2], "output_shape": [20, 14]},
    )
    for attributes in forms:
        yield "ConvTranspose", 11, [IMAGE, _r(4, 3, 3, 3), _r(3 * attributes.get("group", 1))], attributes
    yield "ConvTranspose", 7, [SOUND, _r(4, 3, 4)], {"strides": [2]}
    for opset in (7, 9, 14, 15):
        yield "BatchNormalization", opset, [IMAGE, _r(4), _r(4, 1)[:, 0], _r(4), np.abs(_r(4)) + 0.1], {"epsilon": 1e-3}
    yield "BatchNormalization", 15, [_r(3, 4), _r(4), _r(4), _r(4), np.abs(_r(4)) + 0.1]
    yield "InstanceNormalization", 7, [IMAGE, _r(4), _r(4)]
    yield "InstanceNormalization", 22, [_r(2, 3, 1), _r(3), _r(3)]
    yield "GroupNormalization", 21, [IMAGE, _r(4), _r(4)], {"num_groups": 2}
    yield "LayerNormalization", 17, [X, _r(4), _r(4)], {"epsilon": 1e-3}, {"outputs": 3}
    yield "LayerNormalization", 17, [X, _r(3, 4)], {"axis": 1}
    yield "LayerNormalization", 17, [X, _r(3, 1), _r(1)], {"axis": 1}, {"reference": True}
    yield "RMSNormalization", 23, [X, _r(4)]
    yield "LpNormalization", 7, [X], {"axis": 1, "p": 1}
    yield "LpNormalization", 22, [np.concatenate([X, 0 * X])]
    yield "LRN", 7, [IMAGE], {"size": 3, "alpha": 0.3, "bias": 1.5}
    # onnxruntime has odd sizes only; the reference code counts channels by the batch size, so the two are equal here.
    yield "LRN", 13, [_r(4, 4, 3, 2)], {"size": 4, "alpha": 0.3}, {"reference": True}


def _windows() -> Iterator[tuple[Any, ...]]:
    for opset in (7, 10, 12, 22):
        yield "MaxPool", opset, [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1]}
        yield "AveragePool", opset, [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1]}
    for ceil in (0, 1):
        yield (
            "MaxPool",
            12,
            [IMAGE],
            {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": ceil},
        )
        yield (
            "MaxPool",
            12,
            [IMAGE],
            {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": ceil},
        )
        for counted in (0, 1):
            shared = {"ceil_mode": ceil, "count_include_pad": counted}
            yield (
                "AveragePool",
                22,
                [IMAGE],
                {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], **shared},
            )
            yield (
                "AveragePool",
                22,
                [IMAGE],
                {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [0, 1, 1, 0], **shared},
            )
    yield "MaxPool", 12, [IMAGE], {"kernel_shape": [2, 2], "dilations": [2, 3]}
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield "MaxPool", 12, [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": mode}
        yield "AveragePool", 11, [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": mode}
    yield "MaxPool", 12, [SOUND], {"kernel_shape": [3]}
    yield "AveragePool", 11, [VOLUME], {"kernel_shape": [2, 2, 3], "pads": [1, 0, 1, 0, 1, 1]}
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield op, 7, [IMAGE]
        yield op, 22, [VOLUME]
    yield "Pad", 7, [X], {"pads": [0, 1, 2, 0, 0, 1], "value": 1.5}
    yield "Pad", 10, [IMAGE], {"pads": [0, 0, 3, 2, 0, 0, 1, 4], "mode": "reflect"}
    for mode in ("constant", "reflect", "edge"):
        yield "Pad", 11, [IMAGE, _i(0, 0, 2, 1, 0, 0, 3, 0)], {"mode": mode}
        yield "Pad", 18, [IMAGE, _i(2, 1, 3, 0), None, _i(2, -1)], {"mode": mode}
    yield "Pad", 13, [X, _i(0, -1, 1, 0, 0, -2), _n(2.5)]
    yield "Pad", 13, [WHOLE, _i(0, 0, 1, 0, 0, 2), _n(9, np.int64)]
    yield "Pad", 19, [X, _i(0, 2, 1, 1, 0, 3)], {"mode": "wrap"}
    scales, none = np.array([1, 1, 2, 1.6], np.float32), np.array([], np.float32)
    yield "Upsample", 7, [IMAGE], {"scales": [1.0, 1.0, 2.0, 1.5]}
    yield "Upsample", 9, [IMAGE, np.array([1, 1, 2, 3], np.float32)], {"mode": "linear"}
    yield "Resize", 10, [IMAGE, scales]
    yield "Resize", 10, [IMAGE, np.array([1, 1, 0.5, 2], np.float32)], {"mode": "linear"}
    for shift in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        yield "Resize", 11, [IMAGE, none, scales], {"mode": "linear", "coordinate_transformation_mode": shift}
        yield (
            "Resize",
            13,
            [IMAGE, None, scales],
            {"mode": "cubic", "coordinate_transformation_mode": shift},
            {"tolerance": 3e-5},
        )
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
            attributes = {"nearest_mode": rounding, "coordinate_transformation_mode": shift}
            yield "Resize", 19, [IMAGE, None, None, _i(2, 4, 5, 13)], attributes
    yield (
        "Resize",
        13,
        [IMAGE, None, None, _i(2, 4, 1, 1)],
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    )
    yield "Resize", 18, [IMAGE, None, np.array([0.6, 2], np.float32)], {"mode": "linear", "axes": [2, 3]}
    yield "Resize", 18, [IMAGE, None, None, _i(9, 9)], {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    yield (
        "Resize",
        18,
        [IMAGE, None, None, _i(9, 9)],
        {"axes": [2, 3], "keep_aspect_ratio_policy": "not_smaller", "mode": "linear"},
    )
    yield (
        "Resize",
        19,
        [IMAGE, None, scales],
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
    )
    yield (
        "Resize",
        13,
        [IMAGE, None, scales],
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
        {"tolerance": 3e-5},
    )


def _quantised() -> Iterator[tuple[Any, ...]]:
    scale, zero, zero8 = _n(0.02), _n(7, np.uint8), _n(-3, np.int8)
    per_axis = np.array([0.1, 0.02, 0.3], np.float32)
    yield "QuantizeLinear", 10, [X, scale, zero]
    yield "QuantizeLinear", 13, [X, per_axis, np.array([1, -2, 3], np.int8)], {"axis": 1}
    yield "QuantizeLinear", 13, [X, scale]
    yield "QuantizeLinear", 21, [X, scale, zero8]
    yield "QuantizeLinear", 21, [X, scale], {"output_dtype": TensorProto.INT8}
    yield "DequantizeLinear", 10, [BYTES, scale, zero]
    yield "DequantizeLinear", 13, [BYTES.astype(np.int8), per_axis, np.array([1, -2, 3], np.int8)], {"axis": 1}
    yield "DequantizeLinear", 13, [WHOLE.astype(np.int32), scale]
    yield "DynamicQuantizeLinear", 11, [X], {}, {"outputs": 3}
    yield "DynamicQuantizeLinear", 11, [np.abs(X)], {}, {"outputs": 3}
    levels = np.random.default_rng(0).integers(0, 255, (5, 6)).astype(np.uint8)
    weights = np.random.default_rng(1).integers(-127, 127, (6, 4)).astype(np.int8)
    yield "MatMulInteger", 10, [levels, weights, zero, zero8]
    yield "MatMulInteger", 10, [levels, weights]
    pixels = np.random.default_rng(2).integers(0, 255, (1, 2, 5, 5)).astype(np.uint8)
    kernel = np.random.default_rng(3).integers(0, 255, (3, 2, 3, 3)).astype(np.uint8)
    yield "ConvInteger", 10, [pixels, kernel, zero], {"pads": [1, 1, 1, 1]}
    yield "QLinearMatMul", 10, [levels, scale, zero, weights, _n(0.01), zero8, _n(0.9), zero]
    signed = kernel.astype(np.int8)
    each = np.array([0.01, 0.03, 0.02], np.float32)
    operands = [
        pixels,
        scale,
        zero,
        signed,
        each,
        np.zeros(3, np.int8),
        _n(1.1),
        zero,
        np.array([9, -500, 3], np.int32),
    ]
    yield "QLinearConv", 10, operands, {"strides": [2, 2]}


def _attention() -> Iterator[tuple[Any, ...]]:
    query, key, value = _r(2, 3, 4, 8), _r(2, 3, 5, 8), _r(2, 3, 5, 8) + 1
    yield "Attention", 23, [query, key, value], {}, {"reference": True}
    yield "Attention", 23, [query, key, value, _r(4, 5)], {"scale": 0.3}, {"reference": True}
    yield "Attention", 23, [query, key, value, np.tri(4, 5, 1, bool)], {}, {"reference": True}
    yield "Attention", 23, [query, key[:, :, :4], value[:, :, :4]], {"is_causal": 1}, {"reference": True}
    yield "Attention", 23, [query, key[:, :, :4], value[:, :, :4], _r(4, 4)], {"is_causal": 1}, {"reference": True}
    heads = {"q_num_heads": 4, "kv_num_heads": 2}
    yield "Attention", 23, [_r(2, 3, 16), _r(2, 5, 8), _r(2, 5, 8) + 1], heads, {"reference": True}


def _cases() -> Iterator[Case]:
    groups: tuple[Callable[[], Iterator[tuple[Any, ...]]], ...] = (
        _elementwise,
        _reductions,
        _shapes,
        _indexing,
        _layers,
        _windows,
        _quantised,
        _attention,
    )
    for group in groups:
        for op, opset, inputs, *rest in group():
            attributes, options = (*rest, {}, {})[:2]
            yield Case(op=op, opset=opset, inputs=inputs, attributes=attributes, **options)


CASES = list(_cases())


@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_an_operator_agrees_with_onnxruntime(op: str) -> None:
    cases = [case for case in CASES if case.op == op]
    assert cases, f"{op} is mapped, and no case tests it"
    for case in cases:
        if case.opset <= onnx.defs.onnx_opset_version():
            agree(case)


@st.composite
def windows(draw: st.DrawFn, op: str) -> Case:
    """A convolution or pooling with any window that onnxruntime takes."""
    axes = draw(st.integers(1, 2))
    each = lambda low, high: draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))  # noqa: E731
    sizes, kernel, strides, begin, end = each(5, 9), each(1, 3), each(1, 3), each(0, 2), each(0, 2)
    begin, end = [[min(p, k - 1) for p, k in zip(pads, kernel, strict=True)] for pads in (begin, end)]
    attributes: dict[str, Any] = {"strides": strides, "kernel_shape": kernel}
    if draw(st.booleans()):
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        attributes["pads"] = begin + end
    if op in ("Conv", "MaxPool", "ConvTranspose") and attributes.get("auto_pad", "VALID") == "VALID":
        attributes["dilations"] = each(1, 2)
    if op in ("MaxPool", "AveragePool"):
        attributes["ceil_mode"] = draw(st.integers(0, 1)) if "pads" in attributes else 0
        if op == "AveragePool":
            attributes["count_include_pad"] = draw(st.integers(0, 1))
        return Case(op=op, opset=22, inputs=[_r(2, 4, *sizes)], attributes=attributes)
    attributes["group"] = draw(st.sampled_from([1, 2, 4]))
    if op == "ConvTranspose":
        attributes["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
    outputs = 4 // attributes["group"]
    operands = [_r(2, 4, *sizes), _r(4, outputs, *kernel), _r(4)]
    return Case(op=op, opset=11, inputs=operands, attributes=attributes)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MaxPool", "AveragePool"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_window_agrees_with_onnxruntime(op: str, data: st.DataObject) -> None:
    agree(data.draw(windows(op)))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_slice_agrees_with_numpy(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    cut = data.draw(st.tuples(*(st.slices(n) for n in shape)))
    x = _r(*shape)
    far = np.iinfo(np.int64).max
    steps = [part.step or 1 for part in cut]
    starts = [
        (0 if step > 0 else far) if part.start is None else part.start for part, step in zip(cut, steps, strict=True)
    ]
    ends = [
        (far if step > 0 else -far) if part.stop is None else part.stop for part, step in zip(cut, steps, strict=True)
    ]
    case = Case(
        op="Slice", opset=13, inputs=[x, _i(*starts), _i(*ends), _i(*range(len(shape))), _i(*steps)], attributes={}
    )
    for fixed in (False, True):
        feed = [torch.from_numpy(value) for value in case.feed(fixed=fixed).values()]
        np.testing.assert_array_equal(to_torch(case.model(fixed=fixed))(*feed).numpy(force=True), x[cut])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    targets=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    shift=st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
)
def test_any_resize_agrees_with_onnxruntime(
    sizes: tuple[int, int], targets: tuple[int, int], mode: str, shift: str
) -> None:
    attributes = {"mode": mode, "coordinate_transformation_mode": shift, "nearest_mode": "floor"}
    operands: Arrays = [_r(1, 2, *sizes), None, None, _i(1, 2, *targets)]
    agree(
        Case(op="Resize", opset=13, inputs=operands, attributes=attributes, tolerance=1e-4 if mode == "cubic" else 1e-5)
    )


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(2, 5), min_size=1, max_size=4),
    mode=st.sampled_from(["constant", "reflect", "edge", "wrap"]),
    data=st.data(),
)
def test_any_pad_agrees_with_numpy(shape: list[int], mode: str, data: st.DataObject) -> None:
    pads = [(data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))) for n in shape]
    x = _r(*shape)
    case = Case(
        op="Pad", opset=19, inputs=[x, _i(*(b for b, _ in pads), *(e for _, e in pads))], attributes={"mode": mode}
    )
    padded = to_torch(case.model(fixed=True))(torch.from_numpy(x))
    np.testing.assert_array_equal(padded.numpy(force=True), np.pad(x, pads, mode=cast("Any", mode)))


def test_gradients_of_smooth_operators_are_right() -> None:
    """Against finite differences in float64, for operators that are smooth everywhere."""
    smooth = {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Einsum",
        "Erf",
        "Gelu",
        "Gemm",
        "LRN",
    }
    smooth |= {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "MatMul", "Mish"}
    smooth |= {
        "RMSNormalization",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "Softmax",
        "Tanh",
        "Upsample",
    }
    seen = set()
    for case in CASES:
        if case.op not in smooth or case.op in seen or case.opset > onnx.defs.onnx_opset_version():
            continue
        seen.add(case.op)
        module = to_torch(case.model(fixed=True)).double()
        x = torch.from_numpy(case.feed(fixed=True)["in.0"]).double().requires_grad_()
        assert torch.autograd.gradcheck(module, (x,)), case.op
    assert seen >= smooth - {"RMSNormalization"}
