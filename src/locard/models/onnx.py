"""ONNX files: answers by onnxruntime, without torch; gradients and weights by conversion, where torch is at hand.

Loading a stranger's file runs ONNX operators and nothing else. It can still take long or much memory, as any model can.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import ArtefactError, LocardError, ParameterError, need, unknown
from locard.models._onnx_file import Note, Opened, open_file, reason, run_options
from locard.models._options import batch_rows, path_with_suffix, refuse_unknown
from locard.models._quiet import quiet
from locard.models.base import NETWORK_BATCH, Adapter, Loss, Model, adapters
from locard.models.callable import native_access
from locard.models.torch_module import TorchModel, evaluating
from locard.records import Access, Domain
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

SUFFIX = ".onnx"
TOLERANCE = 1e-3
_OPTIONS = ("domain", "outputs", "output", "mean", "std", "threads", "batch_size")
_WHOLE = ("tensor(int64)", "tensor(int32)")
_WORDS = "tensor(string)"
_MAPS = "seq(map("


class OnnxModel(Model):
    """An .onnx file with one input, answering from one of its outputs. A fixed batch size is met by filling batches up.

    Args:
        path: the file.
        like: the domain to assume where the file does not say its own and the shapes agree.
        domain: what the inputs are, before `mean` and `std`; None for what the file's metadata say, `like`, or the
            graph's input (an image where it has four axes, a table where it has two; without bounds). Images go into a
            graph that takes (n, h, w, c) that way; into one that takes bytes they go as round(255 x), from [0, 1].
        outputs: "logits", "probabilities", "labels" or "values"; None for what the metadata say, else "labels" for
            whole numbers, "probabilities" where the last operator is Softmax or labels stand beside the scores, as
            converters of scikit-learn models write them, else "logits".
        output: name of the output; None for the only one, or for the scores beside labels.
        mean: per channel (first axis of one input), subtracted from the inputs; None for what the metadata say, or 0.
        std: per channel, divides the inputs; None for what the metadata say, or 1.
        threads: that onnxruntime may use.
        batch_size: inputs in one forward pass.

    Raises:
        ArtefactError: the file is missing, damaged, or not of this kind.
        ParameterError: an option does not fit the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        like: Domain | None = None,
        domain: Domain | None = None,
        outputs: str | None = None,
        output: str | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        threads: int = 1,
        batch_size: int = NETWORK_BATCH,
    ) -> None:
        self.path, self.source, self.batch_size = Path(path), os.fspath(path), batch_rows(batch_size)
        if type(threads) is not int or threads < 1:
            raise ParameterError(f"threads must be a whole number >= 1; got {threads!r}")
        file = self._file = open_file(self.path, threads=threads)
        self._run_options, self.lineage = run_options(), file.note.lineage
        self.domain, self._channels_last = _domain(file, domain, like)
        self.mean, self.std = mean or file.note.mean, std or file.note.std
        self._shift, self._scale = self._per_channel("mean", self.mean), self._per_channel("std", self.std)
        self._output, paired = _output(file, output)
        self.outputs = outputs or file.note.outputs or _kind(file, self._output, paired)
        self.native = native_access(self.outputs)
        self.classes = None
        chosen = (outputs, output, mean, std)
        self._trusted = False
        self._options = "" if chosen == (None,) * 4 else repr(chosen)
        probe = self._run(self._probe(1))
        if self.native is not Access.LABELS:
            self.classes = self._checked(probe, 1).shape[1]
        self.grants = self.native.implied | self._convertible()

    @property
    def digest(self) -> str:
        """SHA-256 of the file; with options that change the answers, over both."""
        if not self._options:
            return self._file.digest
        return hashlib.sha256(f"{self._file.digest}|{self._options}".encode()).hexdigest()

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by name, as `onnx_graph.to_torch` names them.

        Raises:
            ArtefactError: the graph has operators that are not mapped.
        """
        if Access.WEIGHTS not in self.grants:
            return super().weights()
        return {name.removeprefix("inner."): array for name, array in self._converted.weights().items()}

    def module(self) -> torch.nn.Module:
        """The converted graph with its normalisation in front, after a look at whether it answers as onnxruntime does.

        Raises:
            ArtefactError: the graph has operators that are not mapped, or it does not.
        """
        if Access.MODULE not in self.grants:
            return super().module()
        self._compare(self._probe(4))
        return self._converted.module()

    def input_gradient(self, x: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
        """See `Model.input_gradient`; at the first call both graphs' answers to its batch are held against each other.

        Raises:
            ArtefactError: the graph has operators that are not mapped or that stop gradients, or the answers differ.
        """
        if Access.GRADIENTS not in self.grants:
            return super().input_gradient(x, loss)
        if not self._trusted:
            self._compare(x[: self.batch_size])
            self._check_flow(x[:1])
            self._trusted = True
        return self._converted.input_gradient(x, loss)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        step = self._file.port.batch or len(x)
        parts = [self._ask(self._fed(x[start : start + step]), step) for start in range(0, len(x), step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _ask(self, fed: np.ndarray, rows: int) -> np.ndarray:
        n, port = len(fed), self._file.port
        if n < rows:
            fed = np.concatenate([fed, np.repeat(fed[-1:], rows - n, axis=0)])
        try:
            (answers,) = self._file.session.run([self._output], {port.name: fed}, self._run_options)
        # onnxruntime's errors share no class but Exception.
        except Exception as error:
            raise ParameterError(f"{self.source} fails on a batch of shape {fed.shape}: {reason(error)}") from error
        if isinstance(answers, list):
            answers = np.array([[row[key] for key in sorted(row)] for row in answers], np.float32)
        answers = np.asarray(answers)
        if self.native is Access.LABELS and answers.ndim == 2 and answers.shape[1] == 1:
            answers = answers[:, 0]
        return answers[:n]

    def _fed(self, x: np.ndarray) -> np.ndarray:
        """A batch as the graph takes it."""
        dtype = self._file.port.dtype
        if dtype.kind == "u" and self.domain.dtype.startswith("float"):
            x = np.rint(x * 255)
        if self._shift is not None:
            x = x - self._shift
        if self._scale is not None:
            x = x / self._scale
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if self._channels_last else x, dtype)

    def _per_channel(self, name: str, values: tuple[float, ...] | None) -> np.ndarray | None:
        if values is None:
            return None
        channels = self.domain.shape[:1]
        if len(values) not in (1, *channels) or not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
            raise ParameterError(
                f"{self.source}: {name} must be 1 or {channels[0]} finite numbers, std positive; got {values!r}"
            )
        if self._file.port.dtype.kind != "f":
            raise ParameterError(f"{self.source} takes {self._file.port.text}, to which no {name} applies")
        return np.asarray(values, np.float32).reshape(-1, *[1] * (len(self.domain.shape) - 1))

    def _probe(self, n: int) -> np.ndarray:
        """Inputs of no meaning that the domain allows."""
        if not self.domain.dtype.startswith("float"):
            return np.zeros((n, *self.domain.shape), self.domain.dtype)
        low, high = self.domain.bounds or (-1.0, 1.0)
        draws = generator(0, "onnx/probe").uniform(low, high, (n, *self.domain.shape))
        return self.domain.deliver(draws.astype(self.domain.dtype))

    def _convertible(self) -> Access:
        """What conversion would add; whether it succeeds shows when it is asked for, since it takes its time."""
        if self._file.port.dtype.kind != "f" or find_spec("torch") is None or find_spec("onnx") is None:
            return Access(0)
        return Access.WEIGHTS | Access.GRADIENTS | Access.MODULE if self.native is Access.LOGITS else Access.WEIGHTS

    @cached_property
    def _converted(self) -> TorchModel:
        torch = need("torch", extra="torch", why=f"gradients or weights of {self.source}")
        from locard.models._adapted import Fitted
        from locard.models.onnx_graph import to_torch

        port = self._file.port
        # Tensors made in a caller's inference mode could never be differentiated by.
        with torch.inference_mode(mode=False):
            graph = to_torch(self.path, outputs=[self._output])
            dtype = getattr(torch, port.dtype.name)
            return TorchModel(
                Fitted(graph, dtype=dtype, channels_last=self._channels_last, batch=port.batch).eval(),
                domain=self.domain,
                outputs=self.outputs,
                mean=self.mean,
                std=self.std,
                source=self.source,
                lineage=self.lineage,
                batch_size=self.batch_size,
            )

    def _compare(self, x: np.ndarray) -> None:
        if difference := _difference(self._run(x), self._converted._run(x)):
            raise ArtefactError(
                f"{self.source} converted to torch answers otherwise than in onnxruntime (by up to {difference:.2g}): "
                "its gradients would be those of another model; load the torch model that it was exported from"
            )

    def _check_flow(self, x: np.ndarray) -> None:
        import torch

        with torch.enable_grad():
            inputs = torch.from_numpy(x.copy()).requires_grad_()
            total = self._converted.module()(inputs).sum()
            flows = total.requires_grad and torch.autograd.grad(total, inputs, allow_unused=True)[0] is not None
        if not flows:
            raise ArtefactError(
                f"{self.source} has no gradients by its inputs: an operator in it stops them, as rounding does in a "
                "quantised model; load the model that it was made from"
            )


@adapters.register("onnx")
class OnnxAdapter(Adapter):
    """A file that ends in .onnx."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """By suffix."""
        return path_with_suffix(source, SUFFIX)

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Read it; the options are those of `OnnxModel`."""
        refuse_unknown(options, _OPTIONS, of="an ONNX file")
        try:
            return OnnxModel(source, like=like, **options)
        except LocardError as error:
            name = os.fspath(source)
            if name in str(error):
                raise
            raise type(error)(f"the ONNX file {name!r}: {error}") from error


def _domain(file: Opened, given: Domain | None, like: Domain | None) -> tuple[Domain, bool]:
    """What the inputs are, and whether images go in with their channels last."""
    for domain, sayer in ((given, "domain="), (file.note.domain, "its metadata")):
        if domain is not None:
            last = file.port.channels_last(domain)
            if last is None:
                kind = ParameterError if domain is given else ArtefactError
                raise kind(
                    f"its input {file.port.name!r} is {file.port.text}, which cannot be the {domain.text} of {sayer}"
                )
            return domain, last
    last = None if like is None else file.port.channels_last(like)
    if like is not None and last is not None:
        return like, last
    own = file.port.domain()
    return own, bool(file.port.channels_last(own))


def _output(file: Opened, name: str | None) -> tuple[str, bool]:
    """The output to answer from, and whether it was chosen as the scores beside labels."""
    entries = {entry.name: entry for entry in file.session.get_outputs()}
    if name is not None and name not in entries:
        raise unknown("output", name, entries)
    labels = [each for each, entry in entries.items() if entry.type in (*_WHOLE, _WORDS)]
    scores = [each for each in entries if each not in labels]
    paired = len(labels) == len(scores) == 1
    if name is None and not paired and len(entries) != 1:
        raise ParameterError(f"it has the outputs {', '.join(map(repr, entries))}; name one with output=")
    name = name or (scores if paired else list(entries))[0]
    if entries[name].type == _WORDS:
        raise ArtefactError(f"its output {name!r} answers words; expected numbers, such as class indices or scores")
    return name, paired and name in scores


def _kind(file: Opened, output: str, paired: bool) -> str:
    """The option `outputs` where nobody says it."""
    kind = next(entry.type for entry in file.session.get_outputs() if entry.name == output)
    if kind in _WHOLE:
        return "labels"
    return "probabilities" if paired or file.operators[output] == "Softmax" else "logits"


def export(model: TorchModel, path: str | os.PathLike[str], *, opset: int = 18) -> Path:
    """Write a torch model as one .onnx file with a free batch size, with its domain and normalisation in its metadata.

    The graph is that of the module without the normalisation, so its tensors keep their names; `load` applies it again.

    Args:
        model: what to write.
        path: the file, written whole or not at all.
        opset: version of the operators.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ArtefactError: torch cannot write this module, the file may not be written, or would answer otherwise.
    """
    target = Path(path)
    note = Note(domain=model.domain, outputs=model.outputs, mean=model.mean, std=model.std, lineage=model.lineage)
    content = _program(model, note.to_metadata(), opset)
    try:
        descriptor, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=SUFFIX)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            _check_written(OnnxModel(part), model, target)
            Path(part).replace(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ArtefactError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
    return target


def _program(model: TorchModel, metadata: dict[str, str], opset: int) -> bytes:
    """The bytes of the file."""
    torch = need("torch", extra="torch", why="an ONNX export")
    onnx = need("onnx", extra="onnx", why="an ONNX export")
    need("onnxscript", extra="onnx", why="an ONNX export")
    from locard.models._torch import check_exports

    check_exports(model.domain)
    example = torch.zeros((2, *model.domain.shape), dtype=getattr(torch, model.domain.dtype), device=model.device)
    try:
        with evaluating(model._module), quiet("torch.onnx", "onnxscript", "onnx_ir"):
            program = torch.onnx.export(
                model._module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                input_names=["inputs"],
                output_names=[model.outputs],
                opset_version=opset,
                optimize=False,
                verbose=False,
            )
        proto = program.model_proto
        # The exporter notes for each node where in the source it came from, which is nobody's business.
        for node in proto.graph.node:
            del node.metadata_props[:]
        onnx.helper.set_model_props(proto, metadata)
        return proto.SerializeToString(deterministic=True)
    # A module is its maker's code, and the exporter raises what it meets there.
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtefactError(f"torch cannot write {model.source} as ONNX: {line}") from error


def _check_written(written: OnnxModel, model: TorchModel, target: Path) -> None:
    x = written._probe(3)
    if difference := _difference(model._run(x), written._run(x)):
        raise ArtefactError(
            f"{str(target)!r} would answer otherwise than {model.source} (by up to {difference:.2g}); not written"
        )


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference between two batches of answers; 0 where it is rounding."""
    if ours.shape != theirs.shape:
        return float("inf")
    largest = float(np.abs(ours.astype(np.float64) - theirs).max())
    return 0.0 if largest <= TOLERANCE * max(1.0, float(np.abs(ours).max())) else largest
