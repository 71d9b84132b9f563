"""Pages in a real browser: a headless Chromium, and what it is asked of them."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# What stands out of the window, or out of its own box, where it cannot be scrolled.
OVERFLOW = """[...document.querySelectorAll('body, body *')]
    .filter(e => !e.closest('.scroll, svg, details:not([open]) > *'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 ||
        (e.scrollWidth > e.clientWidth + 1 && !['inline', 'contents'].includes(getComputedStyle(e).display)))
    .map(e => e.outerHTML.slice(0, 120))"""

# Events that tell of an error or a refusal.
COMPLAINTS = {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}

# Text whose contrast with what is behind it is below 4.5 (WCAG 2.2, success criterion 1.4.3).
CONTRAST = """(() => {
    const rgb = colour => colour.match(/[\\d.]+/g).map(Number);
    const linear = v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    const light = c => { const [r, g, b] = c.slice(0, 3).map(linear); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
    const pale = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || e.closest('title, desc')) continue;
        const style = getComputedStyle(e), ink = e.closest('svg') ? style.fill : style.color;
        const [a, b] = [light(rgb(ink)), light(behind(e))];
        if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) pale.push(e.outerHTML.slice(0, 120));
    }
    return pale;
})()"""


class Chromium:
    """A headless browser, spoken to by the DevTools protocol over a pipe: null-ended JSON on descriptors 3 and 4."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium")
        if program is None:
            pytest.fail("Chromium is missing, and the page must be looked at: make system")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
                 "--hide-scrollbars", f"--user-data-dir={profile}", "--remote-debugging-pipe"]  # fmt: skip
        line = f'exec "$@" 3<&{commands} 4>&{answers}'
        if {commands, answers} & {3, 4}:
            line = f'exec 8<&{commands} 9>&{answers}; exec "$@" 3<&8 4>&9 8<&- 9>&-'
        self._process = subprocess.Popen(["bash", "-c", line, "bash", program, *flags], pass_fds=(commands, answers),
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._buffer, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its result; what the browser tells meanwhile is kept in `events`."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def show(self, path: Path, *, width: int, dark: bool = False, media: str = "screen") -> None:
        """Open a page and wait until it stands."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def ask(self, script: str) -> Any:
        """The value of an expression in the page, whose own policy does not bind the debugger."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self) -> Image.Image:
        """The whole page, to its end."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])

    def close(self) -> None:
        """End the browser that was started here."""
        os.close(self._to)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], 60)
            chunk = os.read(self._from, 1 << 20) if ready else b""
            if not chunk:
                pytest.fail(f"Chromium {'ended' if ready else 'does not answer'}")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def assert_printed_on(pixels: np.ndarray, *, dark: bool) -> None:
    """Paper of one colour all round, with text and marks on it, from the top to the end."""
    paper = pixels[-1, 0].astype(int)
    assert bool(paper.mean() < 60) is dark
    marked = np.abs(pixels.astype(int) - paper).max(axis=2) > 40
    assert 0.02 < marked.mean() < 0.4
    bands = np.array_split(marked.any(axis=1), len(marked) // 300)
    assert all(band.any() for band in bands), "a screenful is empty"
