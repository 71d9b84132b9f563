"""Hugging Face folders: image classifiers (ViT, ResNet, ...) and sequence classifiers (BERT, ...).

What `save_pretrained` writes: `config.json`, the weights as safetensors, and for images `preprocessor_config.json`, for
texts the tokenizer's files. Nothing is fetched from anywhere, and no code in a folder is ever run.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import ArtefactError, LocardError, ParameterError, need
from locard.models._huggingface_folder import CONFIG, PREPROCESSOR, WEIGHTS, Folder
from locard.models._options import batch_rows, refuse_unknown
from locard.models._quiet import quiet
from locard.models.base import NETWORK_BATCH, Adapter, Model, adapters
from locard.models.callable import native_access
from locard.models.torch_module import TorchModel
from locard.records import Access, Domain, Lineage

if TYPE_CHECKING:
    import torch

_OPTIONS = {
    "image": ("domain", "outputs", "mean", "std", "batch_size"),
    "text": ("domain", "outputs", "max_length", "batch_size"),
}
_TEXT = Domain(kind="text", shape=(), dtype="str")
_NO_LIMIT = 512
_LONGEST_SIDE = 1 << 14
_WHY = "a Hugging Face folder"


class ImageClassifier(TorchModel):
    """An image classifier: images in [0, 1] of the size that its preprocessor makes; resizing is the caller's.

    The preprocessor's rescaling and normalisation are done here; its own resizing and cropping are not.
    """

    _digest: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over structure, weights and normalisation; computed once."""
        if self._digest is None:
            self._digest = super().digest
        return self._digest

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters and buffers, under the names that transformers gives them."""
        return {name.removeprefix("inner."): array for name, array in super().weights().items()}


class TextClassifier(Model):
    """A sequence classifier with its tokenizer: strings in, logits out.

    Args:
        model: from transformers, in evaluation mode.
        tokenizer: its tokenizer. A text longer than `max_length` is cut, as the tokenizer cuts; without a padding token
            texts go in one at a time.
        tokenizer_digest: names what the tokenizer does.
        max_length: tokens.
        outputs: "logits" or "values".
        source: where it was read from, for people.
        batch_size: texts in one forward pass.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        tokenizer_digest: str,
        max_length: int,
        outputs: str,
        source: str,
        batch_size: int,
    ) -> None:
        self._model, self._tokenizer, self._tokenizer_digest = model, tokenizer, tokenizer_digest
        self.max_length, self.source, self.batch_size = max_length, source, batch_size
        self.domain, self.lineage = _TEXT, Lineage(architecture=type(model).__name__)
        self.native = native_access(outputs)
        self.grants = self.native.implied | Access.WEIGHTS
        self._taken = inspect.signature(model.forward).parameters.keys()
        self._digest: str | None = None
        self.classes = None
        self.classes = self._checked(self._run(np.array(["a"], dtype=object)), 1).shape[1]

    @property
    def digest(self) -> str:
        """SHA-256 over structure, weights and tokenizer; computed once."""
        if self._digest is None:
            parts = (self._model, self.max_length, self.native.text, self._tokenizer_digest)
            total = hashlib.sha256("|".join(map(repr, parts)).encode())
            for name, array in self.weights().items():
                total.update(f"{name}:{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).data)
            self._digest = total.hexdigest()
        return self._digest

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters and buffers, under the names that transformers gives them."""
        return {name: tensor.detach().numpy() for name, tensor in self._model.state_dict().items()}

    def _forward(self, x: np.ndarray) -> np.ndarray:
        import torch

        step = len(x) if self._tokenizer.pad_token is not None else 1
        parts = []
        for start in range(0, len(x), step):
            tokens = self._tokenizer(
                x[start : start + step].tolist(),
                padding=step > 1,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            with torch.inference_mode():
                answers = self._model(**{name: tensor for name, tensor in tokens.items() if name in self._taken})
            parts.append(answers.logits.numpy())
        return np.concatenate(parts)


@adapters.register("huggingface")
class HuggingFaceAdapter(Adapter):
    """A folder with `config.json` and weights beside it."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """By the names of its files."""
        if not isinstance(source, str | os.PathLike) or "://" in os.fspath(source):
            return False
        folder = Path(source)
        return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in WEIGHTS)

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Read it.

        Args:
            source: the folder.
            like: passed over, since a folder says what its inputs are.
            trust: whether weights may be read that are a pickle; even then only tensors are unpickled.
            **options: `outputs` ("logits" or "values") and `batch_size`; for images `domain`, `mean` and `std` in the
                place of what the preprocessor says; for texts `max_length` in tokens.

        Raises:
            ArtefactError: the folder is damaged, incomplete, wants code of its own, or is no such classifier.
            ParameterError: an option is wrong.
            MissingExtraError: torch or transformers is not installed.
        """
        path = Path(source)
        try:
            folder = Folder.read(path, trust=trust)
            refuse_unknown(options, _OPTIONS[folder.task], of=f"a Hugging Face {folder.task} classifier")
            model = _model(folder)
            outputs = options.pop("outputs", None) or _outputs(folder.config)
            if outputs not in ("logits", "values"):
                raise ParameterError(f"outputs must be logits or values; got {outputs!r}")
            rows = batch_rows(options.pop("batch_size", NETWORK_BATCH))
            read = _image if folder.task == "image" else _text
            return read(folder, model, outputs=outputs, batch_size=rows, **options)
        except LocardError as error:
            raise type(error)(f"the folder {str(path)!r}: {error}") from error


def _model(folder: Folder) -> Any:
    """The model in evaluation mode, in float32, with every weight out of the folder."""
    need("torch", extra="hf", why=_WHY)
    import torch

    transformers = need("transformers", extra="hf", why=_WHY)
    kinds = {"image": "AutoModelForImageClassification", "text": "AutoModelForSequenceClassification"}
    kind = getattr(transformers, kinds[folder.task])
    with _loading(folder):
        config = transformers.AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            skeleton = kind.from_config(config, trust_remote_code=False, attn_implementation="eager")
        numbers = sum(parameter.numel() for parameter in skeleton.parameters())
        if numbers > folder.bytes:
            raise ArtefactError(f"{CONFIG} describes {numbers:,} weights; their files have {folder.bytes:,} bytes")
        model, report = kind.from_pretrained(
            folder.path,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=folder.safe,
            # What a config names here could be code of others; this is transformers' own, for every architecture.
            attn_implementation="eager",
            output_loading_info=True,
        )
    lacking = sorted(map(str, {*report["missing_keys"], *report["mismatched_keys"]}))
    if lacking:
        raise ArtefactError(
            f"its weights lack {lacking[0]!r} ({len(lacking)} in all), which would be random; save the whole model"
        )
    return model.float().eval()


@contextmanager
def _loading(folder: Folder) -> Iterator[None]:
    """Without progress bars and warnings of transformers; whatever it raises is about the folder."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet("transformers"):
            yield
    except LocardError:
        raise
    # It raises what its parts raise, which share no class but Exception.
    except Exception as error:
        line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
        raise ArtefactError(f"transformers does not read it: {line.strip()[:300]}") from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _outputs(config: dict[str, Any]) -> str:
    """Scores of classes that exclude each other, or values."""
    kind, labels = config.get("problem_type"), config.get("id2label")
    single = config.get("num_labels", len(labels) if isinstance(labels, dict) else 2) == 1
    return "values" if single or kind in ("regression", "multi_label_classification") else "logits"


def _image(
    folder: Folder,
    model: torch.nn.Module,
    *,
    outputs: str,
    batch_size: int,
    domain: Domain | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> ImageClassifier:
    from locard.models._adapted import Logits

    if mean is None and std is None:
        if not folder.preprocessor:
            raise ArtefactError(f"it has no {PREPROCESSOR}, so its normalisation is not known; give mean= and std=")
        mean, std = _normalisation(folder.preprocessor)
    return ImageClassifier(
        Logits(model),
        domain=domain or _image_domain(folder),
        outputs=outputs,
        mean=mean,
        std=std,
        source=str(folder.path),
        lineage=Lineage(architecture=type(model).__name__),
        batch_size=batch_size,
    )


def _image_domain(folder: Folder) -> Domain:
    """(channels, height, width) as the preprocessor crops or resizes, else as the config says."""
    said = folder.preprocessor
    size = said.get("crop_size") if said.get("do_center_crop") else said.get("size")
    size = size if size is not None else folder.config.get("image_size")
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        size = [size.get("height", edge), size.get("width", edge)]
    shape = [folder.config.get("num_channels", 3), *(size if isinstance(size, list) else [size, size])]
    whole = [side for side in shape if type(side) is int and 0 < side < _LONGEST_SIDE]
    if len(whole) != len(shape) or len(shape) != 3:
        raise ArtefactError(f"it does not say what its images are (channels, height, width: {shape}); give domain=")
    return Domain(kind="image", shape=tuple(whole), bounds=(0.0, 1.0), quantum=1 / 255)


def _normalisation(said: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for images in [0, 1], from a preprocessor that computes (255 x f - mean) / std."""
    if said.get("rescale_offset"):
        raise ArtefactError(f"{PREPROCESSOR} has rescale_offset, which is not read; give mean= and std=")
    (factor,) = _numbers(said, "rescale_factor", 1 / 255) if said.get("do_rescale", True) else (1.0,)
    mean, std = (0.0,), (1.0,)
    if said.get("do_normalize", True):
        mean, std = _numbers(said, "image_mean", None), _numbers(said, "image_std", None)
    return tuple(each / (255 * factor) for each in mean), tuple(each / (255 * factor) for each in std)


def _numbers(said: dict[str, Any], key: str, default: float | None) -> tuple[float, ...]:
    value = said.get(key, default)
    numbers = value if isinstance(value, list) else [value]
    if not all(type(number) in (int, float) and np.isfinite(number) for number in numbers):
        raise ArtefactError(f"{PREPROCESSOR} must give {key} as finite numbers; got {value!r}")
    if key != "image_mean" and min(numbers) <= 0:
        raise ArtefactError(f"{PREPROCESSOR} must give {key} as positive numbers; got {value!r}")
    return tuple(map(float, numbers))


def _text(
    folder: Folder,
    model: Any,
    *,
    outputs: str,
    batch_size: int,
    domain: Domain | None = None,
    max_length: int | None = None,
) -> TextClassifier:
    import transformers

    if domain is not None and domain != _TEXT:
        raise ParameterError(f"a sequence classifier takes {_TEXT.text}; got domain {domain.text}")
    if max_length is not None and (type(max_length) is not int or max_length < 1):
        raise ParameterError(f"max_length must be a whole number >= 1; got {max_length!r}")
    with _loading(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder.path, local_files_only=True, trust_remote_code=False
        )
    return TextClassifier(
        model,
        tokenizer,
        tokenizer_digest=folder.tokenizer_digest(),
        max_length=max_length or _limit(model, tokenizer),
        outputs=outputs,
        source=str(folder.path),
        batch_size=batch_size,
    )


def _limit(model: Any, tokenizer: Any) -> int:
    """Tokens that the model has positions for; 512 where nothing says."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, part in model.named_modules():
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            # RoBERTa and its kin count positions from the one behind the padding's.
            limits.append(part.num_embeddings - part.padding_idx - 1)
    known = [limit for limit in limits if type(limit) is int and 0 < limit < 1 << 24]
    return min(known, default=_NO_LIMIT)
