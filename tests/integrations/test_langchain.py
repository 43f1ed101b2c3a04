"""LangChain: `MiniLMEmbeddings` alone, and in a vector store."""

import asyncio
from pathlib import Path

import pytest

from minilm_np import InputTypeError, SentenceEncoder
from tests.support.integrations import FACTS, TEXTS


def test_embeddings_are_the_vectors_of_the_encoder_with_its_prompts(small: Path) -> None:
    from minilm_np.integrations.langchain import MiniLMEmbeddings

    encoder, embeddings = SentenceEncoder(small), MiniLMEmbeddings(small, truncate_dim=20)
    documents = encoder.encode(TEXTS, prompt="passage: ", truncate_dim=20).tolist()
    query = encoder.encode("a question", prompt="query: ", truncate_dim=20).tolist()
    assert embeddings.embed_documents(TEXTS) == documents == asyncio.run(embeddings.aembed_documents(TEXTS))
    assert embeddings.embed_query("a question") == query == asyncio.run(embeddings.aembed_query("a question"))
    assert embeddings.embed_documents([]) == []
    assert type(query[0]) is float
    with pytest.raises(InputTypeError, match="texts: expected a list, an array or a column of str, found str"):
        embeddings.embed_documents("one text")  # type: ignore[arg-type]


@pytest.mark.weights
def test_a_vector_store_finds_what_is_meant(model_folder: Path) -> None:
    from langchain_core.vectorstores import InMemoryVectorStore

    from minilm_np.integrations.langchain import MiniLMEmbeddings

    store = InMemoryVectorStore.from_texts(TEXTS, MiniLMEmbeddings(model_folder))
    (best, score), (second, _) = store.similarity_search_with_score("giant gas planets", k=2)
    assert (best.page_content, second.page_content) == (FACTS["planets"], FACTS["stars"])
    encoder = SentenceEncoder(model_folder)
    assert score == pytest.approx(
        float(encoder.encode("giant gas planets") @ encoder.encode(best.page_content)), abs=1e-6
    )
    found = asyncio.run(store.as_retriever(search_kwargs={"k": 1}).ainvoke("baking"))
    assert [document.page_content for document in found] == [FACTS["bread"]]
