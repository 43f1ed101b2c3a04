"""`verify` for a cross-encoder: what it says of an implementation that agrees, and of one with a planted fault."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import CrossEncoder, ImplementationError, InputValueError, reference
from minilm_np.verify import PairComparison
from minilm_np.verify.compare_pairs import built_in_pairs, compare_pairs
from minilm_np.verify.pair_sources import open_pair_implementation
from tests.support.cli import NUMPY, Command
from tests.support.pair_models import PAIRS, TORCH, PairShape, write_pair_folder
from tests.support.server import running
from tests.support.vector_servers import serving


@pytest.fixture(scope="module")
def model() -> CrossEncoder:
    return CrossEncoder.random(seed=3, backend="numpy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder as the Hub has them."""
    return write_pair_folder(tmp_path_factory.mktemp("verified") / "model", PairShape(activation=TORCH["Tanh"]))


@pytest.fixture
def command(capsysbinary: pytest.CaptureFixture[bytes], folder: Path) -> Command:
    return Command(capsysbinary, folder)


class PairPort:
    """An implementation in float64 with a fault: `change` gets every step, and what it returns goes into the next."""

    name, pairs, activation = "a port", None, "Identity"

    def __init__(self, model: CrossEncoder, change: Any = lambda name, x: x) -> None:
        self._model, self._change = model, change
        self._weights = reference.nest(model.weights, np.float64)

    def _run(self, pair: tuple[str, str], record: Any) -> np.ndarray:
        tokens = self._model.model.tokenizer([pair])
        ids, types = np.array(tokens.ids[0]), np.array(tokens.token_type_ids[0])
        return reference.classify(ids, types, self._weights, self._model.config, record=record)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([self._run(pair, self._change) for pair in pairs])

    def intermediates(self, pair: tuple[str, str]) -> dict[str, np.ndarray]:
        steps: dict[str, np.ndarray] = {}

        def keep(name: str, x: np.ndarray) -> np.ndarray:
            steps[name] = self._change(name, x)
            return steps[name]

        self._run(pair, keep)
        return steps

    def token_ids(self, pairs: Sequence[tuple[str, str]]) -> None:
        return None


def test_the_built_in_pairs_are_what_their_labels_say(model: CrossEncoder) -> None:
    pairs = dict(built_in_pairs(model))
    assert len(pairs) == len(built_in_pairs(model))
    labels = ("one under the limit", "at the limit", "one over the limit", "both far over the limit")
    tokens = model.model.tokenizer([pairs[label] for label in labels])
    assert list(map(len, tokens.ids)) == [127, 128, 128, 128]
    assert tokens.truncated == [False, False, True, True]


@pytest.mark.parametrize("labels", [1, 3])
def test_an_implementation_that_agrees_is_within_the_tolerance(labels: int) -> None:
    model = CrossEncoder.random(seed=4, num_labels=labels, backend="numpy")
    found = compare_pairs(model, PairPort(model), PAIRS)
    assert found.within and found.parts_at is None and found.problems == []
    assert [row.name for row in found.intermediates][-3:] == ["pooler.dense", "pooler.activation", "classifier"]
    assert found.vector is not None and found.vector.theirs.max_abs < 1e-12
    assert 0 < found.vector.ours.max_rel < 1e-4  # of one score, which may be near 0
    assert found.largest is not None and 0 < found.largest < 3e-6
    assert found.verdict.startswith("within the tolerance: the largest difference is ")
    assert not compare_pairs(model, PairPort(model), PAIRS, tolerance=1e-12).within


@pytest.mark.parametrize(
    "where", ["embeddings.token_type_embeddings", "encoder.layer.1.attention.self.scores", "pooler.dense"]
)
def test_the_step_with_a_fault_is_named(model: CrossEncoder, where: str) -> None:
    def change(name: str, x: np.ndarray) -> np.ndarray:
        return x * 1.01 if name == where else x

    found = compare_pairs(model, PairPort(model, change), PAIRS)
    assert found.parts_at == where
    assert f"the first step that differs is {where}; " in found.verdict


def test_sentence_transformers_agrees(folder: Path) -> None:
    for model in (CrossEncoder(folder, backend="numpy"), CrossEncoder.random(num_labels=2, backend="numpy")):
        found = compare_pairs(model, "sentence-transformers", PAIRS)
        assert found.within, found.verdict
        assert found.theirs.startswith("sentence-transformers 6")
        names = [row.name for row in found.intermediates]
        assert names[-3:] == ["pooler.dense", "pooler.activation", "classifier"]
        assert "encoder.layer.0.attention.self.probs" in names
        if model.folder is None:
            assert len(found.intermediates) > 30


def test_a_server_of_scores(model: CrossEncoder) -> None:
    with running(None, model) as url:
        found = compare_pairs(model, f"{url}/rerank")
    assert isinstance(found, PairComparison) and found.within
    assert (found.texts, found.intermediates) == (len(built_in_pairs(model)), [])
    with pytest.raises(InputValueError, match="expected a URL that ends in /rerank"):
        open_pair_implementation("http://localhost:1/v1/rerank", model)
    with pytest.raises(InputValueError, match="expected a model with 1 label, found 2"):
        open_pair_implementation("http://localhost:1/rerank", CrossEncoder.random(num_labels=2, backend="numpy"))


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'[{"index": 0}]',
        b'[{"index": 1, "score": 0.5}]',
        b'[{"index": 0, "score": "a"}]',
        b'[{"index": 0, "score": 0.5}, {"index": 0, "score": 0.25}]',
        b'[{"index": 0, "score": 1' + b"0" * 400 + b"}]",
    ],
)
def test_a_response_that_is_not_a_list_of_scores(model: CrossEncoder, answer: bytes) -> None:
    with serving(lambda path, body: (200, {}, [answer])) as url:
        other = open_pair_implementation(f"{url}/rerank", model)
        with pytest.raises(ImplementationError, match="expected the index and the score of 1 texts, found"):
            other.scores([("a", "b")])


def test_files_of_scores(folder: Path, tmp_path: Path) -> None:
    model = CrossEncoder(folder, backend="numpy")
    pairs = [pair for _, pair in built_in_pairs(model)]
    scores = model.predict(pairs, on_truncation="ignore")
    np.save(tmp_path / "scores.npy", scores)
    lines = [
        json.dumps({"query": query, "document": document, "score": float(score)})
        for (query, document), score in zip(pairs, scores, strict=True)
    ]
    (tmp_path / "scores.jsonl").write_text("\n".join(lines[:5]))
    assert compare_pairs(model, str(tmp_path / "scores.npy")).within
    found = compare_pairs(model, str(tmp_path / "scores.jsonl"))
    assert found.within and found.texts == 5
    changed = json.dumps(json.loads(lines[2]) | {"score": 0.5})
    (tmp_path / "scores.jsonl").write_text("\n".join([*lines[:2], changed]))
    wrong = compare_pairs(model, str(tmp_path / "scores.jsonl"))
    assert not wrong.within
    assert "the worst is pair 'a question'" in wrong.verdict
    (tmp_path / "scores.jsonl").write_text("\n".join([*lines[:3], changed]))  # one pair twice, with two scores
    assert not compare_pairs(model, str(tmp_path / "scores.jsonl")).within


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", 'line 1: expected an object with "query", "document" and "score", found'),
        ('{"query": "a", "document": "b"}', 'line 1: expected an object with "query", "document" and "score", found'),
        ('{"query": "a", "document": "b", "score": true}', "line 1: score: expected a number or a list of numbers"),
        ('{"query": "a", "document": "b", "score": []}', "line 1: score: expected a number or a list of numbers"),
        (
            '{"query": "a", "document": "b", "score": 1' + "0" * 400 + "}",
            "line 1: score: a number is too large for float64",
        ),
        ("{", "line 1: "),
        ("", "expected at least one score, found none"),
    ],
)
def test_a_file_that_is_broken(model: CrossEncoder, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "scores.jsonl").write_text(line)
    with pytest.raises(InputValueError, match=message):
        open_pair_implementation(str(tmp_path / "scores.jsonl"), model)


def test_sources_that_are_refused(model: CrossEncoder, tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", np.zeros(3))
    with pytest.raises(InputValueError, match=r"scores\.npy has 3 scores without pairs, but 8 pairs are compared"):
        compare_pairs(model, str(tmp_path / "scores.npy"), PAIRS)
    with pytest.raises(InputValueError, match="expected sentence-transformers, a file of scores"):
        open_pair_implementation("model.onnx", model)
    with pytest.raises(InputValueError, match=r"there is no file none\.npy"):
        open_pair_implementation("none.npy", model)


def test_the_command(command: Command, folder: Path, tmp_path: Path) -> None:
    options = ("verify", *NUMPY, "--model", str(folder))
    code, out, err = command(*options, "--print-texts")
    assert (code, err) == (0, "")
    shown = [json.loads(line) for line in out.decode().splitlines()]
    assert [list(item) for item in shown] == [["label", "query", "document"]] * len(shown)
    pairs = [[item["query"], item["document"]] for item in shown if item["query"].strip() and item["document"].strip()]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs[:4])))
    model = CrossEncoder(folder, backend="numpy")
    scores = model.predict(pairs[:4], on_truncation="ignore")
    np.save(tmp_path / "scores.npy", scores)
    against = ("--against", str(tmp_path / "scores.npy"), "--texts", str(tmp_path / "pairs.jsonl"))
    code, out, err = command(*options, *against)
    lines = out.decode().splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "ours: minilm_np (numpy); theirs: scores.npy; 4 pairs"
    assert lines[-1].startswith("within the tolerance: ")
    code, out, _ = command(*options, *against, "--format", "json")
    assert {"pairs": 4, "within": True}.items() <= json.loads(out).items()
    assert "score" in json.loads(out)
    np.save(tmp_path / "scores.npy", scores + np.float32(0.1))
    assert command(*options, *against)[0] == 1
    assert command.misuse(*options, *against, "--stability").endswith(f"and {folder} is a cross-encoder")
