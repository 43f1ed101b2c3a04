"""`embed`: the options, the summary, and what it prints when it is interrupted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder, jobs
from tests.cli.conftest import Stdin
from tests.support.cli import NUMPY, Command

pytestmark = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")

LINES = ["one", "two", "one"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with inputs, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("".join(f"{line}\n" for line in LINES))
    (tmp_path / "in.csv").write_text("id,body\n1,one\n2\n3,two\n")
    return tmp_path


def embed(command: Command, *arguments: str) -> tuple[int, bytes, str]:
    return command("embed", *NUMPY, "--model", str(command.model), *arguments)


def test_a_file_and_the_summary(command: Command, encoder: SentenceEncoder, files: Path) -> None:
    code, out, err = embed(command, "in.txt", "--output", "out.npy", "--report", "report.json")
    assert (code, out) == (0, b"")
    assert err.startswith("minilm-np: out.npy: 3 rows, 15 tokens, 0 truncated, 1 duplicates computed once, ")
    assert np.load("out.npy").tobytes() == encoder.encode(LINES).tobytes()
    assert json.loads(Path("report.json").read_text())["rows"] == 3


def test_every_option_reaches_embed_files(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    embed_files = jobs.embed_files

    def recording(*arguments: Any, **options: Any) -> jobs.EmbedReport:
        given.update(options)
        return embed_files(*arguments, **options)

    monkeypatch.setattr(jobs, "embed_files", recording)
    code, _, err = embed(
        command, "in.csv", "--output", "out.jsonl", "--column", "body", "--id", "id", "--dtype", "int8",
        "--on-error", "skip", "--on-truncation", "ignore", "--max-length", "8", "--truncate-dim", "4", "--normalize",
        "--from", "csv", "--shard", "1/1",
    )  # fmt: skip
    assert code == 0, err
    assert "2 rows" in err
    assert "1 bad rows skipped" in err
    assert given.pop("encoder").max_seq_length == 8
    assert given == {
        "column": "body", "id": "id", "dtype": "int8", "input_format": "csv", "on_error": "skip",
        "on_truncation": "ignore", "prompt_name": None, "normalize_embeddings": True, "truncate_dim": 4,
        "shard": (1, 1), "overwrite": False, "report": None, "show_progress_bar": True,
    }  # fmt: skip
    code, _, err = command("embed", "--merge", "--output", "out.jsonl")
    assert code == 0, err
    items = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [item["id"] for item in items] == ["1", "3"]
    assert all(max(map(abs, item["embedding"])) == 127 for item in items)


def test_standard_input_and_another_name_of_the_column(command: Command, files: Path, stdin: Stdin) -> None:
    stdin(b'{"body": "one"}\n')
    code, _, err = embed(command, "-", "--from", "jsonl", "--field", "body", "--output", "out.npy")
    assert code == 0, err
    assert np.load("out.npy").shape == (1, 8)


def test_errors(command: Command, files: Path) -> None:
    arguments = ("embed", *NUMPY, "--model", str(command.model))
    assert "in.csv, line 1: expected one column 'text'" in command.failure(*arguments, "in.csv", "--output", "o.npy")
    assert "expected a name that ends in .npy" in command.failure(*arguments, "in.txt", "--output", "o.txt")
    Path("old.npy").touch()
    assert "old.npy exists" in command.failure(*arguments, "in.txt", "--output", "old.npy")


def test_an_unknown_option_is_not_hidden_by_a_long_usage(command: Command) -> None:
    code, out, err = command("embed", "in.csv", "--output", "o.npy", "--text", "body")
    assert (code, out) == (2, b"")
    assert err.splitlines() == [
        "usage: minilm-np embed FILE [FILE ...] --output FILE [OPTION ...]",
        "       minilm-np embed --merge [FOLDER ...] --output FILE",
        "minilm-np embed: error: unrecognized arguments: --text body",
    ]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--output", "o.npy"), "expected at least one FILE"),
        (("in.txt",), "the following arguments are required: --output"),
        (("--merge", "--shard", "1/2", "--output", "o.npy"), "expected --shard or --merge, found both"),
        (("in.txt", "--output", "o.npy", "--shard", "3/2"), "expected K/N with K from 1 to N"),
        (("in.txt", "--output", "o.npy", "--shard", "0/2"), "expected K/N with K from 1 to N"),
    ],
)
def test_misuse(arguments: tuple[str, ...], error: str, command: Command) -> None:
    assert error in command.misuse("embed", *arguments)


def test_ctrl_c_says_how_to_continue(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "embed_files", interrupted)
    assert embed(command, "in.txt", "--output", "out.npy") == (
        130, b"", "minilm-np: interrupted: the same command (without --overwrite) continues\n",
    )  # fmt: skip
