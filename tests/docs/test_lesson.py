"""The lesson: every page runs on the published model, its notebook runs on a random one, and its picture is its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import numpy as np
import pytest
from matplotlib import image, pyplot
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tests.docs.pages import ROOT, blocks, links
from tests.docs.running import run_page

LESSON = ROOT / "minilm_np" / "docs" / "lesson"
PAGES = sorted(LESSON.glob("[1-9]_*.md"))
MOST_LINES = 200
MOST_BYTES = 80_000  # of a picture
SAME = 0.02  # the mean difference of the pixels, from 0 to 1, that another version of matplotlib may cause


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("agg")
    yield tmp_path
    pyplot.close("all")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def difference(one: Path, other: Path) -> float:
    """The mean difference of two pictures' pixels, from 0 to 1; 1 if their sizes differ by more than a few pixels."""
    a, b = (image.imread(path)[..., :3] for path in (one, other))
    height, width = (min(sizes) for sizes in zip(a.shape[:2], b.shape[:2], strict=True))
    if max(*a.shape[:2], *b.shape[:2]) - 8 > max(height, width):
        return 1.0
    return float(np.abs(a[:height, :width] - b[:height, :width]).mean())


@pytest.mark.weights
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_draws_the_picture_that_it_shows(page: Path, model_folder: Path, folder: Path) -> None:
    run_page(page.name, text_of(page), folder)
    assert [path.name for path in folder.glob("*.png")] == [f"{page.stem}.png"]
    assert difference(folder / f"{page.stem}.png", LESSON / f"{page.stem}.png") < SAME


def test_the_notebooks_have_the_code_of_the_pages_and_run_on_a_random_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one kernel, which forgets every name between two pages."""
    sources = []
    for page in PAGES:
        notebook = jupytext.reads(text_of(page), fmt="md")
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        assert code == [block.code.rstrip("\n") for block in blocks(text_of(page)) if block.language == "python"]
        sources += ["%reset -f", *code]
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    monkeypatch.setenv("MPLBACKEND", "agg")  # the pictures are saved, not shown
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    cells = [new_code_cell(source.replace("SentenceEncoder(", "SentenceEncoder.random(")) for source in sources]
    joined = new_notebook(cells=cells)
    NotebookClient(joined, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    assert {path.stem for path in folder.glob("*.png")} == {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_form_of_a_page(page: Path) -> None:
    text = text_of(page)
    assert len(text.splitlines()) <= MOST_LINES
    assert (LESSON / f"{page.stem}.png").stat().st_size < MOST_BYTES
    assert re.search(rf"^# {page.stem[0]}\. .*^## Exercise$.*^<details>$.*^</details>$", text, re.MULTILINE | re.DOTALL)
    following = [other.name for other in PAGES[PAGES.index(page) + 1 :][:1]]
    assert {"README.md", f"{page.stem}.png", *following} <= {target for _, target in links(text)}


def test_the_index_names_every_page() -> None:
    assert len(PAGES) == 9
    assert {page.name for page in PAGES} <= {target for _, target in links(text_of(LESSON / "README.md"))}


def test_another_picture_is_found() -> None:
    pictures = sorted(LESSON.glob("*.png"))
    assert difference(pictures[0], pictures[0]) == 0.0
    assert min(map(difference, pictures, pictures[1:])) > SAME
