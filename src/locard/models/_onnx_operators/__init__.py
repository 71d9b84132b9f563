"""ONNX operators of the default domain, opsets 7 to 28, as functions of torch tensors.

Importing this package imports torch. Every file enters its operators in `table.OPERATORS`; each was written from the
operator specification, https://onnx.ai/onnx/operators/, whose version numbers the branches name. `reader` makes plain
records of a file, and `interpreter` a module of those.
"""

from locard.models._onnx_operators import (
    attention,
    elementwise,
    indexing,
    linear,
    normalisation,
    padding,
    pooling,
    quantised,
    reductions,
    resizing,
    shapes,
)
from locard.models._onnx_operators.table import OPERATORS, Node, Operator, UnsupportedVariantError

__all__ = [
    "OPERATORS",
    "Node",
    "Operator",
    "UnsupportedVariantError",
    "attention",
    "elementwise",
    "indexing",
    "linear",
    "normalisation",
    "padding",
    "pooling",
    "quantised",
    "reductions",
    "resizing",
    "shapes",
]
