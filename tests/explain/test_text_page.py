"""The page of one text in a real browser: its numbers are the arrays', and strange texts are only text."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder, explain
from minilm_np.explain import TextExplanation
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.model_files.random_weights import SMALL
from tests.support.browser import Browser, accessibility_problems
from tests.support.encoders import overflowing

TEXT = 'a <script>alert(1)</script> "b" \u2028 & [SEP] c'
STRANGE = [
    "",
    "a",
    "</script><img src=x onerror=alert(1)>\"'&",
    "😀👍🏽 שלום مرحبا \u202e\u2028",
    "[SEP] [PAD] ${policy}",
]


@pytest.fixture(scope="module")
def explanation() -> TextExplanation:
    return explain.text(SentenceEncoder.random(seed=1, backend="numpy"), TEXT)


@pytest.fixture(scope="module")
def path(explanation: TextExplanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "page.html"
    explanation.write(path)
    return path


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-")) for text in texts]


def figure(root: Any, title: str) -> Any:
    return root.locator("figure").filter(has_text=title).first


def test_the_tables_have_the_numbers_of_the_arrays(browser: Browser, path: Path, explanation: TextExplanation) -> None:
    def look(page: Any) -> None:
        def rows(title: str) -> list[list[float]]:
            place = figure(page, title)
            place.get_by_role("button", name="Show as table").click()
            cells = place.locator("tbody").evaluate(
                "body => [...body.rows].map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent))"
            )
            return [numbers(row) for row in cells]

        for title, array in (
            ("Length of each", explanation.norms),
            ("its final state", explanation.cosine_to_final),
            ("to the sentence vector", explanation.cosine_to_vector),
            ("How large each update", explanation.update_norms / explanation.residual_norms),
            ("Share of each token", explanation.shares[:, None]),
            ("numbers of the sentence vector", explanation.vector[:, None]),
            ("Contribution of each", explanation.contributions[:, :16]),
            ("Layer 0, head 0", explanation.trace["encoder.layer.0.attention.self.probs"][0][:, :16]),
        ):
            np.testing.assert_allclose(rows(title), array, rtol=6e-6, atol=1e-12, err_msg=title)

    browser.visit(path, look)


def test_tokens_have_their_ids_and_characters(browser: Browser, path: Path, explanation: TextExplanation) -> None:
    def look(page: Any) -> tuple[list[str], list[str], str]:
        chips = page.locator(".chip")
        return (
            chips.locator("bdi").all_text_contents(),
            chips.locator(".id").all_text_contents(),
            page.locator(".source-text").text_content(),
        )

    tokens, ids, text = browser.visit(path, look)
    assert tokens == explanation.trace.tokens and ids == [str(number) for number in explanation.trace.ids]
    assert text == TEXT


def test_a_step_opens_to_its_statistics_arrays_and_code(
    browser: Browser, path: Path, explanation: TextExplanation
) -> None:
    array = explanation.trace["encoder.layer.1.attention.self.key"]

    def look(page: Any) -> None:
        page.get_by_label("Show the numbers of").select_option("1")
        step = page.locator("details.step", has=page.locator("summary", has_text="Key")).first
        step.locator("summary").focus()
        page.keyboard.press("Enter")
        step.locator("figure canvas").nth(1).wait_for()
        row = step.locator(".statistics tbody tr").last
        assert row.locator("th").inner_text() == "encoder.layer.1.attention.self.key"
        assert page.get_by_label("Show the numbers of").input_value() == "1"
        assert step.locator(".statistics tbody th").first.inner_text() == "encoder.layer.0.output.LayerNorm"
        figure(step, "Input: encoder.layer.0.output.LayerNorm").wait_for()
        shown = numbers(row.locator("td").all_inner_texts()[2:])
        wide = array.astype(np.float64)
        expected = [wide.mean(), wide.std(), wide.min(), wide.max(), np.linalg.norm(wide)]
        np.testing.assert_allclose(shown, expected, rtol=6e-6)
        assert 'key = heads(record("key", linear(x, **weights["key"])))' in step.inner_text()
        output = figure(step, "Output: encoder.layer.1.attention.self.key")
        output.get_by_role("button", name="Show as table").click()
        cells = numbers(output.locator("tbody tr").first.locator("td").all_inner_texts())
        limit = float(np.quantile(np.abs(wide), 0.998))
        difference = np.abs(np.array(cells) - np.clip(wide[0, :16], -limit, limit))
        assert difference.max() <= limit / 24 * 0.51

    browser.visit(path, look)


HOLD = """() => {
    const original = Response.prototype.arrayBuffer;
    [window.held, window.hold] = [[], true];
    window.two = new Promise((reached) => {
        Response.prototype.arrayBuffer = async function () {
            const bytes = await original.call(this);
            if (hold) await new Promise((release) => held.push(release) === 2 && reached());
            return bytes;
        };
    });
}"""  # arrays that are decompressed from now on stay in `held`, until `hold` is false; `two` waits for two of them


def test_an_array_that_is_decompressed_too_late_is_not_shown(
    browser: Browser, path: Path, explanation: TextExplanation
) -> None:
    array = explanation.trace["encoder.layer.2.attention.self.key"].astype(np.float64)

    def look(page: Any) -> list[float]:
        step = page.locator("details.step", has=page.locator("summary", has_text="Key")).first
        step.locator("summary").click()
        figure(step, "Output: encoder.layer.0.attention.self.key").wait_for()
        page.evaluate(HOLD)
        page.get_by_label("Show the numbers of").select_option("1")
        page.evaluate("two")
        page.evaluate("hold = false")
        page.get_by_label("Show the numbers of").select_option("2")
        output = figure(step, "Output: encoder.layer.2.attention.self.key")
        output.wait_for()
        page.evaluate("() => { held.map((go) => go()); return new Promise((done) => setTimeout(done)) }")
        output.get_by_role("button", name="Show as table").click()
        return numbers(output.locator("tbody tr").nth(1).locator("td").all_inner_texts())

    limit = float(np.quantile(np.abs(array), 0.998))
    difference = np.abs(np.array(browser.visit(path, look)) - np.clip(array[1, :16], -limit, limit))
    assert difference.max() <= limit / 24 * 0.51


def test_a_token_selected_in_one_view_is_selected_in_all(
    browser: Browser, path: Path, explanation: TextExplanation
) -> None:
    def look(page: Any) -> None:
        page.locator(".chip").nth(2).click()
        assert page.locator(".bar-list button[aria-pressed=true]").count() == 1
        assert page.locator("tr.chosen td").first.inner_text() == "2"
        assert page.locator("svg .line.marked").count() == 4
        assert "Selected token" in page.locator(".selection-bar").inner_text()
        row = explanation.trace["encoder.layer.0.attention.self.probs"][0, 2]
        strongest = page.locator(".strongest").inner_text()
        assert f"({int(row.argmax())}) {row.max():.3g}" in strongest
        page.get_by_role("button", name="Next", exact=True).click()
        assert page.locator("tr.chosen td").first.inner_text() == "3"
        page.get_by_role("button", name="Clear").click()
        assert page.locator("tr.chosen, .chip[aria-pressed=true]").count() == 0

    browser.visit(path, look)


def test_arrow_keys_open_another_head(browser: Browser, path: Path, explanation: TextExplanation) -> None:
    probabilities = explanation.trace["encoder.layer.1.attention.self.probs"][1]

    def look(page: Any) -> str:
        page.locator(".tile[aria-checked=true]").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        large = figure(page, "Layer 1, head 1")
        large.locator("canvas").focus()
        page.keyboard.press("ArrowRight")
        return large.locator("output").inner_text()

    assert float(browser.visit(path, look).rsplit(" ", 1)[1]) == pytest.approx(probabilities[0, 0], rel=6e-6)


@pytest.mark.parametrize(("width", "theme"), [(400, "dark"), (900, "light")])
def test_axe_finds_nothing_serious_and_nothing_is_too_wide(
    browser: Browser, tmp_path: Path, width: int, theme: str
) -> None:
    path = tmp_path / "page.html"
    explain.text(SentenceEncoder.random(seed=1, backend="numpy"), "a b").write(path)

    def look(page: Any) -> list[str]:
        page.evaluate("[0, 7, 8, 16].forEach((at) => (document.querySelectorAll('details.step')[at].open = true))")
        page.locator(".chip").nth(1).click()
        page.wait_for_selector("details[open] [data-view]:not([data-state=ready])", state="detached")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        return accessibility_problems(page)

    assert browser.visit(path, look, width=width, theme=theme) == []


@pytest.mark.parametrize("text", [*STRANGE, "a, " * 200], ids=range(6))
def test_strange_texts_are_only_text(browser: Browser, tmp_path: Path, text: str) -> None:
    encoder = SentenceEncoder.random(seed=2, backend="numpy")
    found = explain.text(encoder, text)
    found.write(tmp_path / "page.html")

    def look(page: Any) -> tuple[str, int, str]:
        shown = page.locator(".source-text").text_content()
        return shown, page.locator(".chip").count(), page.locator(".subtitle").text_content()

    shown, count, subtitle = browser.visit(tmp_path / "page.html", look)
    assert shown == text and count == len(found.trace.tokens)
    assert subtitle == (text or "(the empty text)")


def test_numbers_that_are_not_finite_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    explain.text(overflowing(SentenceEncoder.random(backend="numpy")), "a b").write(tmp_path / "page.html")

    def look(page: Any) -> list[str]:
        assert page.locator("[data-state=failed]").count() == 0
        return page.locator(".bar-list .number").all_text_contents()

    assert set(browser.visit(tmp_path / "page.html", look)) == {"NaN"}


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_the_page_says_what_it_shows_for_each_pooling(mode: str) -> None:
    config = dataclasses.replace(SMALL, pooling_mode=mode, normalize=False)
    page = explain.text(SentenceEncoder.random(config, backend="numpy"), "a b").page()
    words = {"mean": "divided by T.", "cls": "first token.", "max": "largest number", "mean_sqrt_len_tokens": "by √T."}
    words |= {"weightedmean": "weighted by their positions", "lasttoken": "last token."}
    assert words[mode] in page and "Normalisation" not in page


@pytest.mark.weights
def test_a_page_of_thirty_tokens_is_small(published: SentenceEncoder) -> None:
    found = explain.text(
        published, "The quick brown fox jumps over the lazy dog while " + "other animals watch it. " * 4
    )
    assert len(found.trace.tokens) == 32 and len(found.page().encode()) < 1_500_000
