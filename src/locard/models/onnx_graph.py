"""An ONNX graph as a torch module: the gradients and weights that onnxruntime does not give.

A file is data throughout: nothing in it is run but the operators mapped in `_onnx_operators`, and no path in it leads
out of its folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from locard.errors import need

if TYPE_CHECKING:
    import onnx

    from locard.models._onnx_operators.interpreter import OnnxModule

_WHY = "an ONNX graph as a torch module"


def to_torch(model: str | Path | onnx.ModelProto, *, outputs: Sequence[str] | None = None) -> OnnxModule:
    """An ONNX model as a torch module that is differentiable by its inputs and its weights.

    Floating-point initialisers become parameters under their own names: dots make nested modules, so that a file from
    torch's exporter keeps the keys of the original's `state_dict`; a character that no name in torch may have becomes
    "_"; and `module.onnx_names` maps each key to the name in the file. A weight kept in integers becomes a parameter at
    its dequantised value. Integers, batch-norm statistics, quantisation scales and numbers that only shape the
    computation (a resize factor, a clip bound) become buffers.

    What depends on no input and no parameter is computed once, here; loading other buffers later does not change it.
    The module infers whatever its mode: dropout passes through and batch-norm statistics stay. Rounding
    (QuantizeLinear) stops gradients.

    Args:
        model: a file, with its external data in its folder if it has any, or a `ModelProto` that holds all its data.
            Opsets 7 to 28.
        outputs: names of the outputs to compute; nodes that only others need are dropped, mapped or not. None for all.

    Returns:
        A module from the graph's inputs, in order, to its output, or to a tuple of its outputs if there are several. As
        in onnxruntime, an input of another shape or kind than the file declares is refused (`ParameterError`). A node
        that fails on what it is given is an `ArtefactError` with its name.

    Raises:
        MissingExtraError: onnx or torch is not installed.
        ArtefactError: the file is damaged, reaches outside its folder, or has operators that are not mapped; all are
            listed.
        ParameterError: an unknown name in `outputs`.

    Cost: no query. Weights are held once; a pass calls one function a node and drops each value after its last use.
    """
    need("onnx", extra="torch", why=_WHY)
    need("torch", extra="torch", why=_WHY)
    from locard.models._onnx_operators.interpreter import translate
    from locard.models._onnx_operators.reader import read

    return translate(read(model, outputs))
