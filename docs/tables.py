"""Tables of the docs that follow from the registries: `python docs/tables.py` writes them anew.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a test holds each to what this script would write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from locard.cli import VERBS, run
from locard.cli.schemes import table

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


def survival() -> str:
    """The newest table of `benchmarks/survival.py`."""
    newest = max((ROOT / "benchmarks" / "results").glob("survival-*.md"))
    rows = [line for line in newest.read_text().splitlines() if line.startswith("|")]
    return "\n".join(rows) + "\n"


def commands() -> str:
    """The help of every command."""
    import contextlib
    import io

    pages = []
    for verb in VERBS:
        page = io.StringIO()
        with contextlib.redirect_stdout(page):
            run([verb, "--help"])
        pages.append(f"### locard {verb}\n\n```text\n{page.getvalue().strip()}\n```\n")
    return "\n" + "\n".join(pages) + "\n"


TABLES: dict[str, Callable[[], str]] = {"schemes": schemes, "survival": survival, "commands": commands}


def renew(text: str) -> str:
    """The text with every table as it should be."""
    return MARK.sub(lambda mark: mark[1] + TABLES[mark["name"]]() + mark[3], text)


def pages() -> list[Path]:
    """Every page that may hold a table or an example."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


if __name__ == "__main__":
    for path in pages():
        path.write_text(renew(path.read_text()))
