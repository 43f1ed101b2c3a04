"""`similarity`, `search` and `cluster`: what they print, the examples of their help, and how they fail."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minilm_np import SentenceEncoder
from minilm_np.cli import encoding
from minilm_np.cli.printing import cells
from tests.cli.conftest import Stdin
from tests.support.cli import NUMPY, Command

Run = Callable[..., tuple[int, str, str]]

WEATHER = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
LINES = [
    "Where is my parcel?", "", "How do I reset my password?", "  ", "I forgot my password.", "My parcel has not come.",
    "The cat sleeps.", "Can I change my password?",
]  # fmt: skip


TRUNCATED = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")  # by the small model


@pytest.fixture
def run(command: Command) -> Run:
    """The command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code, out, err = command(*arguments)
        return code, out.decode(), err

    return run


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return str(path)


# ---- similarity ------------------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_similarity_is_a_table(run: Run, model_folder: Path) -> None:
    code, out, err = run("similarity", *NUMPY, "--model", str(model_folder), *WEATHER)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "        1       2       3",
        "1  1.0000  0.6660  0.1046  The weather is lovely today.",
        "2  0.6660  1.0000  0.1411  It's so sunny outside!",
        "3  0.1046  0.1411  1.0000  He drove to the stadium.",
    ]


@pytest.mark.weights
def test_similarity_as_json(run: Run, model_folder: Path, published: SentenceEncoder) -> None:
    code, out, err = run("similarity", *NUMPY, "--model", str(model_folder), "--format", "json", *WEATHER[:2], "日本")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert list(found) == ["texts", "similarity"]
    assert found["texts"] == [*WEATHER[:2], "日本"]
    vectors = published.encode(found["texts"])
    np.testing.assert_allclose(found["similarity"], vectors @ vectors.T, atol=1e-6)


@pytest.mark.weights
def test_a_text_in_a_table_is_one_short_line(run: Run, model_folder: Path) -> None:
    _, out, _ = run("similarity", *NUMPY, "--model", str(model_folder), "a\x1b[31m\nred", " " + "long " * 40)
    first, second = out.splitlines()[1:]
    assert first.endswith("  a [31m red")
    assert second.endswith("long long lo...")
    assert len(second) == len("2  0.0000  0.0000  ") + 80


# ---- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_search_prints_scores_line_numbers_and_lines(run: Run, model_folder: Path, corpus: str) -> None:
    options = (*NUMPY, "--model", str(model_folder), "--corpus", corpus, "--top-k", "3")
    arguments = ("search", "change a password", *options)
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    header, *rows = [line.split(maxsplit=2) for line in out.splitlines()]
    assert header == ["cosine", "line", "text"]
    assert [(int(number), text) for _, number, text in rows] == [
        (8, "Can I change my password?"),
        (3, "How do I reset my password?"),
        (5, "I forgot my password."),
    ]
    found = json.loads(run(*arguments, "--format", "json")[1])
    assert [list(hit) for hit in found] == [["line", "score", "text"]] * 3
    assert [(hit["line"], hit["text"]) for hit in found] == [(int(number), text) for _, number, text in rows]
    assert [f"{hit['score']:.4f}" for hit in found] == [score for score, _, _ in rows]


@pytest.mark.weights
def test_search_reads_standard_input_and_prints_no_more_than_there_is(
    run: Run, model_folder: Path, stdin: Stdin, published: SentenceEncoder
) -> None:
    stdin("\n".join(LINES).encode())
    code, out, _ = run("search", *NUMPY, "--model", str(model_folder), "cat", "--corpus", "-", "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert len(found) == 5
    query, *vectors = published.encode(["cat", *(hit["text"] for hit in found)])
    np.testing.assert_allclose([hit["score"] for hit in found], [vector @ query for vector in vectors], atol=1e-6)
    stdin(b"a\n\nb\n")
    code, out, _ = run("search", *NUMPY, "--model", str(model_folder), "b", "--corpus", "-", "--top-k", "99")
    assert [line.split()[1:] for line in out.splitlines()] == [["line", "text"], ["3", "b"], ["1", "a"]]


@TRUNCATED
def test_queries_and_lines_get_the_prompts_of_the_model(run: Run, prompted: Path, corpus: str) -> None:
    encoder = SentenceEncoder(prompted, backend="numpy")
    options = (*NUMPY, "--model", str(prompted), "--corpus", corpus, "--format", "json")
    found = json.loads(run("search", "a cat", *options)[1])
    scores = [encoder.encode_query("a cat") @ encoder.encode_document(hit["text"]) for hit in found]
    np.testing.assert_allclose([hit["score"] for hit in found], scores, atol=1e-6)
    without = [encoder.encode("a cat") @ encoder.encode(hit["text"]) for hit in found]
    assert np.abs(np.subtract(scores, without)).max() > 0.01


@pytest.mark.weights
def test_the_score_of_a_search_with_prompts(run: Run, model_folder: Path, corpus: str, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    settings = tmp_path / "model" / "config_sentence_transformers.json"
    settings.unlink()
    settings.write_text(json.dumps({"prompts": {"query": "query: ", "document": "passage: "}}))
    options = (*NUMPY, "--model", str(tmp_path / "model"), "--corpus", corpus)
    _, out, _ = run("search", "my account is locked", *options)
    assert " 0.4769     3  How do I reset my password?" in out.splitlines()


@TRUNCATED
def test_a_search_in_batches_finds_the_same(
    run: Run, small: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("search", "password", *NUMPY, "--model", str(small), "--corpus", corpus, "--top-k", "3")
    expected = run(*arguments)
    monkeypatch.setattr(encoding, "BATCH", 2)
    assert run(*arguments) == expected


@TRUNCATED
def test_rows_fit_the_terminal(run: Run, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    texts = ["long words " * 20, "日本語 " * 40, "日本語 " * 40, "a"]
    (tmp_path / "lines").write_text("\n".join(texts))
    model = (*NUMPY, "--model", str(small))
    for arguments in (
        ("search", "x", "--corpus", str(tmp_path / "lines"), *model),
        ("cluster", "--input", str(tmp_path / "lines"), *model),
        ("similarity", *texts, *model),
    ):
        lines = run(*arguments)[1].splitlines()
        assert max(map(cells, lines)) in (79, 80)


# ---- cluster ---------------------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_cluster_prints_groups_of_lines(run: Run, model_folder: Path, corpus: str) -> None:
    arguments = ("cluster", *NUMPY, "--model", str(model_folder), "--input", corpus, "--threshold", "0.6")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "minilm-np: groups: 2; lines in no group: 1 of 6\n")
    header, *parts = out.split("group ")
    assert header == " cosine  line  text\n"
    groups = [part.splitlines() for part in parts]
    assert [group[0] for group in groups] == ["1: 3 lines", "2: 2 lines"]
    assert [sorted(int(line.split()[1]) for line in group[1:]) for group in groups] == [[3, 5, 8], [1, 6]]
    assert all(group[1].startswith(" 1.0000  ") for group in groups)
    found = json.loads(run(*arguments, "--format", "json")[1])
    assert [[hit["line"] for hit in group] for group in found] == [
        [int(line.split()[1]) for line in group[1:]] for group in groups
    ]
    assert all(hit["text"] == LINES[hit["line"] - 1] and hit["score"] >= 0.6 for group in found for hit in group)
    assert len(json.loads(run(*arguments, "--min-size", "3", "--format", "json")[1])) == 1


@pytest.mark.weights
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_threshold_of_1_finds_exact_duplicates(run: Run, model_folder: Path, tmp_path: Path, backend: str) -> None:
    texts = [*WEATHER, *LINES[-2:]]
    (tmp_path / "lines").write_text("\n".join([*texts, *reversed(texts)]))
    options = ("--backend", backend, "--model", str(model_folder), "--format", "json")
    code, out, _ = run("cluster", "--input", str(tmp_path / "lines"), "--threshold", "1", *options)
    assert code == 0
    groups = json.loads(out)
    assert sorted([hit["line"] for hit in group] for group in groups) == [[n, 11 - n] for n in range(1, 6)]
    assert {hit["score"] for group in groups for hit in group} == {1.0}


@pytest.mark.weights
def test_no_groups_is_a_result(run: Run, model_folder: Path, corpus: str) -> None:
    arguments = ("cluster", *NUMPY, "--model", str(model_folder), "--input", corpus, "--threshold", "0.99")
    assert run(*arguments) == (0, "", "minilm-np: groups: 0; lines in no group: 6 of 6\n")
    assert run(*arguments, "--format", "json") == (0, "[]\n", "")


# ---- the examples ----------------------------------------------------------------------------------------------------


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `minilm-np` on the PATH that runs this checkout."""
    command = tmp_path / "minilm-np"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m minilm_np "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.weights
@pytest.mark.usefixtures("on_path", "model_folder")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("similarity", "1  1.0000  0.5242  0.0920  It is sunny."),
        ("search", " 0.3023     1  The cat sleeps."),
        ("cluster", " 0.8161     3  I forgot my password"),
    ],
)
def test_the_example_of_each_help_works_as_printed(run: Run, name: str, expected: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    example = out.partition("\nexample: ")[2].partition("\n\n")[0]
    assert "minilm-np" in example
    found = subprocess.run(["sh", "-c", example], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert expected in found.stdout.splitlines()


# ---- what fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["similarity", "alone"], "expected two texts or more"),
        (["similarity"], "the following arguments are required: TEXT"),
        (["search", "query"], "the following arguments are required: --corpus"),
        (["search", "--corpus", "-"], "the following arguments are required: QUERY"),
        (["search", "q", "--corpus", "-", "--top-k", "0"], "--top-k: expected a whole number of at least 1, found '0'"),
        (
            ["search", "q", "--corpus", "-", "--top-k", "9" * 20],
            f"expected a whole number of at most 18 digits, found '{'9' * 20}'",
        ),
        (["search", "q", "--corpus", "-", "--candidates", "9"], "error: --candidates needs --rerank MODEL"),
        (["search", "two", "words", "--corpus", "-"], "unrecognized arguments: words: put quotes around a text"),
        (["cluster"], "the following arguments are required: --input"),
        (["cluster", "--input", "-", "--min-size", "x"], "--min-size: expected a whole number of at least 1"),
        (["cluster", "--input", "-", "--threshold", "2"], "--threshold: expected a number from -1 to 1, found '2'"),
        (["cluster", "--input", "-", "--threshold", "nan"], "--threshold: expected a number from -1 to 1, found 'nan'"),
        (["cluster", "--input", "-", "--threshold", "x"], "--threshold: expected a number from -1 to 1, found 'x'"),
        (["similarity", "a", "b", "--format", "npy"], "invalid choice: 'npy'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_has_exit_code_2(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["search", "query", "--corpus"], ["cluster", "--input"]], ids=["search", "cluster"]
)
def test_a_file_without_texts_is_one_line(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    blank, latin = tmp_path / "blank", tmp_path / "latin"
    blank.write_bytes(b" \n\t\n\r\n")
    latin.write_bytes(b"caf\xe9\n")
    for path, message in (
        (tmp_path / "missing", "No such file or directory"),
        (Path("/dev/null"), "expected one text per line, found no text"),
        (blank, "expected one text per line, found no text"),
    ):
        assert run(*arguments, str(path)) == (1, "", f"minilm-np: error: {path}: {message}\n")
    code, out, err = run(*arguments, str(latin))
    assert (code, out) == (1, "")
    assert f"{latin}, line 1: expected UTF-8" in err


def test_empty_standard_input_is_named(run: Run, stdin: Stdin) -> None:
    stdin(b"")
    assert "standard input: expected one text per line, found no text" in run("cluster", "--input", "-")[2]


def test_an_argument_that_is_not_utf_8_is_refused(run: Run) -> None:
    for arguments in (("similarity", "a", "caf\udce9"), ("search", "caf\udce9", "--corpus", "-")):
        code, _, err = run(*arguments)
        assert code == 1
        assert "of the command line is not UTF-8: b'caf\\xe9'" in err


# ---- truncated texts -------------------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.filterwarnings("always::minilm_np.TruncationWarning")
@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        (("similarity", "a", "long " * 999), "1 of 2 texts is longer than the limit of 256 tokens and was truncated; "
         "the longest, text 2, has 4,995 characters: split texts that must be encoded completely"),
        (("search", "long " * 999, "--corpus", "FILE"), "2 of 3 texts are longer than the limit of 256 tokens and were "
         "truncated; the longest, line 3, has 5,994 characters: split texts that must be encoded completely"),
        (("search", "long " * 9999, "--corpus", "FILE"), "the longest, the query, has 49,995 characters"),
        (("cluster", "--input", "FILE"), "the longest, line 3, has 5,994 characters"),
    ],
    ids=["similarity", "search", "query", "cluster"],
)  # fmt: skip
def test_truncated_texts_are_named_as_the_user_counts_them(
    run: Run, model_folder: Path, tmp_path: Path, arguments: tuple[str, ...], warning: str
) -> None:
    (tmp_path / "lines").write_text("one\n\n" + "word! " * 999 + "\n")
    arguments = tuple(str(tmp_path / "lines") if word == "FILE" else word for word in arguments)
    code, _, err = run(*arguments, *NUMPY, "--model", str(model_folder))
    assert code == 0
    assert err.count("minilm-np: warning: ") == 1
    assert warning in err.splitlines()[0]
