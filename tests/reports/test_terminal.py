from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console

from locard.errors import ParameterError
from locard.records import Comparison, Notice, Party, Verdict
from locard.reports import to_terminal


def printed(result: Verdict | Comparison, *, width: int = 80, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    to_terminal(result, Console(file=stream, width=width, legacy_windows=False))
    stream.seek(0)
    return stream.read()


def flat(text: str) -> str:
    """The words alone, without the frame and its line breaks."""
    return " ".join(text.replace("│", " ").replace("|", " ").split())


@pytest.fixture(params=["derived", "cleared", "uncalibrated", "comparison"])
def result(request: pytest.FixtureRequest) -> Verdict | Comparison:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [80, 60])
def test_it_fits_and_needs_neither_colour_nor_strange_letters(
    result: Verdict | Comparison, width: int, encoding: str
) -> None:
    text = printed(result, width=width, encoding=encoding)
    assert "\x1b" not in text
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert text.isascii() is (encoding == "ascii")
    assert "..." not in text
    assert "…" not in text


def test_a_derived_suspect(derived: Verdict) -> None:
    text = flat(printed(derived))
    assert "Evidence that the suspect was derived from the victim." in text
    assert "p = 0.048 (1 of 21), the smallest that 20 references can give" in text
    assert "not tested foreign-theft" in text
    assert "prune: 3 of 3 flagged (95% interval 29% to 100%)" in text
    assert "warning no references in foreign-theft" in text
    assert "This is not a probability of guilt." in text
    assert "60 asked, 0 from the journal" in text


def test_an_uncalibrated_suspect(uncalibrated: Verdict) -> None:
    text = flat(printed(uncalibrated))
    assert "A score without an error rate." in text
    assert "p-value no p-value" in text
    assert "power not known: no derived models were given" in text


def test_a_comparison(comparison: Comparison) -> None:
    text = flat(printed(comparison))
    assert "combined by conformal rank" in text
    assert "random+labels+hamming" in text
    assert "skipped ipguard: ipguard needs GRADIENTS" in text


def test_groups_that_differ_say_which_decides(make: Callable[..., Verdict]) -> None:
    verdict = make(0.5, references={"same-data": [0.1, 0.7, 0.8], "disjoint": [0.1, 0.2, 0.3]})
    assert "p by group disjoint 0.25, same-data 0.75; same-data decides" in flat(printed(verdict))


def test_names_are_neither_markup_nor_commands(make: Callable[..., Verdict]) -> None:
    name = "[bold red]x[/] [link=http://a]\x1b]0;owned\x07 \u202eevil 模型"
    verdict = make(0.9, references={name: [0.1]}, scheme=name, suspect=Party(digest="a" * 64, source=name),
                   warnings=(Notice(code="x", text=name),))  # fmt: skip
    for encoding in ("utf-8", "ascii"):
        text = printed(verdict, width=200, encoding=encoding)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert text.count("[bold red]x[/] [link=http://a]\\x1b]0;owned\\x07 \\u202eevil") >= 4
        assert ("模型" in text) is (encoding == "utf-8")


def test_colour_is_for_those_who_see_it(derived: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()
    to_terminal(derived, Console(file=stream, width=80, force_terminal=True, color_system="standard"))
    assert "\x1b[" in stream.getvalue()


def test_other_things_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"made of a Verdict or a Comparison; got str"):
        to_terminal("verdict", Console(file=io.StringIO()))  # pyright: ignore[reportArgumentType]
