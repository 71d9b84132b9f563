"""The page of a bench before strangers' names, without scripts, without rows, and with too many."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from tests.bench.generated import ABOUT, SHOWN, records, written
from tests.bench.population import population
from tests.browser import COMPLAINTS, OVERFLOW, Chromium

from locard.bench import Records, Summary, summarise
from locard.bench.page import page
from locard.bench.records import COLUMNS
from locard.errors import ParameterError

pytestmark = pytest.mark.browser

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
