"""`rerank`, and `search --rerank`: what they print, and how they fail."""

import json
from pathlib import Path

import numpy as np
import pytest

from minilm_np import CrossEncoder
from tests.cli.conftest import Stdin
from tests.support.cli import NUMPY, Command

LINES = ["first line", "", "second", "  ", "third line", "4"]
NUMBERS = [1, 3, 5, 6]


@pytest.fixture(scope="module")
def pair_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "model"
    CrossEncoder.random(backend="numpy").save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return str(path)


def expected_order(folder: Path, query: str) -> tuple[list[int], list[float]]:
    scores = CrossEncoder(folder, backend="numpy").predict([(query, LINES[number - 1]) for number in NUMBERS])
    order = np.argsort(-scores, kind="stable")
    return [NUMBERS[row] for row in order], [float(scores[row]) for row in order]


def test_lines_come_in_the_order_of_their_scores(command: Command, pair_model: Path, corpus: str) -> None:
    numbers, scores = expected_order(pair_model, "a query")
    common = ("rerank", *NUMPY, "--model", str(pair_model), "--corpus", corpus, "a query")
    code, out, err = command(*common, "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [line["line"] for line in found] == numbers
    assert [line["text"] for line in found] == [LINES[number - 1] for number in numbers]
    np.testing.assert_allclose([line["score"] for line in found], scores, rtol=1e-5)
    code, out, err = command(*common, "--top-k", "2")
    assert (code, err) == (0, "")
    rows = out.decode().splitlines()
    assert rows[0] == "    score  line  text"
    assert [row.split()[:2] for row in rows[1:]] == [
        [f"{score:.4f}", str(number)] for number, score in list(zip(numbers, scores, strict=True))[:2]
    ]


@pytest.mark.filterwarnings("always::minilm_np.TruncationWarning")
def test_standard_input_and_truncated_lines(command: Command, pair_model: Path, stdin: Stdin) -> None:
    stdin(b"short\n\n" + b"long " * 40 + b"\nx\n")
    code, out, err = command(
        "rerank", *NUMPY, "--model", str(pair_model), "--corpus", "-", "--max-length", "20", "--format", "json", "q"
    )
    assert (code, sorted(line["line"] for line in json.loads(out))) == (0, [1, 3, 4])
    assert err == (
        "minilm-np: warning: 1 of 3 lines is longer, together with the query, than the limit of 20 tokens, and was "
        "truncated; the longest is line 3: split lines that must be read completely\n"
    )


@pytest.mark.parametrize("candidates", [1, 3, 50])
def test_search_reranks_the_most_similar_lines(
    command: Command, small: Path, pair_model: Path, corpus: str, candidates: int
) -> None:
    common = ("search", *NUMPY, "--model", str(small), "--corpus", corpus, "a query", "--format", "json")
    nearest = json.loads(command(*common, "--top-k", str(candidates))[1])
    code, out, err = command(*common, "--top-k", "2", "--rerank", str(pair_model), "--candidates", str(candidates))
    assert (code, err) == (0, "")
    among = {line["line"] for line in nearest} if candidates > 1 else None
    numbers = [number for number in expected_order(pair_model, "a query")[0] if among is None or number in among]
    found = [line["line"] for line in json.loads(out)]
    if candidates > 1:
        assert found == numbers[:2]
    else:  # never fewer candidates than lines to print
        assert len(found) == 2


def test_models_that_are_refused(command: Command, small: Path, corpus: str, tmp_path: Path) -> None:
    CrossEncoder.random(num_labels=2, backend="numpy").save_pretrained(tmp_path / "labels")
    common = ("--corpus", corpus, *NUMPY, "query")
    assert "expected a model with 1 label, found 2" in command.failure(
        "rerank", *common, "--model", str(tmp_path / "labels")
    )
    assert "use minilm_np.SentenceEncoder" in command.failure("rerank", *common, "--model", str(small))
    assert "use minilm_np.SentenceEncoder" in command.failure(
        "search", *common, "--model", str(small), "--rerank", str(small)
    )
    assert "use minilm_np.CrossEncoder" in command.failure("search", *common, "--model", str(tmp_path / "labels"))
