"""Extraction by adversarial-robustness-toolbox, with the same victim, budget, data and student as ours."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from locard.attacks._pool import query_set
from locard.models.fitting import reproducible
from locard.records import Data
from locard.seeds import derive

# AdamW at one rate, because the toolbox's attacks hand no schedule on; of 0.0005 to 0.02 the best at 1,000 and 5,000
# queries to a victim that is not the benchmark's. Batch and epochs are our defaults.
RATE, BATCH, EPOCHS = 5e-3, 64, 10
ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ART KnockoffNets": ("KnockoffNets", {"sampling_strategy": "random"}),
    "ART KnockoffNets (adaptive)": ("KnockoffNets", {"sampling_strategy": "adaptive"}),
    "ART CopycatCNN": ("CopycatCNN", {}),
}


def reach_for(target: Path) -> str:
    """Make the toolbox importable from a folder that `pip install --target` wrote; its version.

    It makes itself a folder `.art` in the home directory.
    """
    # Behind what is installed: of packages that both have, ours are taken.
    sys.path.append(str(target.resolve()))
    return importlib.import_module("art").__version__


def steal(name: str, view: Any, student: torch.nn.Module, data: Data, *, budget: int, soft: bool, seed: int) -> None:
    """Train a student by an attack of the toolbox.

    Args:
        name: of `ATTACKS`.
        view: of the victim, which counts.
        student: to be trained in place.
        data: the thief's own, labelled.
        budget: inputs to ask; where there are fewer, mixtures as our extraction asks are added. The adaptive strategy
            draws with replacement from inputs whose class it knows, so that it asks less and gets no mixtures.
        soft: whether the victim gives probabilities; the adaptive strategy learns the labels whatever it gets.
        seed: of NumPy's and torch's global random states, which the toolbox draws from.
    """
    extraction = importlib.import_module("art.attacks.extraction")
    estimators = importlib.import_module("art.estimators.classification")
    kind, params = ATTACKS[name]
    adaptive = params.get("sampling_strategy") == "adaptive"
    if adaptive and not soft:
        # Its mean of three rewards divides by the deviation of the certainty, which of labels is 0: the policy is NaN
        # at the third query. Of the other two, diversity does better on that other victim.
        params = params | {"reward": "div"}
    shape, classes = view.domain.shape, view.classes
    known = view.probabilities if soft else one_hot(view.labels, classes)
    victim = estimators.BlackBoxClassifier(known, input_shape=shape, nb_classes=classes)
    optimiser = torch.optim.AdamW(student.parameters(), lr=RATE)
    thief = estimators.PyTorchClassifier(student, loss=torch.nn.CrossEntropyLoss(), optimizer=optimiser,
                                         input_shape=shape, nb_classes=classes, device_type="cpu")  # fmt: skip
    attack = getattr(extraction, kind)(victim, batch_size_fit=BATCH, batch_size_query=256, nb_epochs=EPOCHS,
                                       nb_stolen=budget, use_probability=soft, **params)  # fmt: skip
    inputs = data.inputs if adaptive else query_set(data, max(budget, len(data)), seed=seed)
    if hasattr(attack, "verbose"):
        attack.verbose = False
    state = np.random.get_state()  # noqa: NPY002 - what the toolbox draws from
    try:
        np.random.seed(derive(seed, f"benchmark/{name}") % 2**32)  # noqa: NPY002, TID251
        with reproducible(derive(seed, f"benchmark/{name}")):
            attack.extract(inputs, data.labels if adaptive else None, thieved_classifier=thief)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    student.eval()


def one_hot(labels: Callable[[np.ndarray], np.ndarray], classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Labels as the toolbox wants them."""
    return lambda x: np.eye(classes, dtype=np.float32)[labels(x)]
