"""Every registered scheme keeps every law."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from locard.models import restrict
from locard.records import Access
from locard.schemes import schemes
from locard.testing import SCHEME_LAWS, check_scheme, toy_data, toy_model


def known_by_heart() -> str:
    """A file of inputs that the toy victim has right, which stands for what it was trained on."""
    inputs = toy_data(seed=1).inputs
    path = Path(tempfile.mkdtemp()) / "private.npz"
    np.savez(path, x=inputs, y=restrict(toy_model(0), Access.LABELS).labels(inputs))
    return str(path)


# Smaller than the papers' defaults where only time would change.
SMALL = {
    "zest": {"queries": 640, "params": {"masks": 64}},
    "ipguard": {"queries": 20},
    "adv-tra": {"queries": 85},
    "anafp": {"params": {"anchor": 0.0}},
    "modelgif": {"queries": 90, "params": {"nodes": 8, "kept": 4}},
    "dataset-inference": {
        "queries": 620,
        "params": {"private": known_by_heart(), "directions": 2, "steps": 5, "scale": 20.0},
    },
    "frontier": {"queries": 40, "params": {"radius": 0.02}},
}
COMPOSED = ["negative+labels+hamming", "random+labels+hamming"]


@pytest.mark.parametrize("law", SCHEME_LAWS)
@pytest.mark.parametrize("name", [*schemes.names(), *COMPOSED])
def test_law(name, law):
    check_scheme(name, law, **SMALL.get(name, {}))
