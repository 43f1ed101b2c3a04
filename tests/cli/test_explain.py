"""`explain` writes a page, to a file or to standard output."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder, cli
from minilm_np.cli import explain as explain_command

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, encoder: SentenceEncoder) -> Run:
    """`minilm-np explain ...` with a random model."""
    monkeypatch.setattr(explain_command, "load", lambda options: encoder)
    return lambda *arguments: cli.main(["explain", *map(str, arguments)])


def test_it_writes_a_page_and_says_where(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.html"
    assert run("a <b>", "--output", path) == 0
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"minilm-np: wrote {path} (0.")


def test_the_default_is_a_file_in_the_current_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("a") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["explanation.html"]


def test_a_dash_means_standard_output(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a", "--output", "-") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("<!DOCTYPE html>") and captured.out.endswith("</html>\n") and captured.err == ""


def test_standard_output_is_utf_8_regardless_of_the_locale(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding="ascii"))
    assert run("naïve", "--output", "-") == 0
    assert "naïve" in bytes_.getvalue().decode("utf-8")


def test_a_folder_is_refused_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "a", "--output", str(tmp_path), "--model", "/nowhere"]) == 1
    assert "expected a file, found a folder" in capsys.readouterr().err
