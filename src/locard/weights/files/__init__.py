"""Weights as they lie in files, read tensor by tensor without torch: safetensors, GGUF, ONNX, torch's zip archives.

`open_tensors(path)` looks at a file's directory alone; numbers are read through a memory map when they are asked for.
Every size is held against the file before memory is taken, and nothing in a file is ever run.
"""

from __future__ import annotations

from locard.weights.files.arrays import Arrays
from locard.weights.files.base import TensorFile, Tensors, open_tensors

__all__ = ["Arrays", "TensorFile", "Tensors", "open_tensors"]
