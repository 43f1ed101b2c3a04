"""Chroma: `MiniLMEmbeddingFunction` alone, and in a collection that another process reopens."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder
from tests.support.compare import assert_same_bits
from tests.support.integrations import FACTS, TEXTS


def chroma_client(folder: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))


def embedding_function(model: Path, **options: Any) -> Any:
    from minilm_np.integrations.chroma import MiniLMEmbeddingFunction

    return MiniLMEmbeddingFunction(model, **options)


_REOPENED = """
import json, sys
import chromadb
if sys.argv[2] == "imported":
    import minilm_np.integrations.chroma
client = chromadb.PersistentClient(sys.argv[1], settings=chromadb.Settings(anonymized_telemetry=False))
collection = client.get_collection("facts")
print(json.dumps(collection.query(query_texts=["giant gas planets"], n_results=2)))
"""


@pytest.mark.weights
def test_a_collection_is_filled_closed_and_reopened_by_another_process(model_folder: Path, tmp_path: Path) -> None:
    client = chroma_client(tmp_path)
    collection = client.create_collection("facts", embedding_function=embedding_function(model_folder))
    collection.add(ids=list(FACTS), documents=TEXTS)
    client.close()
    del collection, client
    child = [sys.executable, "-W", "error::UserWarning", "-c", _REOPENED, str(tmp_path)]
    found = json.loads(subprocess.run([*child, "imported"], capture_output=True, check=True, cwd=tmp_path).stdout)
    assert found["ids"] == [["planets", "stars"]]
    assert found["documents"][0][0] == FACTS["planets"]
    encoder = SentenceEncoder(model_folder)
    cosine = float(encoder.encode("giant gas planets") @ encoder.encode(FACTS["planets"]))
    assert found["distances"][0][0] == pytest.approx(1 - cosine, abs=1e-5)
    refused = subprocess.run([*child, "not imported"], capture_output=True, text=True, check=False)
    assert "minilm_np" in refused.stderr
    assert refused.returncode == 1


def test_an_embedding_function_gives_the_vectors_of_the_encoder_with_its_prompts(small: Path) -> None:
    encoder, function = SentenceEncoder(small), embedding_function(small, truncate_dim=20)
    expected = encoder.encode(TEXTS, prompt="passage: ", truncate_dim=20)
    assert_same_bits(np.array(function(TEXTS)), expected)
    query = encoder.encode(["a question"], prompt="query: ", truncate_dim=20)
    assert_same_bits(np.array(function.embed_query(["a question"])), query)


def test_an_embedding_function_is_rebuilt_from_its_configuration(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chromadb.utils.embedding_functions import config_to_embedding_function

    monkeypatch.chdir(small.parent)
    function = embedding_function(Path("small"), threads=1)
    config = json.loads(json.dumps(function.get_config()))
    assert config["model"] == str(small)  # absolute: the collection may be reopened from another directory
    again = config_to_embedding_function({"name": function.name(), "config": config})
    assert type(again) is type(function)
    assert again.get_config() == config
    assert not function.is_legacy()
    assert function.default_space() in function.supported_spaces()


def test_a_collections_model_cannot_be_changed(small: Path, tmp_path: Path) -> None:
    client = chroma_client(tmp_path)
    collection = client.create_collection("facts", embedding_function=embedding_function(small))
    collection.add(ids=list(FACTS), documents=TEXTS)
    collection.modify(configuration={"embedding_function": embedding_function(small, threads=1)})
    with pytest.raises(InputValueError, match="truncate_dim: the stored vectors were made with None, not 8"):
        collection.modify(configuration={"embedding_function": embedding_function(small, truncate_dim=8)})
    client.close()
