"""The pages of verify and diagnose: their numbers are those of the results, and a text is never markup."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder, cli, pages
from minilm_np.trace import tokens_of
from minilm_np.verify import Diagnosis, compare, diagnose
from minilm_np.verify.page import comparison_page, diagnosis_page, number
from tests.support.browser import Browser, accessibility_problems
from tests.support.verify_ports import TEXTS, Port, Stored, fault

HOSTILE = "<script>alert(1)</script> \"quoted\" 'it' &amp; \u2028 שלום </title><img src=x onerror=alert(2)>"
WHERE = "encoder.layer.1.attention.output.LayerNorm"


class Elements(HTMLParser):
    """The elements of a page by tag, their attributes, and the text of each table row."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        self._open = tag in ("td", "th") or (self._open and tag not in ("tr", "table"))
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open:
            self.rows[-1][-1] += data

    def row(self, start: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(start))


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


def shift_token(x: np.ndarray) -> np.ndarray:
    """Change the third token of a text, if there is one."""
    return x + np.where(np.arange(len(x)) == 2, 0.05, 0.0)[:, None]


@pytest.fixture(scope="module")
def parted(small: SentenceEncoder) -> Any:
    return compare(small, Port(small, fault(WHERE, shift_token)), TEXTS)


@pytest.fixture(scope="module")
def scaled(small: SentenceEncoder) -> Diagnosis:
    return diagnose(small, Port(small).vectors(TEXTS) * 3.0, TEXTS)


def test_the_worst_token_of_a_step_is_named(small: SentenceEncoder, parted: Any) -> None:
    row = next(row for row in parted.intermediates if row.name == WHERE)
    assert parted.parts_at == WHERE
    assert row.worst_position == 2
    text = next(text for text in TEXTS if repr(text) in row.worst_text)
    assert row.worst_token == tokens_of(small.tokenizer, text)[0][2]
    assert parted.vector.worst_position is None and parted.vector.worst_token is None


def test_the_worst_token_of_scores_is_the_query(small: SentenceEncoder) -> None:
    where = "encoder.layer.0.attention.self.scores"
    change = fault(where, lambda x: x + np.eye(1, x.shape[1], 1)[0][:, None])
    comparison = compare(small, Port(small, change), TEXTS)
    assert next(row for row in comparison.intermediates if row.name == where).worst_position == 1


def test_the_page_has_the_numbers_of_the_comparison(parted: Any) -> None:
    page = Elements(comparison_page(parted))
    for row in parted.intermediates:
        found = page.row(row.name)
        assert found[1:3] == [number(row.ours.max_rel), number(row.theirs.max_rel)]
        assert found[5] == row.worst_text
        assert found[6] == ("" if row.worst_token is None else f"{row.worst_token} ({row.worst_position})")
    assert page.row("vector")[2] == number(parted.vector.theirs.max_rel)
    assert page.row(WHERE)[0].endswith("parts here")
    assert sum(row[0].endswith("parts here") for row in page.rows if row) == 2  # the step, and its layer
    assert parted.verdict[1:] in page.text


def test_a_chart_has_a_mark_for_each_step_of_both_sides(parted: Any) -> None:
    page = Elements(comparison_page(parted))
    titles = re.findall(r"<title>([^<]+)</title></(?:circle|polygon)>", comparison_page(parted))
    assert len(titles) == 2 * len(parted.intermediates)
    assert f"{WHERE}: theirs {next(r for r in parted.intermediates if r.name == WHERE).theirs.max_rel:.2e}" in titles
    assert sum(tag == "polyline" for tag, _ in page.tags) == 3


@pytest.mark.parametrize("kind", ["within", "no intermediates", "not finite", "other shape"])
def test_every_kind_of_result_has_a_page(small: SentenceEncoder, kind: str) -> None:
    vectors = Port(small).vectors(TEXTS)
    if kind == "not finite":
        vectors[1, 0] = np.nan
    others: dict[str, Any] = {"within": Port(small), "other shape": Stored(vectors[:, :3], TEXTS)}
    comparison = compare(small, others.get(kind, Stored(vectors, TEXTS)), TEXTS)
    page = Elements(comparison_page(comparison))
    assert comparison.verdict[1:] in page.text
    assert all(problem in page.text for problem in comparison.problems)
    assert ("only the vectors are compared" in page.text) == (kind != "within")


def test_texts_and_names_are_never_markup(small: SentenceEncoder) -> None:
    other = Stored(-Port(small).vectors([HOSTILE]), [HOSTILE])
    other.name = HOSTILE
    comparison = compare(small, other, [HOSTILE])
    diagnosis = diagnose(small, np.zeros((1, 3)), [HOSTILE])
    for page in (comparison_page(comparison), diagnosis_page(diagnosis, comparison)):
        elements = Elements(page)
        assert not {"img", "iframe", "link", "object"} & {tag for tag, _ in elements.tags}
        assert not any(name.startswith("on") or name == "style" for _, names in elements.tags for name in names)
        assert "alert(1)" in elements.text and "<script>alert" not in page
        assert "default-src 'none'" in page


def test_the_page_of_a_diagnosis_lists_the_candidates(scaled: Diagnosis, parted: Any) -> None:
    diagnosis, page = scaled, Elements(diagnosis_page(scaled, parted))
    assert diagnosis.sentence in page.text
    assert diagnosis.before is not None
    assert page.row("the model as it is")[2:5] == [
        number(value)
        for value in (diagnosis.before.relative_error, diagnosis.before.rounding, diagnosis.before.max_abs_error)
    ]
    for finding in diagnosis.findings:
        assert page.row(" and ".join(finding.deviations) or "the model")[0]
    for line in (*diagnosis.what, *diagnosis.remedies):
        assert line in page.text


@pytest.mark.parametrize(("command", "code"), [("verify", 1), ("diagnose", 1)])
def test_the_commands_write_the_page(
    small: SentenceEncoder, tmp_path: Path, capsys: Any, command: str, code: int
) -> None:
    small.save_pretrained(str(tmp_path / "model"))
    np.save(tmp_path / "vectors.npy", Port(small).vectors(TEXTS) + 0.01)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    page = tmp_path / "page.html"
    arguments = [command, "--model", str(tmp_path / "model"), "--backend", "numpy", "--against",
                 str(tmp_path / "vectors.npy"), "--texts", str(tmp_path / "texts.txt")]  # fmt: skip
    assert cli.main([*arguments, "--page", str(page)]) == code
    with_page = capsys.readouterr().out
    assert "vectors.npy" in page.read_text()
    assert cli.main(arguments) == code
    assert capsys.readouterr().out == with_page
    assert cli.main([*arguments, "--page", str(tmp_path / "missing" / "page.html")]) == 1
    assert "--page" in capsys.readouterr().err


@pytest.mark.parametrize(("width", "theme"), [(400, "light"), (900, "dark"), (1600, "light")])
def test_the_pages_in_a_browser(
    browser: Browser, parted: Any, scaled: Diagnosis, tmp_path: Path, width: int, theme: str
) -> None:
    for name, page in (("verify", comparison_page(parted)), ("diagnose", diagnosis_page(scaled, parted))):
        path = tmp_path / f"{name}.html"
        pages.write(path, page)

        def look(page: Any) -> tuple[list[str], int, int]:
            page.locator("summary").focus()
            page.keyboard.press("Enter")
            rows = page.locator("details tbody tr:visible").count()
            return accessibility_problems(page), page.evaluate("document.documentElement.scrollWidth"), rows

        problems, needed, rows = browser.visit(path, look, width=width, theme=theme)
        assert problems == []
        assert needed <= width
        assert rows == len(parted.intermediates)
