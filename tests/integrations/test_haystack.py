"""Haystack: both embedders alone, and in pipelines that are written to YAML and loaded again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from minilm_np import InputTypeError, SentenceEncoder, integrations
from tests.support.compare import assert_same_bits
from tests.support.integrations import FACTS, TEXTS


def text_embedder(model: Path, **options: Any) -> Any:
    from minilm_np.integrations.haystack import MiniLMTextEmbedder

    return MiniLMTextEmbedder(model, **options)


def document_embedder(model: Path, **options: Any) -> Any:
    from minilm_np.integrations.haystack import MiniLMDocumentEmbedder

    return MiniLMDocumentEmbedder(model, **options)


def documents() -> list[Any]:
    from haystack import Document

    return [Document(content=text, meta={"title": name}) for name, text in FACTS.items()]


def embeddings(found: dict[str, Any]) -> Any:
    return [document.embedding for document in found["documents"]]


def test_embeddings_are_the_vectors_of_the_encoder_with_its_prompts(small: Path) -> None:
    encoder = SentenceEncoder(small)
    query = encoder.encode("a question", prompt="query: ", truncate_dim=20).tolist()
    embedder = text_embedder(small, truncate_dim=20)
    assert embedder.run("a question") == {"embedding": query} == asyncio.run(embedder.run_async("a question"))
    expected = encoder.encode(TEXTS, prompt="passage: ").tolist()
    given = documents()
    assert embeddings(document_embedder(small).run(given)) == expected
    assert embeddings(asyncio.run(document_embedder(small).run_async(given))) == expected
    assert [document.embedding for document in given] == [None] * len(given)  # copies were embedded
    assert document_embedder(small).run([]) == {"documents": []}


def test_a_prefix_replaces_the_prompt_and_metadata_is_put_before_the_content(small: Path) -> None:
    encoder = SentenceEncoder(small)
    assert text_embedder(small, prefix="q ").run("a")["embedding"] == encoder.encode("q a", prompt="").tolist()
    found = document_embedder(small, prefix="", meta_fields_to_embed=["title", "no"], embedding_separator=" - ")
    expected = encoder.encode([f"{name} - {text}" for name, text in FACTS.items()], prompt="")
    assert embeddings(found.run(documents())) == expected.tolist()


def test_warming_up_loads_the_model(small: Path) -> None:
    embedder = text_embedder(small)
    assert integrations.cached_encoder.cache_info().currsize == 0
    embedder.warm_up()
    assert integrations.cached_encoder.cache_info().currsize == 1
    embedder.run("a")
    assert integrations.cached_encoder.cache_info().misses == 1


def test_anything_else_is_refused(small: Path) -> None:
    with pytest.raises(InputTypeError, match="text: expected a str, found list: use MiniLMDocumentEmbedder"):
        text_embedder(small).run(["a"])
    for wrong in ("a", ["a"]):
        with pytest.raises(InputTypeError, match=r"documents: expected a list of Document, .*: use MiniLMTextEmbedder"):
            document_embedder(small).run(wrong)


def test_pipelines_are_written_and_loaded_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from haystack import Pipeline
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    monkeypatch.chdir(small.parent)
    store = InMemoryDocumentStore()
    embedder = document_embedder(Path("small"), threads=1, meta_fields_to_embed=["title"])
    store.write_documents(embedder.run(documents())["documents"])
    pipeline: Any = Pipeline()
    pipeline.add_component("embedder", text_embedder(Path("small"), prefix="passage: "))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    written = pipeline.dumps()
    assert f"model: {small}\n" in written  # absolute: a pipeline may be loaded from another directory
    again: Any = Pipeline.loads(written, allowed_modules=["minilm_np.integrations.haystack"])
    assert again.get_component("embedder").to_dict() == pipeline.get_component("embedder").to_dict()
    text = f"bread\n{FACTS['bread']}"
    (hit,) = pipeline.run({"embedder": {"text": text}})["retriever"]["documents"]
    assert hit.content == FACTS["bread"]  # whose text it is
    copy = type(embedder).from_dict(embedder.to_dict())
    assert embeddings(copy.run(documents())) == embeddings(embedder.run(documents()))


@pytest.mark.weights
def test_a_pipeline_finds_what_is_meant(model_folder: Path) -> None:
    import numpy as np

    found = document_embedder(model_folder).run(documents())
    vectors = np.array(embeddings(found), np.float32)
    assert_same_bits(vectors, SentenceEncoder(model_folder).encode(TEXTS))
    query = text_embedder(model_folder).run("giant gas planets")["embedding"]
    assert TEXTS[int(np.argmax(vectors @ np.array(query, np.float32)))] == FACTS["planets"]
