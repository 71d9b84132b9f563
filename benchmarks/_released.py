"""Single functions of released codes, taken out of a checkout as it lies, and the little they need to run here.

Their files import packages that are missing, ask for a GPU or start to work when imported; so a file is parsed, and of
its statements only those named are executed, in a namespace with what they call.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy import spatial

from locard.errors import ParameterError

# What their files import under these names.
IMPORTED = {"np": np, "torch": torch, "nn": torch.nn, "F": torch.nn.functional, "spatial": spatial}


def taken(source: str, names: Iterable[str], **given: Any) -> SimpleNamespace:
    """The functions, classes and assignments of those names, the last of each name, executed in the file's order.

    Args:
        source: text of a file of theirs.
        names: of top-level statements.
        given: what the statements find beside `IMPORTED`.

    Raises:
        ParameterError: the file has none of that name.
    """
    found: dict[str, tuple[int, ast.stmt]] = {}
    for place, statement in enumerate(ast.parse(source).body):
        for name in _names(statement):
            if name in names:
                found[name] = place, statement
    missing = set(names) - set(found)
    if missing:
        raise ParameterError(f"the checkout is not the one this script knows: it has no {', '.join(sorted(missing))}")
    space = {**IMPORTED, **given}
    run([statement for _, statement in sorted(found.values(), key=lambda pair: pair[0])], space)
    return SimpleNamespace(**{name: space[name] for name in names}, space=space)


def run(statements: list[ast.stmt], space: dict[str, Any]) -> None:
    """Execute statements of theirs."""
    module = ast.fix_missing_locations(ast.Module(body=statements, type_ignores=[]))
    exec(compile(module, "<checkout>", "exec"), space)  # noqa: S102 running their code is what this is for


def method(source: str, of: str, name: str, **given: Any) -> Callable[..., Any]:
    """One method of a class of theirs, as a function."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == of]
    bodies = [node for one in classes for node in one.body if name in _names(node)]
    if not bodies:
        raise ParameterError(f"the checkout is not the one this script knows: it has no {of}.{name}")
    space = {**IMPORTED, **given}
    run(bodies[-1:], space)
    return space[name]


def cells(notebook: Path) -> list[str]:
    """The code cells of a notebook."""
    known = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in known if cell["cell_type"] == "code"]


def statements(notebook: Path, *marks: str) -> list[ast.stmt]:
    """The statements of the cells that hold one of the marks, in the order of the marks."""
    known = cells(notebook)
    chosen = [next((cell for cell in known if mark in cell), None) for mark in marks]
    if None in chosen:
        raise ParameterError(f"{notebook} is not the notebook this script knows: no cell has {marks[chosen.index(None)]}")
    return [node for cell in chosen if cell is not None for node in ast.parse(cell).body]


def timed(theirs: Callable[[], Any], ours: Callable[[], Any], repeats: int = 1) -> tuple[Any, Any, tuple[float, float]]:
    """What each gives, and the least processor seconds of each."""
    results, seconds = [], []
    for act in (theirs, ours):
        spent, result = [], None
        for _ in range(repeats):
            start = time.process_time()
            result = act()
            spent.append(time.process_time() - start)
        results.append(result)
        seconds.append(min(spent))
    return results[0], results[1], (seconds[0], seconds[1])


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """They print as they go, and ask for a GPU; here `cuda` leaves things where they are."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor),
        mock.patch.object(torch.nn.Module, "cuda", lambda module: module),
    ):
        yield


class Counted(torch.nn.Module):
    """A model that counts the rows it is asked."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module, self.rows = module, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the model."""
        self.rows += len(x)
        return self.module(x)


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
