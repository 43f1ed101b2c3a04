"""txtai: `MiniLMVectors` in an index that is saved and loaded again."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder
from tests.support.compare import assert_close
from tests.support.integrations import TEXTS

METHOD = "minilm_np.integrations.txtai.MiniLMVectors"


def embeddings(**config: Any) -> Any:
    txtai = pytest.importorskip("txtai")
    return txtai.Embeddings(method=METHOD, **config)


def test_an_index_finds_by_the_vectors_of_the_encoder_with_its_prompts(small: Path) -> None:
    encoder = SentenceEncoder(small)
    index = embeddings(path=str(small), vectors={"truncate_dim": 20, "threads": 1})
    index.index(TEXTS)
    unit: dict[str, Any] = {"normalize_embeddings": True, "truncate_dim": 20}
    documents = encoder.encode(TEXTS, prompt="passage: ", **unit)
    scores = documents @ encoder.encode("a question", prompt="query: ", **unit)
    found = index.search("a question", len(TEXTS))
    assert [number for number, _ in found] == np.argsort(-scores, kind="stable").tolist()
    assert_close([score for _, score in found], np.sort(scores)[::-1], abs_=1e-6)


def test_a_saved_index_is_loaded_with_its_model_in_another_folder(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    index = embeddings(path="small", content=True)
    index.index(TEXTS)
    index.save(str(tmp_path / "index"))
    monkeypatch.chdir(tmp_path)
    import txtai

    again = txtai.Embeddings()
    again.load(str(tmp_path / "index"))
    assert again.config["path"] == os.path.abspath(small)
    assert again.search("a question", 3) == index.search("a question", 3)
    assert again.search("a question", 1)[0]["text"] in TEXTS


def test_an_unknown_option_is_named(small: Path) -> None:
    with pytest.raises(ImportError) as error:
        embeddings(path=str(small), vectors={"device": "cpu"})
    assert "vectors: expected one of 'backend', 'threads', 'normalize_embeddings', 'truncate_dim', found 'device'" in (
        str(error.value.__cause__)
    )
