"""A real browser for the tests of pages: Chromium, driven by Playwright, one process per test session.

Playwright's synchronous interface leaves an event loop running in its thread, which would break tests that call
`asyncio.run`. The browser therefore lives in a separate thread, and a test hands over a function that looks at a page.

axe-core, which checks accessibility, is vendored in `axe/` (Mozilla Public License 2.0), unmodified.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

AXE = Path(__file__).parent / "axe" / "axe.min.js"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
READY = "html[data-ready]"  # set when every view outside closed steps was started

T = TypeVar("T")


@dataclass
class Browser:
    """Chromium in a separate thread."""

    thread: ThreadPoolExecutor
    chromium: Any  # Playwright's browser; its types need Playwright

    def visit(
        self, path: Path, look: Callable[[Any], T], *, width: int = 900, theme: str = "light", colours: str = "none"
    ) -> T:
        """Open a page from disk, call `look(page)` when all views are drawn, and return its result.

        colours: "active" for those of the system in place of the page's.
        Fails if the page writes an error to the console, or requests anything other than itself.
        """
        return self.thread.submit(self._visit, path, look, width, theme, colours).result()

    def _visit(self, path: Path, look: Callable[[Any], T], width: int, theme: str, colours: str) -> T:
        complaints: list[str] = []
        context = self.chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, forced_colors=colours
        )
        try:
            page = context.new_page()
            page.on("console", lambda message: complaints.append(f"console: {message.type}: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
            page.on("request", lambda request: complaints.append(f"request: {request.url}"))
            page.goto(path.as_uri())
            page.wait_for_selector(READY, state="attached")
            page.wait_for_selector("[data-state=starting]", state="detached")
            result = look(page)
            assert complaints == [f"request: {path.as_uri()}"]
            return result
        finally:
            context.close()


def accessibility_problems(page: Any) -> list[str]:
    """What axe-core finds that is serious or critical, each with the first element."""
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() == AXE_SHA256
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0].get('failureSummary')}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def running_browser() -> Iterator[Browser]:
    """Yield a browser, and end it afterwards. Without one, skip the test; with CI set, fail."""
    missing = []
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        missing.append("no Chromium is installed (Debian: apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing.append("Playwright is not installed (pip install playwright)")
    if missing:
        reason = "the pages are not tested: " + "; ".join(missing)
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with ThreadPoolExecutor(1) as thread:
        playwright = thread.submit(lambda: sync_playwright().start()).result()
        try:
            launch = lambda: playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])  # noqa: E731
            chromium = thread.submit(launch).result()
            yield Browser(thread, chromium)
            thread.submit(chromium.close).result()
        finally:
            thread.submit(playwright.stop).result()
