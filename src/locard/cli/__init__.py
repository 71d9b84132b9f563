"""The command line: one thin file for each verb. Results go to standard output, talk to standard error.

Exit codes: 0 it ran, 1 a bug of ours, 2 something outside Locard is not as it must be (one line says what), 3 the
decision named by --fail-if, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

import locard
from locard.errors import LocardError, ParameterError

INTERRUPTED = 130
SMALLER = "ask fewer queries, or set smaller parameters"
VERBS = (
    "schemes",
    "cite",
    "inspect",
    "extract",
    "calibrate",
    "verify",
    "compare",
    "attacks",
    "derive",
    "transferability",
    "references",
    "demo",
)
# Verbs with verbs of their own: each is a module's `app`.
GROUPS = ("zoo", "bench", "weights")
# Options that take several values after one flag, which click cannot say.
SEVERAL = ("--references", "--derived", "--param")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    # A file's name may hold what the terminal's encoding has not.
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command; the exit code."""
    app = typer.Typer(
        name="locard",
        help="Was this model derived from that one? Fingerprints of models, with error rates.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_top)
    for verb in VERBS:
        app.command(name=verb)(getattr(importlib.import_module(f"locard.cli.{verb}"), verb))
    for group in GROUPS:
        app.add_typer(importlib.import_module(f"locard.cli.{group}").app, name=group)
    command = typer.main.get_command(app)
    # A library's advice to programmers is no part of what a command says.
    warnings.simplefilter("ignore")
    try:
        code = command.main(args=spread(argv), prog_name="locard", standalone_mode=False, obj=list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
    except LocardError as error:
        return _fail(str(error))
    except (BrokenPipeError, SystemExit):
        # The reader of our output has gone, of which typer and rich make an exit; nothing is left to say, and closing
        # must not complain either.
        sys.stdout = None
        return 0
    except MemoryError as error:
        return _fail(f"not enough memory: {error or SMALLER}")
    except OSError as error:
        named = "" if error.filename is None else f" {os.fspath(error.filename)!r}"
        return _fail(f"cannot go on: {error.strerror or error}{named}")
    except Exception as error:
        # torch has no error of its own for this.
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
            return _fail(f"not enough memory: {SMALLER}")
        # typer carries a click of its own and does not export the class of its usage errors.
        if not hasattr(error, "format_message"):
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", "locard")
        return _fail(f"{error.format_message()} (see {where} --help)")  # pyright: ignore[reportAttributeAccessIssue]
    if code == INTERRUPTED:
        # typer turns Ctrl-C into this code by itself, and says nothing.
        print("locard: interrupted; answers in a journal and finished models are kept", file=sys.stderr)
    return code if isinstance(code, int) else 0


def spread(argv: Sequence[str]) -> list[str]:
    """Give each value of an option that takes several a flag of its own.

    `--references a b` becomes `--references a --references b`.

    Raises:
        ParameterError: a word is empty, or such an option has no value.
    """
    words: list[str] = []
    flag, given = None, 0
    for index, word in enumerate(argv):
        if not word:
            raise ParameterError(f"word {index + 1} of the command is empty; an unset variable of a script, perhaps")
        if word == "--":
            return words + list(argv[index:])
        if word in SEVERAL:
            flag, given = word, 0
        elif flag is None or (word.startswith("-") and len(word) > 1):
            flag = None
            words.append(word)
        else:
            words += [flag, word]
            given += 1
            continue
        if flag is not None and (index + 1 == len(argv) or argv[index + 1].startswith("-")) and given == 0:
            raise ParameterError(f"{flag} takes one value or several; none is given")
    return words


def _fail(message: str) -> int:
    from locard.reports.numerals import plain

    print(f"locard: {plain(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"locard {locard.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


if __name__ == "__main__":
    main()
