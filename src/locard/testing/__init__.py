"""Conformance: the laws that every scheme, adapter and attack keeps, for our own and for other packages' tests.

    import pytest
    from locard.testing import SCHEME_LAWS, check_scheme

    @pytest.mark.parametrize("law", SCHEME_LAWS)
    def test_my_scheme(law):
        check_scheme("my-scheme", law)

Nothing here needs torch unless the scheme needs gradients; attacks always do.
"""

from __future__ import annotations

from locard.testing.adapters import ADAPTER_LAWS, check_adapter
from locard.testing.attacks import ATTACK_LAWS, check_attack
from locard.testing.laws import ConformanceError
from locard.testing.schemes import SCHEME_LAWS, check_scheme
from locard.testing.toys import toy_data, toy_domain, toy_model, toy_network

__all__ = [
    "ADAPTER_LAWS",
    "ATTACK_LAWS",
    "SCHEME_LAWS",
    "ConformanceError",
    "check_adapter",
    "check_attack",
    "check_scheme",
    "toy_data",
    "toy_domain",
    "toy_model",
    "toy_network",
]
