"""Residual networks of convolutions: ours, and those that keep torchvision's names.

In a stage all blocks add to one stream of channels; what is inside a block is its own. A shortcut with a convolution
begins the next stage.
"""

from __future__ import annotations

import re
from collections import defaultdict

from locard.weights.files import Tensors
from locard.weights.layouts.base import Block, Facts, Layout, Part
from locard.weights.layouts.constants import named_constant

_BLOCK = re.compile(r"^(?P<block>.*(?:block\d+|layer\d+\.\d+))\.conv1\.weight$")
_STEMS = (("stem.weight", "norm"), ("conv1.weight", "bn1"))
_SHORTCUTS = ("shortcut", "downsample")
_ENDS = ("dense.weight", "fc.weight")


def recognise(tensors: Tensors, facts: Facts) -> Layout | None:
    """The blocks of a residual network, or None where the names are none of those known."""
    del facts
    shapes = tensors.shapes
    stem = next(((name, norm) for name, norm in _STEMS if name in shapes), None)
    end = next((name for name in _ENDS if name in shapes), None)
    names = sorted((m["block"] for name in shapes if (m := _BLOCK.match(name))), key=_natural)
    if stem is None or end is None or not names:
        return None
    writes: dict[str, list[Part]] = defaultdict(list)
    reads: dict[str, list[Part]] = defaultdict(list)
    units: dict[str, int] = {}
    order: list[str] = []

    def conv(tensor: str, norm: str, source: str, target: str) -> None:
        """A convolution from one space of channels to another."""
        fold = norm if f"{norm}.running_var" in shapes else None
        if target not in units:
            order.append(target)
            units[target] = shapes[tensor][0]
        writes[target].append(Part(tensor=tensor, axis=0, across=source, norm=fold))
        if source in units:
            reads[source].append(Part(tensor=tensor, axis=1, across=target, norm=fold))

    stage, number = "stage 1", 1
    conv(stem[0], stem[1], "inputs", stage)
    for name in names:
        convs = sorted(
            (one for one in shapes if re.fullmatch(rf"{re.escape(name)}\.conv\d\.weight", one)), key=_natural
        )
        short = next((f"{name}.{one}" for one in _SHORTCUTS if f"{name}.{one}.0.weight" in shapes), None)
        out = stage
        if short is not None:
            number += 1
            out = f"stage {number}"
        source = stage
        for place, tensor in enumerate(convs):
            options = (f"{name}.{kind}{place + 1}" for kind in ("norm", "bn"))
            norm = next((one for one in options if f"{one}.weight" in shapes), "")
            target = out if place == len(convs) - 1 else f"{name}.inner{place + 1}"
            conv(tensor, norm, source, target)
            source = target
        if short is not None:
            conv(f"{short}.0.weight", f"{short}.1", stage, out)
        stage = out
    reads[stage].append(Part(tensor=end, axis=1, across="outputs"))
    blocks = tuple(
        Block(name=name, units=units[name], ins=tuple(writes[name]), outs=tuple(reads[name])) for name in order
    )
    constants = {name: reason for name in shapes if (reason := named_constant(name)) is not None}
    return Layout(family="resnet", blocks=blocks, constants=constants)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
