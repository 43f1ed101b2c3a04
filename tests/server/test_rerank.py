"""/rerank and /v1/rerank: the scores have the bits of `CrossEncoder.predict`, alone and under load."""

import math
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette

from minilm_np import CrossEncoder, InputValueError, SentenceEncoder
from minilm_np.server.app import create_app
from minilm_np.server.settings import ServerSettings
from tests.support import hostile
from tests.support.server import ask, metric, running, running_waiting

QUERY = "a query"
TEXTS = ["a text", "", "naïve 日本 👍", "same", "another one", "same"]
RERANK, V1 = "/rerank", "/v1/rerank"


@pytest.fixture(scope="module")
def both(encoder: SentenceEncoder, reranker: CrossEncoder) -> Iterator[str]:
    """A server of both models."""
    with running(encoder, reranker) as url:
        yield url


def bits(value: float) -> int:
    """The bits of a number as float32."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def scores_of(model: CrossEncoder, texts: list[str], query: str = QUERY, **options: Any) -> np.ndarray:
    return model.predict([(query, text) for text in texts], on_truncation="ignore", **options)


def test_texts_come_by_their_scores(both: str, reranker: CrossEncoder) -> None:
    expected = scores_of(reranker, TEXTS, activation_fn="Sigmoid")
    found = ask(both, RERANK, {"query": QUERY, "texts": TEXTS, "return_text": True}).json
    assert [list(rank) for rank in found] == [["index", "score", "text"]] * len(TEXTS)
    assert [rank["text"] for rank in found] == [TEXTS[rank["index"]] for rank in found]
    assert [bits(rank["score"]) for rank in found] == [bits(expected[rank["index"]]) for rank in found]
    assert [rank["index"] for rank in found] == np.argsort(-expected, kind="stable").tolist()
    assert [rank["index"] for rank in found if rank["text"] == "same"] == [3, 5]


def test_raw_scores_are_logits(both: str, reranker: CrossEncoder) -> None:
    logits = scores_of(reranker, TEXTS, activation_fn="Identity")
    body = {"query": QUERY, "texts": TEXTS, "raw_scores": True, "truncation_direction": "Right"}
    found = ask(both, RERANK, body).json
    assert {rank["index"]: bits(rank["score"]) for rank in found} == dict(enumerate(map(bits, logits)))
    assert "text" not in found[0]
    probabilities = ask(both, RERANK, {"query": QUERY, "texts": TEXTS}).json
    for raw, rank in zip(found, probabilities, strict=True):
        assert rank["index"] == raw["index"]
        assert rank["score"] == pytest.approx(1 / (1 + math.exp(-raw["score"])), rel=1e-6)


def test_documents_by_the_api_of_cohere_and_jina(both: str, reranker: CrossEncoder) -> None:
    body = {"model": "ranker", "query": QUERY, "documents": [TEXTS[0], {"text": TEXTS[1]}, *TEXTS[2:]], "top_n": 2}
    found = ask(both, V1, body | {"return_documents": True}).json
    ranks = ask(both, RERANK, {"query": QUERY, "texts": TEXTS}).json
    assert list(found) == ["id", "model", "results", "usage", "meta"]
    assert found["model"].endswith("ranker")
    assert found["results"] == [
        {"index": rank["index"], "relevance_score": rank["score"], "document": {"text": TEXTS[rank["index"]]}}
        for rank in ranks[:2]
    ]
    tokens = reranker.model.tokenizer([(f"q: {QUERY}", text) for text in TEXTS])
    assert found["usage"] == {"total_tokens": sum(map(len, tokens.ids))}
    assert len(ask(both, V1, {"query": QUERY, "documents": TEXTS, "top_n": 99}).json["results"]) == len(TEXTS)


def test_scores_have_the_same_bits_alone_and_under_load() -> None:
    reranker, encoder = CrossEncoder.random(threads=2), SentenceEncoder.random(threads=2)
    random = np.random.default_rng(19)
    texts = ["".join(random.choice(list("abc de.")) for _ in range(length)) for length in random.integers(0, 90, 60)]
    with running(encoder, reranker, batch_tokens=128) as url, ThreadPoolExecutor(16) as threads:

        def scored(text: str) -> bytes:
            return ask(url, RERANK, {"query": QUERY, "texts": [text], "raw_scores": True}).body

        def encoded(text: str) -> bytes:
            return ask(url, "/embed", {"inputs": text}).body

        alone, vectors = [scored(text) for text in texts], [encoded(text) for text in texts]
        large = threads.submit(ask, url, RERANK, {"query": QUERY, "texts": texts * 5, "raw_scores": True})
        meanwhile = threads.map(lambda text: (scored(text), encoded(text)), texts)
        assert list(meanwhile) == list(zip(alone, vectors, strict=True))
        found = sorted(large.result().json, key=lambda rank: int(rank["index"]))
        assert metric(url, "minilm_np_queue_tokens") == 0
    expected = scores_of(reranker, texts, activation_fn="Identity")
    assert [bits(rank["score"]) for rank in found] == [bits(score) for score in expected] * 5


def test_both_models_have_one_queue(encoder: SentenceEncoder, reranker: CrossEncoder) -> None:
    body = {"query": "a", "texts": ["b"]}
    with running_waiting(encoder, reranker, max_queue_tokens=10) as (url, engine), ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, url, "/embed", {"inputs": "a"})
        engine.wait_for_batch()
        second = threads.submit(ask, url, RERANK, body)
        assert hostile.wait_for(lambda: metric(url, "minilm_np_queue_tokens") == 7)
        for path, other in ((RERANK, body), ("/embed", {"inputs": "abcd"}), (V1, {"query": "a", "documents": ["b"]})):
            refused = ask(url, path, other)
            assert (refused.status, refused.headers["retry-after"].isdigit()) == (429, True)
        engine.go.set()
        assert (first.result().status, second.result().status) == (200, 200)
        assert engine.sizes == [1]
        assert metric(url, "minilm_np_texts_total") == 2
        assert 'minilm_np_requests_total{path="/rerank",status="429"} 1.0' in ask(url, "/metrics").body.decode()


@pytest.mark.parametrize("path", [RERANK, V1])
def test_a_pair_that_is_too_long_is_an_error_unless_truncation_is_asked_for(
    both: str, reranker: CrossEncoder, path: str
) -> None:
    name = "texts" if path == RERANK else "documents"
    body = {"query": "b" * 70, name: ["a", "c" * 70]}
    answer = ask(both, path, body)
    message = answer.json["error"] if path == RERANK else answer.json["error"]["message"]
    assert answer.status == 413
    assert message == (
        f"{name}[1]: the query and this text have 145 tokens (143 characters); the limit of the model is 128 tokens: "
        'split the longer one, or send "truncate": true to use their beginnings'
    )
    answer = ask(both, path, body | {"truncate": True})
    assert answer.status == 200
    if path == RERANK:
        expected = scores_of(reranker, ["a", "c" * 70], "b" * 70, activation_fn="Sigmoid")
        assert {rank["index"]: bits(rank["score"]) for rank in answer.json} == dict(enumerate(map(bits, expected)))


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (RERANK, {"texts": ["a"]}, "query: this field is required"),
        (RERANK, {"query": "a"}, "texts: this field is required"),
        (RERANK, {"query": "a", "texts": []}, "texts: expected at least one text, found an empty array"),
        (RERANK, {"query": "a", "texts": "b"}, "texts: expected an array, found 'b'"),
        (RERANK, {"query": "a", "texts": ["b", 1]}, "texts[1]: expected a string, found 1"),
        (RERANK, {"query": ["a"], "texts": ["b"]}, "query: expected a string, found an array"),
        (RERANK, {"query": "a", "texts": ["b"], "raw_scores": 1}, "raw_scores: expected true or false, found 1"),
        (RERANK, {"query": "a", "text": ["b"]}, "text: unknown field (did you mean texts?): expected one of query, "),
        (V1, {"query": "a", "documents": [{"body": "b"}]}, "documents[0].body: unknown field: expected one of text"),
        (V1, {"query": "a", "documents": [{"text": 5}]}, "documents[0].text: expected a string, found 5"),
        (
            V1,
            {"query": "a", "documents": ["b"], "top_n": 0},
            "top_n: expected an integer from 1 to 2147483647, found 0",
        ),
    ],
)
def test_a_field_that_is_wrong(both: str, path: str, body: Any, message: str) -> None:
    answer = ask(both, path, body)
    assert answer.status == (422 if path == RERANK else 400)
    assert (answer.json["error"] if path == RERANK else answer.json["error"]["message"]).startswith(message)


def test_the_characters_of_the_query_count_for_each_text(reranker: CrossEncoder) -> None:
    with running(None, reranker, max_characters=20, max_texts=3) as url:
        assert ask(url, RERANK, {"query": "abcdef", "texts": ["a"] * 2}).status == 200
        answer = ask(url, RERANK, {"query": "abcdef", "texts": ["a"] * 3})
        assert (answer.status, answer.json["error_type"]) == (413, "Validation")
        assert answer.json["error"] == (
            "texts: expected at most 20 characters in all texts, each with the query, found 21: send several requests"
        )
        error = ask(url, RERANK, {"query": "a", "texts": ["a"] * 4}).json["error"]
        assert error.startswith("texts: expected at most 3 texts, found 4")


def test_a_server_of_a_cross_encoder_alone(reranker: CrossEncoder) -> None:
    with running(None, reranker) as url:
        assert ask(url, RERANK, {"query": QUERY, "texts": TEXTS}).status == 200
        pair = {"source_sentence": "a", "sentences": ["a"]}
        for path, body in (("/embed", {"inputs": "a"}), ("/similarity", {"inputs": pair})):
            answer = ask(url, path, body)
            assert (answer.status, answer.json["error_type"]) == (424, "Backend")
            assert answer.json["error"].startswith("the model is not an embedding model")
        answer = ask(url, "/v1/embeddings", {"input": "a"})
        assert (answer.status, answer.json["error"]["code"]) == (400, "unsupported_by_model")
        info = ask(url, "/info").json
        assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
        assert info["max_input_length"] == 128
        tokens = ask(url, "/tokenize", {"inputs": "ab"}).json[0]
        assert [token["text"] for token in tokens] == ["[CLS]", "q", ":", "a", "b", "[SEP]"]
        (model,) = ask(url, "/v1/models").json["data"]
        assert model["id"].endswith("ranker")


def test_both_models_have_their_names(both: str) -> None:
    small, ranker = (model["id"] for model in ask(both, "/v1/models").json["data"])
    assert ask(both, "/v1/models/ranker").json["id"] == ranker
    assert ask(both, "/info").json["reranker_id"] == ranker
    assert ask(both, "/v1/embeddings", {"input": "a", "model": small}).status == 200
    for path, body in (
        ("/v1/embeddings", {"input": "a", "model": ranker}),
        (V1, {"query": "a", "documents": ["a"], "model": small}),
    ):
        answer = ask(both, path, body)
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")


def test_without_a_cross_encoder_there_is_no_reranking(url: str) -> None:
    answer = ask(url, RERANK, {"query": QUERY, "texts": TEXTS})
    assert (answer.status, answer.json["error_type"]) == (424, "Backend")
    assert answer.json["error"] == "the model is not a re-ranker model: start the server with --reranker MODEL"
    assert ask(url, V1, {"query": QUERY, "documents": TEXTS}).status == 400


def test_models_are_loaded_as_the_settings_say(small: Path, reranker: CrossEncoder) -> None:
    ranker = str(reranker.model_path)
    assert isinstance(create_app(ServerSettings(model=ranker, backend="numpy")), Starlette)
    assert isinstance(create_app(ServerSettings(model=str(small), reranker=ranker, backend="numpy")), Starlette)
    with pytest.raises(InputValueError, match="expected a model for vectors beside the reranker"):
        create_app(ServerSettings(model=ranker, reranker=ranker, backend="numpy"))
    with pytest.raises(InputValueError, match="random weights: expected a model with 1 label, found 2"):
        create_app(ServerSettings(), None, CrossEncoder.random(num_labels=2, backend="numpy"))
