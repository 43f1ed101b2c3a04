"""The README and the manual are true: their code runs and prints what they show, and their links lead somewhere."""

import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import ROOT, all_pages, anchors, blocks, links, manual_pages
from tests.docs.running import run_page


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.weights
@pytest.mark.parametrize("page", manual_pages(), ids=name_of)
def test_the_code_of_a_page_runs(
    page: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(name_of(page), page.read_text(encoding="utf-8"), tmp_path)


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def broken_links(page: Path) -> list[str]:
    """The relative links and images of a page that lead to no file, or to no heading."""
    broken = []
    for line, target in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z][a-z+.-]*:", target):  # another site, or an address for mail
            continue
        path, _, anchor = unquote(target).partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or not found.is_relative_to(ROOT):
            broken.append(f"line {line}: {target}: there is no such file in the project")
        elif anchor and anchor not in anchors(found.read_text(encoding="utf-8")):
            broken.append(f"line {line}: {target}: there is no such heading")
    return broken


def test_the_index_names_every_page_of_the_manual() -> None:
    index = ROOT / "minilm_np" / "docs" / "README.md"
    named = {target.partition("#")[0] for _, target in links(index.read_text(encoding="utf-8"))}
    assert {page.name for page in index.parent.glob("*.md")} - {"README.md"} <= named


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


@pytest.mark.parametrize("page", manual_pages(), ids=name_of)
def test_the_benchmarks_that_a_page_names_exist(page: Path) -> None:
    modules = set(re.findall(r"python -m (benchmarks\.\w+)", page.read_text(encoding="utf-8")))
    assert [module for module in sorted(modules) if importlib.util.find_spec(module) is None] == []


# ---- the checks themselves: each must fail where a page is wrong ---------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\n1 / 0\n```\n", "division by zero"),
        ("```python\nimport warnings\nwarnings.warn('careful')\n```\n", "careful"),
        ("```python\nprint(1 + 1)  # 3\n```\n", r"(?s)line 2: this prints\n2\nnot 3"),
        ("```python\nprint((1, 2))  # (1, 3): a pair\n```\n", "line 2"),
        ("```python\nfor x in 'ab':\n    print(x)  # 'a'; 'c'\n```\n", "line 3"),
        ("```python\nprint('abc1')  # abc2\n```\n", "line 2"),
        ("```python\nprint('one two')  # one three\n```\n", "line 2"),
        ("```python\nprint(0.25)  # 0.26 or so\n```\n", "line 2"),
        ("```sh\nminilm-np --no-such-option\n```\n", "exit code 2"),
        ("    minilm-np --no-such-option\n", "exit code 2"),
        ("```sh\npip install . && minilm-np --no-such-option\n```\n", "exit code 2"),
        (
            "```sh\nminilm-np --version\n```\n\n```text\nminilm-np 99\n```\n",
            "(?s)line 2: the commands print",
        ),
        ("```python\nprint(1)\n", "has no end"),
    ],
)
def test_a_wrong_page_fails(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=message):
        run_page("page.md", text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1\n```\n\n```python\nprint(x + 1)  # 2\n```\n",
        "```python\nprint((1, 2))  # (1, 2): a pair\n```\n",
        "```python\nfor x in 'ab':\n    print(x)  # a; b\n```\n",
        "```python\nprint('a long line')  # a long ...\n```\n",
        "```python\nprint([0.25, 0.5])  # 0.25 and 0.5, in this order\n```\n",
        "```diff\n-import nothing\n+import math\n```\n\n```python\nprint(math.floor(1.5))  # 1\n```\n",
        "<!-- not run: it needs a network -->\n```sh\nminilm-np --no-such-option\n```\n",
        "```sh\npip install nothing-of-this-name\nminilm-np --version\n```\n\n```text\nminilm-np 0...\n```\n",
        "```sh\nprintf 'a\\n' > a.txt\n```\n\n```python\nwith open('a.txt') as file:\n    print(*file)  # a\n```\n",
    ],
)
def test_a_true_page_passes(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page("page.md", text, tmp_path)


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](missing.md)", ["line 1: missing.md: there is no such file in the project"]),
        ("\n![a](missing.png)", ["line 2: missing.png: there is no such file in the project"]),
        ('<img src="missing.png" alt="">', ["line 1: missing.png: there is no such file in the project"]),
        ("[a](#nowhere)", ["line 1: #nowhere: there is no such heading"]),
        ("# What is exact, and what is `not`\n[a](#what-is-exact-and-what-is-not)", []),
        ("# Twice\n# Twice\n[a](#twice-1) [b](https://example.org/x) [c](page.md#twice)", []),
        ("```text\n[a](missing.md)\n```\n`[a](missing.md)`\n", []),
    ],
)
def test_links_are_checked(text: str, broken: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.test_pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    assert broken_links(page) == broken


def test_blocks_are_found_with_their_lines() -> None:
    text = "- a list\n\n    not code\n\nprose\n\n    minilm-np info\n\n```python\nx\n```\n"
    assert [(block.language, block.line, block.code) for block in blocks(text)] == [
        ("indented", 7, "minilm-np info\n"),
        ("python", 10, "x\n"),
    ]
