"""Chroma: `MiniLMEmbeddingFunction` alone, and in a collection that another process reopens."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder
from minilm_np.model_files.random_weights import SMALL
from tests.support.compare import assert_close, assert_same_bits
from tests.support.integrations import FACTS, TEXTS
from tests.verify.test_onnx_model import export


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


# ---- a collection that Chroma's default function filled --------------------------------------------------------------


@pytest.fixture(scope="module")
def default_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a random model that Chroma's default function runs, too, in place of the one that it downloads.

    It has 256 positions, because Chroma pads every text to 256 tokens.
    """
    from chromadb.utils.embedding_functions.onnx_mini_lm_l6_v2 import ONNXMiniLM_L6_V2

    folder = tmp_path_factory.mktemp("default")
    encoder = SentenceEncoder.random(replace(SMALL, max_position_embeddings=256, max_seq_length=256), backend="numpy")
    encoder.save_pretrained(folder / "model")
    onnx = folder / "chroma" / ONNXMiniLM_L6_V2.EXTRACTED_FOLDER_NAME
    onnx.mkdir(parents=True)
    export(encoder, onnx / "model.onnx")
    for name in ("config.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt"):
        (onnx / name).touch()
    (onnx / "tokenizer.json").write_bytes((folder / "model" / "tokenizer.json").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", folder / "chroma")
        yield folder / "model"


def test_a_collection_of_chromas_default_function_is_opened_after_a_check(default_model: Path, tmp_path: Path) -> None:
    from minilm_np.integrations.chroma import open_default_collection

    client = chroma_client(tmp_path)
    filled = client.create_collection("facts")
    filled.add(ids=list(FACTS), documents=TEXTS)
    with pytest.raises(ValueError, match="conflict: new: minilm_np vs persisted: default"):  # the manual quotes this
        client.get_collection("facts", embedding_function=embedding_function(default_model))
    collection = open_default_collection(client, "facts", model=default_model)
    encoder = SentenceEncoder(default_model)
    stored = np.array(filled.get(include=["embeddings"])["embeddings"])
    assert_close(encoder.encode(TEXTS), stored.astype(np.float32), abs_=1e-6)
    collection.upsert(ids=["newer"], documents=["a newer document"])
    newer = np.array(collection.get(ids=["newer"], include=["embeddings"])["embeddings"])
    assert_same_bits(newer.astype(np.float32), encoder.encode(["a newer document"]))
    assert collection.query(query_texts=[FACTS["bread"]], n_results=1)["ids"] == [["bread"]]
    again = client.get_collection("facts")  # Chroma's own function still opens it, with what it stored
    assert again.configuration_json == filled.configuration_json
    assert again.query(query_texts=["a newer document"], n_results=1)["ids"] == [["newer"]]
    client.close()


def test_vectors_of_another_model_are_refused(default_model: Path, small: Path, tmp_path: Path) -> None:
    from minilm_np.integrations.chroma import open_default_collection

    client = chroma_client(tmp_path)
    client.create_collection("facts").add(ids=list(FACTS), documents=TEXTS)
    message = "collection 'facts': .* a stored vector of id '[a-z]+' has the cosine .* create a new collection"
    with pytest.raises(InputValueError, match=message):
        open_default_collection(client, "facts", model=small)
    assert open_default_collection(client, "facts", model=small, checked=0).count() == len(FACTS)
    shorter = client.create_collection("shorter")
    shorter.add(ids=["a"], documents=["a"], embeddings=[[1.0] * 3])
    with pytest.raises(InputValueError, match="a stored vector has 3 dimensions, not the 96 of this model's"):
        open_default_collection(client, "shorter", model=small)
    client.create_collection("empty").add(ids=["a"], embeddings=[[1.0] * 3])  # no document to check
    assert open_default_collection(client, "empty", model=small).count() == 1
    client.create_collection("ours", embedding_function=embedding_function(small))
    with pytest.raises(InputValueError, match=r"expected one that Chroma's default .* filled, found 'minilm_np': pass"):
        open_default_collection(client, "ours", model=small)
    client.close()
