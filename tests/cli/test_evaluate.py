"""Test `minilm-np eval`: the table, the JSON, the examples of the help, and errors."""

import argparse
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder, cli
from minilm_np.cli import evaluate
from minilm_np.evaluation import retrieval, sts

SCORED = "score\tsentence1\tsentence2\n5\tA cat\tA kitten\n3\tA cat\tA dog\n0\tA cat\tA train\n"
PAIRS = "list the files of a folder\tls\nwhat day is it\tdate\nshow a file\tcat FILE\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, in an empty folder. Returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main(["eval", *arguments])
        except SystemExit as stopped:  # argparse
            code = int(stopped.code or 0)
        return code, *capfd.readouterr()

    return command


@pytest.mark.weights
def test_the_table_and_the_json_show_what_the_functions_return(
    run: Run, tmp_path: Path, model_folder: Path, published: SentenceEncoder
) -> None:
    model = ("--backend", "numpy", "--model", str(model_folder))
    scored, pairs = tmp_path / "scored.tsv", tmp_path / "pairs.tsv"
    scored.write_text(SCORED)
    pairs.write_text(PAIRS + "list the files of a folder\tdir\n")

    code, out, err = run("sts", str(scored), *model, "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out) == pytest.approx(sts(published, scored), abs=1e-6)

    code, out, err = run("sts", str(scored), *model)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"pairs +3\nspearman +1\.0000\npearson +0\.\d{4}\n", out)

    code, out, _ = run("retrieval", str(pairs), *model, "--k", "2", "--merge-queries", "--format", "json")
    assert code == 0
    assert json.loads(out) == pytest.approx(retrieval(published, pairs, k=2, merge_queries=True), abs=1e-6)
    assert json.loads(out)["queries"] == 3

    code, out, _ = run("retrieval", str(pairs), *model)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(retrieval(published, pairs))
    assert out.startswith("queries              4\ndocuments            4\nMRR@10          0.")


@pytest.mark.weights
def test_an_undefined_correlation_is_null_in_json(run: Run, tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "a.tsv").write_text("score\tsentence1\tsentence2\n5\tA cat\tA dog\n3\tA cat\tA dog\n")
    model = ("--backend", "numpy", "--model", str(model_folder))
    code, out, _ = run("sts", "a.tsv", *model, "--format", "json")
    assert code == 0
    assert json.loads(out) == {"pairs": 2, "spearman": None, "pearson": None}
    assert run("sts", "a.tsv", *model)[1].splitlines()[1:] == ["spearman     undefined", "pearson      undefined"]


@pytest.mark.parametrize(
    ("task", "name", "raw", "message"),
    [
        ("sts", "a.tsv", b"score\tsentence1\tsentence2\nhigh\ta\tb\n", "a.tsv, line 2: score: expected a number"),
        ("sts", "a.csv", b"one,two\n", "a.csv, line 1: expected a header that names the columns"),
        ("retrieval", "a.tsv", b"a\tb\nc\n", "a.tsv, line 2: expected a pair or a triplet of texts, separated by tabs"),
        ("retrieval", "a.jsonl", b"", "a.jsonl, line 1: expected a pair or a triplet of texts on each line, found an"),
        ("retrieval", "a.txt", b"a\tb\n", "a.txt: expected a file name that ends in .jsonl, .tsv"),
    ],
)
def test_a_broken_file_is_reported_in_one_line_before_the_model_is_loaded(
    run: Run, tmp_path: Path, task: str, name: str, raw: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    code, out, err = run(task, name, "--model", "./no-such-model")
    assert (code, out) == (1, "")
    assert err.startswith(f"minilm-np: error: {message}")
    assert err.count("\n") == 1


def test_a_missing_file_is_reported_in_one_line(run: Run) -> None:
    code, _, err = run("sts", "nothing.tsv")
    assert (code, err) == (1, "minilm-np: error: nothing.tsv cannot be read: No such file or directory\n")


@pytest.mark.parametrize(
    "arguments", [(), ("sts",), ("other", "a.tsv"), ("retrieval", "a.tsv", "--k", "0"), ("sts", "a.tsv", "--k", "3")]
)
def test_the_exit_code_of_wrong_usage_is_2(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: minilm-np")


@pytest.mark.weights
@pytest.mark.usefixtures("model_folder")
@pytest.mark.parametrize("task", ["", "sts", "retrieval"])
def test_the_example_of_the_help_runs(run: Run, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = run(*task.split(), "--help")
    assert code == 0
    (example,) = re.findall("^example: (.*)$", out, re.M)
    making, _, command = example.rpartition(" && ")
    subprocess.run(["sh", "-c", making], check=True)
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("minilm-np", "eval")
    code, out, err = run(*arguments)
    assert code == 0
    assert out
    assert "error" not in err


def test_eval_is_one_command_with_two_tasks() -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    evaluate.add(commands)
    assert list(commands.choices) == ["eval"]


@pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")  # by the small model
def test_retrieval_uses_the_prompts_of_the_model(run: Run, tmp_path: Path, prompted: Path, small: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"{n}?\t{n * n} {n}\n" for n in range(40)))
    found = {}
    for model in (prompted, small):
        code, out, _ = run("retrieval", "pairs.tsv", "--backend", "numpy", "--model", str(model), "--format", "json")
        assert code == 0
        found[model] = json.loads(out)
    assert found[prompted] == pytest.approx(retrieval(SentenceEncoder(prompted, backend="numpy"), "pairs.tsv"))
    assert found[prompted] != found[small]
