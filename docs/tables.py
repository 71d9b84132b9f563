"""Tables of the docs that follow from the registries: `python docs/tables.py` writes them anew.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a test holds each to what this script would write.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

from locard.cli import GROUPS, VERBS, run
from locard.cli.attacks import table as attack_table
from locard.cli.schemes import table
from locard.zoo import read_recipe, shipped

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def schemes() -> str:
    """One row a scheme."""
    titles = ("scheme", "idea", "claim", "needs of the victim", "of the suspect", "queries", "source")
    head = f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}\n"
    return head + "".join(
        f"| `{row['scheme']}` | {row['summary']} | {row['claim']} | {row['victim_access'].lower()} | "
        f"{row['suspect_access'].lower()} | {row['queries']:,} | {row['source']} |\n"
        for row in table()
    )


def attacks() -> str:
    """One row an attack."""
    titles = ("attack", "what it does", "needs of the victim", "the thief's data", "loss", "agreement")
    head = f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}\n"
    rows = []
    for row in attack_table():
        data = "none" if not row["needs_data"] else "with true labels" if row["needs_labels"] else "inputs"
        agreement = f"{row['fidelity']:.0%}" if row["fidelity"] else ""
        rows.append(f"| `{row['attack']}` | {row['summary']} | {row['needs'].lower()} | {data} | "
                    f"{100 * row['margin']:.0f} | {agreement} |\n")  # fmt: skip
    return head + "".join(rows)


def survival() -> str:
    """The newest table of `benchmarks/survival.py`."""
    newest = max((ROOT / "benchmarks" / "results").glob("survival-*.md"))
    rows = [line for line in newest.read_text().splitlines() if line.startswith("|")]
    return "\n".join(rows) + "\n"


def commands() -> str:
    """The help of every command."""
    import contextlib
    import io

    verbs = [[verb] for verb in VERBS]
    for group in GROUPS:
        app = importlib.import_module(f"locard.cli.{group}").app
        verbs += [[group, one.name or one.callback.__name__] for one in app.registered_commands]
    pages = []
    for words in verbs:
        page = io.StringIO()
        with contextlib.redirect_stdout(page):
            run([*words, "--help"])
        pages.append(f"### locard {' '.join(words)}\n\n```text\n{page.getvalue().strip()}\n```\n")
    return "\n" + "\n".join(pages) + "\n"


def recipes() -> str:
    """One row a shipped population."""
    head = "| recipe | what it is | models |\n| --- | --- | ---: |\n"
    found = [read_recipe(name) for name in shipped()]
    return head + "".join(f"| `{one.name}` | {one.about} | {len(one.jobs()):,} |\n" for one in found)


TABLES: dict[str, Callable[[], str]] = {
    "attacks": attacks,
    "schemes": schemes,
    "survival": survival,
    "commands": commands,
    "recipes": recipes,
}


def renew(text: str) -> str:
    """The text with every table as it should be."""
    return MARK.sub(lambda mark: mark[1] + TABLES[mark["name"]]() + mark[3], text)


def pages() -> list[Path]:
    """Every page that may hold a table or an example."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


if __name__ == "__main__":
    for path in pages():
        path.write_text(renew(path.read_text()))
