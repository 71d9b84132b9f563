"""The page in a real browser: it must look right, not only parse."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.browser import COMPLAINTS, CONTRAST, OVERFLOW, Chromium, assert_printed_on

from locard.records import Comparison, Verdict
from locard.reports import to_html

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(
    tmp_path_factory: pytest.TempPathFactory, derived: Verdict, uncalibrated: Verdict, comparison: Comparison
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    results = {"derived": derived, "uncalibrated": uncalibrated, "comparison": comparison}
    for name, result in results.items():
        (folder / f"{name}.html").write_text(to_html(result), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in results}


NAMES = ("derived", "uncalibrated", "comparison")
VIEWS = {
    "light": {"width": 1200},
    "dark": {"width": 1200, "dark": True},
    "telephone": {"width": 375},
    "print": {"width": 672, "media": "print", "dark": True},  # ink on white paper, whatever the screen
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", NAMES)
def test_the_page_looks_right(chromium: Chromium, pages: dict[str, Path], tmp_path: Path, name: str, view: str) -> None:
    chromium.show(pages[name], **VIEWS[view])
    assert chromium.ask("document.scrollingElement.scrollWidth <= innerWidth")
    assert chromium.ask(OVERFLOW) == []
    if VIEWS[view]["width"] > 600:
        wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert chromium.ask(wide) == 0, "a table must be scrolled although there is room"
    assert chromium.ask(CONTRAST) == []
    shot = chromium.screenshot()
    shot.save(tmp_path / f"{name}-{view}.png")
    assert_printed_on(np.asarray(shot), dark=view == "dark")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_loads_nothing_and_complains_of_nothing(chromium: Chromium, pages: dict[str, Path], name: str) -> None:
    chromium.show(pages[name], width=1200)
    chromium.ask("1")
    told = [event["method"] for event in chromium.events]
    asked = [e["params"]["request"]["url"] for e in chromium.events if e["method"] == "Network.requestWillBeSent"]
    assert pages[name].as_uri() in asked
    assert [url for url in asked if not url.startswith("data:image/png;") and url != pages[name].as_uri()] == []
    assert not COMPLAINTS & set(told)


def test_pictures_are_the_queries(chromium: Chromium, pages: dict[str, Path], derived: Verdict) -> None:
    chromium.show(pages["derived"], width=1200)
    assert derived.exhibit is not None
    sizes = chromium.ask("[...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.width, i.alt.length > 20])")
    assert len(sizes) == len(derived.exhibit.inputs)
    assert all(size[:2] == [8, 8] and size[2] >= 100 and size[3] for size in sizes)


def test_the_suspect_stands_where_its_score_is(chromium: Chromium, pages: dict[str, Path], derived: Verdict) -> None:
    chromium.show(pages["derived"], width=1200)
    middle = "(r => (r.left + r.right) / 2)(e.getBoundingClientRect())"
    line, dots = chromium.ask(
        f"[(e => {middle})(document.querySelector('.strip.wide > path.suspect')), "
        f"[...document.querySelectorAll('.strip.wide .reference circle')].map(e => {middle})]"
    )
    scores = sorted(model.score for model in derived.calibration.references)
    assert len(dots) == len(scores)
    slope, origin = np.polyfit(scores, sorted(dots), 1)
    assert line == pytest.approx(slope * derived.evidence.score + origin, abs=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_prints(chromium: Chromium, pages: dict[str, Path], tmp_path: Path, name: str) -> None:
    chromium.show(pages[name], width=672, media="print", dark=True)
    pdf = chromium.pdf()
    (tmp_path / f"{name}.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 20_000


def test_the_checks_see_what_is_broken_and_the_page_forbids_it(chromium: Chromium, pages: dict[str, Path]) -> None:
    broken = pages["derived"].with_name("broken.html")
    faults = """<p id=wide style="width: 3000px">wide</p><p id=pale style="color: #ccc">pale</p>
        <img id=far src="http://localhost:9/x.png" alt=""><script>document.title = "it ran"</script>"""
    page = pages["derived"].read_text(encoding="utf-8")
    broken.write_text(page.replace("</main>", f"{faults}</main>"), encoding="utf-8")
    chromium.show(broken, width=1200)
    assert any('id="wide"' in element for element in chromium.ask(OVERFLOW))
    assert any('id="pale"' in element for element in chromium.ask(CONTRAST))
    assert chromium.ask("document.title") != "it ran"
    assert chromium.ask("document.getElementById('far').naturalWidth") == 0
    assert sum(event["method"] == "Log.entryAdded" for event in chromium.events) >= 2


def test_without_the_browser_the_test_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(pytest.fail.Exception, match="make system"):
        Chromium(tmp_path)
