"""The page of a bench in a real browser: it must look right, work, and let nothing in or out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bench.generated import ABOUT, ENTRIES, KINDS, SHOWN, STRATA, written
from tests.bench.population import population
from tests.browser import COMPLAINTS, CONTRAST, OVERFLOW, Chromium, assert_printed_on

from locard.bench import Records, Summary, summarise
from locard.bench.metrics import p_values
from locard.bench.page import page

pytestmark = pytest.mark.browser

CHOOSE = """(() => {{ const e = document.querySelector({}); e.{} = {};
    e.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"""


def choose(chromium: Chromium, selector: str, value: Any, field: str = "value") -> None:
    chromium.ask(CHOOSE.format(json.dumps(selector), field, json.dumps(value)))


def sort(chromium: Chromium, table: str, header: str) -> None:
    chromium.ask(f"[...document.querySelectorAll('#{table} th button')].find(b => b.innerText === '{header}').click()")


def column(chromium: Chromium, number: int) -> list[str]:
    """Sorting values of a column of the leaderboard, as shown."""
    return chromium.ask(
        "[...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden)"
        f".map(r => r.cells[{number}]).map(c => c.dataset.value ?? c.querySelector('.alpha:not(.off)').dataset.value)"
    )


VIEWS = {
    "light": {"width": 1280},
    "dark": {"width": 1280, "dark": True},
    "narrow": {"width": 1100},
    "telephone": {"width": 375},
    "print": {"width": 1017, "media": "print", "dark": True},  # A4 laid across; ink on white paper
}


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_the_page_looks_right(chromium: Chromium, path: Path, tmp_path: Path, view: str, opened: bool) -> None:
    chromium.show(path, **VIEWS[view])
    if opened:
        chromium.ask(
            "document.querySelector('[data-cell] a').click();"
            "document.querySelectorAll('details').forEach(d => d.open = true)"
        )
        choose(chromium, "[name=alpha][value='1']", True, "checked")
        assert chromium.ask("!document.querySelector('#pairs').hidden")
    assert chromium.ask("document.scrollingElement.scrollWidth <= innerWidth")
    assert chromium.ask(OVERFLOW) == []
    if view in ("light", "dark", "print"):
        wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert chromium.ask(wide) == 0, "a table must be scrolled although there is room"
    assert chromium.ask(CONTRAST) == []
    if not opened:
        shot = chromium.screenshot()
        shot.save(tmp_path / f"{view}.png")
        assert_printed_on(np.asarray(shot), dark=view == "dark")


def test_forty_columns_fit_on_paper_and_scroll_on_a_screen(chromium: Chromium, tmp_path: Path) -> None:
    rows = population(kinds={f"prune-after-{i:02}": f"family {i % 5}" for i in range(40)}, thefts=1, innocents=5)
    place = written(tmp_path, page(summarise(rows, resamples=100), rows, title="Many kinds"))
    spill = "(e => e.scrollWidth - e.clientWidth)(document.querySelector('#heat-table').parentElement)"
    chromium.show(place, width=1017, media="print")
    assert chromium.ask(spill) == 0
    chromium.show(place, width=1280)
    assert chromium.ask(spill) > 100
    assert chromium.ask(OVERFLOW) == []


def test_the_page_loads_nothing_and_complains_of_nothing(chromium: Chromium, path: Path) -> None:
    chromium.show(path, width=1280)
    sort(chromium, "board", "AUROC")
    choose(chromium, "[name=filter]", "akh")
    chromium.ask("document.querySelector('tr:not([hidden]) [data-cell] a').click()")
    assert chromium.ask("location.hash").startswith("#pairs/")
    asked = [e["params"]["request"]["url"] for e in chromium.events if e["method"] == "Network.requestWillBeSent"]
    assert set(asked) == {path.as_uri()}
    assert not COMPLAINTS & {event["method"] for event in chromium.events}


def test_the_first_screen_says_what_was_judged(chromium: Chromium, path: Path, summary: Summary) -> None:
    chromium.show(path, width=1280)
    said = chromium.ask("document.querySelector('.judged').innerText")
    for text in ("Fashion", *ABOUT.values(), *summary.families, *STRATA, f"{summary.n_thefts:,}"):
        assert text in said
    assert chromium.ask("document.querySelector('#board tbody tr').getBoundingClientRect().bottom < innerHeight")
    best = next(s for s in summary.standings if s.budget == 0)
    headline = chromium.ask("document.querySelector('#headline').innerText")
    assert f"{best.entry} finds the most: {best.tpr[0.05].value:.0%} of the thefts." in headline
    assert "1 of 25 schemes is not to be relied on." in headline


def test_headers_sort(chromium: Chromium, path: Path) -> None:
    chromium.show(path, width=1280)
    assert chromium.ask("document.querySelector('#board [aria-sort]').innerText") == "Found at alpha"
    for header, number in (("AUROC", 3), ("Queries", 7), ("Scheme", 0)):
        sort(chromium, "board", header)
        first = column(chromium, number)
        sort(chromium, "board", header)
        second = column(chromium, number)
        if header == "Scheme":
            assert first == sorted(first, key=str.lower)
        else:
            assert [float(x) for x in first] == sorted(map(float, first), reverse=True)
            assert [float(x) for x in second] == sorted(map(float, second))
        now = chromium.ask("[...document.querySelectorAll('#board [aria-sort]')].map(e => [e.innerText, e.ariaSort])")
        assert now == [[header, "descending" if header == "Scheme" else "ascending"]]


def test_headers_sort_by_the_keyboard(chromium: Chromium, path: Path) -> None:
    chromium.show(path, width=1280)
    before = chromium.ask(SHOWN.format("#heat-table"))
    chromium.ask("document.querySelector('#heat-table th.up button').focus()")
    for kind in ("keyDown", "keyUp"):
        chromium.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
        )
    after = chromium.ask(SHOWN.format("#heat-table"))
    assert chromium.ask("document.querySelector('#heat-table [aria-sort]').ariaSort") == "descending"
    assert before != after
    assert sorted(before) == sorted(after)


def test_what_breaks_its_promise_is_marked_and_stands_last(chromium: Chromium, path: Path, summary: Summary) -> None:
    broken = next(s for s in summary.standings if s.reliable is False and s.budget == 0)
    chromium.show(path, width=1280)
    last = "[...document.querySelectorAll('#board tbody tr:not([hidden])')].at(-1).cells[0].innerText"
    for _ in range(2):
        said = chromium.ask(last)
        assert broken.entry in said
        assert "not to be relied on" in said
        assert broken.reason in said
        sort(chromium, "board", "Found at alpha")


def test_the_filter_leaves_what_it_names_everywhere(chromium: Chromium, path: Path) -> None:
    chromium.show(path, width=1280)
    choose(chromium, "[name=filter]", "AKH disc")
    for place in ("#board", "#heat-table", "#accusations-table", "[aria-labelledby=roc]", "[aria-labelledby=growth]"):
        assert chromium.ask(SHOWN.format(place)) == ["akh discount=true"]
    choose(chromium, "[name=filter]", "no such scheme")
    assert chromium.ask(SHOWN.format("#board")) == []
    assert "No scheme is left" in chromium.ask("document.querySelector('#headline').innerText")


def test_the_access_level_says_who_takes_part(chromium: Chromium, path: Path) -> None:
    chromium.show(path, width=1280)
    for level, known in enumerate((("LABELS",), ("LABELS", "PROBABILITIES"))):
        choose(chromium, f"[name=level][value='{level}']", True, "checked")
        expected = {entry.name for entry in ENTRIES if entry.access in known}
        assert set(chromium.ask(SHOWN.format("#board"))) == expected
    assert "Shown probabilities, at alpha" in chromium.ask("document.querySelector('#headline').innerText")


def test_alpha_and_budget_choose_the_figures(chromium: Chromium, path: Path, summary: Summary) -> None:
    chromium.show(path, width=1280)
    assert chromium.ask("document.querySelector('[name=budget]').value") == "0"
    choose(chromium, "[name=budget]", "50")
    choose(chromium, "[name=alpha][value='1']", True, "checked")
    heads = chromium.ask("[...document.querySelectorAll('#board thead th')].map(e => e.innerText.trim())")
    assert set(column(chromium, heads.index("Queries"))) == {"50.0"}
    given = [fpr for fpr in summary.fprs if any(one.tpr_at_fpr[fpr].value is not None for one in summary.standings)]
    assert sum("FPR" in head for head in heads) == len(given) < len(summary.fprs), "nobody's column is left out"
    shown = dict(zip(chromium.ask(SHOWN.format("#board")), column(chromium, 1), strict=True))
    for standing in summary.standings:
        if standing.budget == 50:
            assert float(shown[standing.entry]) == standing.tpr[0.03].value
    named = chromium.ask("document.querySelector('tr:not([hidden]) [data-cell] a').ariaLabel")
    assert re.fullmatch(r".+, .+: <?\d+% of \d+; show its pairs", named)
    choose(chromium, "[name=budget]", "")
    assert len(column(chromium, 1)) == 50


def test_a_cell_leads_to_its_pairs(chromium: Chromium, path: Path, rows: Records, summary: Summary) -> None:
    chromium.show(path, width=1280)
    kinds = chromium.ask("[...document.querySelectorAll('#heat-table th.up')].map(e => e.innerText)")
    assert set(kinds) == {*KINDS, *STRATA}
    p, line = p_values(rows), next(i for i, s in enumerate(summary.standings) if s.budget == 0)
    for kind in ("extract-labels", "same-architecture"):
        chromium.ask(f"document.querySelector('[data-cell=\"{line}/{kinds.index(kind)}\"] a').click()")
        mine = (rows["entry"] == summary.standings[line].entry) & (rows["budget"] == 0) & (rows["kind"] == kind)
        mine &= (rows["role"] == "evaluation") & rows["accepted"]
        title, note, focus = chromium.ask(
            "[document.querySelector('#pairs-title').innerText, document.querySelector('#pairs-note').innerText, "
            "document.activeElement.id]"
        )
        assert title == f"{summary.standings[line].entry}, 100 queries: {kind}"
        assert note == f"{mine.sum()} pairs; {(p[mine] <= 0.05).sum()} flagged at alpha = 0.05."
        assert focus == "pairs-title"
        shown = chromium.ask(
            "[...document.querySelectorAll('#pairs-table tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
        )
        expected = {
            (v, s): (x, q)
            for v, s, x, q in zip(
                *(rows[c][mine].tolist() for c in ("victim", "suspect", "score")), p[mine], strict=True
            )
        }
        assert len(shown) == len(expected)
        for victim, suspect, score, p_text, flagged in shown:
            x, q = expected[victim, suspect.partition(" (no score")[0]]
            if np.isnan(x):
                assert (score, p_text, flagged) == ("–", "–", "no")
                assert "(no score: the suspect has other classes)" in suspect
            else:
                assert float(score) == pytest.approx(x, rel=1e-3)
                assert float(p_text) == pytest.approx(q, rel=1e-2)
                assert flagged == ("yes" if q <= 0.05 else "no")


def test_an_address_leads_to_its_pairs_and_back(chromium: Chromium, path: Path) -> None:
    chromium.call("Page.navigate", url="about:blank")
    chromium.show(path, width=1280)
    chromium.ask("location.hash = '#pairs/3/2'")
    chromium.ask("new Promise(done => requestAnimationFrame(() => done(1)))")
    assert chromium.ask("document.querySelector('[aria-current]').closest('td').dataset.cell") == "3/2"
    chromium.ask("document.querySelector('#pairs-close').click()")
    assert chromium.ask("document.querySelector('#pairs').hidden")
    assert chromium.ask("location.hash") == "#heat"


def test_pairs_sort_filter_and_come_by_hundreds(chromium: Chromium, tmp_path: Path) -> None:
    rows = population(innocents=150, victims=2, seeds=(0, 1))
    rows["score"][np.flatnonzero(rows["suspect"] == "same-data-4")[0]] = np.nan
    text = page(summarise(rows, resamples=100), rows, title="Many")
    chromium.show(written(tmp_path, text), width=1280)
    cells = "[...document.querySelectorAll('#pairs-table tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    chromium.ask("[...document.querySelectorAll('[data-cell] a')].at(-1).click()")
    assert chromium.ask("document.querySelector('#pairs-note').innerText").startswith("600 pairs; ")
    assert len(chromium.ask(cells)) == 200
    chromium.ask("document.querySelector('#pairs-more').click()")
    assert len(chromium.ask(cells)) == 600
    sort(chromium, "pairs-table", "Score")
    scores = [row[3] for row in chromium.ask(cells)]
    assert scores[-1] == "–"
    sort(chromium, "pairs-table", "Score")
    again = [row[3] for row in chromium.ask(cells)]
    assert again[-1] == "–", "what has no score comes last, whichever way"
    assert [float(x) for x in again[:-1]] == sorted(map(float, scores[:-1]))
    assert [float(x) for x in scores[:-1]] == sorted(map(float, scores[:-1]), reverse=True)
    assert {row[2] for row in chromium.ask(cells)} == {"0", "1"}
    choose(chromium, "#pairs-filter", "v1 same-data-7")
    found = chromium.ask(cells)
    assert {row[0] for row in found} == {"v1"}
    assert all("same-data-7" in row[1] for row in found)
    sort(chromium, "pairs-table", "Flagged")
    choose(chromium, "#pairs-filter", "yes")
    assert {row[-1] for row in chromium.ask(cells)} == {"yes"}
