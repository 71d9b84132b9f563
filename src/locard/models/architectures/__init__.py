"""Small networks by name, made from plain JSON arguments; torch is imported when the first one is built."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from locard.errors import ParameterError, need, unknown
from locard.registry import Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["architectures", "build"]

architectures: Registry[nn.Module] = Registry("architecture", "locard.models.architectures")


def build(name: str, /, **arguments: Any) -> nn.Module:
    """A network with random weights, drawn from torch's global generator.

    Args:
        name: the architecture, such as "cnn".
        **arguments: its own; numbers, and lists of numbers, as a JSON file holds them.

    Returns:
        A module from (n, *shape) float32 to (n, classes) logits; one for texts takes what its `encode` makes of them.

    Raises:
        MissingExtraError: torch is not installed.
        ParameterError: an unknown architecture or argument, one that is missing, or a value out of range.
    """
    need("torch", extra="torch", why=f"the architecture {name!r}")
    architecture = architectures.get(name)
    known = inspect.signature(architecture).parameters
    for argument in arguments:
        if argument not in known:
            raise unknown(f"argument of {name}", argument, known)
    missing = [key for key, one in known.items() if one.default is one.empty and key not in arguments]
    if missing:
        raise ParameterError(f"{name} needs the argument {' and '.join(map(repr, missing))}")
    return architecture(**arguments)
