"""Conformance: the laws that every scheme and every adapter keeps, for our own and for other packages' tests.

    import pytest
    from locard.testing import SCHEME_LAWS, check_scheme

    @pytest.mark.parametrize("law", SCHEME_LAWS)
    def test_my_scheme(law):
        check_scheme("my-scheme", law)

Nothing here needs torch unless the scheme needs gradients.
"""

from __future__ import annotations

from locard.testing.adapters import ADAPTER_LAWS, check_adapter
from locard.testing.laws import ConformanceError
from locard.testing.schemes import SCHEME_LAWS, check_scheme
from locard.testing.toys import toy_data, toy_domain, toy_model

__all__ = [
    "ADAPTER_LAWS",
    "SCHEME_LAWS",
    "ConformanceError",
    "check_adapter",
    "check_scheme",
    "toy_data",
    "toy_domain",
    "toy_model",
]
