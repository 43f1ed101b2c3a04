"""Real clients over a real socket: their vectors are those of the encoder."""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import CrossEncoder, SentenceEncoder, cli
from tests.support.cli import NUMPY
from tests.support.compare import assert_same_bits
from tests.support.server import running

TEXTS = ["a text", "", "naïve 日本", "b"]
KEY = "key"


@pytest.fixture(scope="module")
def server(encoder: SentenceEncoder) -> Iterator[str]:
    """A server with a key."""
    with running(encoder, api_key=KEY, truncate=True) as url:
        yield url


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients read the environment's proxy, which may not lead back to this machine."""
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_openai(server: str, encoder: SentenceEncoder, encoding: Any) -> None:
    import openai

    with openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0) as client:
        options = {} if encoding is None else {"encoding_format": encoding}
        found = client.embeddings.create(input=TEXTS, model="small", **options)
        rows = [item.embedding for item in found.data]
        if encoding == "base64":  # the client decodes only if it chose the format itself
            import base64

            rows = [np.frombuffer(base64.b64decode(str(row)), "<f4") for row in rows]  # type: ignore[misc]
        assert_same_bits(np.array(rows, np.float32), encoder.encode(TEXTS))
        assert found.usage.prompt_tokens == sum(encoder.tokenize(TEXTS)["n_tokens"])
        short = client.embeddings.create(input=TEXTS[0], model="small", dimensions=3)
        expected = encoder.encode([TEXTS[0]], truncate_dim=3, normalize_embeddings=True)
        assert_same_bits(np.array([short.data[0].embedding], np.float32), expected)
        assert [model.id for model in client.models.list()] == [client.models.retrieve("small").id]


def test_the_errors_of_openai(server: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(input="a", model="text-embedding-3-small")
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as wrong:
            client.embeddings.create(input="a", model="small", dimensions=99)
        assert (wrong.value.type, wrong.value.param) == ("invalid_request_error", "dimensions")
        with pytest.raises(openai.APIStatusError) as long:
            client.embeddings.create(input="a" * 99, model="small", extra_body={"truncate": False})
        assert (long.value.status_code, long.value.code) == (413, "context_length_exceeded")
    stranger = openai.OpenAI(base_url=f"{server}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_openai_asynchronously(server: str, encoder: SentenceEncoder) -> None:
    import asyncio

    import openai

    async def all_of(texts: list[str]) -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0) as client:
            calls = (client.embeddings.create(input=text, model="small") for text in texts)
            return [found.data[0].embedding for found in await asyncio.gather(*calls)]

    texts = [f"{number} a" for number in range(50)]
    assert_same_bits(np.array(asyncio.run(all_of(texts)), np.float32), encoder.encode(texts))


def test_langchain(server: str, encoder: SentenceEncoder) -> None:
    from langchain_openai import OpenAIEmbeddings
    from pydantic import SecretStr

    # without `check_embedding_ctx_length=False` LangChain sends the token ids of another tokenizer
    embeddings = OpenAIEmbeddings(
        model="small", base_url=f"{server}/v1", api_key=SecretStr(KEY), check_embedding_ctx_length=False
    )
    assert_same_bits(np.array(embeddings.embed_documents(TEXTS), np.float32), encoder.encode(TEXTS))
    assert_same_bits(np.array([embeddings.embed_query("a")], np.float32), encoder.encode(["a"]))


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_cohere(reranker: CrossEncoder, version: str) -> None:
    import cohere

    scores = reranker.predict([("a query", text) for text in TEXTS], activation_fn="Sigmoid")
    best = np.argsort(-scores, kind="stable")[:2].tolist()
    with running(None, reranker, api_key=KEY) as url, getattr(cohere, version)(api_key=KEY, base_url=url) as client:
        found = client.rerank(model="ranker", query="a query", documents=TEXTS, top_n=2)
        assert [result.index for result in found.results] == best
        assert_same_bits(np.array([result.relevance_score for result in found.results], np.float32), scores[best])
        with pytest.raises(cohere.NotFoundError):
            client.rerank(model="rerank-v3.5", query="a query", documents=TEXTS)


def test_huggingface_hub(server: str, encoder: SentenceEncoder) -> None:
    from huggingface_hub import InferenceClient

    client = InferenceClient(f"{server}/embed", token=KEY)
    assert_same_bits(client.feature_extraction(TEXTS), encoder.encode(TEXTS))
    assert_same_bits(client.feature_extraction(TEXTS[0], truncate=True, normalize=True), encoder.encode(TEXTS[:1]))
    expected = encoder.encode(TEXTS, prompt_name="query")
    assert_same_bits(client.feature_extraction(TEXTS, prompt_name="query"), expected)
    similar = InferenceClient(f"{server}/similarity", token=KEY).sentence_similarity("a", other_sentences=["a", "b"])
    assert similar == pytest.approx(encoder.encode(["a", "b"]) @ encoder.encode("a"), abs=1e-6)


def test_chroma(server: str, encoder: SentenceEncoder) -> None:
    from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = OpenAIEmbeddingFunction(api_key=KEY, api_base=f"{server}/v1", model_name="small")
    assert_same_bits(np.array(function(TEXTS)), encoder.encode(TEXTS))


def test_llama_index(server: str, encoder: SentenceEncoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from llama_index.embeddings.openai import OpenAIEmbedding

        embedding = OpenAIEmbedding(model_name="small", api_base=f"{server}/v1", api_key=KEY, max_retries=0)
        texts = [text for text in TEXTS if text]
        assert_same_bits(np.array(embedding.get_text_embedding_batch(texts), np.float32), encoder.encode(texts))
        assert_same_bits(np.array([embedding.get_query_embedding("a")], np.float32), encoder.encode(["a"]))


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings?model=small"])
def test_minilm_np_verify(encoder: SentenceEncoder, small: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with running(encoder, truncate=True) as url:
        code = cli.main(["verify", *NUMPY, "--model", str(small), "--against", f"{url}{path}", "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["vector"]["difference"]["max_abs"] < 1e-7
