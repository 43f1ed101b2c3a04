"""LanceDB: `MiniLMEmbeddingFunction` in a table that another process reopens."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder
from tests.support.compare import assert_same_bits
from tests.support.integrations import TEXTS

lancedb = pytest.importorskip("lancedb")


def embedding_function(model: Path, **options: Any) -> Any:
    from minilm_np.integrations.lancedb import MiniLMEmbeddingFunction

    return MiniLMEmbeddingFunction.create(model=model, **options)


def filled_table(folder: Path, function: Any, texts: list[str]) -> Any:
    from lancedb.pydantic import LanceModel, Vector

    class Fact(LanceModel):  # type: ignore[misc]  # LanceDB's types are not read
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    table = lancedb.connect(folder).create_table("facts", schema=Fact)
    table.add([{"text": text} for text in texts])
    return table


def stored_vectors(table: Any) -> np.ndarray:
    return np.array(table.to_arrow()["vector"].to_pylist(), np.float32)


def test_a_table_stores_the_vectors_of_the_encoder_with_its_prompts(small: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder(small)
    table = filled_table(tmp_path, embedding_function(small, truncate_dim=20), TEXTS)
    expected = encoder.encode(TEXTS, prompt="passage: ", truncate_dim=20)
    assert_same_bits(stored_vectors(table), expected)
    found = table.search("a question").limit(len(TEXTS)).to_list()
    query = encoder.encode("a question", prompt="query: ", truncate_dim=20)
    nearest = np.argsort(np.square(expected - query).sum(axis=1), kind="stable")
    assert [row["text"] for row in found] == [TEXTS[index] for index in nearest]


_REOPENED = """
import json, sys
import lancedb
if sys.argv[2] == "imported":
    import minilm_np.integrations.lancedb
table = lancedb.connect(sys.argv[1]).open_table("facts")
print(json.dumps(table.search("a question").limit(1).to_list()[0]["text"]))
table.add([{"text": "one more"}])
print(json.dumps(table.to_arrow()["vector"].to_pylist()[-1]))
"""


def test_another_process_reopens_a_table_with_its_function(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    filled_table(tmp_path, embedding_function(Path("small"), normalize_embeddings=True), TEXTS)
    child = [sys.executable, "-c", _REOPENED, str(tmp_path)]
    ran = subprocess.run([*child, "imported"], capture_output=True, check=True, cwd=tmp_path, text=True)
    nearest, vector = map(json.loads, ran.stdout.splitlines())
    assert nearest in TEXTS
    encoder = SentenceEncoder(small)
    expected = encoder.encode(["one more"], prompt="passage: ", normalize_embeddings=True)
    assert_same_bits(np.array([vector], np.float32), expected)
    refused = subprocess.run([*child, "not imported"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 1 and "minilm_np" in refused.stderr


def test_an_error_is_raised_at_once(small: Path, tmp_path: Path) -> None:
    """LanceDB's own default repeats a failed call seven times, with growing pauses."""
    table = filled_table(tmp_path, embedding_function(small), TEXTS)
    with pytest.raises(RuntimeError, match=r"text 1: expected a str, found NoneType 'None': drop missing"):
        table.add([{"text": "a text"}, {"text": None}])
    with pytest.raises(InputValueError, match="truncate_dim"):
        embedding_function(small, truncate_dim=0).ndims()
