"""The torch modules of several models as one differentiable thing.

Members are run one after the other. Stacking those of one architecture (torch.func.stack_module_state under vmap) was
measured on one CPU thread, for the cnn, the resnet and the mlp of `models.architectures`, eight members and 16 and 100
inputs: it is between a third slower and a third faster, and all members' activations are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.errors import AccessError, ParameterError

if TYPE_CHECKING:
    import torch

    from locard.models import View


class Ensemble:
    """Modules that take the same inputs and give as many answers each. Made by `ensemble`.

    Args:
        modules: un-normalised inputs in, (n, classes) logits out.
        layouts: the memory format that each takes inputs in.
        sources: where each was read from, for people.
    """

    __slots__ = ("_layouts", "_modules", "_sources")

    def __init__(
        self, modules: Sequence[torch.nn.Module], layouts: Sequence[torch.memory_format], sources: Sequence[str]
    ) -> None:
        self._modules, self._layouts, self._sources = tuple(modules), tuple(layouts), tuple(sources)

    def __len__(self) -> int:
        """How many members there are."""
        return len(self._modules)

    def member(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """The logits of one member, wherever it lies.

        Args:
            index: its number.
            x: (n, *shape) inputs; gradients flow back to them.

        Returns:
            (n, classes), on the device of x.

        Raises:
            ParameterError: gradients are wanted, and none comes through this member.
        """
        import torch

        module = self._modules[index]
        first = next(module.parameters(), torch.empty(0, device=x.device, dtype=x.dtype))
        # A copy, because a module that works in place may not do so on what gradients are asked by.
        answers = module(x.clone(memory_format=self._layouts[index]).to(first.device)).to(x.device)
        if torch.is_grad_enabled() and x.requires_grad and not answers.requires_grad:
            raise ParameterError(f"{self._sources[index]} gives no gradient by its inputs: leave it out")
        return answers

    def logits(self, x: torch.Tensor, followed: np.ndarray | None = None) -> torch.Tensor:
        """The logits of all members.

        Args:
            x: (n, *shape) inputs.
            followed: (m,) bool, whose gradients flow back to x; None for all. It saves the others' backward pass.

        Returns:
            (m, n, classes).
        """
        import torch

        answers = []
        for index in range(len(self)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and (followed is None or bool(followed[index]))):
                answers.append(self.member(index, x))
        return torch.stack(answers)


@contextmanager
def ensemble(models: Sequence[View], *, like: View, what: str) -> Iterator[Ensemble]:
    """The models as an ensemble in evaluation mode, with constant weights; both are as they were afterwards.

    Args:
        models: views at MODULE.
        like: the model whose inputs and classes all must have.
        what: what is made with it, for the message ("conferrable examples").

    Raises:
        AccessError: a model shows no module.
        ParameterError: a model has other classes, or takes other inputs.
    """
    from locard.models.torch_module import evaluating

    modules = [_module(model, like, what) for model in models]
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(evaluating(module))
            stack.enter_context(_constant(module))
        layouts = [_layout(module, like.domain.shape) for module in modules]
        yield Ensemble(modules, layouts, [model.source for model in models])


def _module(model: Any, like: View, what: str) -> torch.nn.Module:
    if not hasattr(model, "module"):
        raise AccessError(
            f"{what} need MODULE of every model of the population; {model.source} gives less: load the original torch "
            "model, or leave it out"
        )
    if model.classes != like.classes:
        raise ParameterError(
            f"{what} need a population with the victim's {like.classes} classes; {model.source} has {model.classes}: "
            "leave it out"
        )
    ours, theirs = like.domain, model.domain
    if ours.apart(theirs) is not None:
        raise ParameterError(
            f"{what} need a population that takes the victim's inputs, {ours.text}; {model.source} takes "
            f"{theirs.text}: leave it out"
        )
    return model.module()


def _layout(module: torch.nn.Module, shape: tuple[int, ...]) -> torch.memory_format:
    """Channels last where the module can take images so: on a CPU its convolutions then run up to twice as fast."""
    import torch

    if len(shape) != 3:
        return torch.preserve_format
    first = next(module.parameters(), torch.empty(0))
    # Laid out as `member` does it: of one channel torch cannot tell the two formats apart but by how they came to be.
    blank = torch.zeros((2, *shape), device=first.device).clone(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            module(blank)
    except RuntimeError:
        # It reads its layers' answers as they lie in memory (`view`).
        return torch.contiguous_format
    return torch.channels_last


@contextmanager
def _constant(module: torch.nn.Module) -> Iterator[None]:
    """Parameters that ask for no gradient inside, each its own flag afterwards."""
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
