"""How templates become pages: everything is escaped, and characters that are not to be seen are written out."""

from __future__ import annotations

import platform
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

import locard
from locard.reports import numerals, wording
from locard.reports.glossary import GLOSSARY

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment(*packages: str) -> Environment:
    """Templates of the reports, and those of other rooms that build on them.

    Args:
        *packages: rooms whose folder `templates` is looked into first.

    Returns:
        Templates in which an undefined name is an error and a text is plain before it is escaped.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def visible(value: Any) -> Any:
        return numerals.plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates") for package in (*packages, "locard.reports")]),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "wording": wording,
        "numerals": numerals,
        "glossary": GLOSSARY,
        "versions": {"Locard": locard.__version__, "NumPy": np.__version__, "Python": platform.python_version()},
    }
    return environment
