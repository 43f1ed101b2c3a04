"""The document: its policy names its one script and style sheet, and text is never markup."""

import base64
import hashlib
import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minilm_np import SaveError, pages
from minilm_np.pages import html_document
from minilm_np.pages.html_document import FOLDER, MODULES

EVIL = "</script><script>alert(1)</script>\"'&<b>\u2028]]>$policy"


def small_page(text: str = "text") -> str:
    view = pages.heat_map("a", title=text, rows=text, columns="c", note=text)
    table = pages.table([text], [[text]], caption=text, axis=text)
    section = pages.Section("s", text, text, [view, table, pages.facts({text: text}), pages.paragraph(text)])
    return pages.document(
        text, text, [section], arrays={"a": pages.exact(np.ones((2, 2)))}, values={"axes": {text: [text]}}, footer=text
    )


def test_text_is_never_markup() -> None:
    plain, evil = small_page(), small_page(EVIL)
    tags = re.compile(r"<[a-zA-Z/!]+")
    assert tags.findall(evil) == tags.findall(plain)
    assert "\u2028" not in re.search(r'id="values">(.*?)</script>', evil, re.DOTALL)[1]  # type: ignore[index]
    assert EVIL in html.unescape(evil)


def test_the_policy_allows_one_script_and_one_style_sheet() -> None:
    page = small_page()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for directive, content in (
        ("style-src", re.search(r"<style>(.*?)</style>", page, re.DOTALL)),
        ("script-src", re.search(r"<script>(.*?)</script>", page, re.DOTALL)),
    ):
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()  # type: ignore[index]
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "style=" not in page and not re.search(r"(src|href)=\"(?!#)", page)


def test_every_module_is_in_the_page_after_those_it_imports() -> None:
    assert {path.stem for path in (FOLDER / "js").glob("*.js")} == set(MODULES)
    for number, name in enumerate(MODULES):
        source = (FOLDER / "js" / f"{name}.js").read_text(encoding="utf-8")
        assert set(re.findall(r'from "\./(\w+)\.js"', source)) <= set(MODULES[:number])
        assert len(source.splitlines()) < 300


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
def test_the_joined_script_is_valid() -> None:
    script = html_document._script()
    subprocess.run(["node", "--check", "-"], input=script.encode(), check=True, timeout=60)


def test_a_large_page_gives_a_warning_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_document, "LARGE", 10)
    with pytest.raises(UserWarning, match=r"large\.html: this page has"):  # warnings are errors here
        pages.write(tmp_path / "large.html", "a long page")
    assert not (tmp_path / "large.html").exists()


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="the page cannot be written"):
        pages.write(tmp_path / "missing" / "page.html", "page")
