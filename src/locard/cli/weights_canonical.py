"""`locard weights canonical`: one form for all symmetric copies of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locard.cli._options import TrustOption
from locard.errors import ParameterError


def canonical(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder of Locard's.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder to be made.")],
    exact: Annotated[bool, typer.Option(help="Scale by powers of two alone, so that nothing is rounded.")] = False,
    trust: TrustOption = False,
) -> None:
    """Write a model in normal form: the same answers, and the same file for all its permuted and rescaled copies."""
    import numpy as np
    import torch

    from locard.attacks import bare
    from locard.models import folder, load
    from locard.weights import canonical as form
    from locard.weights import find

    if output.exists():
        raise ParameterError(f"{str(output)!r} is there already; name another, or remove it")
    if not (Path(model) / folder.CARD).is_file():
        raise ParameterError(
            f"{model!r} is no model folder of Locard's, with a {folder.CARD}; only these are rewritten"
        )
    loaded, card = load(model, trust=trust), folder.read_card(Path(model))
    module = loaded.module()
    groups = find(module, loaded.domain)
    tensors = {name: one for name, one in module.state_dict().items() if isinstance(one, torch.Tensor)}
    found = form({name: one.numpy() for name, one in tensors.items()}, groups, exact=exact)
    drawn = torch.from_numpy(np.random.default_rng(0).random((64, *loaded.domain.shape))).to(
        getattr(torch, loaded.domain.dtype)
    )
    with torch.no_grad():
        before = module(drawn)
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(found.state[name]))
        off = float((module(drawn) - before).abs().max() / before.abs().max())
    folder.save(output, bare(module), architecture=card.architecture, arguments=card.arguments, domain=card.domain,
                mean=card.mean, std=card.std, classes=card.classes, lineage=card.lineage,
                accuracy=card.accuracy)  # fmt: skip
    print(f"{output}: {len(groups)} groups of units in normal form; answers to 64 random inputs moved by {off:.1e}")
    for one in found.undecided:
        print(f"undecided: {one}")
