"""Programs that torch.export wrote (`.pt2`): answers, gradients and weights, without the code that made them.

torch reads such a file by unpickling parts of it, by evaluating text in it, and by loading compiled code if it has any,
so nothing of it is read unless the caller trusts it. Programs of ours carry their domain in the file.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from locard.errors import ArtefactError, ParameterError, need
from locard.models._archive import members
from locard.models._options import adopt, batch_rows, path_with_suffix, refuse_unknown
from locard.models.base import NETWORK_BATCH, Adapter, Model, adapters
from locard.models.torch_module import TorchModel, evaluating
from locard.records import Domain, Kind, Lineage

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

SUFFIX = ".pt2"
NOTE = "locard.json"
_OPTIONS = ("domain", "outputs", "mean", "std", "batch_size")


@adapters.register("exported")
class ExportedAdapter(Adapter):
    """A `.pt2` file, only with `trust`."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """Whether it is a path that ends in .pt2."""
        return path_with_suffix(source, SUFFIX)

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Read it; see `read` for the options."""
        refuse_unknown(options, _OPTIONS, of="a .pt2 file")
        return read(source, like=like, trust=trust, **options)


def read(
    path: str | os.PathLike[str],
    *,
    trust: bool,
    like: Domain | None = None,
    domain: Domain | None = None,
    outputs: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    batch_size: int | None = None,
) -> TorchModel:
    """An exported program as a model. A fixed batch size is met by filling batches up.

    Args:
        path: the file.
        trust: allow it; reading a stranger's file can run the stranger's code.
        like: the domain to assume where the file does not say its own and the shapes agree.
        domain: what the inputs are; None for what the file says, `like`, or the program's input: an image where that
            has three axes, with one axis a row of a table (floats) or tokens (integers), without bounds.
        outputs: what it answers; None for what the file says, or logits.
        mean: per channel, subtracted from the inputs; None for 0.
        std: per channel, divides the inputs; None for 1.
        batch_size: inputs in one forward pass; None for what suits the program.

    Returns:
        A model with gradients (of logits) and weights.

    Raises:
        ArtefactError: the file is not trusted, missing or damaged, or holds no program of one tensor in and one out.
        MissingExtraError: torch is not installed.
    """
    path, where = Path(path), f"the program {os.fspath(path)!r}"
    if not path.is_file():
        raise ArtefactError(f"{where} is not there or no file")
    if not trust:
        raise ArtefactError(
            f"{where} is not read: reading a .pt2 file can run code that is in it. If you trust its maker, pass "
            "--trust (trust=True); if not, ask for an ONNX file or a model folder"
        )
    need("torch", extra="torch", why=where)
    if any("/aotinductor/" in f"/{name}" for name in members(path, where)):
        raise ArtefactError(f"{where} holds compiled machine code; export the program itself, with torch.export.save")
    from locard.models._exported import ExportedModule, input_spec

    program, note = _load(path, where)
    try:
        module = ExportedModule(program)
        inputs = _domain(input_spec(program), domain or note.get("domain"), like)
    except ArtefactError as error:
        raise ArtefactError(f"{where}: {error}") from error
    # A file damaged in the right places loads, and falls apart when its program is put together.
    except Exception as error:
        raise ArtefactError(f"{where} is damaged or no exported program: {_line(error)}") from error
    return TorchModel(
        module,
        domain=inputs,
        outputs=outputs or note.get("outputs", "logits"),
        mean=mean,
        std=std,
        source=str(path),
        lineage=note.get("lineage"),
        batch_size=_rows(module.largest) if batch_size is None else batch_rows(batch_size),
    )


def save(model: Model | nn.Module, path: str | os.PathLike[str], *, domain: Domain | None = None) -> Path:
    """Write a model as an exported program with a free batch size; the file says its domain, outputs and lineage.

    Args:
        model: a model that grants MODULE, whose normalisation goes into the program; or a torch module that answers
            logits. Either is left as it is.
        path: the file, ending in .pt2; written whole or not at all.
        domain: what the inputs are; None for the model's own, needed for a module.

    Returns:
        The path.

    Raises:
        AccessError: the model grants no MODULE.
        ParameterError: no domain, another suffix, or a module that torch cannot export.
        ArtefactError: the file may not be written.
    """
    torch = need("torch", extra="torch", why="writing a .pt2 file")
    from locard.models._torch import check_exports

    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise ParameterError(f"an exported program's file must end in {SUFFIX}; got {str(path)!r}")
    known = isinstance(model, Model)
    domain = domain or (model.domain if known else None)
    if domain is None:
        raise ParameterError("a torch module does not say what its inputs are: give domain=Domain(...)")
    check_exports(domain)
    module, lineage = (model.module(), model.lineage) if known else (model, Lineage())
    example = torch.zeros((2, *domain.shape), dtype=getattr(torch, domain.dtype))
    try:
        with evaluating(module), torch.no_grad():
            program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    # The module is the caller's own code, and torch says what it cannot export in errors of many kinds.
    except Exception as error:
        raise ParameterError(f"torch cannot export this module: {_line(error)}") from error
    # torch writes a weight that lies otherwise than row by row (channels last) with a warning, as if it were in doubt.
    for name, weight in program.state_dict.items():
        if not weight.is_contiguous():
            plain = weight.detach().contiguous()
            parameter = isinstance(weight, torch.nn.Parameter)
            program.state_dict[name] = torch.nn.Parameter(plain, weight.requires_grad) if parameter else plain
    note = {"domain": domain.to_json(), "outputs": "logits", "lineage": lineage.to_json()}
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as part:
            torch.export.save(program, Path(part) / path.name, extra_files={NOTE: json.dumps(note, allow_nan=False)})
            (Path(part) / path.name).replace(path)
    except OSError as error:
        raise ArtefactError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path


def _load(path: Path, where: str) -> tuple[ExportedProgram, dict[str, Any]]:
    import torch

    extra = {NOTE: ""}
    with _heard("torch.export") as heard:
        try:
            program = torch.export.load(path, extra_files=extra)
        # Whatever a damaged file leads torch to raise, the file is at fault.
        except Exception as error:
            raise ArtefactError(
                f"{where} is damaged or no exported program: {_line(heard[-1] if heard else error)}"
            ) from error
    if not extra[NOTE]:
        return program, {}
    try:
        said = json.loads(extra[NOTE])
        note = {"domain": Domain.from_json(said["domain"]), "lineage": Lineage.from_json(said["lineage"])}
        return program, {**note, "outputs": said["outputs"]}
    except (ValueError, TypeError, KeyError, RecursionError, ParameterError) as error:
        raise ArtefactError(f"{where}: its {NOTE} is wrong: {_line(error)}") from error


@contextmanager
def _heard(name: str) -> Iterator[list[BaseException]]:
    """Errors that a logger would have printed with their tracebacks, kept instead."""
    heard: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            heard.append(record.exc_info[1])
        return False

    logger = logging.getLogger(name)
    logger.addFilter(keep)
    try:
        yield heard
    finally:
        logger.removeFilter(keep)


def _domain(spec: torch.Tensor, said: Domain | None, like: Domain | None) -> Domain:
    """What was said where it fits the program's input, else what that input tells, in the light of `like`."""
    sizes = tuple(size if isinstance(size, int) else None for size in spec.shape[1:])
    if said is not None:
        if not _fits(said, sizes):
            raise ArtefactError(f"its inputs have shape {_text(spec)}; the domain says {said.text}")
        return said
    dtype = str(spec.dtype).removeprefix("torch.")
    dtype = "float32" if dtype in ("float16", "bfloat16") else dtype
    kinds: dict[int, Kind] = {3: "image", 1: "tabular" if dtype.startswith("float") else "tokens"}
    kind = kinds.get(len(sizes))
    if like is not None and _fits(like, sizes):
        sizes, kind = like.shape, like.kind
    shape = tuple(size for size in sizes if size is not None)
    if shape != sizes or kind is None or dtype not in ("float32", "float64", "int64", "int32", "uint8"):
        raise ArtefactError(
            f"its inputs, {dtype} {_text(spec)}, leave open what one of them is: give domain=Domain(...), or describe "
            "the model in a .toml file"
        )
    return adopt(Domain(kind=kind, shape=shape, dtype=dtype), like)


def _fits(domain: Domain, sizes: tuple[int | None, ...]) -> bool:
    return len(domain.shape) == len(sizes) and all(a in (None, b) for a, b in zip(sizes, domain.shape, strict=True))


def _text(spec: torch.Tensor) -> str:
    return f"(n, {', '.join(str(size) for size in spec.shape[1:])})"


def _rows(largest: int | None) -> int:
    return NETWORK_BATCH if largest is None else largest * max(1, NETWORK_BATCH // largest)


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
