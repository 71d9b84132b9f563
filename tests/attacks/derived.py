"""What the tests of attacks on weights share."""

import numpy as np
import torch

from locard.attacks import build
from locard.models import restrict
from locard.records import Access

WEIGHTS = ("conv1.weight", "conv2.weight", "dense1.weight", "dense2.weight")


def derive(name, victim, data=None, seed=0, **params):
    """The copy that an attack on a module makes."""
    return build(name, params).derive(restrict(victim, Access.MODULE), data, seed=seed)


def arrays(module):
    """Parameters and buffers by name, without the normalisation's prefix."""
    return {name.removeprefix("module."): t.detach().numpy() for name, t in module.state_dict().items()}


def changed(stolen, victim):
    """Names of what a copy does not share with its victim."""
    before, after = arrays(victim.module()), arrays(stolen.module)
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


def answers(module, x):
    """Logits."""
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()
