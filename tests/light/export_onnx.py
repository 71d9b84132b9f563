"""Writes toy-0.onnx, the toy victim of `locard.testing` as a graph: python tests/light/export_onnx.py (needs onnx)."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from locard.testing.toys import _weights


def main() -> None:
    """Centre, flatten, two matrix products with a ReLU between."""
    w1, w2 = _weights(0, 0.0)
    arrays = {"half": np.float32(0.5), "w1": w1, "w2": w2}
    nodes = [
        helper.make_node("Sub", ["x", "half"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "w2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, Path(__file__).with_name("toy-0.onnx"))


if __name__ == "__main__":
    main()
