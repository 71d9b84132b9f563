"""The page as text: sound HTML that loads nothing, runs nothing, and takes nothing from a stranger but words."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from locard.engine.compare import conclude
from locard.records import Comparison, Cost, Domain, Exhibit, Notice, Party, Power, Verdict
from locard.reports import to_html, to_terminal, wording
from locard.reports.glossary import GLOSSARY
from locard.reports.numerals import plain

VOID = {"meta", "img", "br", "link", "input", "hr"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href", "formaction"}


@dataclass
class Page(HTMLParser):
    """What a page consists of; a tag that is not closed where it should be is an error."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    text: str = ""
    css: str = ""
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        assert len({name for name, _ in attrs}) == len(attrs), "an attribute twice"
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag
        if tag in ("td", "th", "dt", "dd"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"]:
            self.css += data
        else:
            self.text += data

    def get(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page._open == [], "tags left open"
    return page


def words(page: Page) -> str:
    return " ".join(page.text.split())


@pytest.fixture(params=["derived", "cleared", "uncalibrated", "comparison"])
def result(request: pytest.FixtureRequest) -> Verdict | Comparison:
    return request.getfixturevalue(request.param)


def test_the_page_is_sound(result: Verdict | Comparison) -> None:
    html = to_html(result)
    page = parsed(html)
    assert html.startswith("<!DOCTYPE html>\n")
    ids = page.get("id")
    assert len(ids) == len(set(ids))
    targets = [value.removeprefix("#") for value in page.get("href")]
    named = [one for value in page.get("aria-labelledby") for one in value.split()]
    assert set(targets) | set(named) <= set(ids)
    headings = [int(tag[1]) for tag in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert headings.count(1) == 1
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    assert page.tags.count("img") == len([value for value in page.get("alt") if value])
    assert ("html", "lang", "en") in page.attributes


def test_the_page_loads_and_runs_nothing(result: Verdict | Comparison) -> None:
    page = parsed(to_html(result))
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video"} & set(page.tags)
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        if name in LOADING:
            assert value.startswith(("#", "data:image/png;base64,"))
    assert not any(word in page.css for word in ("url(", "@import", "@font-face", "http", "expression("))
    (policy,) = [value for value in page.get("content") if "default-src" in value]
    assert "default-src 'none'" in policy


def test_the_page_says_what_it_must(result: Verdict | Comparison) -> None:
    text = words(parsed(to_html(result)))
    assert wording.headline(result) in text
    assert wording.statement(result) in text
    assert "This is not a probability of guilt." in text
    assert wording.caution(result) in text
    assert result.suspect.digest in text
    assert all(notice.text in text for notice in (*result.warnings, *wording.not_tested(result)))
    verdicts = (result,) if isinstance(result, Verdict) else result.evidence
    assert all(verdict.fingerprint.digest in text for verdict in verdicts)
    for heading in ("Where the suspect falls", "What each scheme says")[isinstance(result, Comparison) :][:1]:
        assert heading in text
    for heading in ("What it was compared with", "How often a real theft is found", "The most telling queries",
                    "What was not tested", "What was asked, and what it cost", "How to reproduce it"):  # fmt: skip
        assert heading in text


def test_a_derived_page(derived: Verdict) -> None:
    page = parsed(to_html(derived))
    text = words(page)
    assert "0 of 20" in text
    assert "foreign-theft no models not tested" in text
    assert "3 of 3" in text
    assert "29% to 100%" in text
    assert derived.reproduce is not None
    assert derived.reproduce in text
    assert derived.exhibit is not None
    assert page.tags.count("img") == len(derived.exhibit.inputs)
    assert page.tags.count("circle") == 2 * 60 + 1 + 3, "each reference in both plots, the legend, the power"
    assert all(model.name in text for model in (*derived.calibration.references, *derived.calibration.derived))
    assert text.count("not a probability of guilt") >= 2


def test_an_uncalibrated_page(uncalibrated: Verdict) -> None:
    text = words(parsed(to_html(uncalibrated)))
    assert "There is no plot" in text
    assert "This is not known: no derived models were given" in text
    assert "No command was recorded" in text
    assert "p-value none" in text
    assert "All scores" not in text


def test_a_comparison_page(comparison: Comparison) -> None:
    page = parsed(to_html(comparison))
    text = words(page)
    assert "Combined p-value 0.048 1 of 21, the smallest that 20 references can give" in text
    assert "ipguard ipguard needs GRADIENTS" in text
    assert page.get("class").count("strip wide") == 2
    assert GLOSSARY["combination"][1] in text
    for verdict in comparison.evidence:
        assert wording.statement(verdict) in text


def test_the_same_records_give_the_same_bytes(result: Verdict | Comparison) -> None:
    assert to_html(result) == to_html(result)


def test_too_few_references_tint_nothing_and_say_why(make: Callable[..., Verdict]) -> None:
    text = words(parsed(to_html(make(0.9, references={"disjoint": [0.1, 0.2]}))))
    assert "with so few references no score has p at most 0.05" in text
    assert "Too few reference models to decide at alpha = 0.05" in text


def test_the_group_that_decides_is_marked(make: Callable[..., Verdict]) -> None:
    verdict = make(0.5, references={"same-data": [0.1, 0.7, 0.8], "disjoint": [0.1, 0.2, 0.3]})
    assert "same-data decides 2 of 3 0.75 (3 of 4)" in words(parsed(to_html(verdict)))


def hostile(name: str, make: Callable[..., Verdict]) -> Verdict:
    """A verdict in which everything that comes from outside is `name`."""
    domain = Domain(kind="text", shape=(), dtype="str")
    inputs = np.array([name], dtype=object)
    verdict = make(
        0.9,
        references={"disjoint": [0.1, 0.2], f"group {name}": [0.3]},
        derived={f"theft {name}": [0.8]},
        scheme=name,
        suspect=Party(digest=name, source=name),
        warnings=(Notice(code=name, text=name),),
        power=(Power(kind=name, flagged=1, n=1, low=0.1, high=1.0),),
        power_reason=name,
        access_used=name,
        access_needed=name,
        reproduce=f"locard {name}",
        exhibit=Exhibit(inputs=inputs, victim=(name,), suspect=(f"not {name}",), share=(0.0,), domain=domain),
    )
    rows = tuple(replace(row, name=name, digest=name) for row in verdict.calibration.references)
    return replace(
        verdict,
        evidence=replace(verdict.evidence, statistic=name),
        calibration=replace(verdict.calibration, references=rows),
    )


def pages(name: str, make: Callable[..., Verdict]) -> list[Page]:
    verdict = hostile(name, make)
    both = conclude([verdict, verdict], alpha=0.05, skipped={name: name}, cost=Cost(asked=1, from_journal=0))
    return [parsed(to_html(verdict)), parsed(to_html(both))]


EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> \" ' & {{ 7 * 7 }} </style></svg>--> \x1b[31m\u202e"


def test_names_are_words_and_nothing_else(make: Callable[..., Verdict]) -> None:
    for evil, benign in zip(pages(EVIL, make), pages("name", make), strict=True):
        assert evil.tags == benign.tags
        assert [(tag, name) for tag, name, _ in evil.attributes] == [(tag, name) for tag, name, _ in benign.attributes]
        assert evil.css == benign.css
        assert plain(EVIL) in evil.text
        assert "49" not in evil.text.replace("\\u2049", "")
        assert "\x1b" not in evil.text
        assert "\u202e" not in evil.text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(), min_size=1, max_size=30))
def test_no_name_changes_the_page(make: Callable[..., Verdict], name: str) -> None:
    for strange, benign in zip(pages(name, make), pages("name", make), strict=True):
        assert strange.tags == benign.tags
        assert strange.css == benign.css


def test_tables_name_their_columns(make: Callable[..., Verdict]) -> None:
    domain = Domain(kind="tabular", shape=(2,), columns=("age", "<b>income</b>"))
    exhibit = Exhibit(inputs=np.array([[41.0, 2e4], [23.0, 1e3]]), victim=("yes", "no"), suspect=("yes", "yes"),
                      share=(0.5, 0.0), domain=domain)  # fmt: skip
    text = words(parsed(to_html(make(0.9, references={"disjoint": [0.1, 0.2]}, exhibit=exhibit))))
    assert "victim answers yes no suspect answers yes yes references agree 1 of 2 0 of 2" in text
    assert "age 41 23 <b>income</b> 2e+04 1000" in text


def test_an_exhibit_without_queries_is_left_out(make: Callable[..., Verdict]) -> None:
    domain = Domain(kind="image", shape=(1, 2, 2), bounds=(0, 1))
    empty = Exhibit(inputs=np.zeros((0, 1, 2, 2)), victim=(), suspect=(), share=(), domain=domain)
    assert "telling queries" not in words(parsed(to_html(make(0.9, exhibit=empty))))


def test_numbers_at_the_ends_of_what_a_float_holds(make: Callable[..., Verdict]) -> None:
    verdict = make(0.5, references={"disjoint": [1e308, -1e308, 0.4]}, alpha=5e-324)
    page = parsed(to_html(verdict))
    assert "svg" not in page.tags
    assert "No score could have been flagged" in page.text
    to_terminal(verdict, Console(file=StringIO()))
