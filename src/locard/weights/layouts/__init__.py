"""Which tensors of a model make up which of its parts, told by their names and shapes alone.

`layout_of(tensors)` gives the blocks of a network: the units of a dense or convolutional layer, of a transformer's
MLPs, the heads of its attention, the coordinates of its stream; for each, the tensors that write it and those that read
it. Tensors that no training made (masks, frequencies, a Fourier basis) are set aside with the reason.
"""

from __future__ import annotations

from locard.weights.layouts.base import Block, HeadPart, Layout, Part, layout_of
from locard.weights.layouts.constants import constant

__all__ = ["Block", "HeadPart", "Layout", "Part", "constant", "layout_of"]
