"""The command `minilm-np verify`."""

import io
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder, cli
from minilm_np.cli import verify as verify_command
from minilm_np.verify import built_in_texts, compare
from tests.support.vector_servers import serving
from tests.support.verify_ports import TEXTS, Port


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, small: SentenceEncoder, tmp_path: Path) -> Any:
    """Runs a command line on a small model; its exit code."""
    small.save_pretrained(tmp_path / "model")
    if verify_command not in cli.COMMANDS:
        monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, verify_command))

    def run(*arguments: str) -> int:
        try:
            return cli.main(["verify", "--model", str(tmp_path / "model"), "--backend", "numpy", *arguments])
        except SystemExit as exit_:
            return int(exit_.code or 0)

    return run


def write_vectors(path: Path, texts: Sequence[str], vectors: np.ndarray) -> str:
    lines = (
        json.dumps({"text": text, "embedding": vector.tolist()}) for text, vector in zip(texts, vectors, strict=True)
    )
    path.write_text("\n".join(lines))
    return str(path)


def test_the_command_says_whether_vectors_agree(
    command: Any, small: SentenceEncoder, tmp_path: Path, capsys: Any
) -> None:
    assert command("--print-texts") == 0
    texts = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert texts == [text for _, text in built_in_texts(small)]
    vectors = small.encode(texts, on_truncation="ignore")
    path = write_vectors(tmp_path / "v.jsonl", texts, vectors)
    assert command("--against", path) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"ours: minilm_np (numpy); theirs: v.jsonl; {len(texts)} texts"
    assert out[-2].startswith("vector  0.0e+00   1.0000000  ")
    within = (
        "within the tolerance: the largest difference is 0.0e+00, 1e-05 is allowed; closer to float64: both equally ("
    )
    assert out[-1].startswith(within)

    vectors[5, 0] += 0.5
    path = write_vectors(tmp_path / "w.jsonl", texts, vectors)
    assert command("--against", path) == 1
    *_, verdict, remedy = capsys.readouterr().out.splitlines()
    assert "; the worst is text 'numbers'; " in verdict and "run `minilm-np diagnose`" in remedy
    assert command("--against", path, "--tolerance", "0.6") == 0
    capsys.readouterr()
    assert command("--against", path, "--format", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["within"] is False and found["verdict"].startswith(
        "outside the tolerance: the largest difference is 5.0e-01"
    )
    assert (
        found["vector"]["difference"]["max_abs"] == pytest.approx(0.5, abs=1e-6)
        and found["vector"]["worst_text"] == "numbers"
    )


def test_the_output_is_utf_8_regardless_of_the_locale(
    command: Any, small: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_vectors(tmp_path / "v.jsonl", ["naïve"], small.encode(["naïve"]))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert command("--against", path) == 0
    assert "text 0 'naïve'" in written.getvalue().decode("utf-8")


def test_the_command_takes_texts_from_a_file(command: Any, small: SentenceEncoder, tmp_path: Path, capsys: Any) -> None:
    np.save(tmp_path / "v.npy", small.encode(["one", "two"]))
    (tmp_path / "t.txt").write_text("one\ntwo\n")
    (tmp_path / "t.jsonl").write_text('{"text": "one", "label": 3}\n{"text": "two"}\n')
    for name in ("t.txt", "t.jsonl"):
        assert command("--against", str(tmp_path / "v.npy"), "--texts", str(tmp_path / name)) == 0
    assert command("--against", str(tmp_path / "v.npy")) == 1
    assert "v.npy has 2 vectors without texts, but" in capsys.readouterr().err
    for content, message in (
        ("{", "line 1: expected JSON"),
        ("[1]", 'line 1: expected an object with "text", found [1]'),
    ):
        (tmp_path / "t.jsonl").write_text(content)
        assert command("--against", str(tmp_path / "v.npy"), "--texts", str(tmp_path / "t.jsonl")) == 1
        assert message in capsys.readouterr().err


def test_the_command_shows_layers_and_problems(command: Any, small: SentenceEncoder, capsys: Any) -> None:
    assert command("--against", "transformers") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:-1])) <= 80
    assert [line.split()[0] for line in lines[3:10]] == [
        "embeddings", "encoder.layer.0", "encoder.layer.1", "encoder.layer.2", "pooling", "normalize", "vector",
    ]  # fmt: skip
    assert command("--against", "sentence-transformers", "--all") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 4 + 3 * 11 + 3 + 2


def test_problems_are_cut_short_for_people(small: SentenceEncoder) -> None:
    ids = [[0]] * len(TEXTS) * 3
    comparison = compare(small, Port(small, ids=ids), TEXTS * 3)
    lines = list(verify_command.table(comparison))
    assert sum(line.startswith("problem: ") for line in lines) == 6
    assert lines[-2] == "problem: and 4 more (--format json lists all)"
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --against --print-texts is required"),
        (["--against", "nonsense"], "expected one of sentence-transformers, transformers, MODEL.onnx"),
        (["--against", "transformers", "--tolerance", "-1"], "expected a number of at least 0, found '-1'"),
        (["--against", "transformers", "--tolerance", "x"], "expected a number of at least 0, found 'x'"),
        (["--against", "transformers", "--format", "xml"], "invalid choice"),
    ],
)
def test_wrong_usage_ends_with_2(command: Any, capsys: Any, arguments: list[str], message: str) -> None:
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err


def test_the_table_of_intermediates_fits_the_terminal(small: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compare(small, Port(small), TEXTS)
    monkeypatch.setenv("COLUMNS", "80")
    names = [row.name for row in comparison.intermediates]
    lines = list(verify_command.table(comparison, every=True))
    assert lines[3 : 3 + 2 * len(names) : 2] == names
    assert all(len(line) <= 80 for line in lines[1 : 3 + 2 * len(names)])


def test_the_command_says_whether_vectors_are_stable_and_whether_it_matters(
    command: Any, small: SentenceEncoder, tmp_path: Path, capsys: Any
) -> None:
    texts = [f"text {number}" for number in range(12)]
    vectors = small.encode(texts)
    path = write_vectors(tmp_path / "v.jsonl", texts, vectors)
    assert command("--against", path, "--stability", "--retrieval") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Stability is not tested: a file of vectors cannot be asked again." in lines
    assert "retrieval: 12 queries, taken from 12 texts of v.jsonl" in lines
    assert lines[-1] == "Retrieval is the same: all 10 neighbours are equal for every query."

    (tmp_path / "t.txt").write_text("\n".join(texts))
    np.save(tmp_path / "w.npy", vectors[:, ::-1] * np.linspace(0, 1, vectors.shape[1]))
    arguments = ["--against", str(tmp_path / "w.npy"), "--texts", str(tmp_path / "t.txt")]
    for more in (["--retrieval"], ["--corpus", str(tmp_path / "t.txt")]):
        assert command(*arguments, *more) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1].startswith("Retrieval is different: ") and lines[-2].startswith(
            "worst query             text "
        )
    assert command(*arguments, "--retrieval", "--stability", "--format", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["stability"]["changes"] == [] and found["retrieval"]["neighbours"] == 10


def test_unstable_vectors_are_shown_in_a_table_and_fail(command: Any, small: SentenceEncoder, capsys: Any) -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:  # another vector in a batch than alone
        vectors = small.encode(body["inputs"], on_truncation="ignore") * (1 if len(body["inputs"]) == 1 else 2)
        return 200, {}, [json.dumps(vectors.tolist()).encode()]

    with serving(answer) as url:
        assert command("--against", f"{url}/embed", "--stability", "--tolerance", "9") == 1
    lines = capsys.readouterr().out.splitlines()
    n = len(built_in_texts(small))
    start = lines.index(next(line for line in lines if line.startswith(f"stability of {n} texts")))
    assert [line.split()[:3] for line in lines[start + 1 : start + 3]] == [
        ["asked", "again", "0"],
        ["in", "one", "batch"],
    ]
    assert all(len(line) <= 80 for line in lines[start : start + 5])
    assert lines[start + 5].startswith(f"Not stable: in one batch, {n} of {n} vectors change by at most ")


def test_a_server_that_fails_under_concurrent_requests_is_shown_and_fails(
    command: Any, small: SentenceEncoder, capsys: Any
) -> None:
    at_a_time = threading.Semaphore(1)

    def answer(path: str, body: dict[str, Any]) -> Any:
        if not at_a_time.acquire(blocking=False):
            return 503, {}, [b"busy"]
        try:
            time.sleep(0.02)
            return 200, {}, [json.dumps(small.encode(body["inputs"], on_truncation="ignore").tolist()).encode()]
        finally:
            at_a_time.release()

    with serving(answer) as url:
        assert command("--against", f"{url}/embed", "--stability") == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Stable") and "But a request failed while others were in flight: " in last
    assert "503" in last
