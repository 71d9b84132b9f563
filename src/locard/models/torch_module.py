"""torch modules: logits, gradients by the input, weights, activations."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import ParameterError, need, unknown
from locard.models._options import batch_rows, refuse_unknown
from locard.models.base import BATCH, MANY_LAYERS, NETWORK_BATCH, Adapter, Loss, Model, adapters
from locard.models.callable import native_access
from locard.records import Access, Domain, Lineage

if TYPE_CHECKING:
    import torch

_OPTIONS = ("domain", "outputs", "mean", "std", "source", "lineage", "batch_size")


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, each submodule's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def device_of(module: torch.nn.Module) -> torch.device:
    """Where its first parameter lies; the processor where it has none."""
    import torch

    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


class TorchModel(Model):
    """A torch module from (n, *shape) inputs to (n, classes) answers.

    Args:
        module: run in evaluation mode; its mode, gradients and device are left as they are found. One that takes texts
            has a method `encode`, from (n,) strings to the tensor that its forward pass takes.
        domain: what its inputs are, before `mean` and `std`.
        outputs: what it answers: "logits", "probabilities", "labels" or "values". Gradients need logits.
        mean: per channel (first axis of one input), subtracted from the inputs; None for 0.
        std: per channel, divides the inputs; None for 1.
        source: where it was read from, for people.
        lineage: what is known of its making.
        batch_size: inputs in one forward pass; None for 64 on a processor where there are at most 16 layers, and
            256 elsewhere.

    Raises:
        ParameterError: it cannot take a batch of that domain, or a parameter is wrong.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        domain: Domain,
        outputs: str = "logits",
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        source: str | None = None,
        lineage: Lineage | None = None,
        batch_size: int | None = None,
    ) -> None:
        need("torch", extra="torch", why="a torch module")
        from locard.models._torch import check_takes

        check_takes(module, domain)
        self._module, self.domain = module, domain
        self.native = native_access(outputs)
        self.source = source or f"torch module {type(module).__name__}"
        self.lineage = lineage or Lineage()
        self.device = device_of(module)
        layers = sum(1 for part in module.modules() if next(part.children(), None) is None)
        usual = NETWORK_BATCH if self.device.type == "cpu" and layers <= MANY_LAYERS else BATCH
        self.batch_size = usual if batch_size is None else batch_rows(batch_size)
        self._shift, self._scale = self._per_channel(mean), self._per_channel(std)
        if std is not None and min(std) <= 0:
            raise ParameterError(f"std must be positive; got {std!r}")
        self.mean, self.std, self.outputs = mean, std, outputs
        self.classes = None
        probe = self._run(_blank(domain))
        if self.native is not Access.LABELS:
            if probe.ndim != 2:
                raise ParameterError(f"{self.source} must answer (n, classes); got shape {('n', *probe.shape[1:])}")
            self.classes = int(probe.shape[1])
        self.grants = self.native.implied | Access.WEIGHTS
        if self.native is Access.LOGITS:
            # A module of texts too: its gradients are those by its weights.
            self.grants |= Access.GRADIENTS | Access.MODULE

    @property
    def digest(self) -> str:
        """SHA-256 over the module's structure, parameters, buffers and normalisation."""
        total = hashlib.sha256(f"{self._module!r}|{self.mean}|{self.std}|{self.outputs}".encode())
        for name, tensor in self.weights().items():
            total.update(f"{name}:{tensor.dtype.str}{tensor.shape}".encode() + np.ascontiguousarray(tensor).tobytes())
        return total.hexdigest()

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by name; shares memory with the module where it lies on the CPU."""
        return {name: _array(tensor) for name, tensor in _tensors(self._module.state_dict())}

    def module(self) -> torch.nn.Module:
        """The module with its normalisation in front: inputs as the domain says, logits out."""
        if self._shift is None and self._scale is None:
            return self._module
        from locard.models._torch import Normalised

        return Normalised(self._module, self._shift, self._scale)

    def layers(self) -> dict[str, tuple[int, ...]]:
        """See `Model.layers`: the module's leaves; of one that runs several times the first run counts."""
        leaves = [name for name, part in self._module.named_modules() if name and not any(part.children())]
        return {name: array.shape[1:] for name, array in self._watched(_blank(self.domain), leaves).items()}

    def activations(self, x: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Model.activations`."""
        known = dict(self._module.named_modules())
        for name in layers:
            if name not in known:
                raise unknown(f"layer of {self.source}:", name, known)
        parts = [self._watched(x[at : at + self.batch_size], layers) for at in range(0, len(x), self.batch_size)]
        silent = [name for name in layers if name not in parts[0]]
        if silent:
            raise ParameterError(f"layer {silent[0]!r} of {self.source} does not run, or gives no one tensor")
        return {name: np.concatenate([part[name] for part in parts]) for name in layers}

    def _watched(self, x: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """One forward pass, and what the layers gave in it, in the order they ran."""
        import torch

        seen: dict[str, np.ndarray] = {}

        def watch(name: str) -> Callable[..., None]:
            def keep(_module: Any, _inputs: Any, output: Any) -> None:
                if name not in seen and isinstance(output, torch.Tensor) and len(output) == len(x):
                    # A copy: the next layer may work in place.
                    seen[name] = output.detach().float().cpu().numpy().copy()

            return keep

        parts = dict(self._module.named_modules())
        hooks = [parts[name].register_forward_hook(watch(name)) for name in layers]
        try:
            self._run(x)
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    def input_gradient(self, x: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
        """See `Model.input_gradient`; the parameters' own gradients are left untouched."""
        import torch

        if Access.GRADIENTS not in self.grants:
            return super().input_gradient(x, loss)
        if x.dtype.kind != "f":
            raise ParameterError(f"gradients need floating-point inputs; {self.source} takes {self.domain.text}")
        parts = []
        with evaluating(self._module), torch.enable_grad():
            for start in range(0, len(x), self.batch_size):
                inputs = self._tensor(x[start : start + self.batch_size]).requires_grad_()
                # A copy, because a module that works in place may not do so on what gradients are asked by.
                logits = self._module(self._normalise(inputs.clone()))
                losses = loss(logits)
                if losses.ndim not in (1, 2) or len(losses) != len(inputs):
                    n = len(inputs)
                    raise ParameterError(f"the loss must have shape ({n},) or ({n}, k); got {tuple(losses.shape)}")
                columns = losses.sum(dim=0).reshape(-1).unbind()
                try:
                    # One forward pass for all columns.
                    slopes = [
                        torch.autograd.grad(column, inputs, retain_graph=k + 1 < len(columns))[0]
                        for k, column in enumerate(columns)
                    ]
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
                    raise ParameterError(f"{self.source} gives no gradient by its inputs: {reason}") from error
                gradient = slopes[0] if losses.ndim == 1 else torch.stack(slopes, dim=1)
                parts.append((logits.detach().cpu().numpy(), gradient.cpu().numpy()))
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def weight_gram(self, x: np.ndarray, loss: Loss) -> np.ndarray:
        """See `Model.weight_gram`; the module's weights and their own gradients are left untouched."""
        if Access.MODULE not in self.grants:
            return super().weight_gram(x, loss)
        from locard.models._gradients import weight_gram

        with evaluating(self._module):
            return weight_gram(self._module, self._tensor(x), loss, front=self._normalise, batch=self.batch_size,
                               source=self.source)  # fmt: skip

    def _forward(self, x: np.ndarray) -> np.ndarray:
        import torch

        with evaluating(self._module), torch.inference_mode():
            answers = self._module(self._normalise(self._tensor(x)))
            return answers.cpu().numpy()

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        from locard.models._torch import tensor

        return tensor(self._module, x).to(self.device)

    def _normalise(self, x: torch.Tensor) -> torch.Tensor:
        if self._shift is not None:
            x = x - self._shift
        return x if self._scale is None else x / self._scale

    def _per_channel(self, values: tuple[float, ...] | None) -> torch.Tensor | None:
        if values is None:
            return None
        import torch

        if self.domain.kind == "text":
            raise ParameterError(f"texts have no mean and no std; got {values!r}")
        if len(values) not in (1, *self.domain.shape[:1]) or not np.isfinite(values).all():
            raise ParameterError(f"mean and std need 1 or {self.domain.shape[:1]} finite numbers; got {values!r}")
        tensor = torch.tensor(values, dtype=torch.float32, device=self.device)
        return tensor.reshape(-1, *[1] * (len(self.domain.shape) - 1))


def _blank(domain: Domain) -> np.ndarray:
    """One input of no meaning."""
    if domain.kind == "text":
        return np.array([""], object)
    return np.full((1, *domain.shape), 0 if domain.bounds is None else domain.bounds[0], domain.dtype)


def _tensors(state: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a state; those that quantised layers pack into tuples are numbered."""
    for name, value in state.items():
        parts = [(f"{name}.{i}", one) for i, one in enumerate(value)] if isinstance(value, tuple) else [(name, value)]
        yield from (part for part in parts if hasattr(part[1], "detach"))


def _array(tensor: torch.Tensor) -> np.ndarray:
    import torch

    tensor = tensor.detach().cpu()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


@adapters.register("torch-module")
class TorchModuleAdapter(Adapter):
    """A `torch.nn.Module` in memory."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """Whether it is a module; torch is not imported to find out."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(source, torch.nn.Module)

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Wrap it; `domain` must be given here or by `like`."""
        refuse_unknown(options, _OPTIONS, of="a torch module")
        domain = options.pop("domain", like)
        if domain is None:
            raise ParameterError("a torch module does not say what its inputs are: give domain=Domain(...)")
        return TorchModel(source, domain=domain, **options)
