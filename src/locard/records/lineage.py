"""Where a model comes from."""

# JSON from files comes in untyped; each field is checked by hand.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

from locard.errors import ParameterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a model comes from, as far as its maker wrote it down.

    Args:
        architecture: name of the architecture, or None.
        data: digest of the training data, or None.
        seed: training seed, or None.
        parent: digest of the model it was derived from, or None.
        derived_by: name of the derivation ("finetune"), or None for an original.
    """

    architecture: str | None = None
    data: str | None = None
    seed: int | None = None
    parent: str | None = None
    derived_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Lineage:
        """Read what `to_json` wrote; a wrong field is a `ParameterError` that names it."""
        kinds = {"architecture": str, "data": str, "seed": int, "parent": str, "derived_by": str}
        if not isinstance(value, dict):
            raise ParameterError(f"lineage must be a JSON object; got {type(value).__name__}")
        value = cast("dict[str, Any]", value)
        for key, item in value.items():
            if key not in kinds:
                raise ParameterError(f"lineage has an unknown field {key!r}")
            if item is not None and (not isinstance(item, kinds[key]) or isinstance(item, bool)):
                raise ParameterError(f"lineage.{key} must be {kinds[key].__name__} or null; got {item!r}")
        return cls(**value)
