"""Every example in the docs runs, every table is as the registries say, every link leads somewhere."""

import re
import shlex

import pytest
from tests.docs.conftest import ROOT, load_tables

TABLES = load_tables()
PAGES = [path.relative_to(ROOT).as_posix() for path in TABLES.pages()]
FENCE = re.compile(r"^```(?P<kind>[\w ]+)\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def blocks(page, kind):
    return [match["body"] for match in FENCE.finditer((ROOT / page).read_text()) if match["kind"] == kind]


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_as_the_registries_say(page):
    text = (ROOT / page).read_text()
    assert TABLES.renew(text) == text, "run python docs/tables.py"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in LINK.findall((ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_examples_run(page, workplace, endpoint):
    """All ```python blocks of a page, one after the other, in one namespace, which knows the URL of an endpoint."""
    namespace = {"__name__": "example", "URL": endpoint}
    for body in blocks(page, "python"):
        exec(compile(body, page, "exec"), namespace)  # noqa: S102


def test_the_recipe_of_the_guide_is_whole():
    from locard.zoo import parse

    (body,) = blocks("docs/populations.md", "toml")
    assert {member.role for _, member in parse(body, "example").jobs()} == {
        "victim", "selection", "calibration", "evaluation",
    }  # fmt: skip


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")])
def test_commands_run(page, workplace, capsys):
    """Every `$ locard ...` line of a page, in order."""
    from locard.cli import run

    for body in blocks(page, "console"):
        lines = body.replace("\\\n", " ").splitlines()
        for line in lines:
            if line.startswith("$ locard "):
                code = run([word for word in shlex.split(line.removeprefix("$ locard ")) if word != "\n"])
                assert code in (0, 3), f"{line}: {capsys.readouterr().err}"
