"""Every registered scheme keeps every law."""

import pytest

from locard.schemes import schemes
from locard.testing import SCHEME_LAWS, check_scheme

# Smaller than the papers' defaults where only time would change.
SMALL = {
    "zest": {"queries": 640, "params": {"masks": 64}},
    "ipguard": {"queries": 20},
    "adv-tra": {"queries": 85},
    "anafp": {"params": {"anchor": 0.0}},
    "modelgif": {"queries": 90, "params": {"nodes": 8, "kept": 4}},
    "dataset-inference": {"queries": 620, "params": {"public": "digits", "directions": 2, "steps": 5, "scale": 20.0}},
    "frontier": {"queries": 40, "params": {"radius": 0.02}},
}
COMPOSED = ["negative+labels+hamming", "random+labels+hamming"]


@pytest.mark.parametrize("law", SCHEME_LAWS)
@pytest.mark.parametrize("name", [*schemes.names(), *COMPOSED])
def test_law(name, law):
    check_scheme(name, law, **SMALL.get(name, {}))
