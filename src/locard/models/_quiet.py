"""Other libraries talk to standard error; here they answer by results and errors alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Without warnings, and without what these loggers and those below them say short of a critical failure.

    Args:
        loggers: their names; levels are as they were afterwards.
    """
    known = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in known]
    for logger in known:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(known, levels, strict=True):
            logger.setLevel(level)
