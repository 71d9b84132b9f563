"""A Hugging Face folder before transformers sees it: what it says, and that reading it runs nothing."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from locard.errors import ArtefactError

CONFIG, PREPROCESSOR, TOKENIZER = "config.json", "preprocessor_config.json", "tokenizer_config.json"
SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
WEIGHTS = (SAFE, SAFE_INDEX, PICKLE, PICKLE_INDEX)
MAX_JSON = 64 << 20

Task = Literal["image", "text"]
_TASKS: dict[str, Task] = {"ForImageClassification": "image", "ForSequenceClassification": "text"}
_TEXT_FILES = ("tokenizer.json", TOKENIZER, "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json",
               "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")  # fmt: skip
# In a config these name a piece of Python, a quantiser's package, or a model elsewhere.
_FOREIGN = ("auto_map", "custom_pipelines", "quantization_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that may be given to transformers.

    Args:
        path: where it is.
        task: what the model's architecture is for.
        config: `config.json`.
        preprocessor: `preprocessor_config.json`, or {}.
        safe: whether its weights are safetensors.
    """

    path: Path
    task: Task
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    safe: bool

    @classmethod
    def read(cls, path: Path, *, trust: bool) -> Folder:
        """Look at a folder.

        Args:
            path: the folder.
            trust: whether weights may be read that are pickles; code in a folder is never run.

        Raises:
            ArtefactError: a file is missing or damaged, the model is for another task, wants code of its own, or keeps
                its weights in a pickle and is not trusted.
        """
        config = _json(path / CONFIG)
        preprocessor = _json(path / PREPROCESSOR) if (path / PREPROCESSOR).is_file() else {}
        tokenizer = _json(path / TOKENIZER) if (path / TOKENIZER).is_file() else {}
        for name, content in ((CONFIG, config), (PREPROCESSOR, preprocessor), (TOKENIZER, tokenizer)):
            for key in _FOREIGN:
                if content.get(key):
                    raise ArtefactError(
                        f"{name} has {key!r}: it wants code that is not part of transformers, which Locard never runs; "
                        "load the model yourself and give the torch module or a callable"
                    )
        if (path / "adapter_config.json").exists():
            raise ArtefactError(
                "it is an adapter (adapter_config.json) to a model elsewhere; merge the two and save the whole"
            )
        task = _task(config)
        safe = (path / SAFE).is_file() or (path / SAFE_INDEX).is_file()
        if not safe and not trust:
            raise ArtefactError(
                f"its weights are a pickle ({PICKLE}), whose reading can run code; save them as {SAFE}, or pass "
                "--trust (trust=True) if you trust its maker"
            )
        folder = cls(path=path, task=task, config=config, preprocessor=preprocessor, safe=safe)
        _check_sizes(config, folder._tensors() if safe else None)
        return folder

    @property
    def bytes(self) -> int:
        """Size of its weights."""
        return sum(part.stat().st_size for part in self._parts())

    def tokenizer_digest(self) -> str:
        """SHA-256 over the files that turn text into tokens."""
        total = hashlib.sha256()
        for name in _TEXT_FILES:
            if (self.path / name).is_file():
                total.update(name.encode() + hashlib.sha256((self.path / name).read_bytes()).digest())
        return total.hexdigest()

    def _parts(self) -> list[Path]:
        """The files of the weights, none of them outside the folder."""
        single, index = (SAFE, SAFE_INDEX) if self.safe else (PICKLE, PICKLE_INDEX)
        if (self.path / single).is_file():
            return [self.path / single]
        table = _json(self.path / index).get("weight_map")
        names = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
        for name in names:
            if os.path.basename(name) != name or not (self.path / name).is_file():  # noqa: PTH119
                raise ArtefactError(f"{index} names the file {name!r}, which is not in the folder")
        if not names:
            raise ArtefactError(f"{index} names no file with weights")
        return [self.path / name for name in names]

    def _tensors(self) -> int:
        """Number of tensors in the weights."""
        from safetensors import SafetensorError, safe_open

        try:
            total = 0
            for part in self._parts():
                with safe_open(part, framework="np") as file:
                    total += len(file.keys())
        except (SafetensorError, OSError, ValueError) as error:
            raise ArtefactError(f"its weights are damaged: {error}; download or save them again") from error
        return total


def _task(config: dict[str, Any]) -> Task:
    architectures = config.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    for name in named[:1]:
        for part, task in _TASKS.items():
            if part in str(name):
                return task
    raise ArtefactError(
        f"its architecture is {', '.join(map(str, named)) or 'not named'}; expected one for image or sequence "
        "classification"
    )


def _check_sizes(config: dict[str, Any], tensors: int | None) -> None:
    """Refuse a network deeper than its weights can fill, before anything builds it layer by layer."""
    for key, value in config.items():
        if type(value) is int and "layers" in key and tensors is not None and value > tensors:
            raise ArtefactError(f"{CONFIG} says {key} = {value:,}, and the weights hold {tensors:,} tensors")


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise ArtefactError(f"{path.name} has {path.stat().st_size:,} bytes; at most {MAX_JSON:,} are read")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path.name} must be a JSON object; got {type(value).__name__}")
    return value
