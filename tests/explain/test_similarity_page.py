"""The page of two texts in a real browser: its numbers are the arrays, and it works by keyboard."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder, cli
from minilm_np.explain import Similarity, similarity
from minilm_np.explain.similarity_page import LIMITS, adds_up
from tests.support.browser import Browser, accessibility_problems

A, B = "ab cd", "b <i> [SEP]"
HOSTILE = "<script>alert(1)</script> </script> \"q\" 'it' \u2028 שלום 👍🏽"


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


@pytest.fixture(scope="module")
def found(encoder: SentenceEncoder) -> Similarity:
    return similarity(encoder, A, B)


@pytest.fixture(scope="module")
def path(found: Similarity, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("similarity") / "page.html"
    found.write(path)
    return path


def figure(page: Any, title: str) -> Any:
    return page.locator("figure", has=page.locator("figcaption", has_text=title)).first


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-")) for text in texts]


def test_the_matrix_and_the_bars_are_the_arrays(browser: Browser, path: Path, found: Similarity) -> None:
    def look(page: Any) -> tuple[list[str], dict[str, list[str]]]:
        matrix = figure(page, "Contribution of each pair")
        matrix.get_by_role("button", name="Show as table").click()
        bars = {
            title: figure(page, title).locator("button .number").all_inner_texts()
            for title in ("Tokens of A: sum", "Tokens of A: int", "Tokens of B: sum", "Tokens of B: int")
        }
        return matrix.locator("tbody tr").nth(1).locator("td").all_inner_texts(), bars

    row, bars = browser.visit(path, look)
    assert len(row) == len(found.b.tokens)
    np.testing.assert_allclose(numbers(row), found.contributions[1], rtol=1e-5)
    for title, array in (
        ("Tokens of A: sum", found.contributions.sum(axis=1)),
        ("Tokens of B: sum", found.contributions.sum(axis=0)),
        ("Tokens of A: int", found.a.attribution.values),
        ("Tokens of B: int", found.b.attribution.values),
    ):
        np.testing.assert_allclose(numbers(bars[title]), array, rtol=1e-5)


def test_the_page_says_that_it_adds_up(browser: Browser, path: Path, found: Similarity) -> None:
    text = browser.visit(path, lambda page: page.locator("main").inner_text())
    assert adds_up(found) in text and adds_up(found).startswith("It adds up: ")
    assert f"{found.cosine:.8f}" in text and f"{found.total:.8f}" in text
    for side in (found.a, found.b):
        assert f"{side.attribution.baseline:.6f}" in text
        assert f"{side.attribution.residual:.1e}" in text
    assert all(limit in text for limit in LIMITS)
    best = found.strongest(1)[0]
    first = f"1\t{found.a.tokens[best.a]} ({best.a})\t{found.b.tokens[best.b]} ({best.b})\t{best.contribution:+.4f}"
    assert first in text


def test_the_keyboard_reads_a_pair_and_selects_its_token(browser: Browser, path: Path, found: Similarity) -> None:
    def look(page: Any) -> tuple[str, list[str]]:
        matrix = figure(page, "Contribution of each pair")
        matrix.locator("canvas").focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):  # the first key shows the cursor
            page.keyboard.press(key)
        readout = matrix.locator("output").inner_text()
        page.keyboard.press("Enter")
        return readout, page.locator("button[aria-pressed=true] .name").all_inner_texts()

    readout, chosen = browser.visit(path, look)
    assert readout.startswith(
        f"token of A “{found.a.tokens[1]}” (1), token of B “{found.b.tokens[1]}” (1): contribution "
    )
    np.testing.assert_allclose(numbers([readout.rpartition(" ")[2]])[0], found.contributions[1, 1], rtol=1e-5)
    assert chosen[:2] == [found.a.tokens[1]] * 2  # in both charts of A


@pytest.mark.parametrize(("width", "theme"), [(400, "dark"), (900, "light"), (1600, "dark")])
def test_the_page_is_accessible_and_fits_the_window(browser: Browser, path: Path, width: int, theme: str) -> None:
    def look(page: Any) -> tuple[list[str], int]:
        return accessibility_problems(page), page.evaluate("document.documentElement.scrollWidth")

    problems, needed = browser.visit(path, look, width=width, theme=theme)
    assert problems == []
    assert needed <= width


@pytest.mark.parametrize(("a", "b"), [(HOSTILE, HOSTILE), ("", "x"), ("", ""), ("a " * 200, "b " * 200)])
def test_texts_that_try(browser: Browser, encoder: SentenceEncoder, tmp_path: Path, a: str, b: str) -> None:
    found = similarity(encoder, a, b)
    found.write(tmp_path / "page.html")
    text = browser.visit(tmp_path / "page.html", lambda page: page.locator("main").inner_text())
    assert adds_up(found) in text and adds_up(found).startswith("It adds up: ")
    assert ("<script>alert(1)" in text) == (a == HOSTILE)
    assert "<script>alert" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_sum_that_differs_is_said(found: Similarity) -> None:
    wrong = Similarity(**{**vars(found), "cosine": found.cosine + 1e-3})
    assert adds_up(wrong).startswith("It does not add up: the pairs differ from the cosine by -1.0e-03")


def test_the_command_takes_one_text_or_two(encoder: SentenceEncoder, tmp_path: Path, capsys: Any) -> None:
    encoder.save_pretrained(str(tmp_path / "model"))
    page = tmp_path / "page.html"
    model = ["--model", str(tmp_path / "model")]
    assert cli.main(["explain", A, B, *model, "--output", str(page)]) == 0
    assert "Why is the cosine" in page.read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        cli.main(["explain", "a", "b", "c", *model, "--output", str(page)])
    assert stop.value.code == 2
    assert "expected one text or two, found 3" in capsys.readouterr().err
