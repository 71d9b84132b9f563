"""The page of a bench in a real browser: it must look right, work, and let nothing in or out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bench.generated import ENTRIES, KINDS, STRATA, records
from tests.bench.population import population
from tests.browser import CONTRAST, OVERFLOW, Chromium, assert_printed_on

from locard.bench import Records, Summary, summarise
from locard.bench.metrics import p_values
from locard.bench.page import page
from locard.bench.records import COLUMNS
from locard.errors import ParameterError

pytestmark = pytest.mark.browser

ABOUT = {"Data set": "fashion-mnist, 70,000 grey images of 10 classes", "Date": "2026-11-24", "Machine": "2 cores"}
COMPLAINTS = {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
# Shown names of a table's or a grid's lines, in order.
SHOWN = """[...document.querySelectorAll('{} [data-line]')].filter(e => !e.hidden)
    .map(e => e.querySelector('.name').innerText)"""
CHOOSE = """(() => {{ const e = document.querySelector({}); e.{} = {};
    e.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def rows() -> Records:
    return records(budgets=(0, 50), victims=6)


@pytest.fixture(scope="module")
def summary(rows: Records) -> Summary:
    return summarise(rows, alphas=(0.05, 0.03), resamples=100)


@pytest.fixture(scope="module")
def path(rows: Records, summary: Summary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("page"), page(summary, rows, title="Fashion", about=ABOUT))


def written(folder: Path, text: str) -> Path:
    path = folder / "bench.html"
    path.write_text(text, encoding="utf-8")
    return path


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
    shot = chromium.screenshot()
    shot.save(tmp_path / f"{view}.png")
    if not opened:
        assert_printed_on(np.asarray(shot), dark=view == "dark")


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
    assert set(column(chromium, 7)) == {"50.0"}
    shown = dict(zip(chromium.ask(SHOWN.format("#board")), column(chromium, 1), strict=True))
    for standing in summary.standings:
        if standing.budget == 50:
            assert float(shown[standing.entry]) == standing.tpr[0.03].value
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


HOSTILE = {
    "akh": "</script><script>document.title='it ran'</script>",
    "prune-0.3": "<img src=x onerror=\"document.title='it ran'\">",
    "weights": "weights\"><script>document.title='it ran'</script>",
    "fashion/cnn-0": "<!--<script>v\u202e\u2028",
    "the suspect has other classes": "</SCRIPT ><b>why</b>",
}


def test_hostile_names_stay_names(chromium: Chromium, tmp_path: Path) -> None:
    rows = records(entries=3, victims=2, rename=HOSTILE)
    text = page(
        summarise(rows, resamples=100), rows, title="<script>1</script>", about={"<b>x": "</dl><script>2</script>"}
    )
    assert len(re.findall(r"(?i)<script", text)) == len(re.findall(r"(?i)</script", text)) == 2
    assert "<!--" not in text
    assert "\u202e" not in text
    assert "\u2028" not in text
    chromium.show(written(tmp_path, text), width=1280)
    assert not COMPLAINTS & {event["method"] for event in chromium.events}
    assert chromium.ask("document.title") == "<script>1</script> - Locard bench"
    assert chromium.ask("document.querySelectorAll('img, b').length") == 0
    assert HOSTILE["akh"] in chromium.ask(SHOWN.format("#board"))
    kinds = chromium.ask("[...document.querySelectorAll('#heat-table th.up')].map(e => e.innerText)")
    assert HOSTILE["prune-0.3"] in kinds
    chromium.ask(f"document.querySelector('[data-cell=\"0/{kinds.index(HOSTILE['prune-0.3'])}\"] a').click()")
    assert HOSTILE["prune-0.3"] in chromium.ask("document.querySelector('#pairs-title').innerText")
    assert "<!--<script>v\\u202e\\u2028" in chromium.ask("document.querySelector('#pairs-table').innerText")
    assert chromium.ask("document.querySelectorAll('img, b').length") == 0
    assert chromium.ask("document.title") == "<script>1</script> - Locard bench"


def test_without_scripts_the_figures_stand(chromium: Chromium, path: Path) -> None:
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.show(path, width=375)
        assert chromium.ask(OVERFLOW) == []
        said = chromium.ask("document.querySelector('noscript').innerText")
        assert "Scripts are off." in said
        assert "single pairs" in said
        assert chromium.ask("document.querySelector('#controls').hidden")
        assert chromium.ask("document.querySelectorAll('thead button, .cell a').length") == 0
        shown = (
            "[...document.querySelectorAll('.alpha')].filter(e => e.getClientRects().length).map(e => e.dataset.alpha)"
        )
        assert set(chromium.ask(shown)) == {"0"}
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_policy_lets_one_script_run(chromium: Chromium, path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in text
    other = written(tmp_path, text.replace("</main>", "<script>document.title = 'it ran'</script></main>"))
    chromium.show(other, width=1280)
    assert chromium.ask("document.title") == "Fashion - Locard bench"
    assert any(event["method"] == "Log.entryAdded" for event in chromium.events)


def test_the_page_keeps_its_bound_and_says_what_it_leaves_out(chromium: Chromium, tmp_path: Path) -> None:
    rows = population(innocents=300, victims=4)
    summary = summarise(rows, resamples=100)
    whole = page(summary, rows, title="Whole")
    assert "single pairs" not in whole.partition("</noscript>")[2]
    limit = len(whole.encode()) - 10_000
    text = page(summary, rows, title="Whole", limit=limit)
    assert limit - 8_000 < len(text.encode()) <= limit
    chromium.show(written(tmp_path, text), width=1280)
    notes = chromium.ask("document.querySelector('[aria-labelledby=notes]').innerText")
    told = re.search(r"Of ([\d,]+) single pairs ([\d,]+) are in this page", notes)
    assert told is not None
    assert told[1] == "2,464"
    chromium.ask("[...document.querySelectorAll('[data-cell] a')].at(-1).click()")
    note = chromium.ask("document.querySelector('#pairs-note').innerText")
    assert re.match(r"1,200 pairs, of which [\d,]+ are in this page; of these [\d,]+ flagged", note)
    with pytest.raises(
        ParameterError, match=r"the page takes [\d,]+ bytes without its pairs; limit is 1,000: judge fewer"
    ):
        page(summary, rows, title="Whole", limit=1_000)


@pytest.mark.parametrize("lacking", ["thefts", "innocents", "references", "scores", "other claims"])
def test_what_is_lacking_leaves_a_page(chromium: Chromium, tmp_path: Path, lacking: str) -> None:
    rows = population(access="VALUES", claim="identical" if lacking == "other claims" else "derived")
    evaluation, theft = rows["role"] == "evaluation", rows["truth"] == "derived"
    kept = {"thefts": ~theft, "innocents": theft | ~evaluation, "references": evaluation}.get(lacking, theft | ~theft)
    rows = rows.where(kept)
    if lacking == "scores":
        rows = Records({name: rows[name] if name != "score" else np.full(len(rows), np.nan) for name in COLUMNS})
    text = page(summarise(rows, alphas=(0.05,), resamples=100), rows, title=lacking)
    chromium.show(written(tmp_path, text), width=1280)
    assert not COMPLAINTS & {event["method"] for event in chromium.events}
    assert chromium.ask(OVERFLOW) == []
    assert chromium.ask(SHOWN.format("#board")) == ["akh"]


def test_no_standing_makes_no_page() -> None:
    rows = Records.of(())
    with pytest.raises(ParameterError, match="these records hold no entry"):
        page(summarise(rows, resamples=100), rows, title="Nothing")


def test_the_same_records_give_the_same_page(rows: Records, summary: Summary, path: Path) -> None:
    assert page(summary, rows, title="Fashion", about=ABOUT) == path.read_text(encoding="utf-8")
