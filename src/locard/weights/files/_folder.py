"""Folders: what `save_pretrained` writes, Locard's own model folder, or one file of weights among others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from locard.errors import ArtefactError
from locard.weights.files import gguf, onnx, safetensors, torch_zip
from locard.weights.files.base import MOST_TENSORS, Entry, TensorFile

MAX_INDEX = 32 << 20
MAX_CONFIG = 1 << 20
_WHOLE = (
    ("model.safetensors", safetensors.open_file),
    ("pytorch_model.bin", torch_zip.open_file),
)
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SUFFIXES = {
    ".safetensors": safetensors.open_file,
    ".gguf": gguf.open_file,
    ".onnx": onnx.open_file,
    ".bin": torch_zip.open_file,
    ".pt": torch_zip.open_file,
    ".pth": torch_zip.open_file,
}


def open_folder(folder: Path) -> TensorFile:
    """The tensors of a folder.

    safetensors come before pickles; a folder's own file before an index of several.

    Raises:
        ArtefactError: it holds no weights, several files without an index, or an index that does not fit.
    """
    where = f"the folder {str(folder)!r}"
    for (name, opener), index in zip(_WHOLE, _INDEXES, strict=True):
        if (folder / name).is_file():
            return opener(folder / name)
        if (folder / index).is_file():
            return _sharded(folder, folder / index)
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    if not files:
        raise ArtefactError(f"{where} holds no weights: looked for {', '.join(f'*{suffix}' for suffix in _SUFFIXES)}")
    if len(files) > 1:
        names = ", ".join(path.name for path in files[:5])
        raise ArtefactError(f"{where} holds several files of weights and no index of them: {names}; name one")
    return _SUFFIXES[files[0].suffix](files[0])


def _sharded(folder: Path, index: Path) -> TensorFile:
    """Several files and a table that says which tensor is in which."""
    where = f"the index {str(index)!r}"
    places = _places(index, where)
    shards = sorted(set(places.values()))
    files: list[Path] = []
    found: dict[str, Entry] = {}
    for shard in shards:
        if Path(shard).name != shard or shard in (".", ".."):
            raise ArtefactError(f"{where} names the file {shard[:80]!r}, which is not beside it")
        path = folder / shard
        if not path.is_file():
            raise ArtefactError(f"{where} names the file {shard[:80]!r}, which is missing; download it")
        opened = _SUFFIXES.get(path.suffix, safetensors.open_file)(path)
        if len(opened.files) != 1:
            raise ArtefactError(f"{where} names the file {shard[:80]!r}, which has files of its own")
        for name, entry in opened.entries.items():
            if places.get(name) == shard:
                found[name] = replace(entry, file=len(files))
        files.append(path)
    missing = sorted(places.keys() - found.keys())
    if missing:
        raise ArtefactError(
            f"{where} names the tensor {missing[0][:80]!r}, which is not in {places[missing[0]][:80]!r}"
        )
    return TensorFile(str(folder), files, found)


def facts_beside(folder: Path) -> dict[str, int | float | str]:
    """Numbers and short words of a folder's `config.json` or `model.json`: heads, kind of model. {} without one.

    A file that cannot be read says nothing; what it would have said is then missed by name where it is needed.
    """
    found: dict[str, int | float | str] = {}
    for name, inner in (("model.json", "arguments"), ("config.json", "text_config")):
        try:
            path = folder / name
            value: Any = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_CONFIG else None
        except (OSError, ValueError, RecursionError):
            continue
        for part in (value, value.get(inner) if isinstance(value, dict) else None):
            if isinstance(part, dict):
                plain = {key: one for key, one in part.items() if isinstance(one, int | float | str)}
                found |= {key: one for key, one in plain.items() if not isinstance(one, str) or len(one) <= 200}
    return found


def _places(index: Path, where: str) -> dict[str, str]:
    try:
        if index.stat().st_size > MAX_INDEX:
            raise ArtefactError(f"{where} is larger than {MAX_INDEX:,} bytes")
        value: Any = json.loads(index.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{where} is no JSON: {error}") from error
    places = value.get("weight_map") if isinstance(value, dict) else None
    if (
        not isinstance(places, dict)
        or not 0 < len(places) <= MOST_TENSORS
        or not all(isinstance(shard, str) for shard in places.values())
    ):
        raise ArtefactError(f"{where} must hold a weight_map from names of tensors to names of files")
    return places
