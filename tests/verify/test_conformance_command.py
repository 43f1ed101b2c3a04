"""The command `minilm-np conformance`."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder, cli
from minilm_np.verify.conformance import write
from tests.support.conformance_port import TEXTS, changed, read_safetensors, set_first


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(seed=3, backend="numpy")


@pytest.fixture(scope="module")
def file(encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conformance") / "file.safetensors"
    write(encoder, path, TEXTS)
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, encoder: SentenceEncoder) -> Callable[..., int]:
    """`minilm-np conformance ...` of the random model."""
    from minilm_np.cli import conformance as module

    monkeypatch.setattr(module, "load", lambda options: encoder)
    monkeypatch.setattr(cli, "COMMANDS", (module,))
    return lambda *arguments: cli.main(["conformance", *map(str, arguments)])


def test_the_command_writes_and_checks(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.safetensors"
    assert command("write", path, "--input", texts_file(tmp_path)) == 0
    assert "random weights, 2 texts, 2 of them with 42 intermediates" in capsys.readouterr().out
    assert command("check", path) == 0
    out = capsys.readouterr().out
    assert out.endswith("\nconforms: every compared array is within its tolerance\n")
    assert max(map(len, out.splitlines())) <= 80 and not any(line.endswith(" ") for line in out.splitlines())
    assert command("check", path, "--format", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["conforms"] and facts["first_failure"] is None and len(facts["compared"]) == 2 * (1 + 2 * 43) + 1


def texts_file(folder: Path) -> Path:
    (folder / "texts").write_text("one\ntwo\n")
    return folder / "texts"


@pytest.mark.weights
def test_the_command_checks_a_file_of_the_engine_as_json(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = str(tmp_path / "file.safetensors"), ("--model", str(model_folder))
    texts = ("--input", str(texts_file(tmp_path)))
    assert cli.main(["conformance", "write", path, *texts, "--full", "1", *model]) == 0
    capsys.readouterr()
    assert cli.main(["conformance", "check", path, *model, "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["conforms"]
    bits = [row for row in facts["compared"] if row["name"] == "vector, bit for bit"]
    assert [(row["max_abs"], row["max_rel"], row["conforms"]) for row in bits] == [(0, 0, True)] * 2


def test_the_command_gives_the_first_texts_intermediates(command: Any, tmp_path: Path) -> None:
    assert command("write", tmp_path / "file.safetensors", "--input", texts_file(tmp_path), "--full", 1) == 0
    _, manifest = read_safetensors(tmp_path / "file.safetensors")
    assert [(text["text"], text["intermediates"]) for text in manifest["texts"]] == [("one", True), ("two", False)]


def test_the_command_fails_where_the_file_differs(command: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        arrays["texts.0.float64.encoder.layer.1.output.dense"] *= 1.001

    path = changed(file, spoil)
    assert command("check", path) == 1
    out = capsys.readouterr().out
    assert "1.0e-03*" in out and out.splitlines()[-1] == (
        "does not conform: the first array out of tolerance is encoder.layer.1.output.dense of text 0 "
        "(counted from 0), 'This is an example sentence', reference float64: error 0.001, tolerance 1e-10"
    )
    assert command("check", path, "--format", "json") == 1
    first = json.loads(capsys.readouterr().out)["first_failure"]
    assert first["name"] == "encoder.layer.1.output.dense" and first["conforms"] is False


def test_the_output_is_utf_8_regardless_of_the_locale(
    command: Any, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.safetensors"
    write(encoder, path, ["naïve"], full=0)
    wrong = changed(path, lambda arrays, manifest: set_first(arrays["texts.0.ids"], 7))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert command("check", wrong) == 1
    assert "'naïve'" in written.getvalue().decode("utf-8")


def test_the_command_says_what_is_wrong(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(b"no such thing")
    assert command("check", tmp_path / "x") == 1
    assert "expected a complete .safetensors file" in capsys.readouterr().err
    assert command("check", tmp_path / "none") == 1
    assert "No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        command("write", tmp_path / "y", "--full", "-1")
    assert usage.value.code == 2
    assert "argument --full: expected a whole number of at least 0, found '-1'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        command("write", tmp_path / "y", "--input", texts_file(tmp_path), "--full", "99")
    assert usage.value.code == 2
    assert "argument --full: expected at most 2, the number of texts, found 99" in capsys.readouterr().err
    assert command("write", tmp_path / "no" / "y") == 1
    expected = f"minilm-np: error: {tmp_path}/no/y: there is no folder {tmp_path}/no: create it first\n"
    assert capsys.readouterr().err == expected
