"""The parts of a network as records, and the recognisers asked in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from locard.errors import ParameterError
from locard.weights.files import Tensors

# Spaces whose order no training chose: what goes in, what comes out, the words.
ANCHORS = ("inputs", "outputs", "tokens")
STREAM = "stream"

Facts = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where the vectors of a block's units lie: one vector for each unit, over the entries of another space.

    Args:
        tensor: its name.
        axis: along which the units lie, 0 or 1; the other of the two is the other space's.
        across: the other space: a name in `ANCHORS`, `STREAM`, or a block.
        first: place of the first unit on the axis, where several matrices share a tensor.
        gain: a norm's gains, that the other space's entries are multiplied by before they are read; or None.
        shift: added to the gains.
        norm: prefix of the batch norm behind the tensor, to be folded into its first axis; or None.
        signed: whether a unit's vector may change its sign and the function not.
    """

    tensor: str
    axis: Literal[0, 1]
    across: str
    first: int = 0
    gain: str | None = None
    shift: float = 0.0
    norm: str | None = None
    signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPart:
    """Where the matrices of attention heads lie.

    Args:
        tensor: its name.
        axis: along which the insides of the heads lie; the other axis is the stream's.
        heads: how many there are.
        start: place of the first head's first entry.
        step: from one head's first entry to the next one's.
        size: entries of a head.
        gain: as of `Part`.
        shift: as of `Part`.
    """

    tensor: str
    axis: Literal[0, 1]
    heads: int
    start: int
    step: int
    size: int
    gain: str | None = None
    shift: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Units that may change places together.

    Args:
        name: such as "layers.3.mlp".
        units: how many.
        ins: parts that write the units; for heads the queries and the keys, in this order.
        outs: parts that read them; for heads the outputs and the values.
        kind: "units", or "heads", whose vectors are the products of two parts that no change inside a head moves.
    """

    name: str
    units: int
    ins: tuple[Part, ...] | tuple[HeadPart, HeadPart]
    outs: tuple[Part, ...] | tuple[HeadPart, HeadPart]
    kind: Literal["units", "heads"] = "units"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a model is made of.

    Args:
        family: who recognised it: "transformer", "resnet", "layers".
        blocks: in the order in which they run, as far as names tell.
        anchor: the part that ties the stream to words or pixels, by which two streams are aligned; or None.
        constants: tensors set aside, with the reason.
        notes: what could not be told, for people.
    """

    family: str
    blocks: tuple[Block, ...]
    anchor: Part | None = None
    constants: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def layout_of(tensors: Tensors, facts: Facts | None = None) -> Layout:
    """The blocks of a model.

    Args:
        tensors: the model's.
        facts: what else is known of it: heads and groups of heads, as a Hugging Face `config.json` or GGUF names them.

    Raises:
        ParameterError: no block is found.
    """
    from locard.weights.layouts import chains, resnet, transformers

    known: Facts = facts if facts is not None else getattr(tensors, "facts", {})
    for recognise in (transformers.recognise, resnet.recognise, chains.recognise):
        found = recognise(tensors, known)
        if found is not None:
            return found
    shapes = ", ".join(f"{name} {shape}" for name, shape in list(tensors.shapes.items())[:4])
    raise ParameterError(
        f"{tensors.source} has no two matrices that follow one another, as far as names and shapes tell: {shapes} ...; "
        "its weights cannot be laid out"
    )
