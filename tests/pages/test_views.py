"""The views in a real browser: numbers, keyboard, pointer, selection, tables, themes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import pages
from tests.support.browser import Browser, accessibility_problems

A = np.random.default_rng(4).standard_normal((3, 40))
SQUARE = np.linspace(-1, 1, 9).reshape(3, 3)
LINES = np.array([[1e-7, 1e-3, 1.0], [2e-7, 0.0, 10.0]])
WORDS = ["<b>bold</b>", "שלום", "last"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    views = [
        pages.heat_map("wide", title="Wide", rows="words", columns="dimension"),
        pages.heat_map("square", title="Square", rows="words", columns="words", labels=["from", "to", "weight"]),
        pages.line_chart(title="Lines", x=["a", "b", "c"], y="error", array="lines", series="sides", log=True),
        pages.bars("row", title="Row", axis="dimension", y="value", overlay=""),
        pages.bars("column", title="Column", axis="words", y="value"),
        pages.table(["word"], [[word] for word in WORDS], caption="Words", axis="words"),
    ]
    html = pages.document(
        "Views", "All of them", [pages.Section("views", "Views", "All.", views)],
        arrays={
            "wide": pages.exact(A), "square": pages.exact(SQUARE), "lines": pages.exact(LINES),
            "row": pages.exact(A[0]), "column": pages.exact(A[:, 0]),
        },
        values={"axes": {"words": WORDS, "sides": ["ours", "theirs"]}},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("views") / "views.html"
    pages.write(path, html)
    return path


def view(page: Any, title: str) -> Any:
    return page.locator("figure", has=page.locator("figcaption", has_text=title)).first


def test_the_table_of_a_view_has_the_numbers_of_the_array(browser: Browser, path: Path) -> None:
    def look(page: Any) -> list[str]:
        wide = view(page, "Wide")
        cells = []
        wide.get_by_role("button", name="Show as table").click()
        for _ in range(3):
            cells.append(wide.locator("tbody tr").nth(1).locator("td").all_inner_texts())
            wide.get_by_role("button", name="Next columns").click(force=True, timeout=1000) if len(cells) < 3 else None
        return [text for part in cells for text in part]

    shown = [float(text.replace("−", "-")) for text in browser.visit(path, look)]
    np.testing.assert_allclose(shown, A[1], rtol=5e-6)


def test_arrow_keys_read_cells_and_enter_selects_the_row_in_every_view(browser: Browser, path: Path) -> None:
    def look(page: Any) -> None:
        canvas = view(page, "Square").locator("canvas")
        canvas.focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):  # the first key shows the cursor
            page.keyboard.press(key)
        readout = view(page, "Square").locator("output").inner_text()
        assert readout == f"from “{WORDS[1]}” (1), to “{WORDS[1]}” (1): weight 0.00000"
        page.keyboard.press("Enter")
        assert view(page, "Column").locator("button[aria-pressed=true]").inner_text().startswith(WORDS[1])
        assert page.locator("tr.chosen").inner_text() == WORDS[1]
        page.keyboard.press("Escape")
        assert page.locator("tr.chosen, button[aria-pressed=true]").count() == 0

    browser.visit(path, look)


def test_a_right_to_left_label_does_not_reorder_the_words_around_it(browser: Browser, path: Path) -> None:
    """What follows a label in the line that reads out a cell stands to the right of it."""

    def look(page: Any) -> bool:
        canvas = view(page, "Square").locator("canvas")
        canvas.focus()
        for key in ("ArrowDown", "ArrowDown"):  # the row of the label in Hebrew
            page.keyboard.press(key)
        return page.evaluate(
            """() => {
                const label = document.querySelector("output bdi");
                const next = document.createRange();
                next.selectNodeContents(label.nextSibling);
                return next.getBoundingClientRect().left >= label.getBoundingClientRect().right - 1;
            }"""
        )

    assert browser.visit(path, look)


def test_a_token_has_its_position_after_it() -> None:
    assert pages.token("<שלום>", 3) == '<span><bdi dir="ltr">&lt;שלום&gt;</bdi> (3)</span>'


def test_the_pointer_reads_the_same_cell(browser: Browser, path: Path) -> None:
    def look(page: Any) -> None:
        canvas = view(page, "Wide").locator("canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 6, box["y"] + box["height"] - 6)
        readout = view(page, "Wide").locator("output").inner_text()
        assert readout.startswith("row “last” (2), column 39: value ")
        assert float(readout.rsplit(" ", 1)[1].replace("−", "-")) == pytest.approx(A[2, 39], rel=5e-6)

    browser.visit(path, look)


def test_a_logarithmic_chart_leaves_out_zero(browser: Browser, path: Path) -> None:
    def look(page: Any) -> tuple[int, str]:
        chart = view(page, "Lines")
        chart.locator("svg").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("End")
        return chart.locator("svg .mark").count(), chart.locator("output").inner_text()

    assert browser.visit(path, look) == (5, "“ours”, c: 1.00000")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, path: Path, theme: str) -> None:
    def look(page: Any) -> list[str]:
        page.evaluate("document.querySelectorAll('.below button').forEach((button) => button.click())")
        return accessibility_problems(page)

    assert browser.visit(path, look, theme=theme) == []


def test_axe_finds_a_planted_problem(browser: Browser, path: Path) -> None:
    def look(page: Any) -> list[str]:
        page.evaluate("document.querySelector('#theme').parentElement.replaceWith(document.querySelector('#theme'))")
        return accessibility_problems(page)

    assert [problem.split(":")[0] for problem in browser.visit(path, look)] == ["select-name"]


def test_bars_and_the_selection_are_seen_in_the_colours_of_the_system(browser: Browser, path: Path) -> None:
    def look(page: Any) -> list[str]:
        view(page, "Column").locator("button.row").nth(1).click()
        style = "(selector, name) => getComputedStyle(document.querySelector(selector))[name]"
        asked = [(".fill", "backgroundColor"), ("body", "backgroundColor"), ("[aria-pressed=true]", "outlineStyle")]
        return [page.evaluate(f"([selector, name]) => ({style})(selector, name)", list(one)) for one in asked]

    bar, behind, outline = browser.visit(path, look, colours="active")
    assert bar != behind and outline == "solid"


def test_the_switch_changes_the_theme(browser: Browser, path: Path) -> None:
    def look(page: Any) -> list[str]:
        colour = "getComputedStyle(document.body).backgroundColor"
        found = [page.evaluate(colour)]
        for theme in ("light", "dark", "auto"):
            page.select_option("#theme", theme)
            found.append(page.evaluate(colour))
        return found

    auto, light, dark, again = browser.visit(path, look, theme="dark")
    assert auto == dark == again != light


@pytest.mark.parametrize("width", [400, 450])  # 450: a window of 900 at 200 % zoom
def test_nothing_is_wider_than_the_window(browser: Browser, path: Path, width: int) -> None:
    def look(page: Any) -> bool:
        return page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    assert browser.visit(path, look, width=width)
