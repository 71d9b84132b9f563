"""Layers one behind the other, told by order of names and by shapes: the fallback, and MLPs, CNNs and VGGs.

Matrices and kernels are taken in the natural order of their names; two of them are neighbours where one gives as many
channels as the next takes, perhaps times the places that a picture has left when it is flattened.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping

from locard.weights.files import Tensors
from locard.weights.layouts.base import Block, Facts, Layout, Part
from locard.weights.layouts.constants import LOOKED_AT, constant

_TABLES = re.compile(r"(embedding|embeddings|vectors|embed|wte|embed_tokens)\.weight$")
# More places than a picture leaves when it is flattened are another layer's width by chance.
_MOST_PLACES = 1 << 14
_FEWEST = 4
# Alphabetical order would put these before what they come after.
_ENDS = re.compile(r"(classifier|head|fc|dense|linear|output|out|decoder|logits)\d*\.")


def recognise(tensors: Tensors, facts: Facts) -> Layout | None:
    """The hidden layers of a chain, or None where no two layers fit."""
    del facts
    shapes = tensors.shapes
    constants: dict[str, str] = {}
    layers: list[str] = []
    for name in sorted(shapes, key=lambda name: (bool(_ENDS.match(name)), _natural(name))):
        shape = shapes[name]
        if len(shape) < 2 or min(shape) < 1 or shape[0] * shape[1] < _FEWEST or len(shape) > 5:
            continue
        if math.prod(shape) <= LOOKED_AT:
            reason = constant(name, tensors.matrix(name).reshape(shape))
            if reason is not None:
                constants[name] = reason
                continue
        layers.append(name)
    table = next((name for name in layers if _TABLES.search(name) and len(shapes[name]) == 2), None)
    if table is not None:
        layers = [table, *(name for name in layers if name != table)]
    joined = {layers[i] for i in range(len(layers) - 1) if _fits(layers[i], layers[i + 1], shapes, table)}
    blocks: list[Block] = []
    for one, other in itertools.pairwise(layers):
        if one not in joined:
            continue
        place = layers.index(one)
        before = layers[place - 1] if place else None
        across = _label(before) if before in joined and before is not None else "tokens" if one == table else "inputs"
        after = _label(other) if other in joined else "outputs"
        into = Part(tensor=one, axis=1 if one == table else 0, across=across, norm=_norm(one, shapes))
        out = Part(tensor=other, axis=1, across=after, norm=_norm(other, shapes))
        blocks.append(Block(name=_label(one), units=_width(one, shapes, table), ins=(into,), outs=(out,)))
    if not blocks:
        return None
    notes = ("layers were told by the order of their names and by their shapes",)
    return Layout(family="layers", blocks=tuple(blocks), constants=constants, notes=notes)


def _label(name: str) -> str:
    return name.removesuffix(".weight")


def _width(name: str, shapes: Mapping[str, tuple[int, ...]], table: str | None) -> int:
    return shapes[name][1] if name == table else shapes[name][0]


def _fits(one: str, other: str, shapes: Mapping[str, tuple[int, ...]], table: str | None) -> bool:
    """Whether what one layer gives is what the next takes."""
    width, taken = _width(one, shapes, table), shapes[other][1]
    if other == table:
        return False
    if width == taken:
        return width >= _FEWEST
    flattened = len(shapes[one]) > 2 and len(shapes[other]) == 2
    return flattened and taken % width == 0 and taken // width <= _MOST_PLACES


def _norm(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The batch norm behind a layer: of the next number (features.4 behind features.3), or bn1 behind conv1."""
    stem = _label(name)
    found = re.match(r"^(.*?)(\d+)$", stem)
    if found is None:
        return None
    head, number = found[1], int(found[2])
    options = [f"{head}{number + 1}"]
    options += [re.sub(r"conv\d*$", kind, head + found[2]) + found[2] for kind in ("bn", "norm") if "conv" in head]
    for option in options:
        if shapes.get(f"{option}.running_var") == shapes[name][:1]:
            return option
    return None


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
