"""How long the page of a text takes to open in Chromium: `python -m benchmarks.page_opening`.

For 30 and 256 tokens of the published model it prints the size of the page, the time until something is painted, until
the document is loaded, and until every view that no closed step hides is drawn: medians of several openings, each in a
new window. Needs Chromium and Playwright.
"""

import argparse
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from minilm_np import SentenceEncoder, explain

WORDS = "the weather is lovely today and so sunny outside that he drove to the stadium with old friends "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    from playwright.sync_api import sync_playwright

    encoder = SentenceEncoder(backend="numpy")
    print(f"{'tokens':>6} {'MB':>6} {'painted':>9} {'loaded':>9} {'drawn':>9}   seconds, median of {rounds}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for tokens in (30, 256):
            explanation = explain.text(encoder, " ".join((WORDS * 20).split()[: tokens - 2]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the size, which is printed
                explanation.write(path)
            times = zip(*(_open(chromium, path) for _ in range(rounds)), strict=True)
            medians = " ".join(f"{statistics.median(column):9.2f}" for column in times)
            print(f"{len(explanation.trace.tokens):6} {path.stat().st_size / 1e6:6.1f} {medians}")
        chromium.close()


def _open(chromium: Any, path: Path) -> tuple[float, float, float]:
    """Seconds until the first paint, until the document is loaded, and until all visible views are drawn."""
    page = chromium.new_page(viewport={"width": 1600, "height": 900})
    start = time.perf_counter()
    page.goto(path.as_uri())
    loaded = time.perf_counter() - start
    page.wait_for_selector("html[data-ready]", state="attached")
    page.wait_for_selector("[data-state=starting]", state="detached")
    drawn = time.perf_counter() - start
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    page.close()
    return painted, loaded, drawn


if __name__ == "__main__":
    main()
