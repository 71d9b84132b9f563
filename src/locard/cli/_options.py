"""Options that several commands share, and what they mean."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from locard.errors import ArtefactError, ParameterError

DataOption = Annotated[
    str,
    typer.Option(help="digits, emoji, fashion-mnist, letters or reviews (:train, :test), or a file or folder of data."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of every random choice.")]
QueriesOption = Annotated[int | None, typer.Option(help="Queries to a suspect; the scheme's own number by default.")]
TrustOption = Annotated[bool, typer.Option("--trust", help="Read model files whose reading can run code.")]
AlphaOption = Annotated[float, typer.Option(help="Share of innocent suspects that may be flagged.")]
AccessOption = Annotated[str | None, typer.Option(help="The most that may be seen of the suspect: labels, ...")]
BudgetOption = Annotated[int | None, typer.Option(help="The most queries that may be sent to the suspect.")]
JournalOption = Annotated[
    Path | None, typer.Option(help="File that keeps every answer; for an endpoint there is one by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HtmlOption = Annotated[Path | None, typer.Option(help="Write a report, one self-contained HTML file.")]
FailOption = Annotated[str | None, typer.Option(help="Exit with 3 on this decision (derived, no-evidence, ...).")]
ReferencesOption = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL...", help="Models made without the victim; a folder of models; STRATUM=PATH."),
]
DerivedOption = Annotated[
    list[str] | None, typer.Option(metavar="MODEL...", help="Models known to be derived, for the power; KIND=PATH.")
]
PopulationOption = Annotated[
    Path | None, typer.Option(help="Folder of models that help to choose queries, for schemes that need them.")
]
SUFFIX = ".locard"
DECISIONS = ("derived", "no-evidence", "uncalibrated", "altered", "trained-on")


def grouped(models: list[str] | None) -> dict[str, list[str]] | list[str]:
    """Read `STRATUM=PATH` words; without any, the plain list, whose strata follow from the models' lineage.

    Raises:
        ParameterError: some words name a stratum and some do not, or one lacks its stratum or path.
    """
    models = models or []
    named = [m.partition("=") for m in models if "=" in m and not Path(m).exists() and "://" not in m.partition("=")[0]]
    if not named:
        return models
    if len(named) != len(models):
        raise ParameterError("give a stratum to all models (STRATUM=PATH) or to none")
    groups: dict[str, list[str]] = {}
    for stratum, _, path in named:
        if not stratum or not path:
            raise ParameterError(f"expected STRATUM=PATH; got {f'{stratum}={path}'!r}")
        groups.setdefault(stratum, []).append(path)
    return groups


def check_suffix(output: Path) -> None:
    """Refuse to write a fingerprint where no command would know it."""
    if not output.name.endswith(SUFFIX):
        raise ParameterError(f"a fingerprint's file ends in {SUFFIX}; got {output.name!r}")


def check_decision(name: str | None) -> None:
    """Refuse a --fail-if that no verdict can give."""
    if name is not None and name not in DECISIONS:
        raise ParameterError(f"--fail-if takes one of {', '.join(DECISIONS)}; got {name!r}")


def journal_for(model: Any, journal: Path | None) -> Path | None:
    """The journal named, or for an endpoint the user's own, so that a killed run goes on without being told where."""
    if journal is not None or not model.remote:
        return journal
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "locard" / "journal.sqlite"


def write(path: Path, text: str) -> None:
    """Write a report, whole or not at all."""
    # Through links, and never in the place of a device or a pipe.
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            raise ArtefactError(f"cannot write {str(path)!r}: it is there, and no file")
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(target)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
    except OSError as error:
        raise ArtefactError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def with_command(result: Any, words: list[str]) -> Any:
    """The verdict, or each verdict of the comparison, with the command that leads to it again."""
    command = shlex.join(["locard", *map(_without_secrets, words)])
    if hasattr(result, "reproduce"):
        return replace(result, reproduce=command)
    return replace(result, evidence=tuple(replace(verdict, reproduce=command) for verdict in result.evidence))


def _without_secrets(word: str) -> str:
    """A URL without user, password and query: a page is handed on, and its reader's secrets are his own."""
    if "://" not in word:
        return word
    scheme, _, rest = word.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2].partition('?')[0]}{slash}{path.partition('?')[0]}"


def print_json(value: Any) -> None:
    """JSON to standard output."""
    print(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error where somebody is looking, else None."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, wanted: bar.update(task, completed=done, total=wanted)


def deliver(result: Any, context: typer.Context, *, as_json: bool, html: Path | None, fail_if: str | None) -> None:
    """Print a verdict or comparison with the command that led to it, write its page, leave with 3 on --fail-if."""
    from rich.console import Console

    from locard import reports

    result = with_command(result, context.obj)
    if html is not None:
        write(html, reports.to_html(result))
    if as_json:
        print_json(reports.to_json(result))
    else:
        reports.to_terminal(result, Console())
        if html is not None:
            print(f"report: {html}")
    if fail_if is not None and result.decision == fail_if:
        raise typer.Exit(3)
