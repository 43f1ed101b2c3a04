"""LlamaIndex: `MiniLMEmbedding` alone, in an index, and in an ingestion pipeline."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from minilm_np import InputTypeError, SentenceEncoder
from tests.support.integrations import FACTS, TEXTS


def embedding(model: Path, **options: Any) -> Any:
    from minilm_np.integrations.llama_index import MiniLMEmbedding

    return MiniLMEmbedding(model, **options)


def test_embeddings_are_the_vectors_of_the_encoder_with_its_prompts(small: Path) -> None:
    encoder, embedder = SentenceEncoder(small), embedding(small, truncate_dim=20, embed_batch_size=4)
    texts = encoder.encode(TEXTS, prompt="passage: ", truncate_dim=20).tolist()
    query = encoder.encode("a question", prompt="query: ", truncate_dim=20).tolist()
    assert embedder.get_text_embedding_batch(TEXTS) == texts  # two batches
    assert [embedder.get_text_embedding(text) for text in TEXTS] == texts
    assert embedder.get_query_embedding("a question") == query
    assert type(query[0]) is float


def test_the_asynchronous_methods_give_the_same(small: Path) -> None:
    embedder = embedding(small, embed_batch_size=4)

    async def found() -> tuple[Any, Any, Any]:
        return await asyncio.gather(
            embedder.aget_text_embedding_batch(TEXTS),
            embedder.aget_text_embedding(TEXTS[0]),
            embedder.aget_query_embedding("a question"),
        )

    texts, first, query = asyncio.run(found())
    assert texts == embedder.get_text_embedding_batch(TEXTS)
    assert first == texts[0]
    assert query == embedder.get_query_embedding("a question")


def test_instructions_replace_the_prompts(small: Path) -> None:
    encoder = SentenceEncoder(small)
    embedder = embedding(small, query_instruction="find: ", text_instruction="")
    assert embedder.get_query_embedding("a") == encoder.encode("find: a", prompt="").tolist()
    assert embedder.get_text_embedding("a") == encoder.encode("a", prompt="").tolist()


def test_arguments_are_stored_and_checked(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minilm_np.integrations.llama_index import MiniLMEmbedding

    monkeypatch.chdir(small.parent)
    embedder = embedding(Path("small"), threads=1, truncate_dim=5, query_instruction="q: ")
    stored = json.loads(json.dumps(embedder.to_dict()))
    assert stored["model_name"] == str(small)  # absolute: an index may be loaded from another directory
    again = MiniLMEmbedding.from_dict(stored)
    assert again.to_dict() == stored
    assert again.get_query_embedding("a") == embedder.get_query_embedding("a")
    with pytest.raises(ValueError, match="backend"):
        embedding(small, backend="torch")
    with pytest.raises(InputTypeError, match="text 0: expected a str, found NoneType"):
        embedder.get_text_embedding_batch([None])


@pytest.mark.weights
def test_an_index_finds_what_is_meant(model_folder: Path) -> None:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.ingestion import IngestionPipeline

    embedder = embedding(model_folder)
    nodes = IngestionPipeline(transformations=[embedder]).run(documents=[Document(text=text) for text in TEXTS])
    index = VectorStoreIndex(nodes, embed_model=embedder)
    retriever = index.as_retriever(similarity_top_k=2)
    best, second = retriever.retrieve("giant gas planets")
    assert (best.get_content(), second.get_content()) == (FACTS["planets"], FACTS["stars"])
    encoder = SentenceEncoder(model_folder)
    cosine = float(encoder.encode("giant gas planets") @ encoder.encode(best.get_content()))
    assert best.score == pytest.approx(cosine, abs=1e-6)
    assert asyncio.run(retriever.aretrieve("baking"))[0].get_content() == FACTS["bread"]
